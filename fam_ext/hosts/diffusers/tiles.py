"""A VAE on parts of a picture: equal tiles that overlap, blended where they do.

diffusers cuts tiles of one size from the top left and gives the VAE what remains, be it one latent pixel wide: its
normalisation and padding then see nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor


def in_tiles(run: Callable[[Tensor], Tensor], whole: Tensor, tile: int, *, taken: int = 1, made: int = 1) -> Tensor:
    """Return what `run` makes of `whole` (1, C, H, W), given at most `tile` latent pixels a side at once; 0: all.

    A latent pixel is `taken` pixels of `whole` and `made` of the result. Tiles overlap by a quarter of `tile` at least,
    and fade into one another there. Blended in float32.
    """
    height, width = (side // taken for side in whole.shape[-2:])
    if tile == 0 or max(height, width) <= tile:
        return run(whole)
    total = weights = torch.zeros(())
    for rows, columns in product(spans(height, tile), spans(width, tile)):
        part = run(whole[..., _scaled(rows, taken), _scaled(columns, taken)]).float()
        if total.ndim == 0:
            total = part.new_zeros(*part.shape[:2], height * made, width * made)
            weights = part.new_zeros(height * made, width * made)
        down, across = (_ramp(side, tile // 4 * made, part.device) for side in part.shape[-2:])
        weight = down[:, None] * across
        total[..., _scaled(rows, made), _scaled(columns, made)] += part * weight
        weights[_scaled(rows, made), _scaled(columns, made)] += weight
    return total / weights


def spans(side: int, tile: int) -> list[slice]:
    """Return slices of equal length, at most `tile`, that cover `side` and overlap by a quarter of `tile` or more."""
    overlap = tile // 4
    count = max(1, math.ceil((side - overlap) / (tile - overlap)))
    length = math.ceil((side + (count - 1) * overlap) / count)
    starts = [(side - length) * index // max(1, count - 1) for index in range(count)]
    return [slice(start, start + length) for start in starts]


def _scaled(span: slice, by: int) -> slice:
    return slice(span.start * by, span.stop * by)


def _ramp(side: int, overlap: int, device: torch.device) -> Tensor:
    """Return the weights (side,): from 1 at both ends, by 1 a pixel, to `overlap`."""
    place = torch.arange(1, side + 1, device=device, dtype=torch.float32)
    return torch.minimum(place, side + 1 - place).clamp(max=overlap)
