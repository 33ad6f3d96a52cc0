"""What travels between a job and its renderer: progress down, the finished picture and what ran up. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from fam_ext.options.request import HiresRequest


@dataclass(frozen=True)
class Rendered:
    """A finished picture with what really ran, for its metadata."""

    image: Image.Image
    ran: Mapping[str, str]
    """Infotext keys and values that describe what ran: `FAM ...` keys only where FAM acted."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What was asked for and could not be done, one sentence each; they go into the picture's notes and the report."""


@dataclass(frozen=True)
class Progress:
    """Callables that travel down: `step(done, total)` after each sampler step; `cancelled()` is asked between steps."""

    step: Callable[[int, int], None] = lambda done, total: None
    cancelled: Callable[[], bool] = lambda: False


class Renderer(Protocol):
    """Turns a native picture and its request into a target picture. Models are loaded once and kept."""

    name: str
    # and, where it can: can_give_up: tuple[str, ...], what the degrade chain may take from a request ("tile",
    # "low_memory", "am"); a renderer that does not say so is not asked to

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        """Return the picture at `request.size`. `image` is RGB, upright, alpha already dealt with.

        Raises `FamError`s: `Cancelled`, `OutOfMemoryError`, `UnsupportedSamplerError`, `NonFiniteLatentError`...; other
        exceptions are the renderer's own faults and are reported with their type.
        """
        ...
