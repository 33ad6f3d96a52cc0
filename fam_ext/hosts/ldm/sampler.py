"""Steers A1111's samplers: a pass on the state that they call the model with, and on no estimate in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fam_ext.core.guide import NativeRecord
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import (
    NonFiniteLatentError,
    UnsupportedSamplerError,
)
from fam_ext.hosts.base import LateChecks, replaced
from fam_ext.hosts.ldm.rows import layout_of
from fam_ext.hosts.ldm.schedule import NUM_TRAIN_TIMESTEPS, SigmaReader, level_at
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import Pass

NOT_FINITE = "the hires latent has values that are not finite; use --no-half, --upcast-sampling or another VAE"

ONE_CALL = frozenset(
    (
        "sample_euler",
        "sample_euler_ancestral",
        "sample_lms",
        "sample_dpmpp_2m",
        "sample_dpmpp_2m_sde",
        "sample_dpmpp_3m_sde",
        "sample_lcm",
        "ddim",
        "ddim_cfgpp",
    )
)
"""Sampler functions that call the model with their state, once a step."""
TWO_CALLS = frozenset(
    (
        "sample_heun",
        "sample_dpm_2",
        "sample_dpm_2_ancestral",
        "sample_dpmpp_2s_ancestral",
        "sample_dpmpp_sde",
        "restart_sampler",
    )
)
"""Sampler functions that call it with the state, report the step, and call it again with an estimate."""
OTHERS = frozenset(("plms", "sample_dpm_fast", "sample_dpm_adaptive"))
FOLLOWING = (ONE_CALL | TWO_CALLS) - {"restart_sampler"}
"""Sampler functions whose states stand at the schedule's own levels, one after the other."""
_ADAPTIVE_CALLS = 3  # order 3: one call with the state and two with estimates, whether the step is taken or not


class StateCalls:
    """Tells a model call with the sampler's state from one with an intermediate estimate.

    FM belongs on the state only (Eq. 3): a second-order solver divides an estimate's difference by the step, so a pull
    on the estimate would push the state the other way. Where that is not known of a sampler it is refused, unless
    nothing acts on its state (not `exact`): then every call counts.
    """

    def __init__(self, function: str, *, steps: int, label: str | None = None, exact: bool = True) -> None:
        if exact and function not in ONE_CALL | TWO_CALLS | OTHERS:
            raise UnsupportedSamplerError(
                f"FAM cannot act exactly on the state of sampler {label or function}; choose DPM++ 2M, Euler, Heun, "
                "DDIM or another of the WebUI's own samplers except UniPC"
            )
        self.function = function
        self._calls = 0
        self._estimates = 0
        self._steps = 0
        self._orders = _fast_orders(steps) if function == "sample_dpm_fast" else []
        self._state: Tensor | None = None

    def is_state(self, latent: Tensor) -> bool:
        """Return whether this call's `latent` is a state not seen yet; to be asked once a call."""
        self._calls += 1
        if self.function == "sample_dpm_adaptive":
            if self._calls % _ADAPTIVE_CALLS != 1:
                return False
            # a rejected step is tried again from the very same tensor, which FM has changed already
            fresh, self._state = latent is not self._state, latent
            return fresh
        if self.function == "plms":
            return self._calls != 2
        if self._estimates:
            self._estimates -= 1
            return False
        return True

    def stepped(self) -> None:
        """Note the sampler's own report of a step, which comes between the state's call and the estimates'."""
        if self.function in TWO_CALLS:
            self._estimates = 1
        elif self.function == "sample_dpm_fast":
            self._estimates = self._orders[min(self._steps, len(self._orders) - 1)] - 1
        self._steps += 1


def _fast_orders(calls: int) -> list[int]:
    """Return the order of each step of DPM fast, as k-diffusion divides `calls` among them."""
    whole = math.floor(calls / 3)
    return [3] * (whole - 1) + [2, 1] if calls % 3 == 0 else [3] * whole + [calls % 3]


