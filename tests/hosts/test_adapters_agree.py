"""The diffusers and the ldm adapter give the same guided output on the same weights: those of the embedded model."""

import json

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.demo.export import EMBEDDED_MODEL, ldm_config, ldm_state_dict
from fam_ext.hosts.diffusers.unet import UNetHooks
from fam_ext.hosts.ldm import unet as ldm_unet
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import TARGET, Condition, Pass, Patch
from fam_ext.methods.capabilities import CONVOLUTION, FEATURE_SIZE
from tests.hosts import ldm_toys
from tests.methods.passes import fam_pass

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not ldm_toys.HAS_LDM, reason=ldm_toys.WITHOUT)]
LEVEL = NoiseLevel(500.0, 0.6, 0.8)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    from diffusers import UNet2DConditionModel
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    ours = UNet2DConditionModel.from_pretrained(EMBEDDED_MODEL, subfolder="unet", torch_dtype=torch.float32).eval()
    text = tmp_path_factory.mktemp("text")
    params = ldm_config(EMBEDDED_MODEL, text_folder=text)["model"]["params"]["unet_config"]["params"]
    theirs = UNetModel(**params).eval()
    prefix = "model.diffusion_model."
    weights = {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in ldm_state_dict(EMBEDDED_MODEL).items()
        if name.startswith(prefix)
    }
    theirs.load_state_dict(weights)
    width = json.loads((EMBEDDED_MODEL / "unet" / "config.json").read_text())["cross_attention_dim"]
    return ours.requires_grad_(False), theirs.requires_grad_(False), width


def make_pass(config):
    return fam_pass(
        config,
        native=seeded_noise((4, 16, 16), [1]),
        target=seeded_noise((4, 32, 24), [2]),
        noise=seeded_noise((4, 32, 24), [3]),
    )


@pytest.mark.parametrize("config", [FamConfig(), FamConfig(attention=1.0), FamConfig(am_interp="nearest")])
def test_the_guided_outputs_are_equal(both, config):
    ours, theirs, width = both
    context = torch.randn(2, 7, width, generator=torch.Generator().manual_seed(4))
    guide = make_pass(config)
    state = guide.initial(LEVEL)
    latent = state.repeat(2, 1, 1, 1)  # at unit variance, for the level is variance preserving
    hooks = UNetHooks(ours)

    def call(latent, level, condition=None, *, phase=TARGET):
        with hooks.steering.during(phase):
            return ours(latent, level.timestep, encoder_hidden_states=context).sample

    with hooks.running(guide):
        by_diffusers = guide.around_model(call, latent, LEVEL, Condition(lambda: torch.zeros(2, dtype=torch.int64)))
    other, steering = make_pass(config), Steering()
    with steering.running(other), ldm_unet.steered_unet(theirs, steering):
        steering.latent, steering.level = state, LEVEL
        by_ldm = theirs(latent, torch.full((2,), LEVEL.timestep), context=context)
    assert len(guide.ran().am_calls) == len(other.ran().am_calls) > 0
    plain = call(latent, LEVEL)
    assert torch.allclose(by_diffusers, by_ldm, atol=1e-4)
    assert not torch.allclose(by_diffusers, plain, atol=1e-3)


class Layered(Pass):
    """Dilates some convolutions and makes some feature maps smaller, by the names that both hosts have."""

    def patches(self):
        return [
            Patch(
                CONVOLUTION, "mid_block.*, up_blocks.0.*.conv2", lambda site, x, kernel, **_: kernel(x, dilation=(2, 2))
            ),
            Patch(FEATURE_SIZE, "down_blocks.1.layers.0", lambda site, x, **_: avg_pool2d(x, 2)),
            Patch(FEATURE_SIZE, "up_blocks.2.layers.0", lambda site, x, *, size, phase: interpolate(x, size)),
        ]


def test_patched_layers_give_equal_outputs(both):
    ours, theirs, width = both
    context = torch.randn(2, 7, width, generator=torch.Generator().manual_seed(4))
    steered = Layered(make_pass(FamConfig()).pictures)
    latent = steered.initial(LEVEL).repeat(2, 1, 1, 1)
    hooks, steering = UNetHooks(ours), Steering()
    with hooks.running(steered), hooks.steering.during(TARGET):
        by_diffusers = ours(latent, LEVEL.timestep, encoder_hidden_states=context).sample
    with steering.running(steered), ldm_unet.steered_unet(theirs, steering):
        steering.latent, steering.level = latent[:1], LEVEL
        by_ldm = theirs(latent, torch.full((2,), LEVEL.timestep), context=context)
    assert torch.allclose(by_diffusers, by_ldm, atol=1e-4)
    plain = ours(latent, LEVEL.timestep, encoder_hidden_states=context).sample
    assert not torch.allclose(by_diffusers, plain, atol=1e-2)
