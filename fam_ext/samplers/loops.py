"""One loop a family of samplers, on (level, latent, denoised); each takes the state `walk.begin` gives and no other.

`steps` are pairs of a state's level and the level that its step ends at. `ratio` is the share of its noise that a
state keeps. In k-diffusion's space (signal 1) Euler's step from sigma to `ratio` * sigma is
`ratio` * latent + (1 - `ratio`) * denoised, and every other step is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from fam_ext.core.schedule import NoiseLevel

Steps = Sequence[tuple[NoiseLevel, NoiseLevel]]
LMS_ORDER = 4
SIGMA_DATA = 0.5
TIMESTEP_SCALE = 10.0


class Walk(Protocol):
    """What a loop asks of the run it is part of."""

    def begin(self, latent: Tensor, level: NoiseLevel, /) -> Tensor:
        """Return the state from which the step at `level` starts (Eq. 3); asked once before each step."""
        ...

    def corrected(self, latent: Tensor, level: NoiseLevel, /) -> Tensor:
        """Return the state after a correction of the one that `begin` gave, within the same step."""
        ...

    def denoise(self, latent: Tensor, level: NoiseLevel, /) -> Tensor:
        """Return the network's estimate of the clean latent."""
        ...

    def denoise_both(self, latent: Tensor, level: NoiseLevel, /) -> tuple[Tensor, Tensor]:
        """Return that estimate, and the one without guidance; for samplers of `names.CFG_SHARE`."""
        ...

    def noise(self, sigma: float, end: float, /) -> Tensor:
        """Return standard normal noise for the way from `sigma` down to `end`; a picture's own."""
        ...

    def at(self, sigma: float, /) -> NoiseLevel:
        """Return the level of a sigma between two states."""
        ...


Loop = Callable[[Tensor, Steps, Walk], Tensor]


