"""The samplers: which loop, over which levels, with which noise. `names.OFFERED` has their names without torch."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fam_ext.core.schedule import NoiseLevel
from fam_ext.samplers import loops, schedules
from fam_ext.samplers.trained import Trained, between

CLEAN = NoiseLevel(0.0, 1.0, 0.0)
SPACED = ("Uniform", "SGM Uniform")
ALL_OF_DIFFUSERS = (*SPACED, "Karras", "Exponential")
EACH_STEP, BROWNIAN = "each step", "Brownian path"


@dataclass(frozen=True)
class Entry:
    """One sampler: what its loop runs over. The schedule that "Automatic" means is in `names.OFFERED`."""

    loop: loops.Loop
    order: int
    diffusers: tuple[str, ...] = ()
    """Schedules with diffusers' sigmas; every other one has the WebUI's."""
    noise: str = ""
    """What is drawn between states: nothing, `EACH_STEP` or `BROWNIAN`."""
    spread: Callable[[Trained, int, str], list[float]] = schedules.spread
    whole: bool = False
    """On diffusers' schedules the network is told whole timesteps, and sigmas span the model's whole range."""
    preserving: bool = False
    """States are variance preserving, at trained timesteps."""
    skips_last_sigma: bool = False
    """The WebUI leaves out the last sigma before 0 of a schedule with one step more."""


SAMPLERS: Mapping[str, Entry] = {
    "DDIM": Entry(loops.euler, 1, SPACED, preserving=True),
    "DDIM CFG++": Entry(loops.ddim_cfgpp, 1, SPACED, preserving=True),
    "Euler": Entry(loops.euler, 1, ALL_OF_DIFFUSERS),
    "Euler a": Entry(loops.euler_ancestral, 1, SPACED, EACH_STEP),
    "LMS": Entry(loops.lms, 4, ALL_OF_DIFFUSERS),
    "Heun": Entry(loops.heun, 2, ALL_OF_DIFFUSERS),
    "DPM2": Entry(loops.dpm_2, 2, skips_last_sigma=True),
    "DPM2 a": Entry(loops.dpm_2_ancestral, 2, noise=EACH_STEP, skips_last_sigma=True),
    "DPM++ 2S a": Entry(loops.dpmpp_2s_ancestral, 2, noise=EACH_STEP),
    "DPM++ 2M": Entry(loops.dpmpp_2m, 2, ALL_OF_DIFFUSERS, spread=schedules.spread_above_zero, whole=True),
    "DPM++ 2M SDE": Entry(
        loops.dpmpp_2m_sde, 2, ALL_OF_DIFFUSERS, EACH_STEP, spread=schedules.spread_above_zero, whole=True
    ),
    "DPM++ 3M SDE": Entry(loops.dpmpp_3m_sde, 3, noise=BROWNIAN, skips_last_sigma=True),
    "DPM++ SDE": Entry(loops.dpmpp_sde, 2, ALL_OF_DIFFUSERS, BROWNIAN),
    "UniPC": Entry(loops.unipc, 2, ALL_OF_DIFFUSERS, spread=schedules.spread_above_zero, whole=True),
    "LCM": Entry(loops.lcm, 1, ("Uniform",), EACH_STEP, preserving=True),
}


def steps_of(name: str, schedule: str, trained: Trained, *, steps: int, spacing: str | None) -> loops.Steps:
    """Return the pairs (level of a state, level that its step ends at) of a whole run, the noisiest first.

    `name` and `schedule` as `names.split_name` gives them; `spacing` None is the model's own.
    """
    entry = SAMPLERS[name]
    if name == "LCM":
        timesteps = schedules.consistency(trained, steps)
        return _pairs([trained.preserving(timestep) for timestep in timesteps], CLEAN)
    if schedule == "SGM Uniform":
        asked = "trailing"
    else:
        asked = spacing or trained.spacing or ("leading" if entry.preserving else "linspace")
    if entry.preserving:
        return _ddim_steps(trained, steps, asked)
    if schedule not in entry.diffusers and not (schedule == "Uniform" and spacing):
        sigmas = schedules.WEBUI[schedule](trained, steps + entry.skips_last_sigma)
        if entry.skips_last_sigma:
            del sigmas[-2]
        levels = [trained.at(_single(sigma)) for sigma in sigmas if sigma > 0]
        return _pairs(levels, CLEAN) if sigmas[-1] == 0 else _pairs(levels[:-1], levels[-1])
    timesteps = entry.spread(trained, steps, asked)
    sigmas = [between(trained.sigmas, timestep) for timestep in timesteps]
    if schedule in ("Karras", "Exponential"):
        largest, smallest = (trained.sigmas[-1], trained.sigmas[0]) if entry.whole else (sigmas[0], sigmas[-1])
        shape = schedules.karras if schedule == "Karras" else schedules.exponential
        sigmas = shape(steps, largest, smallest)
        timesteps = [trained.timestep(sigma) for sigma in sigmas]
    if entry.whole:
        # diffusers rounds them for Karras and cuts them for Exponential
        timesteps = [round(timestep) if schedule == "Karras" else int(timestep) for timestep in timesteps]
    levels = [NoiseLevel(timestep, 1.0, _single(sigma)) for timestep, sigma in zip(timesteps, sigmas, strict=True)]
    return _pairs(levels, CLEAN)


def _ddim_steps(trained: Trained, steps: int, spacing: str) -> loops.Steps:
    """As diffusers, a step ends T // steps timesteps further down, wherever the next state stands, and the last one at
    timestep 0, not at clean."""
    timesteps = [round(timestep) for timestep in schedules.spread(trained, steps, spacing)]
    ends = [max(timestep - trained.steps // steps, 0) for timestep in timesteps]
    return [(trained.preserving(first), trained.preserving(last)) for first, last in zip(timesteps, ends, strict=True)]


def _pairs(levels: list[NoiseLevel], end: NoiseLevel) -> loops.Steps:
    return list(zip(levels, [*levels[1:], end], strict=True))


def _single(value: float) -> float:
    """Return `value` in single precision, in which diffusers and k-diffusion hold a schedule."""
    return struct.unpack("f", struct.pack("f", value))[0]
