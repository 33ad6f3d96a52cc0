"""Without diffusion, by the host's own upscaler; and what people do after it, img2img of the whole or in tiles."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.base import Call, Condition, Method, Pass, Pictures, Stage
from fam_ext.methods.views import WindowStage, tiled, tiles

DENOISE = 0.35
"""rho at which img2img begins after an upscaler, where people set the WebUI's denoising strength."""
OVERLAP = 1 / 8
"""Share of a tile's side that it is given of its neighbours, on each side."""


class Upscaler(Method):
    """By the super-resolution network that the user chose, by Lanczos without one. The model draws nothing."""

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [Stage(size, pixels=True)]


class Resize(Method):
    """By Lanczos, whatever network was chosen: what every method is held against."""

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [Stage(size, upsample="pixel_lanczos", pixels=True)]


class UpscalerImg2img(Method):
    """The enlarged picture, diffused to rho = `denoise` and denoised as a whole."""

    def __init__(self, config: FamConfig, *, denoise: float = DENOISE) -> None:
        super().__init__(config)
        self.denoise = denoise

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        # of equal sizes the filter changes nothing
        return [Stage(size, pixels=True), Stage(size, start=self.denoise, upsample="pixel_lanczos")]


class Tiled(UpscalerImg2img):
    """The same in tiles of the native size, as the script Ultimate SD Upscale does.

    A tile is given `overlap`, a share of its side, of its neighbours on each side; the part inside is kept. There the
    tiles run one after the other and their borders are blended; here they run step by step together, so each sees its
    neighbours as they now are.
    """

    def __init__(self, config: FamConfig, *, denoise: float = DENOISE, overlap: float = OVERLAP) -> None:
        super().__init__(config, denoise=denoise)
        self.overlap = overlap

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        pixels, _ = super().stages(size, native)
        return [pixels, WindowStage(size, start=self.denoise, upsample="pixel_lanczos", window=native)]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        assert isinstance(stage, WindowStage)
        return TiledPass(pictures, stage.latent_window(pictures), self.overlap)


class TiledPass(Pass):
    """See `Tiled`; `tile` in latent pixels."""

    def __init__(self, pictures: Pictures, tile: Size, overlap: float) -> None:
        super().__init__(pictures)
        height, width = pictures.noise.shape[-2:]
        self.parts = tiles((height, width), tile, (round(tile[0] * overlap), round(tile[1] * overlap)))

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        return tiled(call, latent, level, condition, self.parts)
