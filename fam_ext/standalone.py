"""The composition root without a WebUI: load a model, render requests, generate from text."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fam_ext import hires
from fam_ext.core.schedule import Size
from fam_ext.errors import OutOfMemoryError, UnsupportedModelError, UsageError, is_out_of_memory
from fam_ext.hosts.diffusers.host import OFFLOADS, DiffusersHost
from fam_ext.hosts.diffusers.prompts import split_extra_networks
from fam_ext.hosts.memory import peak_memory, watch_memory
from fam_ext.jobs.contract import Progress, Ran, Rendered
from fam_ext.options.request import HiresRequest
from fam_ext.samplers.names import spacing_that_runs, split_name
from fam_ext.weights import architecture, marked_training, weights_hash

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SUPPORTED = "SD1.5, SD2.1 and SDXL"
MAX_NOTED_TAGS = 5
MAX_NOTED_NAME = 60
SHORT_HASH = 10
"""Digits of a model's SHA-256 that the WebUI writes."""
OWN_VAE = ("None", "Automatic")
"""The WebUI's words for the checkpoint's own VAE, and for it where no file lies beside it: the only one that runs."""
PICKLES = (".ckpt", ".pt", ".pth", ".bin")

# key in the checkpoint -> what it is; the first that is there decides


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
    target = _device(device)
    if offload not in OFFLOADS:
        raise UsageError(f"offload is {offload!r}; choose one of {', '.join(OFFLOADS)}")
    precision = _dtype(dtype, target)
    source = demo_model() if path is None else Path(path).expanduser()
    _quiet_libraries()
    if not source.exists():
        raise UnsupportedModelError(f"model {source} does not exist; give a diffusers folder or a .safetensors file")

    def load() -> DiffusersHost:
        pipe = _from_folder(source, precision) if source.is_dir() else _from_file(source, precision, config)
        _check_network(pipe, source.name)
        for file, weight in loras:
            _add_lora(pipe, file, weight)
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
        )

    name = "fluent-tiny (embedded)" if path is None else source.stem
    host = _guarded(load)
    log.info("%s loaded on %s as %s in %.1f s", name, target, precision, time.perf_counter() - began)
    return host


class DiffusersRenderer:
    """A `jobs.contract.Renderer` on diffusers: loads a model at the first request that needs it and keeps it."""

    name = "diffusers"
    can_give_up = ("tile", "low_memory", "am")

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        loras: Sequence[tuple[str, float]] = (),
        offload: str = "none",
        clip_l_skip: bool = False,
    ) -> None:
        self._loading: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "loras": loras,
            "offload": offload,
            "clip_l_skip": clip_l_skip,
        }
        self._model = model
        self._host: DiffusersHost | None = None

    @property
    def host(self) -> DiffusersHost:
        """The loaded model."""
        if self._host is None:
            self._host = load_pipeline(self._model, **self._loading)
        return self._host

    def load(self) -> None:
        """Load the model now. Errors as `load_pipeline`."""
        self._host = self.host

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        """Return `image` (RGB, upright) at `request.size`; see `jobs.contract.Renderer`.

        The model is the renderer's own: a name in the request's metadata is not looked up.
        """
        return render_on(self.host, image, request, progress)


def render_on(host: DiffusersHost, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
    """Return `image` (RGB, upright) at `request.size`, made by `host`, with what ran. Errors as `hires.upscale`."""
    watch_memory(host.device)
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
            callbacks=hires.Callbacks(progress.step, progress.cancelled),
        )
    )
    return Rendered(done.image, what_ran(done, request, host))


def load_renderer(
    model: str | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    loras: Sequence[tuple[str, float]] = (),
    offload: str = "none",
    clip_l_skip: bool = False,
) -> DiffusersRenderer:
    """Return a renderer on `model` (see `load_pipeline`), loaded when it is first used."""
    return DiffusersRenderer(model, device=device, dtype=dtype, loras=loras, offload=offload, clip_l_skip=clip_l_skip)


