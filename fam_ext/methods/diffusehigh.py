"""DiffuseHigh (Kim et al., AAAI 2025, arXiv 2406.18459): a late start from a sharpened picture; its structure stays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad

from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import ConfigError
from fam_ext.methods.base import Call, Condition, Method, Pass, Pictures, Stage
from fam_ext.methods.demofusion import phases

DB4 = (
    *(0.2303778133, 0.7148465706, 0.6308807679, -0.0279837694),
    *(-0.1870348117, 0.0308413818, 0.0328830117, -0.0105974018),
)
"""Daubechies' scaling filter with four vanishing moments, of length 1."""


class DiffuseHigh(Method):
    """One phase for each multiple of the native size, each from the picture before: enlarged, sharpened, encoded,
    diffused to rho = `start` and denoised as a whole (theirs: 15 of 50 steps are left).

    Structure guidance: until rho = `until` (theirs: the first 5 of the 15 steps) the low band of the clean picture that
    the network predicts is the reference's: LL of a discrete wavelet transform by db4.

    Where ours departs: the band is that of the latents, which saves decoding and encoding at each step; the picture is
    enlarged by the host's own way; it is sharpened over 0.7 pixels (theirs: 3 x 3 of a Gaussian whose sigma is drawn
    between 0.1 and 2 pixels, which is as much on the average); guidance is as strong as before (theirs: twice); steps
    are counted in rho.
    """

    def __init__(self, config: FamConfig, *, start: float = 0.3, until: float = 0.2, sharpness: int = 100) -> None:
        super().__init__(config)
        self.start = start
        self.until = until
        self.sharpness = sharpness

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [
            stage
            for each in phases(size, native)
            for stage in (
                Stage(each, pixels=True, sharpen=self.sharpness),
                Stage(each, start=self.start, upsample="pixel_bicubic"),  # of equal sizes the filter changes nothing
            )
        ]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        return DiffuseHighPass(pictures, self.until)


class DiffuseHighPass(Pass):
    """See `DiffuseHigh`."""

    def __init__(self, pictures: Pictures, until: float) -> None:
        super().__init__(pictures)
        if pictures.target is None:
            raise ConfigError("structure guidance needs a reference; give its stage an `upsample`")
        self.guide = pictures.target
        self.until = until

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        output = call(latent, level, condition)
        if self.pictures.rho(level) <= self.until:
            return output
        signal, noise = level.signal / level.scale, level.noise / level.scale
        kind = self.pictures.prediction
        clean = clean_of(latent, output, signal=signal, noise=noise, kind=kind)
        moved = low_band(self.guide.to(output)[condition.rows] - clean)
        return output_of(output, moved, signal=signal, noise=noise, kind=kind)


def clean_of(latent: Tensor, output: Tensor, *, signal: float, noise: float, kind: str) -> Tensor:
    """Return the clean latent that `output` of `kind` says `latent` = signal * clean + noise * epsilon has.

    signal^2 + noise^2 = 1; `kind` is epsilon, v_prediction or (sample) the clean latent itself.
    """
    if kind == "epsilon":
        return (latent - noise * output) / signal
    return signal * latent - noise * output if kind == "v_prediction" else output


def output_of(output: Tensor, moved: Tensor, *, signal: float, noise: float, kind: str) -> Tensor:
    """Return what the network would have said of the same latent if its clean latent were by `moved` another one."""
    if kind == "epsilon":
        return output - moved * (signal / noise)
    return output - moved / noise if kind == "v_prediction" else output + moved


def low_band(latent: Tensor) -> Tensor:
    """Return the LL part of `latent` (rows, C, H, W): its projection on the coarse half of a db4 transform.

    Borders repeat.
    """
    height, width = latent.shape[-2:]
    reach = len(DB4)
    around = pad(latent, (reach, reach + width % 2, reach, reach + height % 2), mode="replicate")
    kernel = _kernel(latent.device, latent.dtype).expand(latent.shape[1], 1, -1, -1)
    coarse = conv2d(around, kernel, stride=2, groups=latent.shape[1])
    back = conv_transpose2d(coarse, kernel, stride=2, groups=latent.shape[1])
    return back[..., reach : reach + height, reach : reach + width]


@lru_cache(maxsize=8)
def _kernel(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return DB4 by DB4, (8, 8). Shared: made once, where a step would wait for the copy."""
    with torch.inference_mode(False):  # what is cached must not be an inference tensor, which autograd can't use later
        filters = torch.tensor(DB4, device=device, dtype=dtype)
        return filters[:, None] * filters[None, :]
