"""A method's stages become passes here, once for every host: what is enlarged, how, with which noise, and what ran.

Hosts differ in how they sample a pass: ours by our own loop (`hires`), a WebUI by its own (`webui.steered`). Each gives
a `Studio`, and nothing here asks which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import interpolate

from fam_ext.core.guide import GuideReport, NativeRecord
from fam_ext.core.schedule import Size
from fam_ext.errors import NonFiniteLatentError
from fam_ext.methods.base import Method, Pass, Pictures, Stage
from fam_ext.methods.scales import GRID as GRID

FLAT = 1e-3
"""Widest range of pixel values, of 0 to 1, in a picture of one flat colour."""
VARIED = 0.5
"""A latent with a value this far from its channel's median holds more than one colour."""
LATENT_MODES: dict[str, dict[str, Any]] = {
    "latent_bicubic": {"mode": "bicubic", "align_corners": False},
    "latent_bilinear": {"mode": "bilinear", "align_corners": False},
    "latent_nearest": {"mode": "nearest-exact"},
}
"""FamConfig.upsample in latent space -> how torch interpolates."""
SHARPENING = 0.7
"""px: the Gaussian's sigma where a stage of pixels sharpens."""
PIXEL_MODES = {
    "auto": Image.Resampling.BICUBIC,  # where the host has no upscaler of its own
    "pixel_bicubic": Image.Resampling.BICUBIC,
    "pixel_lanczos": Image.Resampling.LANCZOS,
}
"""FamConfig.upsample in pixels -> the filter."""


@dataclass(frozen=True)
class Source:
    """B pictures of one size to enlarge, as pixels, as a latent, or both."""

    images: Sequence[Image.Image] = ()
    latent: Tensor | None = None
    """(B, C, h, w), clean; (1, C, h, w) where all B are made from one."""
    record: NativeRecord | None = None
    """The native run that they come from, where it was ours."""


@dataclass(frozen=True)
class Enlarged:
    """What the last stage gave: a latent, or pictures where that stage was one of pixels; and what ran."""

    made: Source
    report: GuideReport
    steps: int
    """Of all stages."""


class Run(Protocol):
    """A host's sampler, set up for one stage and not begun."""

    steps: int

    def sample(self, steered: Pass) -> Tensor:
        """Return the clean latent (B, C, H, W), asking `steered` at its places. Errors as `hosts.base.Sampler`."""
        ...


class Studio(Protocol):
    """A host with the words, sampler and seeds of one request: what the recipe asks of it."""

    num_train_timesteps: int
    prediction: str
    """See `methods.base.Pictures.prediction`."""
    is_sdxl: bool
    low_memory: bool
    upscales: bool
    """Whether `enlarge` is by a network that the user chose: it makes the reference too, where that is "auto"."""

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of `images` (B, 3, H, W) in [0, 1]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) in [0, 1] of `latents`."""
        ...

    def noise(self, size: Size, stage: int) -> Tensor:
        """Return the epsilon (B, C, H, W) of a stage at latent `size`; `stage` counts from 0."""
        ...

    def native_noise(self, size: Size) -> Tensor | None:
        """Return the epsilon (B, C, h, w) of native calls; None: the stage's own, resized."""
        ...

    def upscaled(self, stage: Stage) -> Tensor | None:
        """Return the reference's clean latent where the host has made it; None: the recipe makes it."""
        ...

    def enlarge(self, image: Image.Image, size: Size, /) -> Image.Image:
        """Return `image` at `size` (height, width) without diffusion: by the chosen network, or by Lanczos."""
        ...

    def run(self, stage: Stage) -> Run:
        """Return the sampler from `stage.start` on."""
        ...


def enlarge(studio: Studio, method: Method, source: Source, *, size: Size) -> Enlarged:
    """Return `source` made again at `size` (height, width in pixels) by `method`'s stages, one after the other.

    Every stage's sampler is set up before the first one runs. Errors as the studio's and the method's.
    """
    stages = method.stages(size, _size_of(source))
    runs = [None if stage.pixels else studio.run(stage) for stage in stages]
    report, steps = GuideReport(), 0
    for number, (stage, run) in enumerate(zip(stages, runs, strict=True)):
        if run is None:
            larger = [_larger(studio, image, stage) for image in _images(studio, source)]
            source = Source([_sharpened(image, stage.sharpen) for image in larger])
            continue
        steered = method.begin(stage, _pictures(studio, source, stage, number=number, steps=run.steps))
        source = Source(latent=steered.finish(run.sample(steered)), record=source.record)
        report, steps = report.plus(steered.ran()), steps + run.steps
    return Enlarged(source, report, steps)


def asks_upscaler(stage: Stage) -> bool:
    """Return whether the network that the user chose enlarges for a stage. Where none was chosen, Lanczos makes a stage
    of pixels, and a bicubic filter another's reference."""
    return stage.upsample == "auto" or (stage.pixels and stage.upsample not in PIXEL_MODES)


