"""What a method is: stages, and for each a pass whose hooks a host calls. Read this first to write a method.

A host runs its own sampler; around it, it asks the pass at named places. Every hook is harmless until a pass says
otherwise, may be called any number of times, counts nothing and draws from no global random state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport, NativeRecord
from fam_ext.core.schedule import NoiseLevel, Size, clamped_rho
from fam_ext.errors import ConfigError

OFF, NATIVE, TARGET = "off", "native", "target"
"""Phases of a model call: hooks in the network asleep; a native call whose output nobody reads, which the host may cut
short after the last patched attention; the call that counts."""


@dataclass(frozen=True)
class Stage:
    """One step of a method's way to the asked size."""

    size: Size
    """(height, width) in pixels."""
    start: float = 1.0
    """rho at which the sampler begins."""
    upsample: str | None = "auto"
    """How the picture before it becomes the reference (FamConfig.upsample); None: no reference, from pure noise."""
    pixels: bool = False
    """No sampling: the host enlarges the picture, where `upsample` is "auto" by its own way."""
    sharpen: int = 0
    """Percent by which a stage of pixels then sharpens (an unsharp mask)."""


@dataclass(frozen=True)
class Pictures:
    """What a pass of B pictures begins from; latents are float32 on the host's device."""

    native: Tensor
    """(B, C, h, w): the clean latent of the picture before."""
    target: Tensor | None
    """(B, C, H, W): the reference, that picture upsampled; None where the stage has none."""
    noise: Tensor
    """(B, C, H, W): the one epsilon of the pass."""
    native_noise: Tensor | None
    """(B, C, h, w): the epsilon of a native call; None where the host has none of its own."""
    steps: int
    """Of the sampler, in this pass."""
    record: NativeRecord | None = None
    """The native run's own latents by level, where that run was ours."""
    num_train_timesteps: int = 1000
    prediction: str = "epsilon"
    """What the network's output is: epsilon, v_prediction, sample or original_sample (the clean latent)."""
    is_sdxl: bool = False
    """Whether the network has SDXL's three blocks on each side, not SD1.5's and SD2.1's four."""
    low_memory: bool = False

    def rho(self, level: NoiseLevel) -> float:
        """Return t / T at `level`, in [0, 1]."""
        return clamped_rho(level.timestep, self.num_train_timesteps)


def _unknown() -> Tensor:
    raise ConfigError("this host does not tell which rows are unconditional; choose a method that does not ask")


class Words(Protocol):
    """The prompts of the pictures of one call, word by word."""

    def of(self, picture: int) -> Sequence[Sequence[int]]:
        """Return for each word of a picture's prompt its places among the keys of cross-attention."""
        ...

    def only(self, kept: Mapping[int, Collection[int]], /) -> Condition:
        """Return the condition of the same rows where the prompts of some pictures have only those of their words."""
        ...


class Condition:
    """Whom the rows of a network's input belong to, with what the host feeds them (`given`, the host's own)."""

    def __init__(
        self,
        find_rows: Callable[[], Tensor],
        given: Any = None,  # noqa: ANN401
        find_uncond: Callable[[], Tensor] = _unknown,
        *,
        words: Words | None = None,
    ) -> None:
        self._find_rows = find_rows
        self.given = given
        self._find_uncond = find_uncond
        self.words = words
        """None where a host has none, and where all rows are unconditional."""

    @cached_property
    def rows(self) -> Tensor:
        """For each row the index of its picture, int64 (rows,), on the latent's device."""
        return self._find_rows()

    @cached_property
    def uncond(self) -> Tensor:
        """For each row whether it has the negative words, bool (rows,), on the latent's device. Raises `ConfigError` or
        `UnsupportedModelError` where the host cannot tell."""
        return self._find_uncond()


class Call(Protocol):
    """The network, as a pass may call it."""

    def __call__(self, latent: Tensor, level: NoiseLevel, condition: Condition, *, phase: str = TARGET) -> Tensor:
        """Return the output for `latent` (rows, C, any H, any W) in unit variance at `level`, same shape.

        `condition` says which words each row has; size conditioning follows the latent's size. In phase NATIVE what is
        returned means nothing.
        """
        ...


