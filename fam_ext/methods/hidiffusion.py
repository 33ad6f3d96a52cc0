"""HiDiffusion (Zhang et al., ECCV 2024, arXiv 2311.17528): a network that runs smaller inside and sees in windows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from fam_ext.core.attention import attention
from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.base import TARGET, Call, Condition, Kernel, Method, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import ATTENTION, CONVOLUTION, FEATURE_SIZE
from fam_ext.methods.fam import Fam
from fam_ext.methods.scales import scales
from fam_ext.methods.together import Together
from fam_ext.methods.views import jitter

LARGE = 3.0
"""Scale of both sides from which both places act at once."""


class HiDiffusion(Method):
    """Plain sampling from pure noise, with the deep feature maps as small as at the native size while it begins.

    Two places halve them: the downsampler of the first block with attention, at stride 4 and dilation 2, and a mean
    over 2 x 2 behind the first layer of a block. As the authors have it, below 3x the first acts for 16 % of the way
    and then the second until 40 %; from 3x on both act until 30 % and the second until 70 %. Where the first is the
    network's first downsampler (SD1.5, SD2.1), it acts alone until 40 % below 3x, and is the one that acts until 70 %
    from there on. Self-attention on the finest grid is in 2 x 2 windows, shifted at each step.

    Where ours departs: steps are counted in rho, shifts are the level's own, windows are in the up-blocks only (hosts
    reach no other attention), and of a scale between them the maps are halved, too. At scale 1 and below it is plain.
    """

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [Stage(size, upsample=None)]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        return HiDiffusionPass(pictures)


def with_fam(config: FamConfig) -> Method:
    """Return FAM on HiDiffusion's network: the paper's row HiDiffusion+FAM."""
    return Together(Fam(config), HiDiffusion(config))


class HiDiffusionPass(Pass):
    """See `HiDiffusion`."""

    def __init__(self, pictures: Pictures) -> None:
        super().__init__(pictures)
        enlarged = scales(pictures.noise.shape[-2:], pictures.native.shape[-2:])
        self.acts = max(enlarged) > 1
        self.is_large = min(enlarged) >= LARGE
        self.strides_first = False
        """Whether what strides is the network's first downsampler; noted when it is asked, before the pool there."""
        self.done = 0.0
        """Share of the way that lies behind the call that runs now."""
        self.quarters = (0, 0)
        """By how many quarters of a window its windows are shifted, down and right."""
        self.whole = (0, 0)
        """What was pooled, (height, width): smaller than usual where the stride acts, too."""

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        self.done = 1 - self.pictures.rho(level)
        down, right = jitter(level, (2, 2))
        self.quarters = down % 4, right % 4
        return call(latent, level, condition)

    def patches(self) -> Sequence[Patch]:
        if not self.acts:
            return ()
        return [
            Patch(CONVOLUTION, "{strided}", self.stride),
            Patch(CONVOLUTION, "{unstrided}", self.unstride),
            Patch(FEATURE_SIZE, "{pooled}", self.pool),
            Patch(FEATURE_SIZE, "{unpooled}", self.unpool),
            Patch(ATTENTION, "last", self.attend),
        ]

    @property
    def _strides(self) -> bool:
        if self.strides_first:
            return self.done < (0.7 if self.is_large else 0.4)
        return self.done < (0.3 if self.is_large else 0.16)

    @property
    def _pools(self) -> bool:
        if self.strides_first:
            return self.is_large and self.done < 0.3
        return self.done < 0.7 if self.is_large else 0.16 <= self.done < 0.4

    def stride(self, site: str, feature_map: Tensor, kernel: Kernel, *, size: Size, phase: str) -> Tensor | None:
        """See `methods.base.Convolve`."""
        self.strides_first = site.startswith("down_blocks.0.")
        return kernel(feature_map, dilation=(2, 2), stride=(4, 4)) if phase == TARGET and self._strides else None

    def unstride(self, site: str, feature_map: Tensor, kernel: Kernel, *, size: Size, phase: str) -> Tensor | None:
        """See `methods.base.Convolve`: what an upsampler gives to its convolution, enlarged once more."""
        return kernel(interpolate(feature_map, size)) if phase == TARGET and self._strides else None

    def pool(self, site: str, feature_map: Tensor, *, size: Size, phase: str) -> Tensor | None:
        """See `methods.base.Resize`."""
        if phase != TARGET or not self._pools:
            return None
        self.whole = feature_map.shape[-2], feature_map.shape[-1]
        return avg_pool2d(feature_map, 2, ceil_mode=True)

    def unpool(self, site: str, feature_map: Tensor, *, size: Size, phase: str) -> Tensor | None:
        """See `methods.base.Resize`."""
        return interpolate(feature_map, self.whole, mode="bicubic") if phase == TARGET and self._pools else None

    def attend(
        self, site: str, q: Tensor, k: Tensor, v: Tensor, *, size: Size, scale: float | None, phase: str
    ) -> Tensor | None:
        """See `methods.base.Attend`: in 2 x 2 windows; as usual on a grid that they do not divide."""
        height, width = size
        if phase != TARGET or height % 2 or width % 2 or q.shape[-2] != height * width:
            return None
        shift = height // 2 * self.quarters[0] // 4, width // 2 * self.quarters[1] // 4
        q, k, v = (in_windows(each, size, shift) for each in (q, k, v))
        return out_of_windows(attention(q, k, v, scale=scale), size, shift)


def in_windows(tokens: Tensor, size: Size, shift: Size) -> Tensor:
    """Return `tokens` (rows, heads, H W, d) as (rows, 4 heads, H W / 4, d): a head for each of 2 x 2 windows, the
    picture moved by `shift` around its borders."""
    rows, heads, _, depth = tokens.shape
    height, width = size
    moved = tokens.reshape(rows, heads, height, width, depth).roll((-shift[0], -shift[1]), (2, 3))
    parts = moved.reshape(rows, heads, 2, height // 2, 2, width // 2, depth).permute(0, 1, 2, 4, 3, 5, 6)
    return parts.reshape(rows, heads * 4, height * width // 4, depth)


def out_of_windows(tokens: Tensor, size: Size, shift: Size) -> Tensor:
    """Undo `in_windows`."""
    rows, heads, _, depth = tokens.shape
    height, width = size
    parts = tokens.reshape(rows, heads // 4, 2, 2, height // 2, width // 2, depth).permute(0, 1, 2, 4, 3, 5, 6)
    moved = parts.reshape(rows, heads // 4, height, width, depth).roll(shift, (2, 3))
    return moved.reshape(rows, heads // 4, height * width, depth)
