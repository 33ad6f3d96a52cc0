"""ScaleCrafter (He et al., ICLR 2024, arXiv 2310.07702): the network's inner convolutions reach further."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import interpolate

from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.base import OFF, TARGET, Call, Condition, Kernel, Method, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import CONVOLUTION
from fam_ext.methods.scales import scales

SITES = "down_blocks.3.resnets.*,mid_block.*,up_blocks.0.*"
"""The authors' list for 2x, for SD1.5 and SDXL (which has no down_blocks.3)."""


class ScaleCrafter(Method):
    """Plain sampling from pure noise, in which the convolutions at `sites` are dilated by the scale.

    So they see as much of the picture as they did at the native size, and objects do not repeat. It ends at rho =
    `end` (theirs: 30 of 50 steps). Of a scale that is no whole number the input is first enlarged to the next one
    (their fractional dilation). Left out: noise-damped guidance and the wider lists that they take from 4x on, a
    dilation that falls step by step, kernels spread by their precomputed matrices, and FreeU, which their code switches
    on beside it.
    """

    def __init__(self, config: FamConfig, *, end: float = 0.4, sites: str = SITES) -> None:
        super().__init__(config)
        self.end = end
        self.sites = sites

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [Stage(size, upsample=None)]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        return ScaleCrafterPass(pictures, self)


class ScaleCrafterPass(Pass):
    """See `ScaleCrafter`."""

    def __init__(self, pictures: Pictures, method: ScaleCrafter) -> None:
        super().__init__(pictures)
        self.method = method
        enlarged = scales(pictures.noise.shape[-2:], pictures.native.shape[-2:])
        self.scales = [max(1.0, scale) for scale in enlarged]

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        acts = self.pictures.rho(level) > self.method.end
        return call(latent, level, condition, phase=TARGET if acts else OFF)

    def patches(self) -> Sequence[Patch]:
        return [Patch(CONVOLUTION, self.method.sites, self.convolve)]

    def convolve(self, site: str, feature_map: Tensor, kernel: Kernel, *, size: Size, phase: str) -> Tensor | None:
        """See `methods.base.Convolve`."""
        if phase != TARGET:
            return None
        return dilated(kernel, feature_map, self.scales)


def dilated(kernel: Kernel, feature_map: Tensor, factors: Sequence[float]) -> Tensor:
    """Return the output of `kernel` dilated by `factors` (height, width); by a fraction by enlarging `feature_map` to
    the next whole one, and the output back."""
    height, width = (math.ceil(factor) for factor in factors)
    wide = [
        round(side * whole / factor)
        for side, whole, factor in zip(feature_map.shape[-2:], (height, width), factors, strict=True)
    ]
    if wide == list(feature_map.shape[-2:]):
        return kernel(feature_map, dilation=(height, width))
    enlarged = interpolate(feature_map, wide, mode="bilinear")
    size = [math.ceil(side / apart) for side, apart in zip(feature_map.shape[-2:], kernel.stride, strict=True)]
    return interpolate(kernel(enlarged, dilation=(height, width)), size, mode="bilinear")
