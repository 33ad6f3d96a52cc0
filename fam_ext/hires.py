"""The recipe, in host-neutral terms: native -> upsample -> diffuse -> guided denoise -> decode."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport, NativeRecord, seeded_noise
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import NonFiniteLatentError, PictureError, UsageError
from fam_ext.hosts.base import Host, Prompt, Sampler
from fam_ext.methods.base import Pictures
from fam_ext.methods.catalog import FAM, entry_for

log = logging.getLogger(__name__)

GRID = 8
FLAT = 1e-3
"""Widest range of pixel values, of 0 to 1, in a picture of one flat colour."""
VARIED = 0.5
"""A latent with a value this far from its channel's median holds more than one colour."""
MIN_NATIVE_SIDE = 16
MIN_TARGET_SIDE = 64
NATIVE_SALT, TARGET_SALT, REPLAY_SALT = 0, 1, 2

LATENT_MODES = {
    "latent_bicubic": {"mode": "bicubic", "align_corners": False},
    "latent_bilinear": {"mode": "bilinear", "align_corners": False},
    "latent_nearest": {"mode": "nearest-exact"},
}
PIXEL_MODES = {"pixel_bicubic": Image.Resampling.BICUBIC, "pixel_lanczos": Image.Resampling.LANCZOS}


@dataclass(frozen=True)
class Sampling:
    """How one picture is denoised; the usual names and units of the WebUI."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 30
    sampler: str = "DDIM"
    schedule: str = "Automatic"
    cfg_scale: float = 7.0
    clip_skip: int | None = None
    timestep_spacing: str | None = None
    """"leading", "trailing" or "linspace": how few steps are spread over the trained ones; None: the model's own."""

    @property
    def words(self) -> Prompt:
        """The prompts alone."""
        return Prompt(self.prompt, self.negative_prompt, self.clip_skip)


@dataclass(frozen=True)
class Upscaled:
    """A target picture and what really ran for it."""

    image: Image.Image
    method: str
    steps: int
    """Sampler steps that the target pass took (fewer than asked when `start` is below 1)."""
    report: GuideReport
    seconds: float
    native: Image.Image


@dataclass(frozen=True)
class Native:
    """A native picture with its latent (1, C, h, w) and, where it was our own run, the record of that run."""

    image: Image.Image
    latent: Tensor
    record: NativeRecord | None = None


@dataclass(frozen=True)
class Callbacks:
    """Travel down into the sampler: `step(done, total)` after each step, `cancelled()` asked between steps."""

    step: Callable[[int, int], None] = lambda done, total: None
    cancelled: Callable[[], bool] = lambda: False


