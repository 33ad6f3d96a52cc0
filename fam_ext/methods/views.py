"""Calling the network on parts of a latent, each for itself, and putting together what it says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.base import Call, Condition, Pictures, Stage

View = tuple[slice, slice]
"""Rows and columns of a latent."""


@dataclass(frozen=True)
class WindowStage(Stage):
    """A stage whose network sees `window` at once."""

    window: Size = (512, 512)
    """(height, width) in pixels."""

    def latent_window(self, pictures: Pictures) -> Size:
        """Return `window` in latent pixels."""
        return tuple(
            min(side, max(1, round(side * part / whole)))
            for side, part, whole in zip(pictures.noise.shape[-2:], self.window, self.size, strict=True)
        )  # type: ignore[return-value]


def windows(size: Size, window: Size, stride: Size, *, shift: Size = (0, 0)) -> list[View]:
    """Return views of `window` that together cover a latent of `size`, all (height, width) in latent pixels.

    They stand `stride` apart, the last one at the border; those between the borders are moved by `shift`, at most as
    far as they overlap.
    """
    rows, columns = (_starts(*sides) for sides in zip(size, window, stride, shift, strict=True))
    return [(slice(y, y + window[0]), slice(x, x + window[1])) for y in rows for x in columns]


def _starts(side: int, window: int, stride: int, shift: int) -> list[int]:
    last = side - window
    shift = max(stride - window, min(shift, window - stride))
    return sorted({0, last, *(min(max(start + shift, 0), last) for start in range(stride, last, stride))})


def jitter(level: NoiseLevel, most: Size) -> Size:
    """Return a shift of up to `most` each way that `level` alone decides: a step that is called again has the same."""
    generator = torch.Generator().manual_seed(round(level.timestep * 1000))
    down, right = (int(torch.randint(-bound, bound + 1, (), generator=generator)) for bound in most)
    return down, right


def tiles(size: Size, window: Size, overlap: Size) -> list[tuple[View, View]]:
    """Return pairs of views of a latent of `size`: what the network is given, at most `window`, and the part of it that
    is kept; each pixel is kept once. Given are `overlap` more on each side, but for the latent's borders."""
    rows, columns = (_parts(*sides) for sides in zip(size, window, overlap, strict=True))
    return [((given, given_x), (kept, kept_x)) for given, kept in rows for given_x, kept_x in columns]


def _parts(side: int, window: int, overlap: int) -> list[tuple[slice, slice]]:
    inner = window - 2 * overlap if side > window else side
    count = math.ceil(side / inner)
    edges = [side * index // count for index in range(count + 1)]
    return [
        (slice(max(0, start - overlap), min(side, stop + overlap)), slice(start, stop))
        for start, stop in pairwise(edges)
    ]


def averaged(
    call: Call,
    latent: Tensor,
    level: NoiseLevel,
    condition: Condition,
    views: Sequence[View],
    *,
    conditions: Sequence[Condition] | None = None,
) -> Tensor:
    """Return the mean, at each pixel of `latent` (rows, C, H, W), of what the network says of the views it is in.

    `conditions` are the views' own; None: `condition` for each.
    """
    total, count = torch.zeros_like(latent), torch.zeros_like(latent[:1, :1])
    for (rows, columns), own in zip(views, conditions or [condition] * len(views), strict=True):
        total[..., rows, columns] += call(latent[..., rows, columns], level, own)
        count[..., rows, columns] += 1
    return total / count


def tiled(
    call: Call, latent: Tensor, level: NoiseLevel, condition: Condition, parts: Sequence[tuple[View, View]]
) -> Tensor:
    """Return what the network says of each kept part of `latent` (rows, C, H, W) when it is given the whole tile."""
    out = torch.empty_like(latent)
    for (rows, columns), (kept, kept_columns) in parts:
        said = call(latent[..., rows, columns], level, condition)
        inside = said[..., kept.start - rows.start : kept.stop - rows.start, :]
        out[..., kept, kept_columns] = inside[
            ..., kept_columns.start - columns.start : kept_columns.stop - columns.start
        ]
    return out


def dilated(call: Call, latent: Tensor, level: NoiseLevel, condition: Condition, factor: int) -> Tensor:
    """Return what the network says of the factor^2 small pictures that every factor-th pixel of `latent` makes."""
    out = torch.empty_like(latent)
    for row in range(factor):
        for column in range(factor):
            rows, columns = slice(row, None, factor), slice(column, None, factor)
            out[..., rows, columns] = call(latent[..., rows, columns], level, condition)
    return out
