"""The library's face: a picture, a host and a method give a larger picture; our own loop samples its passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from fam_ext import recipe
from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport, NativeRecord, seeded_noise
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import PictureError, UsageError
from fam_ext.hosts.base import Host, Prompt, Sampler
from fam_ext.methods.base import Method, Pass, Stage
from fam_ext.methods.catalog import FAM, entry_for
from fam_ext.recipe import GRID, Source, check_decoded, enlarge

log = logging.getLogger(__name__)

MIN_NATIVE_SIDE = 16
MIN_TARGET_SIDE = 64
NATIVE_SALT, TARGET_SALT, REPLAY_SALT, STAGE_SALT = 0, 1, 2, 10


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
    config: FamConfig
    """The dials as the method took them."""


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
    larger: Callable[[Image.Image, Size], Image.Image] | None = None,
    around: Callable[[Method], Method] | None = None,
    callbacks: Callbacks | None = None,
) -> Upscaled:
    """Return `image` made again at `size` (height, width) in pixels, by `method` (a name of `methods.catalog`).

    `image` is RGB of at least 16 px a side (its latent is taken at the nearest multiples of 8), or a `Native` of
    `generate_native`, whose record AM then attends to. `size` is in multiples of 8, not smaller than the picture; its
    aspect ratio may differ. The same seed gives the same picture. `tile` is the VAE's tile in pixels (None: when
    large, 0: never); `low_memory` trades speed for memory. `larger` enlarges without diffusion where a method asks for
    that, and makes the reference where `upsample` is "auto" (None: by Lanczos, and by bicubic). `around` may wrap the
    method, to look on. Raises `PictureError`, `UsageError`, `UnsupportedSamplerError`, `NonFiniteLatentError`,
    `Cancelled`.
    """
    config, callbacks, began = config or FamConfig(), callbacks or Callbacks(), time.perf_counter()
    maker = entry_for(method, host.gives, where=f"the host of {host.name}").load()(config)
    maker = maker if around is None else around(maker)
    native = image if isinstance(image, Native) else _encoded(host, image, tile=tile)
    check_size(size, (native.image.height, native.image.width))
    studio = _Studio(host, sampling, tile=tile, low_memory=low_memory, callbacks=callbacks, larger=larger)
    enlarged = enlarge(studio, maker, Source([native.image], native.latent, native.record), size=size)
    made = enlarged.made
    picture = made.images[0] if made.latent is None else _decoded(host, made.latent, tile=tile)
    seconds = time.perf_counter() - began
    log.info("%s %dx%d -> %dx%d in %.1f s", method, *native.image.size, size[1], size[0], seconds)
    return Upscaled(picture, method, enlarged.steps, enlarged.report, seconds, native.image, maker.config)


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

    cfg_scale = sampling.cfg_scale * sampler.cfg_share
    with host.model([sampling.words], size=size, cfg_scale=cfg_scale, both=sampler.wants_both) as model:
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


class _Studio:
    """See `recipe.Studio`: a host, and the sampling of one picture."""

    def __init__(
        self,
        host: Host,
        sampling: Sampling,
        *,
        tile: int | None,
        low_memory: bool,
        callbacks: Callbacks,
        larger: Callable[[Image.Image, Size], Image.Image] | None = None,
    ) -> None:
        self.host = host
        self.sampling = sampling
        self.tile = tile
        self.low_memory = low_memory
        self.callbacks = callbacks
        self.larger = larger
        self.upscales = larger is not None
        self.num_train_timesteps = host.num_train_timesteps
        self.prediction = host.prediction
        self.is_sdxl = host.is_sdxl
        self.runs: list[_Run] = []

    def encode(self, images: Tensor) -> Tensor:
        return self.host.encode(images, tile=self.tile)

    def decode(self, latents: Tensor) -> Tensor:
        return self.host.decode(latents, tile=self.tile)

    def noise(self, size: Size, stage: int) -> Tensor:
        return self._noise(size, TARGET_SALT + STAGE_SALT * stage)

    def native_noise(self, size: Size) -> Tensor:
        return self._noise(size, REPLAY_SALT)

    def _noise(self, size: Size, salt: int) -> Tensor:
        noise = seeded_noise((self.host.latent_channels, *size), [self.sampling.seed], salt=salt)
        return noise.to(self.host.device)

    def upscaled(self, stage: Stage) -> None:
        return None

    def enlarge(self, image: Image.Image, size: Size, /) -> Image.Image:
        if self.larger is not None:
            return self.larger(image, size)
        return image.convert("RGB").resize((size[1], size[0]), Image.Resampling.LANCZOS)

    def run(self, stage: Stage) -> _Run:
        self.runs.append(_Run(self, stage))
        return self.runs[-1]


class _Run:
    """See `recipe.Run`: our own loop."""

    def __init__(self, studio: _Studio, stage: Stage) -> None:
        self.studio = studio
        self.stage = stage
        self.sampler = _sampler(studio.host, studio.sampling, start=stage.start)
        self.steps = len(self.sampler.levels)

    def sample(self, steered: Pass) -> Tensor:
        studio, runs = self.studio, self.studio.runs
        before, whole = sum(run.steps for run in runs[: runs.index(self)]), sum(run.steps for run in runs)
        network = studio.host.model(
            [studio.sampling.words],
            size=self.stage.size,
            cfg_scale=studio.sampling.cfg_scale * self.sampler.cfg_share,
            steered=steered,
            both=self.sampler.wants_both,
            low_memory=studio.low_memory,
        )
        with network as model:
            return self.sampler.run(
                steered.initial(self.sampler.levels[0]),
                model,
                modify=steered.before_step,
                step=lambda done, total: studio.callbacks.step(before + done, whole),
                cancelled=studio.callbacks.cancelled,
            )


def to_tensor(image: Image.Image) -> Tensor:
    """Return `image` as float32 (1, 3, H, W) in [0, 1]."""
    return recipe.to_tensor([image])


def to_image(pixels: Tensor) -> Image.Image:
    """Return the first of `pixels` (B, 3, H, W) in [0, 1] as an 8-bit picture."""
    return recipe.to_images(pixels[:1])[0]


def native_size(host: Host, target_size: Size) -> Size:
    """Return the native (height, width) for a target's aspect ratio: about the trained area, the short side in
    multiples of 64 (of 8 where the trained side is small), the long one in multiples of 8, so that the target does not
    stretch it."""
    step = 64 if host.native_side >= 512 else GRID
    near, far = sorted(target_size)
    short = max(step, round(host.native_side * (near / far) ** 0.5 / step) * step)
    long = round(short * far / near / GRID) * GRID
    return (short, long) if target_size[0] == near else (long, short)


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


def check_size(size: Size, native: Size) -> None:
    """Raise `UsageError` for a target that is no multiple of 8, below 64 px a side, or smaller than its native picture
    by more than rounding."""
    _check_multiples(size)
    if min(size) < MIN_TARGET_SIDE:
        raise UsageError(f"the target size is {size[1]}x{size[0]}; choose at least {MIN_TARGET_SIDE} px a side")
    if size[0] < native[0] - GRID or size[1] < native[1] - GRID:
        raise UsageError(
            f"the target size {size[1]}x{size[0]} is smaller than the picture's {native[1]}x{native[0]};"
            " choose a scale of at least 1"
        )


def _check_multiples(size: Size) -> None:
    if size[0] % GRID or size[1] % GRID or min(size) <= 0:
        raise UsageError(f"the size is {size[1]}x{size[0]}; choose multiples of {GRID}")
