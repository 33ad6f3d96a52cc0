"""Enlarging without diffusion: by Lanczos, or by a super-resolution network from a file that the user has.

The library spandrel knows the networks' architectures; it is imported when a file is given, and not before.
"""

from __future__ import annotations

import functools
import math
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fam_ext.errors import Cancelled, ConfigError, NonFiniteLatentError, UnsupportedModelError, UsageError

OVERLAP = 16
"""Pixels round a tile that the network sees and whose result is thrown away."""
TILE = 256
LEAST_TILE = 4 * OVERLAP
PICKLED = (".pth", ".pt", ".ckpt", ".bin")


def lanczos(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return `image` as RGB at `size` (height, width) in pixels, by Lanczos' filter."""
    return image.convert("RGB").resize((size[1], size[0]), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Span:
    """One axis of a tile, in pixels of the picture: what it makes, and what the network is given for it."""

    start: int
    stop: int
    first: int
    last: int


def spans(side: int, tile: int) -> list[Span]:
    """Return spans that together make each of `side` pixels once, each from at most `tile` pixels; 0: one span."""
    if tile == 0 or side <= tile:
        return [Span(0, side, 0, side)]
    count = math.ceil(side / (tile - 2 * OVERLAP))
    edges = pairwise(side * index // count for index in range(count + 1))
    return [Span(start, stop, max(0, start - OVERLAP), min(side, stop + OVERLAP)) for start, stop in edges]


@dataclass(frozen=True)
class Upscaler:
    """A super-resolution network, ready to run; see `load`."""

    name: str
    """The file's name and the network's own architecture."""
    scale: int
    network: Callable[[Tensor], Tensor]
    """From (1, 3, h, w) in [0, 1] to (1, 3, h * scale, w * scale)."""
    device: torch.device
    dtype: torch.dtype = torch.float32
    tiles: bool = True
    """False: the network needs the whole picture, or divides it itself."""

    def enlarge(
        self,
        image: Image.Image,
        size: tuple[int, int],
        *,
        tile: int | None = None,
        step: Callable[[int, int], None] = lambda done, total: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Image.Image:
        """Return `image` as RGB at `size` (height, width) in pixels: by the network, the rest by Lanczos.

        The network runs as often as comes nearest to `size`. It is given at most `tile` pixels a side at once (None:
        256, 0: all): memory grows with that, and with the result as bytes. `step(done, total)` is called after each
        tile, `cancelled()` before it. Raises `Cancelled`, `ConfigError`, `NonFiniteLatentError`.
        """
        tile = TILE if tile is None else tile
        if tile < 0 or 0 < tile < LEAST_TILE:
            raise ConfigError(f"tile is {tile}; choose 0 (the whole picture at once) or at least {LEAST_TILE} px")
        pixels = np.asarray(image.convert("RGB"))
        ratio = max(size[0] / image.height, size[1] / image.width)
        runs = max(1, round(math.log(ratio, self.scale)))
        plans = [
            self._tiles(image.height * self.scale**run, image.width * self.scale**run, tile) for run in range(runs)
        ]
        done, total = 0, sum(map(len, plans))
        for plan in plans:
            larger = np.empty((pixels.shape[0] * self.scale, pixels.shape[1] * self.scale, 3), np.uint8)
            for rows, columns in plan:
                if cancelled():
                    raise Cancelled(f"stopped by the user after {done} of {total} tiles")
                there = _places(rows.start, rows.stop, columns.start, columns.stop, scale=self.scale)
                larger[there] = self._made(pixels, rows, columns)
                done += 1
                step(done, total)
            pixels = larger
        return lanczos(Image.fromarray(pixels), size)

    def _tiles(self, height: int, width: int, tile: int) -> list[tuple[Span, Span]]:
        tile = tile if self.tiles else 0
        return list(product(spans(height, tile), spans(width, tile)))

    @torch.inference_mode()
    def _made(self, pixels: np.ndarray, rows: Span, columns: Span) -> np.ndarray:
        """Return what the network makes of a tile, without the overlap: (h * scale, w * scale, 3) in uint8."""
        given = torch.from_numpy(pixels[rows.first : rows.last, columns.first : columns.last].copy())
        given = (given.to(self.device).permute(2, 0, 1)[None].float() / 255).to(self.dtype)
        made = self.network(given)[0].float()
        if not made.isfinite().all():
            raise NonFiniteLatentError(f"{self.name} gave values that are not finite; use --dtype float32")
        top, left = rows.first, columns.first
        inner = _places(rows.start - top, rows.stop - top, columns.start - left, columns.stop - left, scale=self.scale)
        return (made.permute(1, 2, 0)[inner].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _places(top: int, bottom: int, left: int, right: int, *, scale: int) -> tuple[slice, slice]:
    return slice(top * scale, bottom * scale), slice(left * scale, right * scale)


def load(path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Upscaler:
    """Return the super-resolution network of a model file that spandrel knows, on `device`.

    `dtype` None is float32 on a CPU, elsewhere the shortest that the network can do. The last one stays loaded. Nothing
    in a file is run: of a pickle the weights alone are read. Raises `UsageError` without the file or spandrel, and
    `UnsupportedModelError` for a file that is no model, or not one that enlarges RGB pictures.
    """
    path = Path(path).absolute()
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give a super-resolution model file") from None
    if not path.is_file():  # a FIFO would be waited for
        raise UsageError(f"{path} is no file; give a super-resolution model file")
    return _load(path, (status.st_mtime_ns, status.st_size), torch.device(device), dtype)


@functools.lru_cache(maxsize=1)
def _load(path: Path, state: tuple[int, int], device: torch.device, dtype: torch.dtype | None) -> Upscaler:
    spandrel = _spandrel()
    weights = spandrel.canonicalize_state_dict(_weights(path))
    try:
        model = spandrel.ModelLoader().load_from_state_dict(weights)
    except spandrel.UnsupportedModelError:
        raise UnsupportedModelError(
            f"{path.name} holds weights of no architecture that spandrel {spandrel.__version__} knows; give a"
            " super-resolution model"
        ) from None
    except Exception as error:  # each architecture reads the names and shapes in its own way
        raise UnsupportedModelError(
            f"the weights in {path.name} do not fit their architecture ({_reason(error)}); get the file again"
        ) from error
    architecture = model.architecture.name
    if model.purpose != "SR" or model.scale < 2:
        raise UnsupportedModelError(
            f"{path.name} is {architecture} for {model.purpose} at {model.scale}x; give a super-resolution model"
        )
    if (model.input_channels, model.output_channels) != (3, 3):
        raise UnsupportedModelError(
            f"{path.name} makes {model.output_channels} channels of {model.input_channels}; give one for RGB pictures"
        )
    dtype = dtype or _shortest(model, device)
    try:
        model.to(device, dtype)
    except spandrel.UnsupportedDtypeError:
        raise ConfigError(f"{path.name} ({architecture}) cannot run in {dtype}; choose float32") from None
    return Upscaler(
        name=f"{''.join(mark if mark.isprintable() else '?' for mark in path.stem)} ({architecture} {model.scale}x)",
        scale=model.scale,
        network=model.eval(),
        device=device,
        dtype=dtype,
        tiles=model.tiling != spandrel.ModelTiling.INTERNAL,
    )


def _shortest(model: Any, device: torch.device) -> torch.dtype:  # noqa: ANN401  # spandrel's own
    if device.type == "cpu":
        return torch.float32
    if model.supports_half:
        return torch.float16
    return torch.bfloat16 if model.supports_bfloat16 else torch.float32


def _spandrel() -> Any:  # noqa: ANN401  # a module
    try:
        return import_module("spandrel")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a super-resolution model file needs the package {error.name}, which is not installed; run: pip install"
            " 'fam-hires[upscalers]'"
        ) from None
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise UsageError(
            f"spandrel does not load ({_reason(error)}); install the torchvision that belongs to torch"
            f" {torch.__version__}"
        ) from error


def _weights(path: Path) -> dict[str, Any]:
    """Return what a file holds, on the CPU. Nothing in it is run."""
    kind = path.suffix.lower()
    if kind not in (".safetensors", *PICKLED):
        raise UnsupportedModelError(f"{path.name} is not a {', '.join(('.safetensors', *PICKLED))} file; give one")
    try:
        if kind == ".safetensors":
            found = import_module("safetensors.torch").load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say, the errors after them say again
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UnsupportedModelError(
            f"{path.name} is broken or holds more than weights, and no code from a file is run; give the model as"
            " .safetensors"
        ) from None
    except Exception as error:  # of a broken file: many kinds, by format and by version
        raise UnsupportedModelError(
            f"{path.name} cannot be read as weights ({_reason(error)}); get the file again, or give another"
        ) from None
    if not isinstance(found, dict):
        raise UnsupportedModelError(f"{path.name} holds no weights by name; give a super-resolution model")
    return found


def _reason(error: Exception) -> str:
    """Return the first sentence of what a library said, or the error's kind where it said none."""
    text = str(error).strip().split("\n")[0].split(". ")[0]
    return text[:120] if " " in text else type(error).__name__
