"""The composition root without a WebUI: load a model, render requests, generate from text."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fam_ext import hires, upscalers
from fam_ext.core.schedule import Size
from fam_ext.errors import OutOfMemoryError, UnsupportedModelError, UsageError, is_out_of_memory
from fam_ext.escapes import listed, shown
from fam_ext.hosts.diffusers.host import OFFLOADS, DiffusersHost
from fam_ext.hosts.diffusers.load import pick_device, pick_dtype, quiet_libraries, read_pipeline, why_no_gpu
from fam_ext.hosts.diffusers.prompts import embedding_names, settle, split_extra_networks
from fam_ext.hosts.memory import peak_memory, watch_memory
from fam_ext.jobs.contract import WORKER_VARIABLE, Progress, Ran, Rendered, undrawn
from fam_ext.methods.base import Method
from fam_ext.options.request import HiresRequest
from fam_ext.samplers.names import spacing_that_runs, split_name
from fam_ext.upscalers import Upscaler
from fam_ext.weights import weights_hash

log = logging.getLogger(__name__)

SHORT_HASH = 10
"""Digits of a model's SHA-256 that the WebUI writes."""
OWN_VAE = ("None", "Automatic")
"""The WebUI's words for the checkpoint's own VAE, and for it where no file lies beside it: the only one that runs."""


def demo_model() -> Path:
    """Return the folder of the embedded model."""
    return Path(__file__).parent / "demo" / "model"


def weights_tag(path: str | os.PathLike[str] | None = None) -> str:
    """Return eight hexadecimal digits of the SHA-256 of a model's weights; `path` as for `load_pipeline`."""
    source = demo_model() if path is None else Path(path)
    return weights_hash(source)[:8]


def load_pipeline(
    path: str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    loras: Sequence[tuple[str, float]] = (),
    config: str | os.PathLike[str] | None = None,
    offload: str = "none",
    clip_l_skip: bool = False,
) -> DiffusersHost:
    """Return a model ready to render: a diffusers folder, one `.safetensors` checkpoint, or None: the embedded model.

    `device` is cpu, cuda (cuda:1) or mps; None takes the best there is. `dtype` is float32, float16 or bfloat16; None
    is float16 on a GPU, float32 elsewhere. `loras` are (file, weight). `config` is a diffusers folder of the same
    architecture, from which a single file takes its settings and tokenizers when no hub can be reached.
    `offload` keeps what rests in main memory: "model" one network at a time on the device, "sequential" one layer.
    `clip_l_skip` lets a clip skip act on SDXL's CLIP-L, as the WebUI's setting "Clip skip SDXL" does.
    Raises `UnsupportedModelError` naming what the file is, `UsageError` for a device or dtype that is not there.
    """
    began = time.perf_counter()
    target = pick_device(device)
    if offload not in OFFLOADS:
        raise UsageError(f"offload is {offload!r}; choose one of {', '.join(OFFLOADS)}")
    precision = pick_dtype(dtype, target)
    source = demo_model() if path is None else Path(path).expanduser()
    quiet_libraries()
    if not source.exists():
        raise UnsupportedModelError(f"model {source} does not exist; give a diffusers folder or a .safetensors file")

    def load() -> DiffusersHost:
        pipe = read_pipeline(source, precision, loras=loras, config=config)
        if offload == "none":
            pipe.to(target)
        return DiffusersHost(
            pipe,
            name=name,
            device=target,
            dtype=precision,
            offload=offload,
            clip_l_skip=clip_l_skip,
            weights_hash=lambda: weights_hash(source),
            loras=[(Path(file).stem, weight) for file, weight in loras],
        )

    name = "fluent-tiny (embedded)" if path is None else source.stem
    is_first = os.environ.get(WORKER_VARIABLE, "0") == "0"  # of several workers one says it
    if device is None and path is not None and target.type == "cpu" and is_first:
        log.warning("%s is drawn on the CPU, which takes many times as long: %s", name, why_no_gpu())
    host = _guarded(load)
    log.info("%s loaded on %s as %s in %.1f s", name, target, precision, time.perf_counter() - began)
    return host


def _own_gpu() -> str | None:
    """Return the GPU of this worker process; None where there is one for all, or the process is no worker."""
    number, count = os.environ.get(WORKER_VARIABLE), torch.cuda.device_count()
    return f"cuda:{int(number) % count}" if number is not None and count > 1 else None


