"""What makes the reference in the WebUI: its own upscaler, or the one that `upsample` names."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from modules import devices, sd_samplers_common, shared, upscaler
from modules.processing import StableDiffusionProcessingTxt2Img
from PIL import Image
from torch import Tensor

from fam_ext.recipe import LATENT_MODES, PIXEL_MODES

LATENT_RESIZE = 3
"""img2img's resize mode "Just resize (latent upscale)"."""


def set_upscaler(p: Any, upsample: str) -> None:  # noqa: ANN401
    """Choose the upscaler of the WebUI's hires pass by `upsample`, before p's `init`; "auto" keeps the host's."""
    if upsample in LATENT_MODES:
        p.hr_upscaler = latent_upscaler(upsample)
    elif upsample != "auto":
        p.hr_upscaler = "Lanczos"  # any that works on pixels: `own_upscaler` takes its place


def latent_upscaler(upsample: str) -> str:
    """Return the WebUI's name for a way of `recipe.LATENT_MODES`."""
    wanted = {"mode": LATENT_MODES[upsample]["mode"], "antialias": False}
    return next(name for name, how in shared.latent_upscale_modes.items() if how == wanted)


def host_upscaler(p: Any) -> str:  # noqa: ANN401
    """Return the name of the upscaler that the WebUI makes the reference with."""
    if isinstance(p, StableDiffusionProcessingTxt2Img):
        return p.hr_upscaler or shared.latent_upscale_default_mode
    if p.resize_mode == LATENT_RESIZE:
        return "Latent"
    name = shared.opts.upscaler_for_img2img
    return name if name not in (None, "None") else "Lanczos"  # what it resizes with where none is chosen


@contextmanager
def own_upscaler(p: Any, upsample: str, native_pictures: Sequence[Image.Image]) -> Generator[None, None, None]:  # noqa: ANN401
    """Stand in for the WebUI's upscaler where `upsample` names a pixel filter, so that it makes nothing in vain.

    The infotext names no upscaler of the WebUI's then: `FAM upsample` says what made the reference.
    """
    if upsample == "auto" or upsample in LATENT_MODES:
        yield
        return
    pictures = iter(native_pictures)

    def upscale(image: Image.Image, scale: float, path: str | None = None) -> Image.Image:
        size = (p.hr_upscale_to_x, p.hr_upscale_to_y)
        return next(pictures, image).resize(size, PIXEL_MODES[upsample])

    ours = upscaler.UpscalerData(f"FAM {upsample}", "", SimpleNamespace(upscale=upscale))
    before, p.hr_upscaler = p.hr_upscaler, ours.name
    p.extra_generation_params.pop("Hires upscaler", None)
    shared.sd_upscalers.append(ours)
    try:
        yield
    finally:
        if ours in shared.sd_upscalers:  # a reload of the page makes the list anew
            shared.sd_upscalers.remove(ours)
        p.hr_upscaler = before


def encode(image: Tensor) -> Tensor:
    """Return the latents of images (B, 3, H, W) in [0, 1], by the host's own way of encoding."""
    method = sd_samplers_common.approximation_indexes.get(shared.opts.sd_vae_encode_method)
    image = image.clamp(0, 1).to(shared.device, dtype=devices.dtype_vae)
    return sd_samplers_common.images_tensor_to_samples(image, method, shared.sd_model)


def decode(latents: Tensor) -> Tensor:
    """Return the images (B, 3, H, W) in [0, 1] of latents, by the host's own way of decoding."""
    return (sd_samplers_common.decode_first_stage(shared.sd_model, latents).float() + 1) / 2
