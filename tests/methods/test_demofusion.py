"""DemoFusion: plain with its parts off, its phases, and what each part does."""

import math

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.methods.demofusion import DemoFusion, blurred, with_moments_of
from fam_ext.methods.views import dilated, jitter, windows
from tests.methods.neighbours import CONDITION, LEVEL, Network, begun


def test_demofusion_with_its_parts_off_is_plain():
    method = DemoFusion(FamConfig(), dilation=math.inf, stride=1.0)
    latent = seeded_noise((4, 8, 8), [5, 6])
    out = begun(method, size=(8, 8)).around_model(Network(), latent, LEVEL, CONDITION)
    assert torch.allclose(out, Network()(latent, LEVEL, CONDITION))


def test_demofusion_at_pure_noise_is_what_the_dilated_samples_say_and_at_the_end_what_the_windows_do():
    latent = seeded_noise((4, 16, 16), [5])
    steered = begun(DemoFusion(FamConfig()))
    pure, clean = NoiseLevel(1000.0, 0.07, 0.998), NoiseLevel(0.0, 1.0, 0.03)
    smooth = with_moments_of(latent, blurred(latent, 3, 1.0))
    at_noise = steered.around_model(Network(), latent, pure, CONDITION)
    assert torch.allclose(at_noise, dilated(Network(), smooth, pure, CONDITION, 2), atol=1e-5)
    network = Network()
    at_end = steered.around_model(network, latent, clean, CONDITION)
    views = windows((16, 16), (8, 8), (4, 4), shift=jitter(clean, (1, 1)))
    assert network.sizes == [(8, 8)] * (len(views) + 4)
    only_windows = torch.zeros_like(latent)
    count = torch.zeros_like(latent)
    for rows, columns in views:
        only_windows[..., rows, columns] += Network()(latent[..., rows, columns], clean, CONDITION)
        count[..., rows, columns] += 1
    assert torch.allclose(at_end, only_windows / count, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((128, 128), [(128, 128)]),
        ((256, 256), [(128, 128), (192, 192), (256, 256)]),
        ((128, 256), [(64, 128), (96, 192), (128, 256)]),
        ((96, 96), [(96, 96)]),
        ((160, 160), [(128, 128), (160, 160)]),
    ],
)
def test_demofusion_has_a_phase_for_each_multiple(size, sizes):
    stages = DemoFusion(FamConfig(start=0.6)).stages(size, (64, 64))
    assert [stage.size for stage in stages] == sizes
    assert {stage.start for stage in stages} == {1.0}, "all of it, whatever FAM's start is"


def test_demofusion_pulls_toward_the_reference_and_keeps_the_natives_moments():
    steered = begun(DemoFusion(FamConfig()))
    pictures = steered.pictures
    pure = NoiseLevel(1000.0, 0.07, 0.998)
    state = seeded_noise((4, 16, 16), [9])
    assert torch.allclose(steered.before_step(state, pure), pure.diffused(pictures.target, pictures.noise), atol=1e-6)
    finished = steered.finish(3 * state + 5)
    for moment in (torch.mean, torch.std):
        assert moment(finished) == pytest.approx(float(moment(pictures.native)), abs=1e-4)


def test_a_blur_keeps_what_is_flat_and_has_the_spread_that_was_asked():
    flat = torch.full((1, 2, 9, 9), 3.0)
    assert torch.allclose(blurred(flat, 5, 1.3), flat)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1.0
    made = blurred(point, 31, 2.5)[0, 0].sum(0)
    at = torch.arange(41.0) - 20
    assert float((made * at.square()).sum()) == pytest.approx(2.5**2, rel=0.01)