class DiffusersRenderer:
    """A `jobs.contract.Renderer` on diffusers: loads a model and an upscaler at the first request that needs them, and
    keeps them.

    `model`, `device`, `dtype` and what else there is are `load_pipeline`'s, `upscaler` is a file for `upscalers.load`.
    """

    name = "diffusers"
    can_give_up = ("tile", "low_memory", "am")

    def __init__(
        self,
        model: str | None = None,
        *,
        upscaler: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        **loading: Any,  # noqa: ANN401  # `load_pipeline` says what each is
    ) -> None:
        self._model = model
        self._upscaler_file = upscaler
        self._device = (_own_gpu() or device) if device in (None, "cuda") else device
        self._dtype = dtype
        self._loading = loading
        self._host: DiffusersHost | None = None
        self._upscaler: Upscaler | None = None

    @property
    def host(self) -> DiffusersHost:
        """The loaded model."""
        if self._host is None:
            self._host = load_pipeline(self._model, device=self._device, dtype=self._dtype, **self._loading)
        return self._host

    @property
    def upscaler(self) -> Upscaler | None:
        """The super-resolution network, where a file of one was given."""
        if self._upscaler is None and self._upscaler_file is not None:
            device = pick_device(self._device)
            dtype = None if self._dtype is None else pick_dtype(self._dtype, device)
            self._upscaler = upscalers.load(self._upscaler_file, device=device, dtype=dtype)
        return self._upscaler

    def load(self) -> None:
        """Load what was given now. Errors as `upscalers.load` and `load_pipeline`."""
        self._upscaler = self.upscaler
        self._host = self.host

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        """Return `image` (RGB, upright) at `request.size`; see `jobs.contract.Renderer`.

        The model is the renderer's own: a name in the request's metadata is not looked up.
        """
        return render_on(self.host, image, request, progress, upscaler=self.upscaler)


load_renderer = DiffusersRenderer
"""The name that older journals hold."""


def render_on(
    host: DiffusersHost,
    image: Image.Image | hires.Native,
    request: HiresRequest,
    progress: Progress,
    *,
    upscaler: Upscaler | None = None,
    around: Callable[[Method], Method] | None = None,
) -> Rendered:
    """Return `image` (RGB, upright) at `request.size`, made by `host`, with what ran.

    `upscaler` enlarges where the method asks for that, and makes the reference where `upsample` is "auto"; its tiles
    are 256 px, and smaller with a VAE tile below 1024. `around` and errors as in `hires.upscale`; `OutOfMemoryError`
    too.
    """
    watch_memory(host.device)
    enlarged: list[str] = []

    def larger(image: Image.Image, size: Size, /) -> Image.Image:
        assert upscaler is not None
        enlarged.append(upscaler.name)
        return upscaler.enlarge(image, size, tile=_network_tile(request.tile), cancelled=progress.cancelled)

    done = _guarded(
        lambda: hires.upscale(
            host,
            image,
            size=request.size,
            sampling=request_sampling(request),
            config=request.config,
            method=request.method,
            tile=request.tile,
            low_memory=request.low_memory,
            larger=None if upscaler is None else larger,
            around=around,
            callbacks=hires.Callbacks(progress.step, progress.cancelled),
        )
    )
    ran = what_ran(done, request, host)
    return Rendered(done.image, dataclasses.replace(ran, upscaler=enlarged[0]) if enlarged else ran)


