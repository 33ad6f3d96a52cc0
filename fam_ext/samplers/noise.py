"""Fresh noise between states: one stream a picture, drawn on the CPU, so that a seed is a picture whatever the batch
and the device."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fam_ext.core.schedule import NoiseLevel

SALT = 7
"""Sets these streams apart from those of the first noise (`core.guide.seeded_noise`)."""


class Streams:
    """Independent noise for every draw, one generator a picture."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed((seed * 1_000_003 + SALT) % 2**63) for seed in seeds]

    def draw(self, like: Tensor, sigma: float, end: float) -> Tensor:
        """Return standard normal noise like the latents `like` (B, C, H, W)."""
        shape = like.shape[1:]
        return torch.stack([torch.randn(shape, generator=generator) for generator in self._generators]).to(like)


class BrownianPaths:
    """Increments of one Brownian path over sigma a picture: what is drawn for a way is the same whichever steps it is
    cut into. As k-diffusion's and, but for the seed, the WebUI's "SDE" samplers."""

    def __init__(self, seeds: Sequence[int], levels: Sequence[NoiseLevel]) -> None:
        sigmas = [level.sigma for level in levels if level.sigma > 0]
        self._range = torch.tensor(min(sigmas)), torch.tensor(max(sigmas))
        self._seeds = [seed % 2**31 for seed in seeds]
        self._paths: list[Any] = []  # of torchsde

    def draw(self, like: Tensor, sigma: float, end: float) -> Tensor:
        """Return the path's change on the way from `sigma` down to `end`, scaled to standard normal, like `like`."""
        import torchsde

        if not self._paths:
            start = torch.zeros(like.shape[1:])
            low, high = self._range
            self._paths = [torchsde.BrownianTree(t0=low, w0=start, t1=high, entropy=seed) for seed in self._seeds]
        low, high = torch.tensor(end), torch.tensor(sigma)
        with warnings.catch_warnings():
            # torchsde rounds an interval's ends by one part in ten million, and says so
            warnings.filterwarnings("ignore", message="Should have t[ab][<>]=t[01]")
            increments = torch.stack([path(low, high) for path in self._paths])
        return (-increments / (high - low).sqrt()).to(like)
