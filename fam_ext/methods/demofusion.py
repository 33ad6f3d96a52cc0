"""DemoFusion (Du et al., CVPR 2024, arXiv 2311.16973): phase by phase larger, in windows and in dilated samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.ablation import SkipResidualPass
from fam_ext.methods.base import Call, Condition, Method, Pass, Pictures, Stage
from fam_ext.methods.scales import GRID, scales
from fam_ext.methods.views import View, WindowStage, averaged, dilated, jitter, windows


class DemoFusion(Method):
    """One phase for each multiple of the native size, each from the one before, diffused to rho = `start`.

    With f = 0.5 + 0.5 cos(pi (1 - rho)), in each phase of scale s:

    - the skip residual (Eq. 4): before each step z <- (1 - c1) z + c1 z~_t, c1 = f^3;
    - the network's output (Eq. 5 to 8) is (1 - c2) times the mean over windows of the native size, `stride` of a side
      apart and shifted at random, and c2 times what it says of the s^2 pictures that every s-th pixel of a blurred
      latent makes, c2 = f^`dilation`; the blur is a Gaussian of `sigma` (0.99 f^`blur` + 0.01) pixels;
    - after it the latent's mean and spread are the native one's.

    The larger the exponent, the sooner a part fades. Where ours departs: outputs are averaged, not denoised latents
    (the same for DDIM); windows at a border stay there, theirs reach over zeros, and the others have one shift a step;
    mean and spread are each picture's own; a phase's last scale may be no whole multiple; SDXL is told no place of a
    window in the picture.
    """

    def __init__(
        self,
        config: FamConfig,
        *,
        dilation: float = 1.0,
        blur: float = 1.0,
        sigma: float = 1.0,
        stride: float = 1 / 2,
        start: float = 1.0,
    ) -> None:
        super().__init__(config)
        self.start = start
        self.dilation = dilation
        self.blur = blur
        self.sigma = sigma
        self.stride = stride

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [
            WindowStage(each, start=self.start, upsample="latent_bicubic", window=native)
            for each in phases(size, native)
        ]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        assert isinstance(stage, WindowStage)
        return DemoFusionPass(pictures, stage.latent_window(pictures), self)


def phases(size: Size, native: Size, *, doubling: bool = False) -> list[Size]:
    """Return the sizes of the picture at each whole multiple of `native` over 8 pixels below `size`, or with `doubling`
    at 2, 4, 8 ... times it, and `size`."""
    scale = max(scales([side / GRID for side in size], [side / GRID for side in native]))
    factors = range(2, math.ceil(scale))
    smaller = (_share(size, factor / scale) for factor in factors if not doubling or factor.bit_count() == 1)
    return [*(each for each in smaller if max(size[0] - each[0], size[1] - each[1]) > GRID), size]


def _share(size: Size, share: float) -> Size:
    """Return a share of `size` in multiples of 8 pixels."""
    return round(size[0] * share / GRID) * GRID, round(size[1] * share / GRID) * GRID


class DemoFusionPass(SkipResidualPass):
    """See `DemoFusion`; `window` in latent pixels."""

    def __init__(self, pictures: Pictures, window: Size, method: DemoFusion) -> None:
        super().__init__(pictures)
        self.window = window
        self.method = method
        self.size = pictures.noise.shape[-2], pictures.noise.shape[-1]
        self.factor = math.ceil(max(scales(self.size, window)))

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        method, window = self.method, self.window
        stride = max(1, round(window[0] * method.stride)), max(1, round(window[1] * method.stride))
        most = (window[0] - stride[0]) // 4, (window[1] - stride[1]) // 4
        views = windows(self.size, window, stride, shift=jitter(level, most))
        local = self.in_windows(call, latent, level, condition, views)
        fading = 0.5 + 0.5 * math.cos(math.pi * (1 - self.pictures.rho(level)))
        sigma = method.sigma * (0.99 * fading**method.blur + 0.01)
        smooth = with_moments_of(latent, blurred(latent, 2 * self.factor - 1, sigma))
        return local.lerp(self.in_samples(call, smooth, level, condition), fading**method.dilation)

    def in_windows(
        self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition, views: Sequence[View]
    ) -> Tensor:
        """Return the mean of what the network says of the windows `views`."""
        return averaged(call, latent, level, condition, views)

    def in_samples(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        """Return what it says of the dilated samples of `latent`, which is blurred."""
        return dilated(call, latent, level, condition, self.factor)

    def finish(self, latent: Tensor) -> Tensor:
        return with_moments_of(self.pictures.native, latent)


def blurred(latent: Tensor, side: int, sigma: float) -> Tensor:
    """Return `latent` (rows, C, H, W) under a Gaussian of `sigma` pixels, cut to `side` x `side`; borders repeat."""
    kernel = _gaussian(side, sigma, latent.device, latent.dtype).expand(latent.shape[1], 1, 1, -1)
    padded = pad(latent, [side // 2] * 4, mode="replicate")
    across = conv2d(padded, kernel, groups=latent.shape[1])
    return conv2d(across, kernel.transpose(-1, -2), groups=latent.shape[1])


@lru_cache(maxsize=8)
def _gaussian(side: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the weights (side,) of sum 1. Shared: made once where sigma stays."""
    with torch.inference_mode(False):  # what is cached must not be an inference tensor, which autograd can't use later
        at = torch.arange(side, device=device, dtype=torch.float32) - side // 2
        weights = torch.exp(-at.square() / (2 * sigma**2)).to(dtype)
        return weights / weights.sum()


def with_moments_of(like: Tensor, latent: Tensor) -> Tensor:
    """Return each picture of `latent` with the mean and the standard deviation of that in `like`."""
    spread, mean = torch.std_mean(like, dim=(1, 2, 3), keepdim=True)
    own_spread, own_mean = torch.std_mean(latent, dim=(1, 2, 3), keepdim=True)
    return (latent - own_mean) / own_spread * spread + mean
