"""Samplers by their usual names, on diffusers' schedulers; FM reaches the state of every one offered."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import (
    Cancelled,
    NonFiniteLatentError,
    UnsupportedSamplerError,
    UnsupportedScheduleError,
    UsageError,
)
from fam_ext.hosts.base import LateChecks, Model, Modify, unmodified
from fam_ext.samplers.names import MOST_STEPS, most_steps

# name -> (diffusers class, options, schedule that "Automatic" means); variance exploding where VE holds the class
SCHEDULERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, "Uniform"),
    "Euler": ("EulerDiscreteScheduler", {}, "Uniform"),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}, "Uniform"),
    "LMS": ("LMSDiscreteScheduler", {}, "Uniform"),
    "Heun": ("HeunDiscreteScheduler", {}, "Uniform"),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, "Karras"),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "Exponential"),
    "DPM++ SDE": ("DPMSolverSDEScheduler", {}, "Karras"),
    "UniPC": ("UniPCMultistepScheduler", {}, "Uniform"),
    "LCM": ("LCMScheduler", {"clip_sample": False}, "Uniform"),
}
VE = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler")
VE += ("DPMSolverSDEScheduler",)
# name -> the scheduler's option; "SGM Uniform" is trailing spacing: it begins at the noisiest timestep
SCHEDULES = {"Karras": "use_karras_sigmas", "Exponential": "use_exponential_sigmas"}
SCHEDULES |= {"Uniform": "", "Normal": "", "SGM Uniform": ""}
INEXACT = {
    "PLMS": "its first step averages two calls at different states",
    "DPM adaptive": "it retries a step from a state that FM has changed already",
    "DPM fast": "its stages restart from states that FM does not see",
    "Restart": "it goes back to noisier states inside a step",
}
TRAINING = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
    "rescale_betas_zero_snr",
)
LMS_ORDER = 4


def split_name(name: str, schedule: str) -> tuple[str, str]:
    """Return (sampler, schedule) for a usual name: "DPM++ 2M Karras" is "DPM++ 2M" with "Karras".

    Raises `UnsupportedSamplerError` naming what is offered.
    """
    for suffix in ("Karras", "Exponential"):
        if name.lower().endswith(f" {suffix.lower()}"):
            name, schedule = name[: -len(suffix) - 1], suffix
    by_lower = {known.lower(): known for known in SCHEDULERS}
    if name in INEXACT:
        raise UnsupportedSamplerError(
            f"sampler {name!r} is refused: {INEXACT[name]}; choose one of {', '.join(SCHEDULERS)}"
        )
    if name.lower() not in by_lower:
        raise UnsupportedSamplerError(f"sampler {name!r} is unknown; choose one of {', '.join(SCHEDULERS)}")
    name = by_lower[name.lower()]
    if schedule in ("", "Automatic"):
        schedule = SCHEDULERS[name][2]
    if schedule not in SCHEDULES:
        raise UnsupportedScheduleError(f"schedule {schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}")
    if SCHEDULES[schedule] and SCHEDULERS[name][0] in (
        "DDIMScheduler",
        "EulerAncestralDiscreteScheduler",
        "LCMScheduler",
    ):
        schedule = "Uniform"  # these have no other sigmas, in diffusers as in their papers
    if schedule == "SGM Uniform" and name == "LCM":
        schedule = "Uniform"  # a distilled model's own timesteps, which begin at the noisiest
    return name, schedule


def spacing_that_runs(name: str, schedule: str, spacing: str | None) -> str | None:
    """Return the asked timestep spacing where it acts on this sampler and schedule, resolved by `split_name`; None
    where the model's own runs, LCM's fixed timesteps, or what the schedule's name says."""
    return None if name == "LCM" or schedule == "SGM Uniform" else spacing


