"""Jumps where there should be none: over the borders of tiles, and between opposite edges of a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fam_ext.core.schedule import Size
from fam_ext.methods.upscaler import OVERLAP
from fam_ext.methods.views import tiles
from fam_ext.quality.structure import Picture, downsampled
from fam_ext.recipe import GRID

BAND = 4
"""px on each side of a line whose means are compared."""
AROUND = (16, 24, 32, 40)
"""px from a line to those it is held against, on both sides."""
LEAST = 0.5
"""Levels of 255 that a step elsewhere counts at least, so that a plain ground is no seam."""


def seams(picture: Picture, native: Picture) -> dict[str, float | None]:
    """Return "seam", "wrap_sides" and "wrap_ends" of `picture`, made from `native`.

    "seam" is the step over the borders of `tiled`'s tiles, for every method alike, over the step beside them: 1 is no
    seam. None where one tile is the whole. "wrap_sides" is the mean difference, in levels of 255, of the left and right
    edge, "wrap_ends" of top and bottom, both less that of the native picture: a picture that joins them has less.
    """
    small = downsampled(picture, native.shape[:2])
    (sides, ends), (native_sides, native_ends) = _edges(small), _edges(native)
    return {
        "seam": seam(picture, native.shape[:2]),
        "wrap_sides": sides - native_sides,
        "wrap_ends": ends - native_ends,
    }


def seam(picture: Picture, native: tuple[int, ...]) -> float | None:
    """Return the step over the borders of tiles of size `native` in `picture`, over the step beside them."""
    rows, columns = tile_lines((picture.shape[0], picture.shape[1]), (native[0], native[1]))
    light = picture.astype(np.float64).mean(axis=2)
    found = [step for lines, turned in ((rows, light), (columns, light.T)) for line in lines
             if (step := _step_ratio(turned, line)) is not None]  # fmt: skip
    return float(np.mean(found)) if found else None


def tile_lines(size: Size, native: Size) -> tuple[list[int], list[int]]:
    """Return the rows and columns, in px, at which `tiled`'s kept parts meet inside a picture of `size`."""
    whole, window = (tuple(side // GRID for side in sides) for sides in (size, native))
    window = (min(window[0], whole[0]), min(window[1], whole[1]))
    overlap = (round(window[0] * OVERLAP), round(window[1] * OVERLAP))
    kept = [kept for _, kept in tiles((whole[0], whole[1]), window, overlap)]
    rows, columns = ({part[axis].start * GRID for part in kept if part[axis].start} for axis in (0, 1))
    return sorted(rows), sorted(columns)


def _step_ratio(light: NDArray[np.float64], line: int) -> float | None:
    beside = [line + side * away for away in AROUND for side in (-1, 1)]
    beside = [place for place in beside if BAND <= place <= len(light) - BAND]
    if not beside:
        return None
    elsewhere = float(np.mean([_step(light, place) for place in beside]))
    return max(_step(light, line), LEAST) / max(elsewhere, LEAST)


def _step(light: NDArray[np.float64], line: int) -> float:
    return float(np.abs(light[line : line + BAND].mean(axis=0) - light[line - BAND : line].mean(axis=0)).mean())


def _edges(picture: Picture) -> tuple[float, float]:
    values = picture.astype(np.float64)
    return float(np.abs(values[:, 0] - values[:, -1]).mean()), float(np.abs(values[0] - values[-1]).mean())