def _larger(studio: Studio, image: Image.Image, stage: Stage) -> Image.Image:
    if asks_upscaler(stage):
        return studio.enlarge(image, stage.size)
    return image.convert("RGB").resize((stage.size[1], stage.size[0]), PIXEL_MODES[stage.upsample or ""])


def _sharpened(image: Image.Image, percent: int) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(radius=SHARPENING, percent=percent, threshold=0)) if percent else image


def _pictures(studio: Studio, source: Source, stage: Stage, *, number: int, steps: int) -> Pictures:
    encoded = source.latent is None
    native = studio.encode(to_tensor(source.images)) if source.latent is None else source.latent
    source = Source(source.images, native, source.record)
    target = None if stage.upsample is None else studio.upscaled(stage)
    if target is None and stage.upsample is not None:
        # of equal sizes a filter changes nothing, so that picture is not encoded a second time
        as_large = encoded and _size_of(source) == stage.size and not (stage.upsample == "auto" and studio.upscales)
        target = native if as_large else upsampled(studio, source, stage.size, mode=stage.upsample)
    noise = studio.noise(_latent_size(stage.size), number).float()
    batch = noise.shape[0]
    native_noise = studio.native_noise((native.shape[-2], native.shape[-1]))
    return Pictures(
        native=_for_all(native, batch).to(noise.device, torch.float32),
        target=None if target is None else _for_all(target, batch).to(noise.device, torch.float32),
        noise=noise,
        native_noise=native_noise,
        steps=steps,
        record=source.record,
        num_train_timesteps=studio.num_train_timesteps,
        prediction=studio.prediction,
        is_sdxl=studio.is_sdxl,
        low_memory=studio.low_memory,
    )


def upsampled(studio: Studio, source: Source, size: Size, *, mode: str) -> Tensor:
    """Return U(z_0^n): the source's latent at the latent size of `size` px, through latent or pixel space."""
    if mode in LATENT_MODES and source.latent is not None:
        return interpolate(source.latent, size=_latent_size(size), **LATENT_MODES[mode])
    images = _images(studio, source)
    if mode == "auto" and studio.upscales:
        return studio.encode(to_tensor([studio.enlarge(image, size) for image in images]))
    resized = [image.convert("RGB").resize((size[1], size[0]), PIXEL_MODES[mode]) for image in images]
    return studio.encode(to_tensor(resized))


def _size_of(source: Source) -> Size:
    """Return (height, width) in pixels."""
    if source.images:
        return source.images[0].height, source.images[0].width
    assert source.latent is not None, "a source has pictures or a latent"
    return GRID * source.latent.shape[-2], GRID * source.latent.shape[-1]


def _images(studio: Studio, source: Source) -> Sequence[Image.Image]:
    if source.images or source.latent is None:
        return source.images
    pixels = studio.decode(source.latent)
    check_decoded(pixels, source.latent.to(pixels.device))
    return to_images(pixels)


def check_decoded(pixels: Tensor, latent: Tensor) -> None:
    """Raise `NonFiniteLatentError` when `pixels` (B, 3, H, W), decoded from `latent`, are no picture: values that are
    not finite, or one flat colour where the latent is not flat (what a VAE that overflowed leaves).

    A white picture's latent is flat inside only: the encoder's padding shows along its edges.
    """
    for picture, source in zip(pixels, latent, strict=True):
        finite = torch.isfinite(picture).all()
        flat = ((picture.amax((-2, -1)) - picture.amin((-2, -1))) < FLAT).all()
        inner = _inner(source.float())
        varied = (inner - inner.flatten(1).median(1).values[:, None, None]).abs().max() > VARIED
        # one wait for the device for the three answers
        is_finite, is_flat, is_varied = torch.stack([finite, flat, varied]).cpu().tolist()
        if not is_finite or (is_flat and is_varied):
            fault = "one flat colour" if is_finite else "not finite"
            raise NonFiniteLatentError(
                f"the decoded picture is {fault}, so the VAE overflowed; use --dtype float32 or bfloat16"
                " (in the WebUI --no-half-vae), or another VAE"
            )


def _inner(latent: Tensor) -> Tensor:
    """Return `latent` (C, H, W) without its outermost eighth, two cells or more, where it has that many."""
    top, left = (min(max(2, side // 8), (side - 1) // 2) for side in latent.shape[-2:])
    return latent[:, top : latent.shape[-2] - top, left : latent.shape[-1] - left]


def _latent_size(size: Size) -> Size:
    return size[0] // GRID, size[1] // GRID


def _for_all(latent: Tensor, batch: int) -> Tensor:
    return latent.expand(batch, -1, -1, -1) if latent.shape[0] == 1 else latent


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """Return `images`, all of one size, as float32 (B, 3, H, W) in [0, 1]."""
    pixels = [np.asarray(image.convert("RGB"), dtype=np.float32) / 255 for image in images]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Return `pixels` (B, 3, H, W) in [0, 1] as 8-bit pictures."""
    whole = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(picture) for picture in whole.permute(0, 2, 3, 1).cpu().numpy()]