class Attend(Protocol):
    """What a pass does at a self-attention layer."""

    def __call__(
        self, site: str, q: Tensor, k: Tensor, v: Tensor, *, size: Size, scale: float | None, phase: str
    ) -> Tensor | None:
        """Return the output (rows, heads, H*W, d) at `site` with grid `size`, or None: attend as usual."""
        ...


class Watch(Protocol):
    """What a pass sees at a cross-attention layer."""

    def __call__(self, site: str, q: Tensor, k: Tensor, *, size: Size, scale: float | None, phase: str) -> None:
        """Note queries (rows, heads, H*W, d) on grid `size` and keys (rows, heads, tokens, d) at `site`."""
        ...


class Kernel(Protocol):
    """A convolution of more than one pixel, as a pass may run it: at any dilation, stride and weights."""

    weight: Tensor
    """(out, in, height, width), odd sides."""
    bias: Tensor | None
    stride: Size

    def __call__(
        self, feature_map: Tensor, *, weight: Tensor | None = None, dilation: Size = (1, 1), stride: Size | None = None
    ) -> Tensor:
        """Return the output for `feature_map`, padded so that its size is divided by the stride alone (rounded up),
        around the borders as the host pads."""
        ...


class Convolve(Protocol):
    """What a pass does at a convolution."""

    def __call__(self, site: str, feature_map: Tensor, kernel: Kernel, *, size: Size, phase: str) -> Tensor | None:
        """Return the output at `site` for `feature_map` (rows, C, h, w), or None: convolve as usual.

        `size` is the output's (height, width) where no pass changes any feature map's.
        """
        ...


class Resize(Protocol):
    """What a pass does to a feature map."""

    def __call__(self, site: str, feature_map: Tensor, *, size: Size, phase: str) -> Tensor | None:
        """Return what leaves `site` in the place of `feature_map` (rows, C, h, w), also as a skip; None: that itself.

        `size` is as in `Convolve`. What a down block makes smaller at its layer j, the up block on its level makes
        `size` again at the layer that takes that skip: the last but one for j = 0, the one before for j = 1. In
        between upsamplers give what their skips need.
        """
        ...


@dataclass(frozen=True)
class Patch:
    """A change inside the network: declared by a pass, put there and taken away by the host."""

    place: str
    """ATTENTION, CROSS_ATTENTION, CONVOLUTION or FEATURE_SIZE of `methods.capabilities`: what kind of site."""
    sites: str
    """Which: patterns of names separated by commas. Attention has its host's names, or "auto" (see `hosts.sites`); the
    others have the same in every host (see `hosts.layers`)."""
    act: Callable[..., Tensor | None]
    """What is asked there: an `Attend`, `Watch`, `Convolve` or `Resize`."""
    chains: bool = False
    """It may share a site with another patch: of the two the later one is asked where the earlier gives None."""


class Pass:
    """One run of the sampler, as it is without any method: from the diffused reference, or from pure noise."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def initial(self, level: NoiseLevel) -> Tensor:
        """Return the sampler's first state (B, C, H, W) at `level`, in the sampler's own space."""
        pictures = self.pictures
        if pictures.target is None:
            return pictures.noise * level.scale
        return level.diffused(pictures.target, pictures.noise)

    def before_step(self, state: Tensor, level: NoiseLevel) -> Tensor:
        """Return the state from which the sampler's next step starts; `state` itself to leave it alone."""
        return state

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        """Return the network's output for `latent` (rows, C, H, W), by one or more of `call`."""
        return call(latent, level, condition)

    def patches(self) -> Sequence[Patch]:
        """Return the changes inside the network; asked once, before the first step."""
        return ()

    def finish(self, latent: Tensor) -> Tensor:
        """Return the stage's clean latent from what the sampler gave."""
        return latent

    def ran(self) -> GuideReport:
        """Return what acted, after the last step."""
        return GuideReport()


class Method:
    """A way to the asked size. By itself: one pass from the diffused native picture, with nothing done to it."""

    wants_record = False
    """Whether the native run's own latents shall be kept for it, where that run is ours."""

    def __init__(self, config: FamConfig) -> None:
        self.config = config

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        """Return the stages from a picture of size `native` to `size`, (height, width) in pixels."""
        return [Stage(size, start=self.config.start, upsample=self.config.upsample)]

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        """Return the pass of `stage`. Raises `ConfigError` where it cannot be."""
        return Pass(pictures)