def generate(
    host: DiffusersHost, request: HiresRequest, *, native: Size | None = None, progress: Progress | None = None
) -> tuple[Rendered, Image.Image]:
    """Return a picture made from text at `request.size`, with the native picture it was made from.

    The native pass runs at `native` (height, width; None: the trained size at the target's aspect ratio) with the same
    prompt, seed, sampler and steps, and is recorded: AM attends to it. `progress.step` counts both passes.
    """
    progress = progress or Progress()
    sampling = request_sampling(request)

    def run() -> hires.Upscaled:
        first = hires.generate_native(
            host,
            size=native or hires.native_size(host, request.size),
            sampling=sampling,
            tile=request.tile,
            callbacks=hires.Callbacks(lambda done, total: progress.step(done, 2 * total), progress.cancelled),
        )
        return hires.upscale(
            host,
            first,
            size=request.size,
            sampling=sampling,
            config=request.config,
            method=request.method,
            tile=request.tile,
            low_memory=request.low_memory,
            callbacks=hires.Callbacks(lambda done, total: progress.step(total + done, 2 * total), progress.cancelled),
        )

    watch_memory(host.device)
    done = _guarded(run)
    return Rendered(done.image, what_ran(done, request, host)), done.native


def request_sampling(request: HiresRequest) -> hires.Sampling:
    """Return the sampling part of `request`; <lora:...> tags, which a WebUI resolves, are left out."""
    return hires.Sampling(
        prompt=split_extra_networks(request.prompt)[0],
        negative_prompt=split_extra_networks(request.negative_prompt)[0],
        seed=request.seed,
        steps=request.steps,
        sampler=request.sampler,
        schedule=request.schedule,
        cfg_scale=request.cfg_scale,
        clip_skip=request.clip_skip,
        timestep_spacing=request.timestep_spacing,
    )


def what_was_left_out(request: HiresRequest, host: DiffusersHost) -> tuple[str, ...]:
    """Return a sentence for each part of the prompts that `host` did not see: <lora:...> tags, words past its limit."""
    prompt, tags = split_extra_networks(request.prompt)
    notes: list[str] = []
    if request.vae not in (None, *OWN_VAE):
        notes.append(f"VAE {request.vae[:MAX_NOTED_NAME]} was not loaded; the model's own was used")
    if tags:
        names = [f"{kind} {name[:MAX_NOTED_NAME]}" for kind, name, _ in tags[:MAX_NOTED_TAGS]]
        more = f" and {len(tags) - MAX_NOTED_TAGS} more" if len(tags) > MAX_NOTED_TAGS else ""
        notes.append(f"left out of the prompt: {', '.join(names)}{more}; give the files with --lora")
    for text in (prompt, split_extra_networks(request.negative_prompt)[0]):
        note = host.cut_note(text)
        if note is not None:
            notes.append(note)
    return tuple(notes)


def what_ran(done: hires.Upscaled, request: HiresRequest, host: DiffusersHost) -> Ran:
    """Return the record of what ran: FAM's dials only if FM or AM acted, and a part that did not act as off."""
    sampler, schedule = split_name(request.sampler, request.schedule)
    fm_calls, am_calls = done.report.fm_calls, sum(done.report.am_calls.values())
    acted = fm_calls > 0 or am_calls > 0
    return Ran(
        config=request.config.replace(fm=fm_calls > 0, am=am_calls > 0) if acted else None,
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
        size=request.size,
        steps_taken=done.steps,
        fm_calls=fm_calls,
        am_calls=am_calls,
        peak_memory=peak_memory(host.device),
        seconds=done.seconds,
        notes=what_was_left_out(request, host),
    )


