"""Which picture each row of a network's input belongs to, where the host batches them as it likes (ldm, sgm)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fam_ext.core.precision import as_given
from fam_ext.errors import UnsupportedModelError
from fam_ext.hosts.base import LateChecks
from fam_ext.hosts.steering import Row

NEAR = 1e-4
"""By how much of its length a row may be less like the picture of the host's order than like another."""
EQUAL = 1e-6
"""Rows as like two pictures as this are like both."""
DOUBT = (
    "two pictures of the batch are equal at one step, and FAM cannot tell whose attention is whose; set Batch size to "
    "1, or disable the extension that changes the batch"
)


NO_LAYOUT = (
    "FAM cannot tell which rows of the batch are unconditional; disable the extension that changes the batch, or "
    "choose another method"
)


def layout_of(cond: Any, batch: int) -> list[Row] | None:  # noqa: ANN401
    """Return the rows that A1111's CFGDenoiser gives the network at one state, in order: each picture's conditional
    ones (more than one under AND), the unconditional ones, and those of an edit model once more. None where `cond` is
    not its own."""
    parts = getattr(cond, "batch", None)
    if not isinstance(parts, list) or len(parts) != batch:
        return None
    conditional = [(picture, False) for picture, words in enumerate(parts) for _ in words]
    return [*conditional, *[(picture, True) for picture in range(batch)] * 2]


@as_given
def rows_of(network_input: Tensor, latent: Tensor, *, order: Tensor | None, checks: LateChecks) -> Tensor:
    """Return for each row of the network's input the index of its picture in `latent` (B, C, H, W), int64 (rows,).

    By the host's `order` where the row looks like that picture, else by likeness alone: a row is its picture's latent
    up to the sampler's scaling. `checks` is asked to raise `UnsupportedModelError` where a row is like two pictures and
    the order does not say which.
    """
    if latent.shape[0] == 1:
        return torch.zeros(network_input.shape[0], dtype=torch.int64, device=network_input.device)
    rows = _unit(network_input[:, : latent.shape[1]])
    likeness = rows @ _unit(latent).to(rows.device).T
    best, nearest = likeness.max(dim=1)
    is_doubtful = (likeness >= best[:, None] - EQUAL).sum(dim=1) > 1
    if order is not None:
        fits = likeness.gather(1, order[:, None])[:, 0] >= best - NEAR
        nearest = torch.where(fits, order, nearest)
        is_doubtful = is_doubtful & ~fits
    checks.expect(~is_doubtful.any(), UnsupportedModelError(DOUBT))
    return nearest


def _unit(latents: Tensor) -> Tensor:
    flat = latents.flatten(1).float()
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)
