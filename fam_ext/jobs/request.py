"""The data that travels: one picture's request, what a renderer gives back, and the renderer itself. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from fam_ext.core.config import FamConfig

METHODS = ("fam", "direct", "direct-from-native", "skip-residual")


@dataclass(frozen=True)
class HiresRequest:
    """One picture to make: everything the result depends on, and nothing else. Equal requests give equal pictures."""

    size: tuple[int, int]
    """Target (height, width) in pixels, multiples of 8."""
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 30
    sampler: str = "DDIM"
    schedule: str = "Automatic"
    cfg_scale: float = 7.0
    method: str = "fam"
    """One of METHODS: FAM, or the paper's ablation rows DI, DI*, SR."""
    config: FamConfig = field(default_factory=FamConfig)
    model: str | None = None
    """Checkpoint by name, hash or path; None = the renderer's own."""
    vae: str | None = None
    clip_skip: int | None = None
    tile: int | None = None
    """Side in pixels of the VAE's tiles; None = automatic, 0 = never tiled. The degrade chain lowers it."""
    low_memory: bool = False
    """Trade speed for memory (attention in chunks, models off the device while they rest). The degrade chain sets it;
    a renderer that cannot may ignore it."""


@dataclass(frozen=True)
class Rendered:
    """A finished picture with what really ran, for its metadata."""

    image: Image.Image
    ran: Mapping[str, str]
    """Infotext keys and values that describe what ran: `FAM ...` keys only where FAM acted."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """Callables that travel down: `step(done, total)` after each sampler step; `cancelled()` is asked between steps."""

    step: Callable[[int, int], None] = lambda done, total: None
    cancelled: Callable[[], bool] = lambda: False


class Renderer(Protocol):
    """Turns a native picture and its request into a target picture. Models are loaded once and kept."""

    name: str

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        """Return the picture at `request.size`. `image` is RGB, upright, alpha already dealt with.

        Raises `FamError`s: `Cancelled`, `OutOfMemoryError`, `UnsupportedSamplerError`, `NonFiniteLatentError`...; other
        exceptions are the renderer's own faults and are reported with their type.
        """
        ...
