"""DiffuseHigh: a low band that is the reference's, in a picture that was sharpened."""

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.methods.diffusehigh import DiffuseHigh, clean_of, low_band, output_of
from tests.methods.neighbours import CONDITION, Network, begun, wave


def test_a_low_band_is_a_projection_that_keeps_what_is_flat_and_takes_what_alternates():
    latent = seeded_noise((4, 21, 32), [5])
    low = low_band(latent)
    inside = (..., slice(8, -8), slice(8, -8))  # beyond, the repeated border has its part
    assert torch.allclose(low_band(low)[inside], low[inside], atol=1e-5)
    assert torch.allclose(low_band(torch.full((1, 2, 9, 8), 3.0)), torch.tensor(3.0), atol=1e-5)
    assert low_band(wave(16))[inside].abs().max() < 1e-5
    assert torch.allclose(low_band(wave(2))[inside], wave(2)[inside], atol=0.02)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_moved_clean_latent_is_what_the_moved_output_says(kind):
    clean, noise, moved = (seeded_noise((4, 8, 8), [seed]) for seed in (1, 2, 3))
    shares = {"signal": 0.6, "noise": 0.8, "kind": kind}
    latent = 0.6 * clean + 0.8 * noise
    output = {"epsilon": noise, "v_prediction": 0.6 * noise - 0.8 * clean, "sample": clean}[kind]
    assert torch.allclose(clean_of(latent, output, **shares), clean, atol=1e-5)
    assert torch.allclose(clean_of(latent, output_of(output, moved, **shares), **shares), clean + moved, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_diffusehigh_gives_the_predicted_picture_the_references_low_band(scale):
    steered, latent = begun(DiffuseHigh(FamConfig()), size=(24, 24)), seeded_noise((4, 24, 24), [5, 6])
    level = NoiseLevel(250.0, 0.8 * scale, 0.6 * scale)
    out = steered.around_model(Network(), latent, level, CONDITION)
    clean, plain = (
        clean_of(latent, said, signal=0.8, noise=0.6, kind="epsilon")
        for said in (out, Network()(latent, level, CONDITION))
    )
    guide = steered.pictures.target.expand(2, -1, -1, -1)
    inside = (..., slice(8, -8), slice(8, -8))
    assert torch.allclose(low_band(clean)[inside], low_band(guide)[inside], atol=1e-4)
    assert torch.allclose((clean - low_band(clean))[inside], (plain - low_band(plain))[inside], atol=1e-4)
    late = NoiseLevel(200.0, 0.8, 0.6)
    assert torch.equal(steered.around_model(Network(), latent, late, CONDITION), Network()(latent, late, CONDITION)), (
        "plain from there on"
    )


def test_diffusehigh_enlarges_and_sharpens_and_begins_late_in_each_phase():
    method = DiffuseHigh(FamConfig())
    stages = method.stages((192, 192), (64, 64))
    phases = [(stage.size, stage.pixels, stage.sharpen, stage.start) for stage in stages]
    assert phases == [(size, *how) for size in ((128, 128), (192, 192)) for how in ((True, 100, 1.0), (False, 0, 0.3))]
