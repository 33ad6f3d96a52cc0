"""What makes the reference, the upsampled native picture: the WebUI's upscaler, or FAM's own `upsample`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from modules import devices, sd_samplers_common, shared, upscaler
from modules.processing import StableDiffusionProcessingTxt2Img
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

_LATENT_MODES = {
    "latent_bicubic": "Latent (bicubic)",
    "latent_bilinear": "Latent",
    "latent_nearest": "Latent (nearest)",
}
_LATENT_INTERPOLATION = {"latent_bicubic": "bicubic", "latent_bilinear": "bilinear", "latent_nearest": "nearest"}
_PIXEL_FILTERS = {"pixel_bicubic": Image.Resampling.BICUBIC, "pixel_lanczos": Image.Resampling.LANCZOS}
LATENT_RESIZE = 3
"""img2img's resize mode "Just resize (latent upscale)"."""


def set_upscaler(p: Any, upsample: str) -> None:  # noqa: ANN401
    """Choose the upscaler of the WebUI's hires pass by `upsample`, before p's `init`; "auto" keeps the host's."""
    if upsample in _LATENT_MODES:
        p.hr_upscaler = _LATENT_MODES[upsample]
    elif upsample in _PIXEL_FILTERS:
        p.hr_upscaler = "Lanczos"  # any that works on pixels: `own_upscaler` takes its place


def host_upscaler(p: Any) -> str:  # noqa: ANN401
    """Return the name of the upscaler that the WebUI makes the reference with."""
    if isinstance(p, StableDiffusionProcessingTxt2Img):
        return p.hr_upscaler or shared.latent_upscale_default_mode
    if p.resize_mode == LATENT_RESIZE:
        return "Latent"
    name = shared.opts.upscaler_for_img2img
    return name if name not in (None, "None") else "Lanczos"  # what it resizes with where none is chosen


@contextmanager
def own_upscaler(p: Any, upsample: str, native_pictures: list[Image.Image]) -> Generator[None, None, None]:  # noqa: ANN401
    """Stand in for the WebUI's upscaler where `upsample` names a pixel filter, so that it makes nothing in vain.

    The infotext names no upscaler of the WebUI's then: `FAM upsample` says what made the reference.
    """
    if upsample not in _PIXEL_FILTERS:
        yield
        return
    pictures = iter(native_pictures)

    def upscale(image: Image.Image, scale: float, path: str | None = None) -> Image.Image:
        size = (p.hr_upscale_to_x, p.hr_upscale_to_y)
        return next(pictures, image).resize(size, _PIXEL_FILTERS[upsample])

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


def img2img_reference(x: Tensor, upsample: str, *, native: Tensor, native_pictures: list[Image.Image]) -> Tensor:
    """Return U(z_0^n) in img2img: what the host upsampled (`x`), or what `upsample` asks for where that is something
    else."""
    size = (x.shape[-2], x.shape[-1])
    if upsample in _LATENT_MODES:
        return interpolate(native.to(x), size, mode=_LATENT_INTERPOLATION[upsample])
    if upsample in _PIXEL_FILTERS:
        wide = (8 * size[1], 8 * size[0])
        enlarged = [picture.resize(wide, _PIXEL_FILTERS[upsample]) for picture in native_pictures]
        latents = encode(as_tensor(enlarged)).to(x)
        return latents.expand(x.shape[0], -1, -1, -1) if latents.shape[0] == 1 else latents
    return x


def as_tensor(pictures: list[Image.Image]) -> Tensor:
    """Return PIL images as (B, 3, H, W) in [0, 1]."""
    arrays = [np.asarray(picture.convert("RGB"), dtype=np.float32) / 255 for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def encode(image: Tensor) -> Tensor:
    """Return the latents of images (B, 3, H, W) in [0, 1], by the host's own way of encoding."""
    method = sd_samplers_common.approximation_indexes.get(shared.opts.sd_vae_encode_method)
    image = image.clamp(0, 1).to(shared.device, dtype=devices.dtype_vae)
    return sd_samplers_common.images_tensor_to_samples(image, method, shared.sd_model)


def as_pictures(decoded: Tensor) -> list[Image.Image]:
    """Return the PIL images of decoded samples (B, 3, H, W) in [-1, 1]."""
    whole = ((decoded.float() + 1) / 2).clamp(0, 1).mul(255).round().to(torch.uint8)
    return [Image.fromarray(picture) for picture in whole.permute(0, 2, 3, 1).cpu().numpy()]
