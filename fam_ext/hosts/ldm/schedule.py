"""Noise levels around A1111's samplers: what they call sigma, the schedule a pass runs, and both without waiting."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import ConfigError, UnsupportedSamplerError
from fam_ext.hosts.base import LateChecks, replaced

NUM_TRAIN_TIMESTEPS = 1000


def level_at(sampler: Any, sigma: float) -> NoiseLevel:  # noqa: ANN401
    """Return the level of what the sampler calls sigma: a sigma in k-diffusion, a timestep in the DDIM family."""
    denoiser = sampler.model_wrap_cfg
    inner = denoiser.inner_model
    in_sigmas = hasattr(inner, "sigma_to_t")
    if inner not in _trained:
        _trained[inner] = (inner.log_sigmas if in_sigmas else denoiser.alphas).tolist()
    if in_sigmas:
        # LCM's denoiser has every 20th trained level alone
        apart: int = getattr(inner, "skip_steps", 1)
        return NoiseLevel(apart * _timestep(_trained[inner], math.log(sigma)) + apart - 1, 1.0, sigma)
    abar = _trained[inner][int(sigma)]
    return NoiseLevel(sigma, math.sqrt(abar), math.sqrt(1 - abar))


# a denoiser's log sigmas, or alphas in the DDIM family: copied from the device once, for every read there waits
_trained: WeakKeyDictionary[Any, list[float]] = WeakKeyDictionary()


def _timestep(log_sigmas: Sequence[float], log_sigma: float) -> float:
    """Return the fractional timestep, as k-diffusion: linear in log sigma between the trained ones, 0 to T - 1."""
    low = min(max(bisect_right(log_sigmas, log_sigma) - 1, 0), len(log_sigmas) - 2)
    share = (log_sigma - log_sigmas[low]) / (log_sigmas[low + 1] - log_sigmas[low])
    return low + min(max(share, 0.0), 1.0)


class SigmaReader:
    """Reads what a model call's sigma is, without waiting for the device at any state but the first: the next one's is
    told from the schedule that the host's sampler asked for. `checks` compares the device's own with it, and reads the
    answer a call later: a sampler that leaves its schedule is an error, never a wrong level. Without `checks` every
    sigma is read.
    """

    def __init__(self, sampler: Any, checks: LateChecks | None) -> None:  # noqa: ANN401
        self._sampler = sampler
        self._checks = checks
        self._schedule: list[float] = []
        self._following: list[float] | None = None

    @contextmanager
    def listening(self) -> Generator[None, None, None]:
        """While open, the schedule that the sampler asks for is noted."""

        def note(previous: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def get_schedule(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
                schedule = previous(*args, **kwargs)
                self._schedule = sorted({float(value) for value in schedule.tolist() if value > 0}, reverse=True)
                return schedule

            return get_schedule

        with ExitStack() as undo:
            for name in ("get_sigmas", "get_timesteps"):
                if hasattr(self._sampler, name):
                    undo.enter_context(replaced(self._sampler, name, note))
            yield

    def read(self, sigma: Tensor, *, is_state: bool) -> float:
        """Return the first of `sigma` (B,); to be asked once a call. `is_state`: it is a step's own, not a stage's."""
        if sigma.device.type == "cpu" or not is_state or self._checks is None:
            return float(sigma.flatten()[0])
        if not self._following:
            value = float(sigma.flatten()[0])
            if self._following is None:
                self._following = self._after(value, within=_rounding(sigma) * value)
            return value
        expected = self._following.pop(0)
        near = (sigma.flatten()[0] - expected).abs() <= _rounding(sigma) * expected
        self._checks.expect(near, UnsupportedSamplerError(_left(self._sampler)))
        return expected

    def _after(self, first: float, *, within: float) -> list[float]:
        """Return what follows `first` in the schedule; nothing where the sampler does not walk it."""
        churned = getattr(getattr(self._sampler, "p", None), "s_churn", 0)  # noise that is added before a step
        begin = next((at for at, value in enumerate(self._schedule) if abs(value - first) <= within), None)
        return [] if churned or begin is None else self._schedule[begin + 1 :]


def _rounding(sigma: Tensor) -> float:
    """Return the share by which the device's arithmetic may move a sigma."""
    return 4 * torch.finfo(sigma.dtype).eps


def _left(sampler: Any) -> str:  # noqa: ANN401
    name = getattr(getattr(sampler, "config", None), "name", None) or getattr(sampler, "funcname", "")
    return (
        f"sampler {name} left its own schedule, so FAM cannot tell its noise level; choose another sampler, or disable "
        "the extension that changes it"
    )


# --- the schedule


@dataclass(frozen=True)
class Schedule:
    """The part of the host's schedule that a pass runs: what its sampler must be handed."""

    steps: int
    """To pass as `steps`."""
    calls: int
    """Steps that the sampler takes."""
    method: str
    """The sampler's method that gives the schedule, and what it shall give."""
    give: Callable[[Any, int], Tensor]


def schedule_from(sampler: Any, p: Any, *, steps: int, start: float) -> Schedule:  # noqa: ANN401
    """Return the tail of the host's own schedule of `steps` steps that begins at the first level with rho <= `start`.

    The host cuts its schedule by the denoising strength, and in the DDIM family it begins one step lower than it adds
    noise for; here the noise is added for the very level that the first call stands at. Raises `ConfigError` where
    `start` leaves no step.
    """
    if hasattr(sampler, "get_sigmas"):
        sigmas = sampler.get_sigmas(p, steps)
        kept = [index for index, sigma in enumerate(sigmas.tolist()) if _rho(sampler, sigma) <= start]
        tail = sigmas[kept[0] :] if start < 1 else sigmas
        calls = len(tail) - 1
        if calls < 1 or tail[0] <= 0:
            raise _no_step(start, steps)

        def give_sigmas(p: Any, total: int) -> Tensor:  # noqa: ANN401
            # the host takes the last `calls` + 1 of what it asked for
            return torch.cat([tail[:1].repeat(max(total - calls, 0)), tail])

        return Schedule(calls, calls, "get_sigmas", give_sigmas)
    timesteps = sampler.get_timesteps(p, steps)
    tail = timesteps[timesteps <= start * NUM_TRAIN_TIMESTEPS]
    if len(tail) < 2:
        raise _no_step(start, steps)
    # The host adds noise for timesteps[steps - 1] and runs timesteps[: steps - 1], last to first, but for the first of
    # them, which is only where it ends. Without a call there FM would leave the last state alone, and what the network
    # adds at its last call would stay: 0 stands below it, as in diffusers' DDIM.
    given = torch.cat([torch.zeros_like(tail[:1]), tail, tail[-1:]])
    return Schedule(len(given), len(tail), "get_timesteps", lambda p, total: given)


def _rho(sampler: Any, sigma: float) -> float:  # noqa: ANN401
    return level_at(sampler, sigma).timestep / NUM_TRAIN_TIMESTEPS if sigma > 0 else 0.0


def _no_step(start: float, steps: int) -> ConfigError:
    return ConfigError(f"start is {start} and leaves no step of {steps}; choose a higher start or more steps")
