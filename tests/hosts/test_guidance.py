"""The two outputs of classifier-free guidance, for the samplers that go by both (CFG++)."""

import pytest
import torch
from PIL import Image

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import UnsupportedSamplerError
from fam_ext.hosts.base import Prompt
from fam_ext.hosts.diffusers.host import DiffusersHost
from fam_ext.methods.base import Pass, Pictures
from fam_ext.samplers.names import CFG_SHARE
from tests.hosts import toys

pytestmark = pytest.mark.slow  # diffusers takes longer to import than a unit file may run
LEVEL = NoiseLevel(500.0, 0.6, 0.8)
WORDS = [Prompt("a cat", "x"), Prompt("two dogs", "")]


def as_host(pipe):
    return DiffusersHost(pipe, name="toy", device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def host():
    return as_host(toys.sd_pipeline())


def shown(host, words, latent, **options):
    """Return what the network gives for `latent` (B, 4, 8, 8)."""
    with host.model(words, size=(64, 64), **options) as model:
        return model(latent, LEVEL)


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("cfg_scale", [1.0, 7.0])
def test_both_outputs_are_the_guided_ones_and_those_of_the_negative_prompts(host, cfg_scale, low_memory):
    latent = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    both = shown(host, WORDS, latent, cfg_scale=cfg_scale, both=True, low_memory=low_memory)
    guided, unguided = both.chunk(2)
    assert torch.allclose(guided, shown(host, WORDS, latent, cfg_scale=cfg_scale), atol=1e-5)
    negative = [Prompt(words.negative) for words in WORDS]
    assert torch.allclose(unguided, shown(host, negative, latent, cfg_scale=1.0), atol=1e-5)
    for at, words in enumerate(WORDS):
        alone = shown(host, [words], latent[at : at + 1], cfg_scale=cfg_scale, both=True)
        assert torch.allclose(both[at::2], alone, atol=1e-5), "a picture is its own, whatever the batch"


class UncondNotes(Pass):
    """Notes which rows of each call are unconditional."""

    def around_model(self, call, latent, level, condition):
        self.seen = [*getattr(self, "seen", []), condition.uncond.tolist()]
        return call(latent, level, condition)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"cfg_scale": 7.0}, [[True, True, False, False]]),
        ({"cfg_scale": 7.0, "low_memory": True}, [[True, True], [False, False]]),
        ({"cfg_scale": 1.0}, [[False, False]]),
        ({"cfg_scale": 1.0, "both": True}, [[True, True, False, False]]),
    ],
)
def test_a_pass_is_told_which_rows_are_unconditional(host, options, seen):
    latent = torch.zeros(2, 4, 8, 8)
    steered = UncondNotes(Pictures(latent, None, latent, None, steps=2))
    shown(host, WORDS, latent, steered=steered, **options)
    assert steered.seen == seen


@pytest.mark.parametrize("sampler", CFG_SHARE)
@pytest.mark.parametrize("method", ["fam", "direct-from-native"])
def test_it_runs_under_a_method_at_its_share_of_the_scale(host, sampler, method, monkeypatch):
    asked, model = [], host.model

    def noting(*args, **options):
        asked.append((options["cfg_scale"], options["both"]))
        return model(*args, **options)

    monkeypatch.setattr(host, "model", noting)
    sampling = hires.Sampling(prompt="a cat", seed=3, steps=3, sampler=sampler, cfg_scale=12.5)
    native = hires.generate_native(host, size=(64, 64), sampling=sampling)
    done = hires.upscale(host, native, size=(96, 128), sampling=sampling, method=method, config=FamConfig(start=1.0))
    assert asked == [(1.0, True)] * 2
    assert bool(done.report.am_calls) == bool(done.report.fm_calls) == (method == "fam")


@pytest.mark.parametrize("sampler", CFG_SHARE)
def test_a_network_with_guidance_built_in_is_refused_before_it_runs(sampler):
    pipe = toys.sd_pipeline()
    pipe.unet = toys.sd_unet(time_cond_proj_dim=16).eval()
    pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    sampling = hires.Sampling(steps=2, sampler=sampler)
    told = r"without guidance, and toy has guidance built in \(LCM\); choose LCM or DDIM"
    with pytest.raises(UnsupportedSamplerError, match=told):
        hires.upscale(as_host(pipe), Image.new("RGB", (64, 64)), size=(96, 96), sampling=sampling)
