"""Attention Modulation (Eq. 7) without any attention matrix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fam_ext.core.precision import as_given
from fam_ext.core.resize import matrices_on, resize_grid
from fam_ext.core.schedule import Size
from fam_ext.errors import ConfigError

WITH_FUSED = ("cuda", "cpu")
"""Devices whose `scaled_dot_product_attention` makes no matrix of queries by keys."""
MOST_SCORES = 2**27
"""Elements of the largest such matrix elsewhere (MPS, DirectML): 256 MiB in half precision."""


def attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """Return `scaled_dot_product_attention`, also of torch 2.0, which knows the usual scale only; for equal parts of
    the queries in turn where the device would make their whole matrix."""
    more: dict[str, Any] = {} if scale is None or scale == q.shape[-1] ** -0.5 else {"scale": scale}
    count = 1
    if q.device.type not in WITH_FUSED:
        # equal: a rest of 8 or fewer would take another kernel of MPS, which is wrong on split heads before torch 2.12
        count = math.ceil(q.shape[-2] / max(1, MOST_SCORES // (q.shape[0] * q.shape[1] * k.shape[-2])))
    parts = [scaled_dot_product_attention(part, k, v, **more) for part in q.tensor_split(count, dim=-2)]
    return parts[0] if count == 1 else torch.cat(parts, dim=-2)


@as_given
def modulated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    native_q: Tensor,
    native_k: Tensor,
    *,
    size: Size,
    native_size: Size,
    strength: float,
    interp: str = "bilinear",
    scale: float | None = None,
) -> Tensor:
    """Return (lambda U(M_n) + (1 - lambda) M) V (Eq. 7), shape (B, heads, H*W, d), q's dtype.

    q, k, v are (B, heads, H*W, d) on the target grid `size` = (H, W); native_q, native_k (B, heads, h*w, d) on
    `native_size`; k, v, native_k may have fewer heads (grouped). `strength` is lambda, 0 to 1. `scale` as in
    `scaled_dot_product_attention` (None: 1 / sqrt(d)).

    U upsamples the native map M_n on both axes: U(M_n) = A M_n B^T with A = R_h (x) R_w and B = A diag(1 / A^T 1), so
    that every row still sums to 1. Hence U(M_n) V = A . SDPA(Q_n, K_n, B^T V): no (HW, HW) or (HW, hw) tensor is made.
    The two resizings are two thin matmuls each for all rows and heads; the last one adds its result to the target's
    attention. Inference only: the blend is written into the attention's own output. Raises `ConfigError` for sizes that
    don't fit.
    """
    _check(q, native_q, size, native_size, strength)
    k, v, native_k = (_all_heads(tensor, q.shape[1]) for tensor in (k, v, native_k))
    if strength == 0:
        return attention(q, k, v, scale=scale)

    spread, pool = matrices_on(native_size, size, interp, device=v.device, dtype=v.dtype)
    pooled = resize_grid(_merged(v, size).to(pool[0].dtype), pool).to(v.dtype)
    native_out = attention(native_q, native_k, _split(pooled, q.shape[1]), scale=scale)
    native_grid = _merged(native_out, native_size).to(spread[0].dtype)
    if strength == 1:
        return _split(resize_grid(native_grid, spread).to(q.dtype), q.shape[1])
    out = _merged(attention(q, k, v, scale=scale), size).to(spread[0].dtype)
    return _split(resize_grid(native_grid, spread, onto=out, share=strength).to(q.dtype), q.shape[1])


def _merged(tokens: Tensor, size: Size) -> Tensor:
    """Return (B, heads, H*W, d) as a grid (B, H, W, heads * d): a view where the heads were split from one tensor."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], *size, -1)


def _split(grid: Tensor, heads: int) -> Tensor:
    rows, height, width, channels = grid.shape
    return grid.view(rows, height * width, heads, channels // heads).transpose(1, 2)


def _all_heads(tensor: Tensor, heads: int) -> Tensor:
    groups = heads // tensor.shape[1]
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)


def _check(q: Tensor, native_q: Tensor, size: Size, native_size: Size, strength: float) -> None:
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength}; choose 0 to 1 (0.7 is the paper's)")
    for name, tensor, grid in (("size", q, size), ("native_size", native_q, native_size)):
        if tensor.shape[-2] != grid[0] * grid[1]:
            raise ConfigError(f"{name} is {grid[0]}x{grid[1]}; choose a grid of the {tensor.shape[-2]} tokens given")
    if q.shape[0] != native_q.shape[0]:
        raise ConfigError(f"native_q has {native_q.shape[0]} rows; choose q's {q.shape[0]}, in the same order")