def _from_folder(folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401
    import diffusers

    index = folder / "model_index.json"
    if not index.is_file():
        raise UnsupportedModelError(f"{folder} has no model_index.json; give the folder of a diffusers pipeline")
    parts = json.loads(index.read_text(encoding="utf-8"))
    kind = parts.get("_class_name", "")
    if "XL" in kind and (parts.get("text_encoder") or [None])[0] is None:
        raise UnsupportedModelError(f"{folder.name} is the SDXL refiner; choose a model of {SUPPORTED}")
    if kind not in ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline"):
        raise UnsupportedModelError(
            f"{folder.name} is a {kind or 'folder of unknown kind'}; choose a model of {SUPPORTED}"
        )
    weights = list((folder / "unet").glob("*.safetensors"))
    if not weights:
        raise UnsupportedModelError(f"{folder.name} has no .safetensors weights; pickled weights are not loaded")
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
    # diffusers takes the plain files of a part that has no such variant
    if any(files and all(".fp16." in name for name in files) for files in map(_weights_in, folder.iterdir())):
        options["variant"] = "fp16"
    if kind != "StableDiffusionXLPipeline":
        options |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        return getattr(diffusers, kind).from_pretrained(folder, **options)
    except OSError as error:
        raise UnsupportedModelError(
            f"{folder.name} lacks a part or its .safetensors weights ({str(error).splitlines()[0][:200]}); pickled"
            " weights are not loaded: give a whole pipeline, saved as safetensors"
        ) from error


def _weights_in(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("*.safetensors")] if folder.is_dir() else []


def _from_file(file: Path, dtype: torch.dtype, config: str | os.PathLike[str] | None) -> Any:  # noqa: ANN401
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

    if file.suffix.lower() in PICKLES:
        raise UnsupportedModelError(
            f"{file.name} is a pickled checkpoint, which can run code; convert it to .safetensors, the only kind loaded"
        )
    kind = architecture(file)
    if kind not in ("SD1.5", "SD2.1", "SDXL"):
        raise UnsupportedModelError(f"{file.name} is {kind}; choose a model of {SUPPORTED}")
    pipeline = StableDiffusionXLPipeline if kind == "SDXL" else StableDiffusionPipeline
    options: dict[str, Any] = {"dtype": dtype}
    if config is not None:
        options |= {"config": str(config), "local_files_only": True}
    if kind != "SDXL":
        options |= {"safety_checker": None}
    try:
        pipe = pipeline.from_single_file(str(file), **options)
    except OSError as error:
        raise UnsupportedModelError(
            f"{file.name} is {kind}, whose settings and tokenizer could not be fetched; go online once, or give a"
            " diffusers folder of the same architecture with --model-config"
        ) from error
    pipe.scheduler.register_to_config(**marked_training(file))  # its class may not know them; only settings are read
    return pipe


def _check_network(pipe: Any, name: str) -> None:  # noqa: ANN401
    """Raise `UnsupportedModelError` for a network or a scheduler of a kind that is not text to image by betas."""
    kinds = {9: "an inpainting model (9 channels)", 8: "a pix2pix model (8 channels)"}
    channels = pipe.unet.config.in_channels
    if channels in kinds:
        raise UnsupportedModelError(f"{name} is {kinds[channels]}; choose a text-to-image model of {SUPPORTED}")
    family = type(pipe.scheduler).__name__
    if "beta_schedule" not in pipe.scheduler.config:
        raise UnsupportedModelError(
            f"{name} has the scheduler {family}, of another family than {SUPPORTED}'s (betas); choose another model"
        )


def _add_lora(pipe: Any, file: str, weight: float) -> None:  # noqa: ANN401
    path = Path(file).expanduser()
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        raise UnsupportedModelError(f"LoRA {path} is not a .safetensors file; give the path of one")
    name = "".join(letter if letter.isalnum() else "_" for letter in path.stem)
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name, local_files_only=True)
        pipe.fuse_lora(lora_scale=weight, adapter_names=[name])
        pipe.unload_lora_weights()
    except (ValueError, KeyError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"LoRA {path.name} does not fit the model ({str(error).splitlines()[0]}); use one for this architecture"
        ) from error


def _device(name: str | None) -> torch.device:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name is None:
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if available[device]))
    kind = name.split(":")[0]
    if kind not in available or not available[kind]:
        there = ", ".join(device for device, present in available.items() if present)
        raise UsageError(f"device is {name!r}; choose one that this machine has: {there}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device is {name!r}; choose {kind} or a numbered one such as {kind}:0") from None
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if device.index is not None and device.index >= count:
        there = ", ".join(f"{kind}:{index}" for index in range(count))
        raise UsageError(f"device is {name!r}; choose one that this machine has: {there}")
    return device


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in DTYPES:
        raise UsageError(f"dtype is {name!r}; choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _quiet_libraries() -> None:
    """Keep the loaders' progress bars and advice off the terminal, which is the job's."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()


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