def upscale(
    host: Host,
    image: Image.Image | Native,
    *,
    size: Size,
    sampling: Sampling,
    config: FamConfig | None = None,
    method: str = FAM,
    tile: int | None = None,
    low_memory: bool = False,
    callbacks: Callbacks | None = None,
) -> Upscaled:
    """Return `image` made again at `size` (height, width) in pixels, by `method` (a name of `methods.catalog`).

    `image` is RGB of at least 16 px a side (its latent is taken at the nearest multiples of 8), or a `Native` of
    `generate_native`, whose record AM then attends to. `size` is in multiples of 8, not smaller than the picture; its
    aspect ratio may differ. The same seed gives the same picture. `tile` is the VAE's tile in pixels (None: when
    large, 0: never); `low_memory` trades speed for memory. Raises `PictureError`, `UsageError`,
    `UnsupportedSamplerError`, `NonFiniteLatentError`, `Cancelled`.
    """
    config, callbacks, began = config or FamConfig(), callbacks or Callbacks(), time.perf_counter()
    maker = entry_for(method, host.gives, where=host.name).load()(config)
    native = image if isinstance(image, Native) else _encoded(host, image, tile=tile)
    _check_size(size, native.image)

    (stage,) = maker.stages(size)
    sampler = _sampler(host, sampling, start=stage.start)
    target = None if stage.upsample is None else _upsampled(host, native, size, mode=stage.upsample, tile=tile)
    steered = maker.begin(
        stage,
        Pictures(
            native=native.latent,
            target=target,
            noise=_noise(native.latent, tuple(side // GRID for side in size), sampling.seed, TARGET_SALT),
            native_noise=_noise(native.latent, tuple(native.latent.shape[-2:]), sampling.seed, REPLAY_SALT),
            steps=len(sampler.levels),
            record=native.record,
            num_train_timesteps=host.num_train_timesteps,
            low_memory=low_memory,
        ),
    )
    latent = steered.initial(sampler.levels[0])
    network = host.model(
        [sampling.words], size=size, cfg_scale=sampling.cfg_scale, steered=steered, low_memory=low_memory
    )
    with network as model:
        latent = sampler.run(
            latent, model, modify=steered.before_step, step=callbacks.step, cancelled=callbacks.cancelled
        )
    picture = _decoded(host, latent, tile=tile)
    seconds = time.perf_counter() - began
    log.info("%s %dx%d -> %dx%d in %.1f s", method, *native.image.size, size[1], size[0], seconds)
    return Upscaled(picture, method, len(sampler.levels), steered.ran(), seconds, native.image)


def generate_native(
    host: Host,
    *,
    size: Size,
    sampling: Sampling,
    tile: int | None = None,
    callbacks: Callbacks | None = None,
) -> Native:
    """Return a picture made from text at native `size` (height, width; multiples of 8), its run recorded for AM."""
    callbacks = callbacks or Callbacks()
    _check_multiples(size)
    sampler = _sampler(host, sampling)
    noise = seeded_noise((host.latent_channels, *(side // GRID for side in size)), [sampling.seed], salt=NATIVE_SALT)
    noise = noise.to(host.device)
    record = NativeRecord()

    def keep(latent: Tensor, level: NoiseLevel) -> Tensor:
        record.add(latent, level)
        return latent

    with host.model([sampling.words], size=size, cfg_scale=sampling.cfg_scale) as model:
        latent = sampler.run(
            noise * sampler.levels[0].scale, model, modify=keep, step=callbacks.step, cancelled=callbacks.cancelled
        )
    return Native(_decoded(host, latent, tile=tile), latent, record)


def _sampler(host: Host, sampling: Sampling, *, start: float = 1.0) -> Sampler:
    return host.sampler(
        sampling.sampler,
        sampling.schedule,
        sampling.steps,
        seeds=[sampling.seed],
        start=start,
        spacing=sampling.timestep_spacing,
    )


def to_tensor(image: Image.Image) -> Tensor:
    """Return `image` as float32 (1, 3, H, W) in [0, 1]."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def to_image(pixels: Tensor) -> Image.Image:
    """Return the first of `pixels` (B, 3, H, W) in [0, 1] as an 8-bit picture."""
    eight_bit = (pixels[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(eight_bit.permute(1, 2, 0).cpu().numpy())


def native_size(host: Host, target_size: Size) -> Size:
    """Return the native (height, width) for a target's aspect ratio: the trained area, sides in multiples of 64
    (multiples of 8 where the trained side is small)."""
    step = 64 if host.native_side >= 512 else GRID
    aspect = (target_size[0] / target_size[1]) ** 0.5
    height, width = (
        max(step, round(side / step) * step) for side in (host.native_side * aspect, host.native_side / aspect)
    )
    return height, width


def _encoded(host: Host, image: Image.Image, *, tile: int | None) -> Native:
    if min(image.size) < MIN_NATIVE_SIDE:
        raise PictureError(
            f"the picture is {image.width}x{image.height}; choose one of at least {MIN_NATIVE_SIDE} px a side"
        )
    width, height = (max(GRID, round(side / GRID) * GRID) for side in image.size)
    fitted = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
    return Native(image, host.encode(to_tensor(fitted), tile=tile))


def _decoded(host: Host, latent: Tensor, *, tile: int | None) -> Image.Image:
    pixels = host.decode(latent, tile=tile)
    check_decoded(pixels, latent)
    return to_image(pixels)


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


def _upsampled(host: Host, native: Native, size: Size, *, mode: str, tile: int | None) -> Tensor:
    """Return U(z_0^n): the native latent at the target's latent size, through latent or pixel space."""
    if mode in LATENT_MODES:
        latent_size = size[0] // GRID, size[1] // GRID
        return interpolate(native.latent, size=latent_size, **LATENT_MODES[mode])
    resampling = PIXEL_MODES["pixel_bicubic" if mode == "auto" else mode]
    resized = native.image.convert("RGB").resize((size[1], size[0]), resampling)
    return host.encode(to_tensor(resized), tile=tile)


def _noise(like: Tensor, size: tuple[int, ...], seed: int, salt: int) -> Tensor:
    return seeded_noise((like.shape[1], *size), [seed], salt=salt).to(like)


def _check_size(size: Size, native: Image.Image) -> None:
    _check_multiples(size)
    if min(size) < MIN_TARGET_SIDE:
        raise UsageError(f"the target size is {size[1]}x{size[0]}; choose at least {MIN_TARGET_SIDE} px a side")
    if size[0] < native.height - GRID or size[1] < native.width - GRID:
        raise UsageError(
            f"the target size {size[1]}x{size[0]} is smaller than the picture's {native.width}x{native.height};"
            " choose a scale of at least 1"
        )


def _check_multiples(size: Size) -> None:
    if size[0] % GRID or size[1] % GRID or min(size) <= 0:
        raise UsageError(f"the size is {size[1]}x{size[0]}; choose multiples of {GRID}")
