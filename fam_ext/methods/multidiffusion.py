"""MultiDiffusion (Bar-Tal et al., ICML 2023, arXiv 2302.08113): one latent, denoised in windows that overlap."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.base import Call, Condition, Method, Pass, Pictures, Stage
from fam_ext.methods.views import WindowStage, averaged, windows


class MultiDiffusion(Method):
    """From pure noise, in windows of the native size with the same words each; where they overlap, their mean.

    `stride` is the distance of two windows as a share of a window's side (the paper's 8 of 64). The paper averages the
    denoised latents; we average the network's outputs, which is the same for DDIM, and needs no sampler of its own for
    each window. SDXL is told the window's size and no place in the picture. Nothing ties distant windows together:
    objects repeat.
    """

    def __init__(self, config: FamConfig, *, stride: float = 1 / 8) -> None:
        super().__init__(config)
        self.stride = stride

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [WindowStage(size, upsample=None, window=native)]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        assert isinstance(stage, WindowStage)
        return MultiDiffusionPass(pictures, stage.latent_window(pictures), self.stride)


class MultiDiffusionPass(Pass):
    """See `MultiDiffusion`; `window` in latent pixels."""

    def __init__(self, pictures: Pictures, window: Size, stride: float) -> None:
        super().__init__(pictures)
        height, width = pictures.noise.shape[-2:]
        apart = max(1, round(window[0] * stride)), max(1, round(window[1] * stride))
        self.views = windows((height, width), window, apart)

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        return averaged(call, latent, level, condition, self.views)