def euler(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """DDIM without noise (Song et al. 2021, Eq. 12) and Euler (Karras et al. 2022), which differ in scale alone."""
    for level, end in steps:
        latent = walk.begin(latent, level)
        denoised = walk.denoise(latent, level)
        epsilon = (latent - level.signal * denoised) / level.noise
        latent = end.signal * denoised + end.noise * epsilon
    return latent


def ddim_cfgpp(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """CFG++ (Chung et al. 2024, algorithm 2): DDIM to the guided estimate along the noise seen without guidance."""
    for level, end in steps:
        latent = walk.begin(latent, level)
        denoised, unguided = walk.denoise_both(latent, level)
        epsilon = (latent - level.signal * unguided) / level.noise
        latent = end.signal * denoised + end.noise * epsilon
    return latent


def euler_ancestral(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """Euler to less noise than is asked, and fresh noise up to it."""
    for level, end in steps:
        latent = walk.begin(latent, level)
        denoised = walk.denoise(latent, level)
        down, up = ancestral(level.sigma, end.sigma)
        latent = toward(latent, denoised, down / level.sigma)
        latent = with_noise(latent, up, walk, level, end)
    return latent


def heun(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """Algorithm 2 of Karras et al. 2022 without churn: the mean of the slopes at a step's two ends."""
    for level, end in steps:
        latent = walk.begin(latent, level)
        denoised = walk.denoise(latent, level)
        if end.sigma == 0:
            latent = denoised
            continue
        slope = (latent - denoised) / level.sigma
        ahead = latent + slope * (end.sigma - level.sigma)
        slope_ahead = (ahead - walk.denoise(ahead, end)) / end.sigma
        latent = latent + (slope + slope_ahead) / 2 * (end.sigma - level.sigma)
    return latent


def dpm_2(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022) in k-diffusion's form: the slope half-way, in log sigma, for the whole step."""
    for level, end in steps:
        latent = walk.begin(latent, level)
        latent = _midpoint_step(latent, level, end.sigma, walk)
    return latent


def dpm_2_ancestral(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """DPM2 to less noise than is asked, and fresh noise up to it."""
    for level, end in steps:
        latent = walk.begin(latent, level)
        down, up = ancestral(level.sigma, end.sigma)
        latent = _midpoint_step(latent, level, down, walk)
        latent = with_noise(latent, up, walk, level, end)
    return latent


def _midpoint_step(latent: Tensor, level: NoiseLevel, sigma: float, walk: Walk) -> Tensor:
    denoised = walk.denoise(latent, level)
    if sigma == 0:
        return denoised
    middle = walk.at(math.sqrt(level.sigma * sigma))
    stage = latent + (latent - denoised) / level.sigma * (middle.sigma - level.sigma)
    slope = (stage - walk.denoise(stage, middle)) / middle.sigma
    return latent + slope * (sigma - level.sigma)


def lms(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """Linear multistep: the slopes of the last four states, integrated over the step."""
    slopes: list[Tensor] = []
    sigmas: list[float] = []
    for level, end in steps:
        latent = walk.begin(latent, level)
        slope = (latent - walk.denoise(latent, level)) / level.sigma
        slopes = [slope, *slopes[: LMS_ORDER - 1]]
        sigmas = [level.sigma, *sigmas[: LMS_ORDER - 1]]
        weights = lagrange_integrals(sigmas, end.sigma)
        latent = latent + sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
    return latent


def dpmpp_2m(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022): Euler toward an estimate drawn on from the last two."""
    before: tuple[NoiseLevel, Tensor] | None = None
    for level, end in steps:
        latent = walk.begin(latent, level)
        denoised = walk.denoise(latent, level)
        latent = toward(latent, drawn_on(denoised, level, end, before), end.sigma / level.sigma)
        before = level, denoised
    return latent


def dpmpp_2m_sde(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """SDE-DPM-Solver++(2M), midpoint: the noise is renewed as fast as it falls."""
    before: tuple[NoiseLevel, Tensor] | None = None
    for level, end in steps:
        latent = walk.begin(latent, level)
        denoised = walk.denoise(latent, level)
        ratio = end.sigma / level.sigma
        latent = toward(latent, drawn_on(denoised, level, end, before), ratio**2)
        latent = with_noise(latent, end.sigma * math.sqrt(1 - ratio**2), walk, level, end)
        before = level, denoised
    return latent


def dpmpp_3m_sde(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """SDE-DPM-Solver++(3M): the last three estimates, by divided differences in log sigma."""
    before: list[tuple[NoiseLevel, Tensor]] = []
    for level, end in steps:
        latent = walk.begin(latent, level)
        denoised = walk.denoise(latent, level)
        ratio = end.sigma / level.sigma
        latent = toward(latent, denoised, ratio**2)
        if end.sigma > 0 and before:
            h = 2 * log_fall(level, end)
            phi_2 = math.expm1(-h) / h + 1
            phi_3 = phi_2 / h - 0.5
            first, curve = _differences(denoised, level, end, before)
            latent = latent + phi_2 * first - phi_3 * curve
        latent = with_noise(latent, end.sigma * math.sqrt(1 - ratio**2), walk, level, end)
        before = [(level, denoised), *before[:1]]
    return latent


def _differences(
    denoised: Tensor, level: NoiseLevel, end: NoiseLevel, before: list[tuple[NoiseLevel, Tensor]]
) -> tuple[Tensor, Tensor | float]:
    """Return how `denoised` changes over a step, and how that change does: 0 with one estimate before."""
    h = log_fall(level, end)
    (last_level, last), *older = before
    r0 = log_fall(last_level, level) / h
    first = (denoised - last) / r0
    if not older:
        return first, 0.0
    r1 = log_fall(older[0][0], last_level) / h
    second = (last - older[0][1]) / r1
    curve = (first - second) / (r0 + r1)
    return first + curve * r0, curve


def dpmpp_2s_ancestral(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """DPM-Solver++(2S) to less noise than is asked, and fresh noise up to it."""
    for level, end in steps:
        latent = walk.begin(latent, level)
        denoised = walk.denoise(latent, level)
        down, up = ancestral(level.sigma, end.sigma)
        if down > 0:
            middle = walk.at(math.sqrt(level.sigma * down))
            denoised = walk.denoise(toward(latent, denoised, middle.sigma / level.sigma), middle)
        latent = toward(latent, denoised, down / level.sigma)
        latent = with_noise(latent, up, walk, level, end)
    return latent


def dpmpp_sde(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """DPM-Solver++ (stochastic), r = 1/2: the ancestral step half-way, then the whole one toward what is seen there."""
    for level, end in steps:
        latent = walk.begin(latent, level)
        denoised = walk.denoise(latent, level)
        if end.sigma == 0:
            latent = denoised
            continue
        sigma, half, whole = _through_logarithms(level.sigma, end.sigma)
        down, up = ancestral(sigma, half)
        stage = toward(latent, denoised, down / sigma) + up * walk.noise(sigma, half)
        denoised = walk.denoise(stage, walk.at(half))
        down, up = ancestral(sigma, whole)
        latent = toward(latent, denoised, down / sigma) + up * walk.noise(sigma, whole)
    return latent


def _through_logarithms(sigma: float, end: float) -> tuple[float, float, float]:
    """Return `sigma`, its geometric mean with `end`, and `end`, rounded as k-diffusion and diffusers do on the way
    through logarithms in single precision: a Brownian path is rough, and shows the last digit."""
    first, last = torch.tensor([sigma, end]).log().neg()
    through = torch.stack([first, first + (last - first) * 0.5, last]).neg().exp()
    return tuple(through.tolist())


def unipc(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """UniPC of order 2 (Zhao et al. 2023, B_2): DPM++ 2M's step predicts, the next estimate corrects it."""
    levels = [level for level, _ in steps]
    estimates: list[Tensor] = []
    origin = latent
    for index, (level, end) in enumerate(steps):
        latent = walk.begin(latent, level)
        denoised = walk.denoise(latent, level)
        if index > 0:
            target = _corrected_estimate(levels[max(index - 2, 0) : index + 1], [*estimates[-2:], denoised])
            latent = walk.corrected(toward(origin, target, level.sigma / levels[index - 1].sigma), level)
        origin = latent
        before = (levels[index - 1], estimates[-1]) if 0 < index < len(steps) - 1 else None
        latent = toward(latent, drawn_on(denoised, level, end, before), end.sigma / level.sigma)
        estimates = [*estimates[-1:], denoised]
    return latent


def _corrected_estimate(levels: Sequence[NoiseLevel], estimates: Sequence[Tensor]) -> Tensor:
    """Return what the last step should have gone toward, now that the estimate at its end is known.

    Levels and estimates up to that end; with one before the step's own beginning it is of order 2.
    """
    *older, start, end = estimates
    h = -log_fall(levels[-2], levels[-1])
    b_1 = (math.expm1(h) / h - 1) / math.expm1(h)
    if not older:
        return start + 0.5 * (end - start)
    b_2 = ((math.expm1(h) / h - 1) / h - 0.5) * 2 / math.expm1(h)
    r = log_fall(levels[-3], levels[-2]) / h
    weight = (b_1 - b_2) / (1 - r)
    return start + weight * (older[0] - start) / r + (b_1 - weight) * (end - start)


def lcm(latent: Tensor, steps: Steps, walk: Walk) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023): an estimate, and fresh noise on it, in turn."""
    for level, end in steps:
        latent = walk.begin(latent, level)
        scaled = level.timestep * TIMESTEP_SCALE
        skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        out = scaled / math.hypot(scaled, SIGMA_DATA)
        denoised = skip * latent + out * walk.denoise(latent, level)
        latent = with_noise(end.signal * denoised, end.noise, walk, level, end)
    return latent


# --- what they are made of


def toward(latent: Tensor, denoised: Tensor, ratio: float) -> Tensor:
    """Return Euler's step from sigma to `ratio` * sigma: the straight way toward the clean latent."""
    return ratio * latent + (1 - ratio) * denoised


def with_noise(latent: Tensor, amount: float, walk: Walk, level: NoiseLevel, end: NoiseLevel) -> Tensor:
    """Return `latent` with fresh noise of standard deviation `amount`; none is drawn for nothing."""
    return latent + amount * walk.noise(level.sigma, end.sigma) if amount > 0 else latent


def ancestral(sigma: float, end: float) -> tuple[float, float]:
    """Return (down, up): to how much noise to step, and how much fresh noise makes `end` of it."""
    down = end**2 / sigma
    return down, math.sqrt(end**2 - down**2)


def log_fall(level: NoiseLevel, end: NoiseLevel) -> float:
    """Return h, by how much the logarithm of sigma falls."""
    return math.log(level.sigma / end.sigma)


def drawn_on(denoised: Tensor, level: NoiseLevel, end: NoiseLevel, before: tuple[NoiseLevel, Tensor] | None) -> Tensor:
    """Return `denoised` drawn on, by what it changed since `before`, to the middle of the step (in log sigma)."""
    if before is None or end.sigma == 0:
        return denoised
    last_level, last = before
    return denoised + (denoised - last) * (log_fall(level, end) / log_fall(last_level, level) / 2)


def lagrange_integrals(points: Sequence[float], end: float) -> list[float]:
    """Return the integrals, from the first of `points` to `end`, of the polynomials that are 1 at one point and 0 at
    the others: exact for up to four points (Gauss-Legendre of order 2)."""
    middle, half = (points[0] + end) / 2, (end - points[0]) / 2
    at = [middle - half / math.sqrt(3), middle + half / math.sqrt(3)]

    def value(own: float, x: float) -> float:
        return math.prod((x - point) / (own - point) for point in points if point != own)

    return [half * sum(value(own, x) for x in at) for own in points]
