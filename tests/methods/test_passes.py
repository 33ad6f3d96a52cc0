"""What a pass begins from and does to the state: the shared ones by their formulas, FAM's by its calls."""

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.methods.ablation import SkipResidual
from fam_ext.methods.base import NATIVE, TARGET, Method, Pictures, Stage
from fam_ext.methods.fam import Fam

LEVEL = NoiseLevel(750.0, 1.0, 4.0)
STAGE = Stage((128, 96))


def pictures(*, target=True):
    native, reference, noise = (seeded_noise((4, *size), [size[0]]) for size in ((8, 8), (16, 12), (16, 12)))
    return Pictures(native, reference if target else None, noise, None, steps=10)


def test_a_pass_begins_from_the_diffused_reference_or_from_noise_at_the_levels_scale():
    begun = Method(FamConfig()).begin(STAGE, pictures())
    assert torch.equal(begun.initial(LEVEL), begun.pictures.target + 4 * begun.pictures.noise)
    begun = Method(FamConfig()).begin(STAGE, pictures(target=False))
    assert torch.equal(begun.initial(LEVEL), begun.pictures.noise * 17**0.5)


def test_the_plain_method_finishes_with_what_the_sampler_gave():
    latent = seeded_noise((4, 16, 12), [5])
    assert Method(FamConfig()).begin(STAGE, pictures()).finish(latent) is latent


def test_a_method_asks_for_no_record_unless_it_attends_to_it():
    assert not Method(FamConfig()).wants_record
    assert Fam(FamConfig()).wants_record
    for config in (FamConfig(am=False), FamConfig(attention=0.0), FamConfig(am_source="replay")):
        assert not Fam(config).wants_record


@pytest.mark.parametrize(("timestep", "share"), [(1000, 1.0), (750, ((1 + 0.5**0.5) / 2) ** 3), (500, 0.125), (0, 0.0)])
def test_the_skip_residual_pulls_by_the_cube_of_a_cosine(timestep, share):
    """DemoFusion's c1: half-way between noise and clean it is (1 / 2)^3."""
    steered, level = SkipResidual(FamConfig()).begin(STAGE, pictures()), NoiseLevel(timestep, 0.6, 0.8)
    state = seeded_noise((4, 16, 12), [9])
    pulled = steered.before_step(state, level)
    reference = 0.6 * steered.pictures.target + 0.8 * steered.pictures.noise
    assert torch.allclose(pulled, (1 - share) * state + share * reference, atol=1e-5)


def test_fam_keeps_the_map_of_a_native_call_and_blends_it_into_the_next():
    steered = Fam(FamConfig()).begin(STAGE, pictures())
    (patch,) = steered.patches()

    def at(side, phase):
        q, k, v = (torch.randn((1, 2, side, 4), generator=torch.Generator().manual_seed(n)) for n in range(3))
        size = (side // 4, 4)
        out = patch.act("site", q, k, v, size=size, scale=None, phase=phase)
        return out, torch.nn.functional.scaled_dot_product_attention(q, k, v)

    native, plain = at(16, NATIVE)
    assert torch.equal(native, plain), "a native call attends as usual"
    assert not steered.ran().am_calls
    blended, plain = at(32, TARGET)
    assert blended.shape == plain.shape and not torch.allclose(blended, plain, atol=1e-3)
    assert steered.ran().am_calls == {"site": 1}
