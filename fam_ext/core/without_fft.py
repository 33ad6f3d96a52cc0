"""Frequency Modulation on devices without FFT, or with one that is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from fam_ext.core.frequency import modulate
from fam_ext.core.precision import as_given

log = logging.getLogger(__name__)

WITHOUT_FFT = ("mps", "privateuseone")
"""Devices whose FFT is never asked: that of MPS in torch 2.3, which the WebUI takes on a Mac, reverses what it brings
back, without an error, and before macOS 14 there is none; DirectML has no complex numbers."""
NO_FFT = ("not implemented", "not currently implemented", "not supported", "unsupported", "compiled without")
"""What another device without FFT says; anything else, memory too, is not answered by the other form."""


class Modulation:
    """`modulate` for one pass; `without_fft` of the same arguments on `WITHOUT_FFT`, and from the first call on whose
    device turns out to have none."""

    def __init__(self, without_fft: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self._without_fft = without_fft
        self._has_fft = True

    def __call__(self, latent: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        """Return what `modulate` returns."""
        if self._has_fft and latent.device.type not in WITHOUT_FFT:
            try:
                return modulate(latent, reference, mask)
            except RuntimeError as error:
                if not any(word in str(error).lower() for word in NO_FFT):
                    raise
                self._has_fft = False
                log.info("%s has no FFT: frequencies are modulated by matmuls", latent.device)
        return self._without_fft(latent, reference, mask)


@as_given
def modulate_by_matmuls(latent: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return what `modulate` returns, to 1e-5, by four matmuls; `modulate_spatial` has two, for a mask that is a box.

    `mask` (H, W) is symmetric on each axis. cas(x) = cos(x) + sin(x) in the DFT's place (Hartley): it is real, and of a
    symmetric mask the result is the same.
    """
    wide = torch.promote_types(latent.dtype, torch.float32)
    z = latent.to(wide)
    height, width = (_hartley(side, latent.device).to(wide) for side in latent.shape[-2:])
    difference = height @ (reference.to(wide) - z) @ width
    return (z + height @ ((1 - mask.to(wide)) * difference) @ width).to(latent.dtype)


@lru_cache(maxsize=8)
def _hartley(side: int, device: torch.device) -> Tensor:
    """Return cas(2 pi j k / N) / sqrt(N), (N, N): symmetric, and its own inverse. Shared: made once."""
    with torch.inference_mode(False):  # what is cached must not be an inference tensor, which autograd can't use later
        position = torch.arange(side, device=device)
        # whole-number products modulo N keep the angles exact for large sides
        angle = (position[:, None] * position[None, :] % side) * (2 * torch.pi / side)
        return (torch.cos(angle) + torch.sin(angle)) / side**0.5