def function_name(sampler: Any) -> str:  # noqa: ANN401
    """Return the name of the sampling function inside the host's sampler object."""
    return getattr(sampler.func, "__name__", str(sampler.funcname))


@contextmanager
def steered_sampler(sampler: Any, steering: Steering) -> Generator[None, None, None]:  # noqa: ANN401
    """While open, the running pass acts on the sampler's own latent before each step, and `steering` follows it."""
    steered = steering.active
    if steered is None:
        raise AssertionError("open the steering's pass before its sampler")
    acts = type(steered).before_step is not Pass.before_step
    steps = steered.pictures.steps
    calls = StateCalls(function_name(sampler), steps=steps, label=_label(sampler), exact=acts)
    checks = steering.checks
    is_first = steered.pictures.target is None  # the host begins from its own picture and noise: not so this pass

    def before_call(latent: Tensor, level: NoiseLevel, is_state: bool, cond: Any) -> None:  # noqa: ANN401
        nonlocal is_first
        checks.expect(torch.isfinite(latent).all(), NonFiniteLatentError(NOT_FINITE))
        checks.send()
        if is_first:
            latent.copy_(steered.initial(level))
            is_first = False
        if is_state:
            changed = steered.before_step(latent, level)
            if changed is not latent:
                latent.copy_(changed)
        steering.latent, steering.level = latent, level
        steering.layout = layout_of(cond, latent.shape[0])

    height, width = steered.pictures.noise.shape[-2:]
    with _watched(sampler, before_call, calls, checks, size=(height, width)):
        yield
        checks.send()
        checks.finish()


@contextmanager
def recorded_sampler(sampler: Any, record: NativeRecord) -> Generator[None, None, None]:  # noqa: ANN401
    """While open, `record` takes the sampler's state at each level: the native run that AM attends to."""
    function = function_name(sampler)
    if function not in ONE_CALL | TWO_CALLS | OTHERS:
        yield  # no record: the hires pass falls back on replay
        return
    calls, checks = StateCalls(function, steps=NUM_TRAIN_TIMESTEPS), LateChecks()
    if function == "sample_dpm_fast":  # without its number of calls, every call counts
        calls.function = "every call"

    def before_call(latent: Tensor, level: NoiseLevel, is_state: bool, cond: Any) -> None:  # noqa: ANN401
        checks.send()
        if is_state:
            record.add(latent, level)

    with _watched(sampler, before_call, calls, checks):
        yield
        checks.finish()


@contextmanager
def _watched(
    sampler: Any,  # noqa: ANN401
    before_call: Callable[[Tensor, NoiseLevel, bool, Any], None],
    calls: StateCalls,
    checks: LateChecks,
    *,
    size: Size | None = None,
) -> Generator[None, None, None]:
    """While open, `before_call(latent, level, is_state, cond)` precedes each call at latent `size` (None: at any)."""
    reader = SigmaReader(sampler, checks if calls.function in FOLLOWING else None)

    def watch_forward(previous: Callable[..., Any]) -> Callable[..., Any]:
        def forward(x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if size is None or tuple(x.shape[-2:]) == size:
                is_state = calls.is_state(x)
                before_call(x, level_at(sampler, reader.read(sigma, is_state=is_state)), is_state, kwargs.get("cond"))
            return previous(x, sigma, *args, **kwargs)

        return forward

    def watch_step(previous: Callable[..., Any]) -> Callable[..., Any]:
        def callback_state(info: Any) -> Any:  # noqa: ANN401
            calls.stepped()
            return previous(info)

        return callback_state

    with (
        reader.listening(),
        replaced(sampler.model_wrap_cfg, "forward", watch_forward),
        replaced(sampler, "callback_state", watch_step),
    ):
        yield


def _label(sampler: Any) -> str | None:  # noqa: ANN401
    return getattr(getattr(sampler, "config", None), "name", None)


def check_finite(latent: Tensor) -> None:
    """Raise `NonFiniteLatentError` when `latent` holds a value that is not finite."""
    if not bool(torch.isfinite(latent).all()):
        raise NonFiniteLatentError(NOT_FINITE)
