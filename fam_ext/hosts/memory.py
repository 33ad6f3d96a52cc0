"""The most memory that a device gave since it was asked to watch: what a record of a picture says."""

from __future__ import annotations

import torch


def watch_memory(device: torch.device) -> None:
    """Begin to watch, where a device can."""
    if _can_tell(device):
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes of `device` that this process held at once; None where that cannot be told."""
    return torch.cuda.max_memory_allocated(device) if _can_tell(device) else None


def free_memory(device: torch.device) -> tuple[int, int] | None:
    """Return the (free, total) bytes of `device`, other programs' counted; None where that cannot be told."""
    return torch.cuda.mem_get_info(device) if _can_tell(device) else None


def _can_tell(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_available()