class DiffusersSampler:
    """One run of a diffusers scheduler; see `hosts.base.Sampler`.

    Every picture has its own scheduler and noise stream, so that its result does not depend on the batch.
    """

    def __init__(
        self,
        training: dict[str, Any],
        name: str,
        schedule: str,
        *,
        steps: int,
        seeds: list[int],
        start: float = 1.0,
        spacing: str | None = None,
    ) -> None:
        if not 1 <= steps <= MOST_STEPS:
            raise UsageError(f"steps is {steps}; choose 1 to {MOST_STEPS}")
        self.name, self.schedule = split_name(name, schedule)
        if steps > most_steps(self.name):
            raise UsageError(f"steps is {steps}; choose 1 to {most_steps(self.name)} with {self.name}")
        if spacing is not None:
            training = training | {"timestep_spacing": spacing}
        self._schedulers = [_make(self.name, self.schedule, training, seed) for seed in seeds]
        self._streams = [torch.Generator().manual_seed((seed * 1_000_003 + 7) % 2**63) for seed in seeds]
        for scheduler in self._schedulers:
            scheduler.set_timesteps(steps)
        self._first = _first_index(self._schedulers[0], start)
        self.levels = [
            _level(self._schedulers[0], index)
            for index in range(self._first, len(self._schedulers[0].timesteps), _order(self._schedulers[0]))
        ]

    def run(
        self,
        latent: Tensor,
        model: Model,
        *,
        modify: Modify = unmodified,
        step: Callable[[int, int], None] = lambda done, total: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Tensor:
        """Return the clean latent (B, C, H, W) from `latent` at `levels[0]`; contract in `hosts.base.Sampler`."""
        first, done = self._schedulers[0], 0
        order, last, checks = _order(first), len(first.timesteps) - 1, LateChecks()
        for scheduler in self._schedulers:
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(self._first)
            if isinstance(getattr(scheduler, "multistep_uni_c_bh_update", None), Callable):
                _modify_corrected_state(scheduler, modify)
        for index in range(self._first, len(first.timesteps)):
            if cancelled():
                raise Cancelled(f"stopped by the user after {done} of {len(self.levels)} steps")
            level, stage = _level(first, index), (index - self._first) % order
            if stage == 0:  # the later stages of a second-order step are not states
                latent = modify(latent, level)
            output = model(latent / level.scale, level)
            latent = torch.cat(
                [
                    _step(
                        scheduler,
                        output[row : row + 1],
                        latent[row : row + 1],
                        index=index,
                        stream=stream,
                        steps_done=done,
                    )
                    for row, (scheduler, stream) in enumerate(zip(self._schedulers, self._streams, strict=True))
                ]
            )
            checks.expect(torch.isfinite(latent).all(), self._not_finite(done + 1))
            checks.send()
            if stage == order - 1 or index == last:
                done += 1
                step(done, len(self.levels))
        checks.finish()
        return latent

    def _not_finite(self, step: int) -> NonFiniteLatentError:
        return NonFiniteLatentError(
            f"the latent is not finite after step {step} of {len(self.levels)} with {self.name};"
            " use --dtype float32, or another sampler"
        )


def _make(name: str, schedule: str, training: dict[str, Any], seed: int) -> Any:  # noqa: ANN401
    import diffusers

    kind, options, _ = SCHEDULERS[name]
    scheduler_class = getattr(diffusers, kind)
    accepted = inspect.signature(scheduler_class.__init__).parameters
    settings = {key: training[key] for key in TRAINING if key in training and key in accepted} | options
    if SCHEDULES[schedule] in accepted:
        settings[SCHEDULES[schedule]] = True
    if schedule == "SGM Uniform":
        settings["timestep_spacing"] = "trailing"
    if "noise_sampler_seed" in accepted:
        settings["noise_sampler_seed"] = seed % 2**31
    scheduler = scheduler_class(**settings)
    if training.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in accepted:
        # LMS, Heun and DPM++ SDE have no such option: the noise levels are Euler's, which has
        scheduler.alphas_cumprod = _make("Euler", "Uniform", training, seed).alphas_cumprod
    return scheduler


def _order(scheduler: Any) -> int:  # noqa: ANN401
    return scheduler.order if hasattr(scheduler, "state_in_first_order") else 1


def _first_index(scheduler: Any, start: float) -> int:  # noqa: ANN401
    """Return the index of the first state whose rho is at most `start`; the last state if there is none."""
    states = range(0, len(scheduler.timesteps), _order(scheduler))
    limit = start * scheduler.config.num_train_timesteps
    return next((index for index in states if float(scheduler.timesteps[index]) <= limit), states[-1])


def _level(scheduler: Any, index: int) -> NoiseLevel:  # noqa: ANN401
    timestep = float(scheduler.timesteps[index])
    if hasattr(scheduler, "sigmas"):
        sigma = float(scheduler.sigmas[index])
        if type(scheduler).__name__ == "DPMSolverSDEScheduler" and index % 2:
            sigma = (sigma * float(scheduler.sigmas[index - 1])) ** 0.5  # the second stage's input stands between two
        if type(scheduler).__name__ in VE:
            return NoiseLevel(timestep, 1.0, sigma)
        signal = (1 + sigma**2) ** -0.5
        return NoiseLevel(timestep, signal, sigma * signal)
    abar = float(scheduler.alphas_cumprod[int(timestep)])
    return NoiseLevel(timestep, abar**0.5, (1 - abar) ** 0.5)


def _step(
    scheduler: Any,  # noqa: ANN401
    output: Tensor,
    latent: Tensor,
    *,
    index: int,
    stream: torch.Generator,
    steps_done: int,
) -> Tensor:
    timestep = scheduler.timesteps[index]
    if getattr(scheduler, "noise_sampler", latent) is None:
        scheduler.noise_sampler = _brownian_noise(scheduler, latent)
    # marks the input as scaled and sets the step index; the scaling itself is ours
    scheduler.scale_model_input(latent, timestep)
    accepted = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": stream} if "generator" in accepted else {}
    if type(scheduler).__name__ == "LMSDiscreteScheduler":
        # diffusers counts from the schedule's beginning; after a late start there are fewer derivatives than that
        extra["order"] = min(steps_done + 1, LMS_ORDER)
    with warnings.catch_warnings():
        # torchsde rounds an interval's ends by one part in ten million, and says so
        warnings.filterwarnings("ignore", message="Should have t[ab][<>]=t[01]")
        return scheduler.step(output, timestep, latent, return_dict=False, **extra)[0].to(latent.dtype)


def _brownian_noise(scheduler: Any, latent: Tensor) -> Callable[[Any, Any], Tensor]:  # noqa: ANN401
    """Return what the scheduler would make for itself, drawn on the CPU: a seed gives one picture on every device."""
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    sigmas = scheduler.sigmas[scheduler.sigmas > 0]
    draw = BrownianTreeNoiseSampler(
        torch.empty_like(latent, device="cpu"), sigmas.min(), sigmas.max(), scheduler.noise_sampler_seed
    )
    return lambda sigma, following: draw(sigma, following).to(latent)


def _modify_corrected_state(scheduler: Any, modify: Modify) -> None:  # noqa: ANN401
    """Let FM act on UniPC's corrected state: the corrector rebuilds it from the previous one and loses the change.

    The corrector's result stands at the level of the model call that it follows.
    """
    correct = scheduler.multistep_uni_c_bh_update

    def corrected(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        return modify(correct(*args, **kwargs), _level(scheduler, scheduler.step_index))

    scheduler.multistep_uni_c_bh_update = corrected
