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


def resize_tokens(tokens: Tensor, matrices: tuple[Tensor, Tensor], size: Size) -> Tensor:
    """Return `tokens` (..., h*w, d) of a grid `size` = (h, w), resized by `matrices` (H, h), (W, w) to (..., H*W, d).

    The dtype is kept (matmuls accumulate in float32).
    """
    rows, columns = (matrix.to(device=tokens.device, dtype=tokens.dtype) for matrix in matrices)
    height, width = size
    *lead, _, depth = tokens.shape
    grid = tokens.reshape(*lead, height, width * depth)
    grid = (rows @ grid).reshape(*lead, rows.shape[0], width, depth)
    return (columns @ grid).reshape(*lead, rows.shape[0] * columns.shape[0], depth)
