"""Schedules: at which noise levels a run stands. Functions of a model's trained levels and the number of steps.

Those of the WebUI return sigmas, falling, with what the last step ends at behind them: 0, but for KL Optimal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from fam_ext.samplers.trained import Trained, between

RHO = 7.0
"""Karras et al. 2022: how much closer the steps stand where there is little noise."""
CONSISTENCY_STEPS = 50
"""Timesteps that a latent consistency model was distilled at."""
BETA = 0.6
"""Both parameters of the beta distribution (Lee et al. 2024), as the WebUI sets them."""
# Align Your Steps (Sabour et al. 2024): the published sigmas of ten steps
AYS_SD = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
AYS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def ramp(steps: int) -> list[float]:
    """Return `steps` numbers from 0 to 1, evenly."""
    return [step / max(steps - 1, 1) for step in range(steps)]


def karras(steps: int, largest: float, smallest: float) -> list[float]:
    """Return sigmas even in sigma^(1 / 7) (Karras et al. 2022, Eq. 5)."""
    first, last = largest ** (1 / RHO), smallest ** (1 / RHO)
    return [(first + share * (last - first)) ** RHO for share in ramp(steps)]


def exponential(steps: int, largest: float, smallest: float) -> list[float]:
    """Return sigmas even in their logarithm. The WebUI's Polyexponential is this at its rho of 1."""
    first, last = math.log(largest), math.log(smallest)
    return [math.exp(first + share * (last - first)) for share in ramp(steps)]


# --- the WebUI's


def normal(trained: Trained, steps: int) -> list[float]:
    """Return the sigmas of timesteps spread evenly from the noisiest to 0."""
    return [*(trained.sigma((trained.steps - 1) * (1 - share)) for share in ramp(steps)), 0.0]


def sgm_uniform(trained: Trained, steps: int) -> list[float]:
    """Return the sigmas of timesteps spread evenly from the noisiest to one step before 0."""
    return [*normal(trained, steps + 1)[:-2], 0.0]


def simple(trained: Trained, steps: int) -> list[float]:
    """Return every (T / steps)-th trained sigma, from the largest."""
    return [*(trained.sigmas[-1 - int(step * (trained.steps / steps))] for step in range(steps)), 0.0]


def ddim_uniform(trained: Trained, steps: int) -> list[float]:
    """Return every (T // steps)-th trained sigma, up from timestep 1: one step more where T // steps is rounded."""
    return [*reversed(trained.sigmas[1 :: max(trained.steps // steps, 1)]), 0.0]


def turbo(trained: Trained, steps: int) -> list[float]:
    """Return the trained sigmas that SDXL Turbo was distilled at: whole timesteps, from the noisiest."""
    apart = trained.steps / steps
    return [*(trained.sigmas[max(round(step * apart - 1), 0)] for step in range(steps, 0, -1)), 0.0]


def kl_optimal(trained: Trained, steps: int) -> list[float]:
    """Return sigmas even in their arc tangent, from the largest to the smallest: the last step ends there, not at 0."""
    largest, smallest = math.atan(trained.sigmas[-1]), math.atan(trained.sigmas[0])
    return [math.tan(largest + share * (smallest - largest)) for share in ramp(steps + 1)]


def align_your_steps(trained: Trained, steps: int) -> list[float]:
    """Return the published sigmas of ten steps, between them by their logarithm where there are other than eleven."""
    logs = [math.log(sigma) for sigma in (AYS_SDXL if trained.is_sdxl else AYS_SD)]
    return [*(math.exp(between(logs, share * (len(logs) - 1))) for share in ramp(steps)), 0.0]


def beta(trained: Trained, steps: int) -> list[float]:
    """Return sigmas at even quantiles of a beta distribution: close at both ends (Lee et al. 2024)."""
    from scipy.special import betaincinv

    smallest, largest = trained.sigmas[0], trained.sigmas[-1]
    return [*(smallest + float(betaincinv(BETA, BETA, 1 - share)) * (largest - smallest) for share in ramp(steps)), 0.0]


def _whole_range(shape: Callable[[int, float, float], list[float]], trained: Trained, steps: int) -> list[float]:
    return [*shape(steps, trained.sigmas[-1], trained.sigmas[0]), 0.0]


WEBUI: Mapping[str, Callable[[Trained, int], list[float]]] = {
    "Uniform": normal,
    "Normal": normal,
    "SGM Uniform": sgm_uniform,
    "Karras": partial(_whole_range, karras),
    "Exponential": partial(_whole_range, exponential),
    "Polyexponential": partial(_whole_range, exponential),
    "Simple": simple,
    "DDIM": ddim_uniform,
    "KL Optimal": kl_optimal,
    "Align Your Steps": align_your_steps,
    "Beta": beta,
    "Turbo": turbo,
}
"""By the WebUI's names, Turbo by Forge's."""


# --- diffusers' ways to spread timesteps: falling, fractional where a sampler takes them so


def spread(trained: Trained, steps: int, spacing: str) -> list[float]:
    """Return `steps` timesteps, as diffusers' samplers with states at every one of them, the last included."""
    if spacing == "linspace":
        apart = (trained.steps - 1) / max(steps - 1, 1)
        return [step * apart for step in reversed(range(steps))]
    if spacing == "leading":
        return [step * (trained.steps // steps) + trained.offset for step in reversed(range(steps))]
    return trailing(trained, steps)


def spread_above_zero(trained: Trained, steps: int, spacing: str) -> list[float]:
    """Return the first `steps` of `steps` + 1 whole timesteps, as diffusers' DPM-Solvers."""
    if spacing == "linspace":
        apart = (trained.steps - 1) / steps
        return [round(step * apart) for step in range(steps, 0, -1)]
    if spacing == "leading":
        return [step * (trained.steps // (steps + 1)) + trained.offset for step in range(steps, 0, -1)]
    return trailing(trained, steps)


def trailing(trained: Trained, steps: int) -> list[float]:
    """Return `steps` whole timesteps, evenly down from the noisiest."""
    apart = trained.steps - (trained.steps - trained.steps / steps)  # numpy's, to the last digit: halves are rounded
    return [round(trained.steps - step * apart) - 1 for step in range(steps)]


def consistency(trained: Trained, steps: int) -> list[int]:
    """Return `steps` of the fifty timesteps that a latent consistency model knows, from the noisiest."""
    apart = trained.steps // CONSISTENCY_STEPS
    return [(CONSISTENCY_STEPS - int(step * (CONSISTENCY_STEPS / steps))) * apart - 1 for step in range(steps)]
