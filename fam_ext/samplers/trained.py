"""What a model was trained at: its noise levels, read from the settings that are stored with it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import UnsupportedModelError

LEAST_SIGNAL = 2.0**-24
"""abar where none is left (zero terminal SNR), for samplers whose states need a finite sigma: 4096, as in diffusers."""
PREDICTIONS = ("epsilon", "v_prediction", "sample", "original_sample")


@dataclass(frozen=True)
class Trained:
    """The trained noise levels, timestep 0 (clean) first, and what the network answers with."""

    alphas_cumprod: tuple[float, ...]
    """abar, the share of signal in a variance-preserving latent; the last is 0 at zero terminal SNR."""
    prediction: str = "epsilon"
    spacing: str | None = None
    """How the model wants few steps spread over the trained ones; None: it doesn't say."""
    offset: int = 0
    """What "leading" spacing adds to each timestep."""
    is_sdxl: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], *, is_sdxl: bool = False) -> Trained:
        """Return what a diffusers scheduler's `config` says; raises `UnsupportedModelError`.

        A spacing that only its class added (SD1.5 and SD2.1 name none) is not the model's: each sampler has its own.
        """
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in PREDICTIONS:
            raise UnsupportedModelError(f"the network predicts {prediction!r}; choose one of {', '.join(PREDICTIONS)}")
        alphas_cumprod = (1 - _betas(config)).cumprod(0)
        if config.get("rescale_betas_zero_snr"):
            alphas_cumprod = _without_last_signal(alphas_cumprod)
        return cls(
            tuple(alphas_cumprod.tolist()),
            prediction,
            None if "timestep_spacing" in config.get("_use_default_values", ()) else config.get("timestep_spacing"),
            config.get("steps_offset", 0),
            is_sdxl,
        )

    @property
    def steps(self) -> int:
        """T, the number of trained timesteps."""
        return len(self.alphas_cumprod)

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """noise / signal of each timestep, rising and finite."""
        # single precision, as diffusers and k-diffusion: a Brownian path is rough, and shows the last digit
        alphas_cumprod = torch.tensor(self.alphas_cumprod)
        if alphas_cumprod[-1] == 0:
            alphas_cumprod[-1] = LEAST_SIGNAL
        return tuple((((1 - alphas_cumprod) / alphas_cumprod) ** 0.5).tolist())

    @cached_property
    def log_sigmas(self) -> tuple[float, ...]:
        """The logarithms of `sigmas`, in single precision."""
        return tuple(torch.tensor(self.sigmas).log().tolist())

    def timestep(self, sigma: float) -> float:
        """Return the fractional timestep of `sigma`, linear in its logarithm between the trained ones, 0 to T - 1."""
        low = min(max(bisect_right(self.log_sigmas, math.log(sigma)) - 1, 0), self.steps - 2)
        below, above = self.log_sigmas[low : low + 2]
        return low + min(max((math.log(sigma) - below) / (above - below), 0.0), 1.0)

    def sigma(self, timestep: float) -> float:
        """Return the sigma of a fractional timestep, the inverse of `timestep`."""
        return math.exp(between(self.log_sigmas, timestep))

    def at(self, sigma: float) -> NoiseLevel:
        """Return the level of `sigma` in k-diffusion's space: signal is 1."""
        low = bisect_left(self.sigmas, sigma)
        # a trained sigma's own timestep, which the rounding of its logarithm may miss
        whole = low < self.steps and self.sigmas[low] == sigma
        return NoiseLevel(float(low) if whole else self.timestep(sigma), 1.0, sigma)

    def preserving(self, timestep: int) -> NoiseLevel:
        """Return the level of a trained timestep in variance-preserving space."""
        abar = self.alphas_cumprod[timestep]
        return NoiseLevel(timestep, abar**0.5, (1 - abar) ** 0.5)


def between(values: Sequence[float], position: float) -> float:
    """Return what stands at a fractional position of `values`, linear between its neighbours."""
    low = min(int(position), len(values) - 2)
    return values[low] + (position - low) * (values[low + 1] - values[low])


def _betas(config: Mapping[str, Any]) -> Tensor:
    """Return beta, the noise that each trained timestep adds, in single precision."""
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float32)
    steps, kind = config.get("num_train_timesteps", 1000), config.get("beta_schedule", "linear")
    first, last = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    if kind == "linear":
        return torch.linspace(first, last, steps)
    if kind == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, steps) ** 2
    if kind == "squaredcos_cap_v2":  # Nichol and Dhariwal 2021
        signal = [math.cos((step / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(steps + 1)]
        return torch.tensor([min(1 - signal[step + 1] / signal[step], 0.999) for step in range(steps)])
    raise UnsupportedModelError(f"the beta schedule is {kind!r}; choose linear, scaled_linear or squaredcos_cap_v2")


def _without_last_signal(alphas_cumprod: Tensor) -> Tensor:
    """Return abar shifted and stretched so that its last is 0 and its first stays (Lin et al. 2024, algorithm 1)."""
    roots = alphas_cumprod.sqrt()
    roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    abar = roots**2
    # by way of the betas and back, as diffusers: the last digit, again
    betas = 1 - torch.cat([abar[:1], abar[1:] / abar[:-1]])
    return (1 - betas).cumprod(0)