def _network_tile(tile: int | None) -> int:
    """Return the most px a side that an upscaler's network is given where the VAE's tile is `tile`: a quarter, as most
    make 4x of it, but never more than its default."""
    return max(upscalers.LEAST_TILE, min(upscalers.TILE, tile // 4)) if tile else upscalers.TILE


def native_on(host: DiffusersHost, request: HiresRequest, progress: Progress, *, size: Size) -> hires.Native:
    """Return a native picture made by `host` from the words and settings of `request` at `size` (height, width;
    multiples of 8), its run recorded for AM. Errors as `hires.generate_native`; `OutOfMemoryError` too."""
    return _guarded(
        lambda: hires.generate_native(
            host,
            size=size,
            sampling=request_sampling(request),
            tile=request.tile,
            callbacks=hires.Callbacks(progress.step, progress.cancelled),
        )
    )


def generate(
    host: DiffusersHost,
    request: HiresRequest,
    *,
    native: Size | None = None,
    upscaler: Upscaler | None = None,
    progress: Progress | None = None,
) -> tuple[Rendered, Image.Image]:
    """Return a picture made from text at `request.size`, with the native picture it was made from.

    The native pass runs at `native` (height, width; None: the trained size at the target's aspect ratio) with the same
    prompt, seed, sampler and steps, and is recorded: AM attends to it. `upscaler` as in `render_on`. `progress.step`
    counts both passes. Errors as `native_on` and `render_on`.
    """
    progress = progress or Progress()
    first_half = Progress(lambda done, total: progress.step(done, 2 * total), progress.cancelled)
    second_half = Progress(lambda done, total: progress.step(total + done, 2 * total), progress.cancelled)
    native = native or hires.native_size(host, request.size)
    hires.check_size(request.size, native)  # before the native picture is drawn
    first = native_on(host, request, first_half, size=native)
    return render_on(host, first, request, second_half, upscaler=upscaler), first.image


def request_sampling(request: HiresRequest) -> hires.Sampling:
    """Return the sampling part of `request`: without <lora:...> tags, which a WebUI resolves, and schedules settled."""
    return hires.Sampling(
        prompt=settle(split_extra_networks(request.prompt)[0])[0],
        negative_prompt=settle(split_extra_networks(request.negative_prompt)[0])[0],
        seed=request.seed,
        steps=request.steps,
        sampler=request.sampler,
        schedule=request.schedule,
        cfg_scale=request.cfg_scale,
        clip_skip=request.clip_skip,
        timestep_spacing=request.timestep_spacing,
    )


def what_was_left_out(request: HiresRequest, host: DiffusersHost) -> tuple[str, ...]:
    """Return a sentence for each part of the prompts that `host` did not see, or saw otherwise: <lora:...> tags,
    schedules, textual inversions, words past its limit."""
    prompt, tags = split_extra_networks(request.prompt)
    drawn_with = {(kind, name) for name, _ in host.loras for kind in ("lora", "lyco")}
    tags = [tag for tag in tags if tag[:2] not in drawn_with]
    notes: list[str] = []
    if request.vae not in (None, *OWN_VAE):
        notes.append(f"VAE {listed([request.vae])} was not loaded; the model's own was used")
    if tags:
        names = listed([f"{kind} {name}" for kind, name, _ in tags])
        notes.append(f"left out of the prompt: {names}; give the files with --lora")
    notes += undrawn(embedding_names(f"{request.prompt}, {request.negative_prompt}"))
    for name, text in (("prompt", prompt), ("negative prompt", split_extra_networks(request.negative_prompt)[0])):
        drawn, changed = settle(text)
        notes += [f"in the {name}, {' and '.join(changed)}"] if changed else []
        note = host.cut_note(drawn)
        if note is not None:
            notes.append(note)
    return tuple(notes)


def what_ran(done: hires.Upscaled, request: HiresRequest, host: DiffusersHost) -> Ran:
    """Return the record of what ran: FAM's dials only if FM or AM acted, and a part that did not act as off."""
    sampler, schedule = split_name(request.sampler, request.schedule)
    fm_calls, am_calls = done.report.fm_calls, sum(done.report.am_calls.values())
    acted = fm_calls > 0 or am_calls > 0
    return Ran(
        config=done.config.replace(fm=fm_calls > 0, am=am_calls > 0) if acted else None,
        method=done.method,
        steps=request.steps,
        sampler=sampler,
        schedule=schedule,
        cfg_scale=request.cfg_scale,
        seed=request.seed,
        model=host.name,
        vae=OWN_VAE[0],
        clip_skip=request.clip_skip if host.has_clip_skip else None,
        timestep_spacing=spacing_that_runs(sampler, schedule, request.timestep_spacing),
        model_hash=host.weights_hash()[:SHORT_HASH] or None,
        loras=", ".join(f"{shown(name)}:{weight:g}" for name, weight in host.loras) or None,
        size=request.size,
        steps_taken=done.steps,
        fm_calls=fm_calls,
        am_calls=am_calls,
        peak_memory=peak_memory(host.device),
        seconds=done.seconds,
        notes=what_was_left_out(request, host),
    )


def _guarded(run: Any) -> Any:  # noqa: ANN401
    """Return `run()`; a device that ran out of memory becomes our own error, with its cache given back."""
    try:
        return run()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        reason = str(error).split(".")[0].splitlines()[:1] or [type(error).__name__]
        raise OutOfMemoryError(
            f"the memory ran out ({reason[0]}); use a smaller size or tile, --low-memory, or --offload model"
        ) from error
