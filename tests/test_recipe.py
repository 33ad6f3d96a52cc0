"""The recipe on a host of a few lines: where each method begins, what it is given, and what it returns."""

from contextlib import contextmanager

import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport, seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.methods.capabilities import STANDALONE

STEPS = 10
PICTURE = Image.radial_gradient("L").convert("RGB").resize((64, 64))
SIZE = (128, 96)


class Straight:
    """A sampler of ten equal steps in rho."""

    def __init__(self, start):
        rhos = [step / STEPS for step in range(STEPS, 0, -1)]
        self.levels = [NoiseLevel(1000 * rho, 1 - rho, rho) for rho in rhos if rho <= start]
        self.begins = None

    def run(self, latent, model, *, modify, step, cancelled):
        self.begins = latent
        for number, level in enumerate(self.levels):
            latent = modify(latent, level)
            latent = latent * 0.9 + 0.1 * model(latent, level)
            step(number + 1, len(self.levels))
        return latent


class Small:
    """A host without a network: latents are pixels at an eighth of the size."""

    name, device, latent_channels, num_train_timesteps, native_side, samplers = "small", "cpu", 3, 1000, 64, ()
    gives = STANDALONE

    def encode(self, images, *, tile=None):
        return avg_pool2d(images, 8)

    def decode(self, latents, *, tile=None):
        return interpolate(latents, scale_factor=8).clamp(0, 1)

    def sampler(self, name, schedule, steps, *, seeds, start=1.0, spacing=None):
        self.last = Straight(start)
        return self.last

    @contextmanager
    def model(self, prompts, *, size, cfg_scale, steered=None, low_memory=False):
        self.steered = steered
        yield lambda latent, level: latent.mean((-2, -1), keepdim=True).expand_as(latent)


def begun(method, **config):
    """Return the host after a pass, with the noise that the pass is drawn from."""
    host = Small()
    sampling = hires.Sampling(seed=3)
    done = hires.upscale(host, PICTURE, size=SIZE, sampling=sampling, config=FamConfig(**config), method=method)
    assert done.image.size == (96, 128) and done.method == method and done.steps == len(host.last.levels)
    return host, seeded_noise((3, 16, 12), [3], salt=hires.TARGET_SALT)


@pytest.mark.parametrize("start", [1.0, 0.7, 0.3])
def test_direct_begins_from_pure_noise_and_runs_every_step_whatever_the_start(start):
    host, noise = begun("direct", start=start)
    assert len(host.last.levels) == STEPS
    assert torch.equal(host.last.begins, noise)


@pytest.mark.parametrize("method", ["fam", "direct-from-native", "skip-residual"])
@pytest.mark.parametrize(("start", "steps"), [(1.0, 10), (0.7, 7), (0.3, 3)])
def test_the_others_begin_at_the_start_from_the_diffused_reference(method, start, steps):
    host, noise = begun(method, start=start)
    assert len(host.last.levels) == steps == host.steered.pictures.steps
    level = host.last.levels[0]
    assert torch.equal(host.last.begins, level.signal * host.steered.pictures.target + level.noise * noise)


def test_only_fam_is_guided():
    assert begun("fam")[0].steered.ran().fm_calls == STEPS - 1, "all but the first, where K is 1"
    for method in ("direct", "direct-from-native", "skip-residual"):
        host, _ = begun(method)
        assert host.steered.ran() == GuideReport()


def test_a_native_run_is_recorded_at_its_levels_and_attended_to():
    host = Small()
    native = hires.generate_native(host, size=(64, 64), sampling=hires.Sampling(seed=3))
    assert len(native.record) == STEPS
    hires.upscale(host, native, size=SIZE, sampling=hires.Sampling(seed=3))
    between = NoiseLevel(520.0, 0.48, 0.52)
    _, level = host.steered.guide.native_input(between)
    assert level.timestep == pytest.approx(500.0)
