"""Toy ldm networks and k-diffusion's samplers, from their own packages (installed without their pins)."""

import copy
import functools
import importlib
import importlib.util
import math
import sys
import types

import torch
from torch import nn

HAS_LDM = importlib.util.find_spec("ldm") is not None
HAS_K_DIFFUSION = all(importlib.util.find_spec(name) for name in ("k_diffusion", "torchdiffeq", "torchsde"))
WITHOUT = "needs stable-diffusion-sdkit, k-diffusion, torchdiffeq, einops and omegaconf"
CONTEXT = 16


def unet(kind="sd15", *, in_channels=4):
    """Return a UNet of ldm's own class with the blocks of SD1.5 or SDXL, or for "small" as few as there can be.

    Random throughout, one and the same at every call.
    """
    return copy.deepcopy(_unet(kind, in_channels))


@functools.cache
def _unet(kind, in_channels):
    from ldm.modules.diffusionmodules import openaimodel

    openaimodel.timestep_embedding = timestep_embedding
    layout = {
        "sd15": {"attention_resolutions": (4, 2, 1), "channel_mult": (1, 2, 4, 4), "transformer_depth": 1},
        "sdxl": {"attention_resolutions": (4, 2), "channel_mult": (1, 2, 4), "transformer_depth": 1},
        "small": {"attention_resolutions": (2,), "channel_mult": (1, 2), "transformer_depth": 1, "num_res_blocks": 1},
    }[kind]
    torch.manual_seed(0)
    network = openaimodel.UNetModel(
        image_size=8,
        in_channels=in_channels,
        out_channels=4,
        model_channels=32,
        num_heads=4,
        use_spatial_transformer=True,
        context_dim=CONTEXT,
        legacy=False,
        **{"num_res_blocks": 2} | layout,
    )
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():  # zero_module: without this, nothing shows in the output
            nn.init.normal_(parameter, std=0.5 / math.sqrt(parameter[0].numel()))
    return network.eval().requires_grad_(False)


def timestep_embedding(timesteps, dim, max_period=10000, repeat_only=False):
    """ldm's, made on the device of `timesteps` as in the WebUI."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(max_period) / half))
    angles = timesteps[:, None].float() * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def k_diffusion():
    """Return k-diffusion's (sampling, external) without the training code its package imports."""
    if "k_diffusion.sampling" not in sys.modules:
        spec = importlib.util.find_spec("k_diffusion")
        package = types.ModuleType("k_diffusion")
        package.__path__ = list(spec.submodule_search_locations)
        utils = types.ModuleType("k_diffusion.utils")
        utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
        sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils})
        package.utils = utils
        package.sampling = importlib.import_module("k_diffusion.sampling")
        # as the WebUI, whose schedules stay on the CPU
        package.sampling.to_d = lambda x, sigma, denoised: (x - denoised) / sigma
    return sys.modules["k_diffusion.sampling"], importlib.import_module("k_diffusion.external")


def alphas_cumprod():
    """Return Stable Diffusion's schedule, abar (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


class Network(nn.Module):
    """What k-diffusion wraps: predicts epsilon by a smooth function of its input."""

    def __init__(self):
        super().__init__()
        self.register_buffer("alphas_cumprod", alphas_cumprod())

    def apply_model(self, x, t, **kwargs):
        return 0.5 * x + 0.1 * torch.sin(3 * x) + 0.05


class Denoiser(nn.Module):
    """The WebUI's CFGDenoiser, as far as a sampler and we see it."""

    def __init__(self, inner_model, alphas):
        super().__init__()
        self.inner_model = inner_model
        self.alphas = alphas

    def forward(self, x, sigma, **kwargs):
        return self.inner_model(x, sigma)


class Sampler:
    """The WebUI's sampler object around one of k-diffusion's functions."""

    def __init__(self, name, *, steps=6):
        sampling, external = k_diffusion()
        network = Network()
        self.func = getattr(sampling, name)
        self.funcname = name
        self.config = None
        self.inner = external.CompVisDenoiser(network)
        self.model_wrap_cfg = Denoiser(self.inner, network.alphas_cumprod)
        self.sigmas = sampling.get_sigmas_karras(steps, 0.03, 14.6)
        self.reported = 0

    def get_sigmas(self, p, steps):
        return k_diffusion()[0].get_sigmas_karras(steps, 0.03, 14.6)

    def callback_state(self, info):
        self.reported += 1

    def run(self, x, sigmas=None, **more):
        """Sample as the WebUI does, from the noisy latent `x`."""
        sigmas = self.get_sigmas(None, len(self.sigmas) - 1) if sigmas is None else sigmas
        if self.funcname == "sample_dpm_fast":
            more |= {"sigma_min": sigmas[-2], "sigma_max": sigmas[0], "n": len(sigmas) - 1}
        elif self.funcname == "sample_dpm_adaptive":
            more |= {"sigma_min": sigmas[-2], "sigma_max": sigmas[0]}
        else:
            more["sigmas"] = sigmas
        torch.manual_seed(7)
        return self.func(self.model_wrap_cfg, x, callback=self.callback_state, disable=True, **more)
