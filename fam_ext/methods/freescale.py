"""FreeScale (Qiu et al., ICCV 2025, arXiv 2412.09626): phases, and attention of two scales at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fam_ext.core.attention import attention
from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.ablation import SkipResidualPass
from fam_ext.methods.base import TARGET, Call, Condition, Kernel, Method, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import ATTENTION, CONVOLUTION
from fam_ext.methods.demofusion import blurred, phases
from fam_ext.methods.scalecrafter import dilated
from fam_ext.methods.scales import scales
from fam_ext.methods.views import View, WindowStage, jitter, windows

SITES = "down_blocks.1.downsamplers.*,down_blocks.2.resnets.*,mid_block.*"
"""Theirs in SDXL; they have none for SD1.5."""


class FreeScale(Method):
    """Phases of 2, 4, 8 ... times the native size, each from the picture before, enlarged in pixels and diffused to
    rho = `start` (theirs: after 30 % of the steps). Scales are those of the native size in each.

    - The skip residual: before each step z <- (1 - c) z + c z~_t, c = (0.5 + 0.5 cos(pi (1 - rho)))^`pull`.
    - Restrained dilation: the convolutions at `sites` are dilated by the scale until rho = `end` (theirs: 35 of 50).
    - Scale fusion: self-attention is global - G(global) + G(local), G a Gaussian of side 2 s - 1 and `sigma` tokens on
      the grid, s the scale; local is the mean over windows of the native grid that overlap by a half and are shifted
      at random. So the layout is what a window says, and the detail what the whole picture does.

    Where ours departs: attention is fused in the up-blocks only (hosts reach no other); shifts are the level's own;
    steps are counted in rho; FreeU, and the mask that lets a user give some regions more detail, are left out.
    """

    def __init__(
        self,
        config: FamConfig,
        *,
        start: float = 0.7,
        pull: float = 2.0,
        end: float = 0.3,
        sigma: float = 1.0,
        sites: str = SITES,
    ) -> None:
        super().__init__(config)
        self.start = start
        self.pull = pull
        self.end = end
        self.sigma = sigma
        self.sites = sites

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [
            WindowStage(each, start=self.start, upsample="pixel_bicubic", window=native)
            for each in phases(size, native, doubling=True)
        ]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        assert isinstance(stage, WindowStage)
        return FreeScalePass(pictures, stage.latent_window(pictures), self)


class FreeScalePass(SkipResidualPass):
    """See `FreeScale`; `window` in latent pixels."""

    def __init__(self, pictures: Pictures, window: Size, method: FreeScale) -> None:
        super().__init__(pictures)
        self.method = method
        self.power = method.pull
        self.scales = [max(1.0, scale) for scale in scales(pictures.noise.shape[-2:], window)]
        self._level: NoiseLevel | None = None
        """Of the call that runs now."""
        self._windows = lru_cache(maxsize=4)(overlapping)  # a step's layers of one grid share them

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        self._level = level
        return call(latent, level, condition)

    def patches(self) -> Sequence[Patch]:
        return [Patch(CONVOLUTION, self.method.sites, self.convolve), Patch(ATTENTION, "*", self.attend)]

    def convolve(self, site: str, feature_map: Tensor, kernel: Kernel, *, size: Size, phase: str) -> Tensor | None:
        """See `methods.base.Convolve`."""
        if phase != TARGET or self._level is None or self.pictures.rho(self._level) <= self.method.end:
            return None
        return dilated(kernel, feature_map, self.scales)

    def attend(
        self, site: str, q: Tensor, k: Tensor, v: Tensor, *, size: Size, scale: float | None, phase: str
    ) -> Tensor | None:
        """See `methods.base.Attend`: the layout of windows, the detail of the whole."""
        if phase != TARGET or self._level is None:
            return None
        overall = attention(q, k, v, scale=scale)
        height, width = (max(1, round(side / by)) for side, by in zip(size, self.scales, strict=True))
        views, count = self._windows(size, (height, width), self._level, device=overall.device, dtype=overall.dtype)
        total = torch.zeros_like(overall.unflatten(2, size))
        for rows, columns in views:
            own_q, own_k, own_v = (each.unflatten(2, size)[:, :, rows, columns].flatten(2, 3) for each in (q, k, v))
            said = attention(own_q, own_k, own_v, scale=scale)
            total[:, :, rows, columns] += said.unflatten(2, (height, width))
        difference = (total / count).flatten(2, 3) - overall
        side = 2 * math.ceil(max(self.scales)) - 1
        maps = difference.mT.flatten(1, 2).unflatten(-1, size)  # heads and depth as channels
        return overall + blurred(maps, side, self.method.sigma).flatten(-2).unflatten(1, (q.shape[1], -1)).mT


def overlapping(
    size: Size, window: Size, level: NoiseLevel, *, device: torch.device, dtype: torch.dtype
) -> tuple[list[View], Tensor]:
    """Return views of `window` that overlap by a half and have the shift of `level`, and in how many of them each place
    of the grid `size` is, (H, W, 1)."""
    stride = max(1, window[0] // 2), max(1, window[1] // 2)
    views = windows(size, window, stride, shift=jitter(level, (stride[0] // 4, stride[1] // 4)))
    count = torch.zeros((*size, 1), device=device, dtype=dtype)
    for rows, columns in views:
        count[rows, columns] += 1
    return views, count
