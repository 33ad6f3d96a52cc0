"""Attention Modulation (Eq. 7) without any attention matrix."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fam_ext.core.resize import key_matrix, resize_matrix, resize_tokens
from fam_ext.core.schedule import Size
from fam_ext.errors import ConfigError

HEADS_AT_ONCE = 8


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
    Inference only: the blend is written into the attention's own output. Raises `ConfigError` for sizes that don't fit.
    """
    _check(q, native_q, size, native_size, strength)
    k, v, native_k = (_all_heads(tensor, q.shape[1]) for tensor in (k, v, native_k))
    if strength == 0:
        return scaled_dot_product_attention(q, k, v, scale=scale)

    (height, width), (native_height, native_width) = size, native_size
    pool = key_matrix(native_height, height, interp), key_matrix(native_width, width, interp)
    spread = resize_matrix(native_height, height, interp), resize_matrix(native_width, width, interp)
    native_out = scaled_dot_product_attention(native_q, native_k, resize_tokens(v, pool, size), scale=scale)
    if strength == 1:
        return resize_tokens(native_out, spread, native_size)
    out = scaled_dot_product_attention(q, k, v, scale=scale)
    # a few heads at a time: what is spread over the target never needs much memory beside `out`
    for row in range(q.shape[0]):
        for head in range(0, q.shape[1], HEADS_AT_ONCE):
            part = row, slice(head, head + HEADS_AT_ONCE)
            out[part].lerp_(resize_tokens(native_out[part], spread, native_size), strength)
    return out


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
