"""What the recipe asks of a host: encode, decode, conditioning, a sampler, and a model that a guide can steer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fam_ext.core.guide import HiresGuide
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import NonFiniteLatentError

Model = Callable[[Tensor, NoiseLevel], Tensor]
"""(latent in unit variance (B, C, H, W), its level) -> the network's guided output (epsilon or v), same shape."""

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


class FiniteWatch:
    """Says once a step whether the state is finite, without keeping a CUDA device waiting: the answer of one step is
    read at the next, or at `finish`."""

    def __init__(self) -> None:
        self._pending: tuple[Tensor, torch.cuda.Event | None, str] | None = None

    def look(self, latent: Tensor, message: str) -> None:
        """Note `latent` (any shape); raises `NonFiniteLatentError(message)`, on CUDA at the next call."""
        self.finish()
        answer, event = torch.isfinite(latent).all(), None
        if latent.device.type == "cuda":
            answer = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(answer, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(latent.device))
        self._pending = answer, event, message
        if event is None:
            self.finish()

    def finish(self) -> None:
        """Raise for the last state that was looked at."""
        if self._pending is None:
            return
        answer, event, message = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        if not bool(answer):
            raise NonFiniteLatentError(message)


class Sampler(Protocol):
    """One sampler over one schedule; made for one run."""

    levels: list[NoiseLevel]
    """The level of each step's state, first to last (intermediate stages of second-order steps left out)."""

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
    native_side: int
    """Side in pixels of the square picture the model was trained for."""
    samplers: tuple[str, ...]

    def encode(self, images: Tensor, *, tile: int | None = None) -> Tensor:
        """Return the latents of `images`; tiled in `tile` pixels (None: when large, 0: never)."""
        ...

    def decode(self, latents: Tensor, *, tile: int | None = None) -> Tensor:
        """Return the images of `latents`; tiled like `encode`."""
        ...

    def sampler(self, name: str, schedule: str, steps: int, *, seeds: list[int], start: float = 1.0) -> Sampler:
        """Return a sampler that begins at the first level with rho <= `start`.

        Raises `UnsupportedSamplerError` for one that is unknown or whose state FM cannot reach.
        """
        ...

    def model(
        self,
        prompts: list[Prompt],
        *,
        size: Size,
        cfg_scale: float,
        guide: HiresGuide | None = None,
        low_memory: bool = False,
    ) -> AbstractContextManager[Model]:
        """While open, gives the network for `prompts` at `size` (pixels) under classifier-free guidance.

        With a `guide`, each call runs the native pass first and blends attention; everything is undone on every exit.
        `low_memory` runs the halves of the guidance one after the other.
        """
        ...
