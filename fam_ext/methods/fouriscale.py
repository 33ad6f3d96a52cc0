"""FouriScale (Huang et al., ECCV 2024, arXiv 2403.12963): convolutions that reach further, and see no detail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.core.without_fft import Modulation, modulate_by_matmuls
from fam_ext.methods.base import OFF, TARGET, Call, Condition, Kernel, Method, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import ATTENTION, CONVOLUTION
from fam_ext.methods.scalecrafter import dilated

SITES = "down_blocks.2.resnets.*,down_blocks.3.resnets.*,mid_block.*,up_blocks.0.*,up_blocks.1.resnets.*"
"""The authors' list for SDXL. Theirs for SD1.5 goes one level further out."""


@dataclass(frozen=True)
class Branch:
    """One of the two ways in which a step runs the network."""

    dilation: float
    floor: float
    """What is left of the frequencies that the filter takes away."""


class FouriScale(Method):
    """Plain sampling from pure noise, in which the convolutions at `sites` are dilated by the scale s and their input
    is low-passed in the Fourier domain: 1 up to 1 / s of the band, falling to nothing over a further `ramp` of it.

    So objects have the native structure (dilation) and what the kernel skips is not aliased (filter). s falls from its
    whole value at rho = `full` to 1 at rho = `end` (theirs: steps 20 and 35 of 50). Feature maps are padded by zeros to
    s times the native size and cropped again, which is how an aspect ratio of its own is met: s is the larger side's.

    Guidance: the rows with words run again with s / `milder` and a filter that leaves `leaves` of the detail, with the
    queries and keys of the first run at the self-attention layers; their output is that of the second run.

    Where ours departs: steps are counted in rho, s is rounded up and at fractions ScaleCrafter's fractional dilation;
    `ramp` and `leaves` are ours; the rows without words run in both (4 rows for a picture, theirs 3); queries and keys
    are those of the up-blocks (hosts reach no other attention), which are kept for a step; FreeU, which they switch on
    beside it, is left out.
    """

    def __init__(
        self,
        config: FamConfig,
        *,
        full: float = 0.6,
        end: float = 0.3,
        ramp: float = 1 / 8,
        milder: float = 1.5,
        leaves: float = 0.5,
        sites: str = SITES,
    ) -> None:
        super().__init__(config)
        self.full = full
        self.end = end
        self.ramp = ramp
        self.milder = milder
        self.leaves = leaves
        self.sites = sites

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [Stage(size, upsample=None)]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        return FouriScalePass(pictures, self)


class FouriScalePass(Pass):
    """See `FouriScale`."""

    def __init__(self, pictures: Pictures, method: FouriScale) -> None:
        super().__init__(pictures)
        self.method = method
        sides = zip(pictures.noise.shape[-2:], pictures.native.shape[-2:], strict=True)
        self.scales = [side / native for side, native in sides]
        self.branch = Branch(1.0, 0.0)
        self._maps: dict[str, tuple[Tensor, Tensor]] = {}
        self._blends = False
        self._gain = lru_cache(maxsize=16)(low_pass)  # layers share it, and steps of the same s
        self._modulated = Modulation(modulate_by_matmuls)

    def dilation(self, level: NoiseLevel) -> float:
        """Return s at `level`, from the whole scale to 1."""
        method, whole = self.method, math.ceil(max(self.scales))
        share = (self.pictures.rho(level) - method.end) / (method.full - method.end)
        return 1 + (whole - 1) * min(max(share, 0.0), 1.0)

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        dilation = self.dilation(level)
        if dilation <= 1:
            return call(latent, level, condition, phase=OFF)
        try:
            self.branch, self._blends = Branch(dilation, 0.0), False
            strong = call(latent, level, condition)
            self.branch, self._blends = Branch(max(dilation / self.method.milder, 1.0), self.method.leaves), True
            return torch.where(condition.uncond[:, None, None, None], strong, call(latent, level, condition))
        finally:
            self._maps.clear()

    def patches(self) -> Sequence[Patch]:
        return [Patch(CONVOLUTION, self.method.sites, self.convolve), Patch(ATTENTION, "*", self.attend)]

    def convolve(self, site: str, feature_map: Tensor, kernel: Kernel, *, size: Size, phase: str) -> Tensor | None:
        """See `methods.base.Convolve`."""
        if phase != TARGET:
            return None
        height, width = feature_map.shape[-2:]
        whole = math.ceil(max(self.scales))
        wide = [round(side * whole / scale) for side, scale in zip((height, width), self.scales, strict=True)]
        padded = pad(feature_map, (0, wide[1] - width, 0, wide[0] - height))
        dilation, floor = self.branch.dilation, self.branch.floor
        gain = self._gain((wide[0], wide[1]), dilation, ramp=self.method.ramp, floor=floor, device=padded.device)
        smooth = self._modulated(padded, padded.new_zeros(()).expand_as(padded), gain)
        return dilated(kernel, smooth, (dilation, dilation))[..., :height, :width]

    def attend(
        self, site: str, q: Tensor, k: Tensor, v: Tensor, *, size: Size, scale: float | None, phase: str
    ) -> Tensor | None:
        """See `methods.base.Attend`: keep the map of the first run, and take it in the second."""
        if phase != TARGET:
            return None
        if not self._blends:
            self._maps[site] = q, k
            return None
        return scaled_dot_product_attention(*self._maps[site], v, scale=scale)


def low_pass(size: Size, factor: float, *, ramp: float, floor: float, device: torch.device) -> Tensor:
    """Return the gain (H, W), in `fftfreq` order, that keeps the lowest 1 / factor of the band on both axes and `floor`
    of the rest; in between it falls over a further `ramp` of the band."""
    gains: list[Tensor] = []
    for side in size:
        position = torch.arange(side, device=device)
        band = torch.minimum(position, side - position) * (2 / side)  # 0 to 1, the highest
        gains.append((1 - (band - 1 / factor).clamp(min=0) / ramp).clamp(min=floor))
    return torch.minimum(gains[0][:, None], gains[1][None, :])
