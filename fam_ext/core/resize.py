"""Separable resizing as row-stochastic matrices: U of Eq. 7 on the query grid, its normalised adjoint on the keys."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from fam_ext.core.schedule import Size
from fam_ext.errors import ConfigError


@lru_cache(maxsize=256)
def resize_matrix(source: int, target: int, interp: str = "bilinear") -> Tensor:
    """Return R (target, source) in float64: `R @ values` resizes a line with half-pixel centres; every row sums to 1.

    Equals `interpolate(mode="bilinear", align_corners=False)` or `mode="nearest-exact"`. Shared: do not write into it.
    """
    position = ((torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5).clamp(0, source - 1)
    if interp == "nearest":
        nearest = ((torch.arange(target) * 2 + 1) * source).div(2 * target, rounding_mode="floor")
        return torch.nn.functional.one_hot(nearest, source).to(torch.float64)
    if interp != "bilinear":
        raise ConfigError(f"interp is {interp!r}; choose bilinear or nearest")
    return (1 - (position[:, None] - torch.arange(source, dtype=torch.float64)).abs()).clamp(min=0)


@lru_cache(maxsize=256)
def key_matrix(source: int, target: int, interp: str = "bilinear") -> Tensor:
    """Return (source, target) in float64: R^T with each row divided by its sum c, the mean of the target under a key.

    Needs target >= source, so that every native key is used by some target position (c > 0).
    """
    if target < source:
        raise ConfigError(f"the target grid's side is {target}; choose at least the native grid's {source}")
    adjoint = resize_matrix(source, target, interp).T
    return adjoint / adjoint.sum(1, keepdim=True)


Matrices = tuple[Tensor, Tensor]


@lru_cache(maxsize=64)
def matrices_on(
    native_size: Size, size: Size, interp: str, *, device: torch.device, dtype: torch.dtype
) -> tuple[Matrices, Matrices]:
    """Return (spread, pool), each (rows, columns): native to target (H, h), (W, w), and target to native keys.

    Copied to `device` once. In `dtype` where that holds every weight exactly (2x, 4x), else in float32: in bfloat16 a
    row of thirds sums to 1.002, and every layer would add that much light.
    """
    pairs = list(zip(native_size, size, strict=True))
    exact = [resize_matrix(*pair, interp) for pair in pairs] + [key_matrix(*pair, interp) for pair in pairs]
    # what is cached must not be an inference tensor, which autograd could not use later
    with torch.inference_mode(False):
        held = all(torch.equal(matrix.to(dtype).double(), matrix) for matrix in exact)
        wide = dtype if held else torch.promote_types(dtype, torch.float32)
        rows, columns, key_rows, key_columns = (matrix.to(wide).to(device) for matrix in exact)
    return (rows, columns), (key_rows, key_columns)


def resize_grid(grid: Tensor, matrices: Matrices, *, onto: Tensor | None = None, share: float = 1.0) -> Tensor:
    """Return `grid` (B, h, w, C) resized by `matrices` (H, h), (W, w) to (B, H, W, C), in two matmuls.

    With `onto` (B, H, W, C) the result is `share` of it and 1 - `share` of `onto`, which it is written into.
    """
    (rows, columns), (count, height, width, depth) = matrices, grid.shape
    tall = torch.bmm(rows.expand(count, -1, -1), grid.view(count, height, width * depth))
    lines = tall.view(count * rows.shape[0], width, depth)
    across = columns.expand(lines.shape[0], -1, -1)
    if onto is None:
        return torch.bmm(across, lines).view(count, rows.shape[0], columns.shape[0], depth)
    onto.view(lines.shape[0], -1, depth).baddbmm_(across, lines, beta=1 - share, alpha=share)
    return onto
