"""What the loaded model and the machine say: native sizes, what decides pixels beside a request, where it ran."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

import torch

import fam_ext
from fam_ext import __version__, hires, standalone
from fam_ext.errors import UsageError
from fam_ext.hosts.diffusers.host import DiffusersHost
from fam_ext.options.renderer import RendererChoice
from fam_ext.quality.protocol import Size, size_words
from fam_ext.weights import settings_hash, weights_hash

CODE = ("core", "hosts", "methods", "samplers", "hires.py", "recipe.py", "standalone.py", "upscalers.py")
"""What of fam_ext draws pictures."""


def native_and_target(host: DiffusersHost, wanted: float | Size) -> tuple[Size, Size]:
    """Return the native and the target size of a factor, or of a (height, width) of any aspect. Raises `UsageError` for
    a target smaller than the native picture, or so long that the native one has a side of too few px to measure."""
    side = host.native_side
    if not isinstance(wanted, tuple):
        target = round(side * wanted / 8) * 8
        return (side, side), (target, target)
    native = hires.native_size(host, wanted)
    if min(native) < hires.MIN_NATIVE_SIDE:
        raise UsageError(
            f"--sizes has {size_words(wanted)}; the native picture of that aspect is {size_words(native)}, and at least"
            f" {hires.MIN_NATIVE_SIDE} px a side are measured, so choose a squarer one"
        )
    if native[0] > wanted[0] or native[1] > wanted[1]:
        raise UsageError(
            f"--sizes has {size_words(wanted)}; the native picture of that aspect is {size_words(native)}, "
            "so choose at least that"
        )
    return native, wanted


def surroundings(host: DiffusersHost, renderer: RendererChoice) -> dict[str, object]:
    """Return what decides pixels beside a request, as JSON values."""
    model = standalone.demo_model() if renderer.model is None else Path(renderer.model)
    config, upscaler = renderer.model_config, renderer.arguments["upscaler"]
    return {
        "version": __version__,
        "code": code_hash(),
        "model": host.weights_hash(),
        "settings": settings_hash(model),
        "model_config": None if config is None else settings_hash(Path(config)),
        "loras": [[weights_hash(Path(file)), weight] for file, weight in renderer.weighted_loras],
        "upscaler": None if upscaler is None else weights_hash(Path(upscaler)),
        "clip_l_skip": renderer.sdxl_clip_l_skip,
        "device": host.device.type,
        "dtype": str(host.dtype),
        "offload": renderer.offload,
    }


def code_hash() -> str:
    """Return the SHA-256 of the code that draws pictures: a method that is mended has other rows than before."""
    home = Path(fam_ext.__file__).parent
    found = hashlib.sha256()
    for part in CODE:
        for path in sorted((home / part).rglob("*.py")) or [home / part]:
            found.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def measuring_weights(inception: str | None, clip: str | None) -> list[str]:
    """Return the SHA-256 of what the user measures with: Inception's file, and in CLIP's folder the weights, and the
    settings with tokenizer and preprocessor."""
    found = [] if inception is None else [weights_hash(Path(inception).expanduser())]
    if clip is not None:
        folder = Path(clip).expanduser()
        found += [*(weights_hash(file) for file in sorted(folder.glob("*.safetensors"))), settings_hash(folder)]
    return found


def libraries() -> str:
    """Return the versions of the libraries that draw. They are no part of a row's fingerprint: an upscaler may need
    another torch than the rest, and both belong into one table, which says so."""
    return f"torch {torch.__version__}, diffusers {version('diffusers')}"


def machine(host: DiffusersHost) -> str:
    """Return on what the times were measured."""
    if host.device.type == "cuda":
        return f"{torch.cuda.get_device_name(host.device)}, {host.dtype}"
    return f"{_processor()} {host.device.type}, {torch.get_num_threads()} threads, {host.dtype}"


def _processor() -> str:
    """Return the processor's name where the system tells it, else its kind."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as lines:
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
