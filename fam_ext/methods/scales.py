"""By how much a picture is enlarged, which rounding to latent pixels hides."""

from __future__ import annotations

from collections.abc import Sequence

GRID = 8
"""Pixels of a picture for one of its latent."""


def scales(size: Sequence[float], native: Sequence[float]) -> tuple[float, float]:
    """Return by how much `size` is larger than `native`, for height and width, both in latent pixels.

    A whole number from 2 on wherever it may have been one before both were rounded.
    """
    height, width = (_scale(*sides) for sides in zip(size, native, strict=True))
    return height, width


def _scale(side: float, native: float) -> float:
    whole = round(side / native)
    most = (whole + 1) // 2 if whole > 1 else 0  # what was rounded to `native` was at most a half away
    return float(whole) if abs(side - whole * native) <= most else side / native
