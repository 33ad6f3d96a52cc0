"""FouriScale (Huang et al., ECCV 2024, arXiv 2403.12963): convolutions that reach further, and see no detail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from fam_ext.core.attention import attention
from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.core.without_fft import Modulation, modulate_by_matmuls
from fam_ext.methods.base import OFF, TARGET, Call, Condition, Kernel, Method, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import ATTENTION, CONVOLUTION
from fam_ext.methods.scales import scales

LARGE = 3.0
"""Scale of the larger side from which the dilation lasts in SD1.5 and SD2.1 as long as in SDXL."""


@dataclass(frozen=True)
class Setting:
    """What the authors set for a network."""

    sites: str
    full: float
    """rho until which the dilation is whole."""
    end: float
    """rho at which it ends."""
    leaves: float
    """What is left of the frequencies that the filters take away."""
    milder: float
    """By what the dilation of the second run is smaller."""


SDXL = Setting(
    "down_blocks.2.*,mid_block.*,up_blocks.0.*,up_blocks.1.resnets.*", full=0.6, end=0.3, leaves=0.6, milder=1.5
)
"""Their steps 20 and 35 of 50."""
SD = Setting(
    "down_blocks.2.*,down_blocks.3.*,mid_block.*,up_blocks.0.*,up_blocks.1.*,up_blocks.2.*",
    full=0.8,
    end=0.4,
    leaves=0.0,
    milder=1.0,
)
"""Of SD1.5 and SD2.1 below `LARGE`: their steps 10 and 30."""


@dataclass(frozen=True)
class Branch:
    """One of the two ways in which a step runs the network."""

    dilation: int
    ramp: float | None
    """Over what share of the band the filter falls; None: over all of it that lies above what it keeps."""


class FouriScale(Method):
    """Plain sampling from pure noise, in which convolutions are dilated by the scale s, rounded up, and their input
    is low-passed in the Fourier domain (but for upsamplers): 1 up to stride / s of the band and the next frequency,
    falling over a further `ramp` of it.

    So objects have the native structure (dilation) and what the kernel skips is not aliased (filter). s falls from its
    whole value to 1. Feature maps are padded by zeros to s times the native size and cropped again, which is how an
    aspect ratio of its own is met: s is the larger side's. Where, when and how much is the authors' for the network,
    unless `setting` says.

    Guidance: the rows with words run again with a filter that falls gently over the whole rest of the band, and a
    smaller dilation in SDXL, with the queries and keys of the first run at the self-attention layers; their output is
    that of the second run.

    Where ours departs: steps are counted in rho; the rows without words run in both (4 rows for a picture, theirs 3);
    queries and keys are those of the up-blocks (hosts reach no other attention), which are kept for a step; FreeU,
    which they switch on beside it, is left out.
    """

    def __init__(self, config: FamConfig, *, ramp: float = 1 / 4, setting: Setting | None = None) -> None:
        super().__init__(config)
        self.ramp = ramp
        self.setting = setting

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [Stage(size, upsample=None)]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        return FouriScalePass(pictures, self)


class FouriScalePass(Pass):
    """See `FouriScale`."""

    def __init__(self, pictures: Pictures, method: FouriScale) -> None:
        super().__init__(pictures)
        self.method = method
        self.scales = scales(pictures.noise.shape[-2:], pictures.native.shape[-2:])
        self.setting = method.setting or (SDXL if pictures.is_sdxl else SD)
        if method.setting is None and max(self.scales) >= LARGE:
            self.setting = replace(self.setting, full=SDXL.full, end=SDXL.end)
        self.reach = 1.0
        """s in the call that runs now."""
        self.branch = Branch(1, method.ramp)
        self._maps: dict[str, tuple[Tensor, Tensor]] = {}
        self._blends = False
        self._gain = lru_cache(maxsize=16)(low_pass)  # layers share it, and steps of the same s
        self._modulated = Modulation(modulate_by_matmuls)

    def dilation(self, level: NoiseLevel) -> float:
        """Return s at `level`, from the whole scale to 1."""
        setting, whole = self.setting, math.ceil(max(self.scales))
        share = (self.pictures.rho(level) - setting.end) / (setting.full - setting.end)
        return 1 + (whole - 1) * min(max(share, 0.0), 1.0)

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        self.reach = self.dilation(level)
        if self.reach <= 1:
            return call(latent, level, condition, phase=OFF)
        try:
            self.branch, self._blends = Branch(math.ceil(self.reach), self.method.ramp), False
            strong = call(latent, level, condition)
            self.branch, self._blends = Branch(math.ceil(self.reach / self.setting.milder), None), True
            return torch.where(condition.uncond[:, None, None, None], strong, call(latent, level, condition))
        finally:
            self._maps.clear()

    def patches(self) -> Sequence[Patch]:
        return [Patch(CONVOLUTION, self.setting.sites, self.convolve), Patch(ATTENTION, "*", self.attend)]

    def convolve(self, site: str, feature_map: Tensor, kernel: Kernel, *, size: Size, phase: str) -> Tensor | None:
        """See `methods.base.Convolve`."""
        if phase != TARGET:
            return None
        dilation = self.branch.dilation, self.branch.dilation
        factor = self.reach / kernel.stride[0]
        if ".upsamplers." in site or factor <= 1:
            return kernel(feature_map, dilation=dilation)
        height, width = feature_map.shape[-2:]
        whole = math.ceil(max(self.scales))
        wide = [round(side * whole / scale) for side, scale in zip((height, width), self.scales, strict=True)]
        padded = pad(feature_map, (0, wide[1] - width, 0, wide[0] - height))
        ramp = 1 - 1 / factor if self.branch.ramp is None else self.branch.ramp
        gain = self._gain((wide[0], wide[1]), factor, ramp=ramp, floor=self.setting.leaves, device=padded.device)
        smooth = self._modulated(padded, padded.new_zeros(()).expand_as(padded), gain)
        return kernel(smooth[..., :height, :width], dilation=dilation)

    def attend(
        self, site: str, q: Tensor, k: Tensor, v: Tensor, *, size: Size, scale: float | None, phase: str
    ) -> Tensor | None:
        """See `methods.base.Attend`: keep the map of the first run, and take it in the second."""
        if phase != TARGET:
            return None
        if not self._blends:
            self._maps[site] = q, k
            return None
        return attention(*self._maps[site], v, scale=scale)


def low_pass(size: Size, factor: float, *, ramp: float, floor: float, device: torch.device) -> Tensor:
    """Return the gain (H, W), in `fftfreq` order: the product over both axes of one that keeps the lowest 1 / factor of
    the band and the next frequency, and `floor` of the rest; in between it falls over a further `ramp` of the band."""
    gains: list[Tensor] = []
    for side in size:
        position = torch.arange(side, device=device)
        band = torch.minimum(position, side - position) * (2 / side)  # 0 to 1, the highest
        gains.append(1 - (1 - floor) * ((band - 1 / factor - 2 / side) / ramp).clamp(0, 1))
    return gains[0][:, None] * gains[1][None, :]
