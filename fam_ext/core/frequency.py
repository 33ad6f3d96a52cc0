"""Frequency Modulation (Eq. 4, 5, 11): low frequencies from the reference, the rest from the latent itself."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from fam_ext.core.precision import as_given
from fam_ext.core.schedule import Box, Size
from fam_ext.errors import ConfigError

fft: Any = torch.fft  # its functions carry no types


def high_pass_mask(
    target_size: Size, box: Box, rho: float, *, edge: float = 0.0, device: torch.device | str | None = None
) -> Tensor:
    """Return K (Eq. 11), a float32 tensor (H, W) in `fftfreq` order: `rho` inside the box, 1 outside.

    A bin is inside when its whole-number frequency is strictly nearer to DC than half the box's side on both axes.
    The set is {-m..m} for odd and even sides alike, so K is symmetric and the modulated latent exactly real.
    With `edge` e above 0 the pull 1 - K fades on each axis, by half a cosine, from (1 - e) to (1 + e) of that half
    side: a cut-off without ringing. An empty box (a side of 0) gives ones.
    """
    height, width = (_kept(side, tau / 2, edge, device) for side, tau in zip(target_size, box, strict=True))
    share = height[:, None] * width[None, :]
    return torch.lerp(torch.ones_like(share), torch.full_like(share, rho), share)


def modulate(latent: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return IDFT(K . DFT(latent) + (1 - K) . DFT(reference)) (Eq. 4).

    `latent` and `reference` are (B, C, H, W), `mask` is K (H, W) from `high_pass_mask` (it must be symmetric).
    float32 inside (float64 stays), the latent's dtype out. Where K is 1 everywhere the latent comes back bit for bit.
    """
    _check(latent, reference, mask)
    # float32: half-precision FFT is limited to powers of two on CUDA, and the CPU has none
    wide = torch.promote_types(latent.dtype, torch.float32)
    z = latent.to(wide)
    pull = (1 - mask.to(wide))[:, : latent.shape[-1] // 2 + 1]
    difference = cast("Tensor", fft.rfft2(reference.to(wide) - z))
    pulled = cast("Tensor", fft.irfft2(pull * difference, s=latent.shape[-2:]))
    return (z + pulled).to(latent.dtype)


def mirrored(latent: Tensor) -> Tensor:
    """Return `latent` (B, C, H, W) with its mirror images beside and below it, (B, C, 2 H, 2 W).

    Modulated so, with a mask of that size and twice the box, its own quarter is what the DCT-II in the DFT's place
    gives: no border pulls at the one across from it.
    """
    beside = torch.cat([latent, latent.flip(-1)], dim=-1)
    return torch.cat([beside, beside.flip(-2)], dim=-2)


@as_given
def modulate_spatial(latent: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return latent + kappa (*) (reference - latent) (Eq. 5): `modulate` as two thin matmuls, without complex numbers.

    kappa = IDFT(1 - K) is separable for a box, so the circular convolution is P_h D P_w^T with the two circulant
    (Dirichlet) matrices. Equal to `modulate` to 1e-5; for devices without FFT, and for export. Raises `ConfigError`
    when 1 - K is not an outer product.
    """
    _check(latent, reference, mask)
    wide: torch.dtype = torch.promote_types(latent.dtype, torch.float32)
    pull = 1 - mask.to(device=latent.device, dtype=torch.float32)
    rows, columns = pull[:, 0], pull[0] / pull[0, 0].clamp(min=torch.finfo(torch.float32).tiny)
    if not torch.allclose(rows[:, None] * columns[None, :], pull, atol=1e-6):
        raise ConfigError("the mask is not separable; give one from high_pass_mask, or use modulate")
    z = latent.to(wide)
    p_h, p_w = _circulant(rows).to(wide), _circulant(columns).to(wide)
    return (z + p_h @ (reference.to(wide) - z) @ p_w).to(latent.dtype)


@lru_cache(maxsize=64)
def _frequencies(side: int, device: torch.device | str | None) -> Tensor:
    """Return the whole-number frequencies 0, 1, .. 2, 1 (side,) of a line, without their sign. Shared: made once."""
    with torch.inference_mode(False):  # what is cached must not be an inference tensor, which autograd can't use later
        position = torch.arange(side, device=device)
        return torch.minimum(position, side - position)


def _kept(side: int, reach: float, edge: float, device: torch.device | str | None) -> Tensor:
    """Return the share of the pull (side,) by frequency: 1 below `reach` bins, then 0; see `high_pass_mask`."""
    frequencies = _frequencies(side, device).float()
    if edge == 0 or reach == 0:
        return (frequencies <= math.ceil(reach) - 1).float()
    return 0.5 + 0.5 * torch.cos(torch.pi * ((frequencies - (1 - edge) * reach) / (2 * edge * reach)).clamp(0, 1))


def _circulant(spectrum: Tensor) -> Tensor:
    """Return the (N, N) matrix of the circular convolution whose real, even spectrum is `spectrum` (N,)."""
    side = spectrum.shape[0]
    position = torch.arange(side, device=spectrum.device)
    # whole-number products modulo N keep the angles exact for large sides
    angle = (position[:, None] * position[None, :] % side) * (2 * torch.pi / side)
    kernel = (spectrum[:, None] * torch.cos(angle)).sum(0) / side
    return kernel[(position[:, None] - position[None, :]) % side]


def _check(latent: Tensor, reference: Tensor, mask: Tensor) -> None:
    if latent.shape != reference.shape or latent.shape[-2:] != mask.shape:
        raise ConfigError(
            f"latent {tuple(latent.shape)}, reference {tuple(reference.shape)} and mask {tuple(mask.shape)} differ in"
            " size; give latent and reference of one shape (B, C, H, W) and a mask (H, W)"
        )
