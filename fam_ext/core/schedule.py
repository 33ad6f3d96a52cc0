"""Time: rho(t) and the sides of the low-frequency box (Eq. 8-10), and where a sampler stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError

Size = tuple[int, int]
Box = tuple[float, float]

PAPER_STEPS = 50


@dataclass(frozen=True)
class NoiseLevel:
    """A sampler's position: its latent is `signal * clean + noise * epsilon`, in the sampler's own space.

    Variance preserving (DDIM, PLMS): signal = sqrt(abar), noise = sqrt(1 - abar). Variance exploding (k-diffusion):
    signal = 1, noise = sigma. `timestep` counts from 0 (clean) to T and may be fractional.
    """

    timestep: float
    signal: float
    noise: float

    @property
    def sigma(self) -> float:
        """noise / signal: the noise level free of the sampler's scaling, infinite where no signal is left."""
        return self.noise / self.signal if self.signal else math.inf

    @property
    def scale(self) -> float:
        """sqrt(signal^2 + noise^2): divide a latent at this level by it to get the UNet's (unit variance) input."""
        return math.hypot(self.signal, self.noise)

    def diffused(self, clean: Any, epsilon: Any) -> Any:  # noqa: ANN401  # tensors, or anything that adds and scales
        """Return `clean` with the noise `epsilon` at this level, in the sampler's space (Eq. 1)."""
        return self.signal * clean + self.noise * epsilon


def rho(timestep: float, num_train_timesteps: int) -> float:
    """Return t / T in [0, 1] (Eq. 8): 1 is pure noise, 0 the clean latent. `timestep` may be fractional."""
    if not 0 <= timestep <= num_train_timesteps:
        raise ConfigError(f"timestep is {timestep}; choose 0 to {num_train_timesteps} (num_train_timesteps)")
    return timestep / num_train_timesteps


def clamped_rho(timestep: float, num_train_timesteps: int) -> float:
    """Return t / T as `rho`, for the levels of samplers whose schedules begin or end outside of 0 to T."""
    return rho(min(max(timestep, 0.0), num_train_timesteps), num_train_timesteps)


def box_size(latent_size: Size, rho: float, cutoff: float) -> Box:
    """Return (tau_h, tau_w), the sides of the low-frequency box in bins (Eq. 9-10): h c (1 - rho), w c (1 - rho).

    `latent_size` is the native latent's (height, width): the box reaches `cutoff` / 2 of the native side in cycles per
    picture once rho is 0, whatever the target's size.
    """
    height, width = latent_size
    return height * cutoff * (1 - rho), width * cutoff * (1 - rho)


def config_box(config: FamConfig, native_size: Size, target_size: Size, *, rho: float) -> Box:
    """Return the box of `config` at `rho`, by what `cutoff_reference` names.

    "cycles" reads `cutoff` as the reach in cycles per picture at rho = 0. On a picture that is not square it holds for
    the geometric mean of the sides, so that the cut-off is the same along both axes in cycles per pixel.
    """
    if config.cutoff_reference == "native":
        return box_size(native_size, rho, config.cutoff)
    if config.cutoff_reference == "target":
        return box_size(target_size, rho, config.cutoff)
    mean_side = math.sqrt(target_size[0] * target_size[1])
    return box_size(target_size, rho, 2 * config.cutoff / mean_side)


def inside_weight(config: FamConfig, rho: float, *, steps: int) -> float:
    """Return K inside the box: rho (Eq. 11), or with `step_invariant` rho^(50 start / steps).

    FM pulls at every step, so its total is 1 - prod(K): without the exponent 4 steps barely pull where 50 pin.
    """
    return rho ** (PAPER_STEPS * config.start / max(steps, 1)) if config.step_invariant else rho
