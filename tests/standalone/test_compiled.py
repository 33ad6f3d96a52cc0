"""A UNet under `torch.compile` with FAM on: the same picture, and nothing compiled anew from the second picture on."""

import pytest
import torch
from PIL import Image

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.hosts.diffusers import compiled as operator
from fam_ext.hosts.steering import Steering
from tests.hosts import toys
from tests.standalone.conftest import as_host

pytestmark = pytest.mark.slow
PICTURE = Image.radial_gradient("L").convert("RGB").resize((64, 64))


def made(host, seed, config=None):
    """Return the last latent of a picture, with what ran."""
    latents, decode = [], host.decode
    host.decode = lambda latent, **more: latents.append(latent) or decode(latent, **more)
    sampling = hires.Sampling("a cat", seed=seed, steps=2, cfg_scale=4.0)
    done = hires.upscale(host, PICTURE, size=(128, 128), sampling=sampling, config=config)
    host.decode = decode
    return latents[0], done.report


def test_a_layer_that_no_pass_asks_attends_at_its_own_scale():
    q, k, v = torch.randn(3, 1, 2, 16, 8).unbind()
    steering = Steering()
    out = operator.attend(q, k, v, "a", operator.handle_of(steering), 4, 4, 0.2)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.2)
    assert torch.allclose(out, plain.transpose(1, 2).flatten(2))


def test_a_compiled_network_makes_the_same_pictures_and_is_compiled_once(monkeypatch):
    from torch._dynamo.utils import counters

    windowed = FamConfig(am_window=(0.6, 0.0))  # a step with AM and one without
    plain = as_host(toys.sd_pipeline())
    expected = [made(plain, 1), made(plain, 2), made(plain, 3, windowed), made(plain, 4, windowed)]
    torch._dynamo.reset()
    counters.clear()
    host = as_host(toys.sd_pipeline())
    host.pipe.unet = torch.compile(host.pipe.unet, backend="aot_eager")
    compiled, graphs = [], []
    for number, config in enumerate((None, None, windowed, windowed)):
        compiled.append(made(host, number + 1, config))
        graphs.append(counters["stats"]["unique_graphs"])
    torch._dynamo.reset()
    assert not counters["graph_break"]
    assert graphs[0] == graphs[1] and graphs[2] == graphs[3], "compiled anew"
    for (latent, report), (whole, ran) in zip(compiled, expected, strict=True):
        assert ran == report and ran.am_calls and ran.fm_calls
        assert torch.allclose(latent, whole, atol=1e-3)
