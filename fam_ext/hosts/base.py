"""What the recipe asks of a host: encode, decode, conditioning, a sampler, and a model that a pass can steer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.base import Pass
from fam_ext.samplers.checks import EVENTS as EVENTS
from fam_ext.samplers.checks import LateChecks as LateChecks

logger = logging.getLogger(__name__)

Model = Callable[[Tensor, NoiseLevel], Tensor]
"""(latent in unit variance (B, C, H, W), its level) -> the network's guided output (epsilon or v), same shape;
(2 B, C, H, W) where `Host.model` was asked for both: guided, then without guidance."""

Modify = Callable[[Tensor, NoiseLevel], Tensor]
"""(sampler's state, its level) -> the state from which the next step starts."""


def unmodified(latent: Tensor, level: NoiseLevel) -> Tensor:
    """Return the state as it is: ordinary sampling."""
    return latent


@dataclass(frozen=True)
class Prompt:
    """The words of one picture."""

    positive: str = ""
    negative: str = ""
    clip_skip: int | None = None


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Generator[None, None, None]:  # noqa: ANN401
    """While open, the instance attribute `owner.name` is `make(what it was)`; afterwards it is what it was."""
    had = name in owner.__dict__
    previous = getattr(owner, name)
    ours = make(previous)
    setattr(owner, name, ours)
    try:
        yield
    finally:
        if owner.__dict__.get(name) is not ours:
            # somebody wrapped ours and has not let go: their wrapper stays, ours passes through (it is closed)
            logger.warning("%s.%s was replaced while FAM was active and stays so", type(owner).__name__, name)
        elif had:
            setattr(owner, name, previous)
        else:
            delattr(owner, name)


def replace_once(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], None]:  # noqa: ANN401
    """Replace an attribute, as `replaced` does, for its next call only: it is put back before that call begins, or by
    the function that is returned."""
    hook = ExitStack()

    def wrap(previous: Callable[..., Any]) -> Callable[..., Any]:
        ours = make(previous)

        def once(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            hook.close()
            return ours(*args, **kwargs)

        return once

    hook.enter_context(replaced(owner, name, wrap))
    return hook.close


class Sampler(Protocol):
    """One sampler over one schedule; made for one run."""

    levels: list[NoiseLevel]
    """The level of each step's state, first to last (intermediate stages of second-order steps left out)."""
    cfg_share: float
    """What of the asked CFG scale its model is to guide by."""
    wants_both: bool
    """Its model is to give both outputs."""

    def run(
        self,
        latent: Tensor,
        model: Model,
        *,
        modify: Modify = unmodified,
        step: Callable[[int, int], None] = lambda done, total: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Tensor:
        """Return the clean latent from `latent` at `levels[0]`.

        `modify` acts on the sampler's state before each step (Eq. 3), never only on the network's input. `step(done,
        total)` follows each step; when `cancelled()` is true between steps, raises `Cancelled`. Raises
        `NonFiniteLatentError` as soon as the state is not finite.
        """
        ...


class Host(Protocol):
    """A loaded model. Latents are float32 (B, C, H / 8, W / 8) on `device`, images float32 (B, 3, H, W) in [0, 1]."""

    name: str
    device: torch.device
    latent_channels: int
    num_train_timesteps: int
    prediction: str
    """What the network's output is; see `methods.base.Pictures.prediction`."""
    is_sdxl: bool
    native_side: int
    """Side in pixels of the square picture the model was trained for."""
    samplers: tuple[str, ...]
    gives: frozenset[str]
    """What a method may need of it: `methods.capabilities`."""

    def encode(self, images: Tensor, *, tile: int | None = None) -> Tensor:
        """Return the latents of `images`; in equal tiles of at most `tile` pixels (None: when large, 0: never)."""
        ...

    def decode(self, latents: Tensor, *, tile: int | None = None) -> Tensor:
        """Return the images of `latents`; tiled like `encode`."""
        ...

    def sampler(
        self,
        name: str,
        schedule: str,
        steps: int,
        *,
        seeds: list[int],
        start: float = 1.0,
        spacing: str | None = None,
    ) -> Sampler:
        """Return a sampler that begins at the first level with rho <= `start`; `spacing` as in `hires.Sampling`.

        Raises `UnsupportedSamplerError` for one that is unknown or whose state FM cannot reach.
        """
        ...

    def model(
        self,
        prompts: list[Prompt],
        *,
        size: Size,
        cfg_scale: float,
        steered: Pass | None = None,
        both: bool = False,
        low_memory: bool = False,
    ) -> AbstractContextManager[Model]:
        """While open, gives the network for `prompts` at `size` (pixels) under classifier-free guidance.

        `steered` is asked around each call of it, and at the sites in it that it patches, as long as this is open.
        `both`: give the output without guidance too (see `Model`), also at cfg_scale 1.
        `low_memory` runs the halves of the guidance one after the other.
        """
        ...
