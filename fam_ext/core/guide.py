"""HiresGuide: the state of one guided pass. It is asked two things: modulate this latent, attend at this site."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fam_ext.core.attention import modulated_attention
from fam_ext.core.config import FamConfig
from fam_ext.core.frequency import high_pass_mask, mirrored, modulate_spatial
from fam_ext.core.schedule import NoiseLevel, Size, clamped_rho, config_box, inside_weight
from fam_ext.core.without_fft import Modulation
from fam_ext.errors import ConfigError


class NativeRecord:
    """The latents of a native run by noise level: what `am_source` "recorded" attends to."""

    def __init__(self) -> None:
        self._latents: dict[float, tuple[NoiseLevel, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._latents)

    def add(self, latent: Tensor, level: NoiseLevel) -> None:
        """Keep a copy of the sampler's `latent` (B, C, h, w) at `level`; the last of equal sigmas counts."""
        self._latents[level.sigma] = (level, latent.detach().clone())

    def steps(self) -> list[tuple[NoiseLevel, Tensor]]:
        """Return all that is kept, as (level, latent)."""
        return list(self._latents.values())

    def nearest(self, level: NoiseLevel) -> tuple[NoiseLevel, Tensor]:
        """Return the recorded (level, latent) whose timestep is nearest to that of `level`."""
        return min(self._latents.values(), key=lambda entry: abs(entry[0].timestep - level.timestep))


@dataclass
class GuideReport:
    """What really ran, for metadata and tests: model calls that FM changed, attention calls that AM changed by site."""

    fm_calls: int = 0
    am_calls: dict[str, int] = field(default_factory=dict[str, int])

    def plus(self, other: GuideReport) -> GuideReport:
        """Return what ran in both."""
        am_calls = {**self.am_calls}
        for site, calls in other.am_calls.items():
            am_calls[site] = am_calls.get(site, 0) + calls
        return GuideReport(self.fm_calls + other.fm_calls, am_calls)


class HiresGuide:
    """Guides one hires pass of B pictures: z~_t, f_t (Eq. 3-4) and the blended attention (Eq. 7).

    `native` (B, C, h, w) is the clean native latent z_0^n, `target` (B, C, H, W) the same upsampled, `noise` like
    `target` the one epsilon of the pass, `native_noise` like `native` the epsilon of the replay (None: `noise` resized
    by nearest, which keeps unit variance). `steps` is the number of sampler steps. One pass, one guide, one thread.
    """

    def __init__(
        self,
        config: FamConfig,
        *,
        native: Tensor,
        target: Tensor,
        noise: Tensor,
        steps: int,
        native_noise: Tensor | None = None,
        record: NativeRecord | None = None,
        num_train_timesteps: int = 1000,
        low_memory: bool = False,
    ) -> None:
        if target.shape != noise.shape or target.shape[:2] != native.shape[:2]:
            raise ConfigError(
                f"native {tuple(native.shape)}, target {tuple(target.shape)} and noise {tuple(noise.shape)} do not fit;"
                " give (B, C, h, w), (B, C, H, W), (B, C, H, W)"
            )
        if config.am_source == "recorded" and config.am and not record:
            raise ConfigError("am_source is 'recorded' but no native run was recorded; choose auto or replay")
        self.config = config
        self.native = native
        self.target = target
        self.noise = noise
        self.native_noise = interpolate(noise, native.shape[-2:]) if native_noise is None else native_noise
        self.steps = steps
        self.record = record if config.am_source != "replay" else None
        self.num_train_timesteps = num_train_timesteps
        self.low_memory = low_memory
        """Keep the native queries and keys in main memory between the passes (SDXL on a GPU: about 0.3 GB less)."""
        self.report = GuideReport()
        self._maps: dict[str, tuple[Tensor, Tensor, Size]] = {}
        self._modulated = Modulation(modulate_spatial)

    @property
    def native_size(self) -> Size:
        """(h, w) of the native latent."""
        return self.native.shape[-2], self.native.shape[-1]

    @property
    def target_size(self) -> Size:
        """(H, W) of the target latent."""
        return self.target.shape[-2], self.target.shape[-1]

    def rho(self, level: NoiseLevel) -> float:
        """Return t / T at `level`."""
        return clamped_rho(level.timestep, self.num_train_timesteps)

    # --- Frequency Modulation

    def diffused(self, level: NoiseLevel) -> Tensor:
        """Return z~_t, the upsampled latent diffused to `level` with the pass's one epsilon, in the sampler's space."""
        return level.diffused(self.target, self.noise)

    def modulate(self, latent: Tensor, level: NoiseLevel) -> Tensor:
        """Return f_t(z~_t, z_t) (Eq. 3-4) for the sampler's state `latent` (B, C, H, W), or `latent` itself when FM
        does not act at `level`."""
        position = self.rho(level)
        if not self.config.fm_acts_at(position):
            return latent
        # the constant reference is the clean latent in variance-preserving space, carried over to the sampler's
        reference = self.diffused(level) if self.config.reference == "diffused" else self.target * level.scale
        box = config_box(self.config, self.native_size, self.target_size, rho=position)
        weight = inside_weight(self.config, position, steps=self.steps)
        if weight == 1 or 0 in box:
            return latent
        self.report.fm_calls += 1
        height, width = self.target_size
        times = 2 if self.config.fm_boundary == "mirrored" else 1
        size, box = (times * height, times * width), (times * box[0], times * box[1])
        mask = high_pass_mask(size, box, weight, edge=self.config.fm_edge, device=latent.device)
        if times == 1:
            return self._modulated(latent, reference.to(latent), mask)
        return self._modulated(mirrored(latent), mirrored(reference.to(latent)), mask)[..., :height, :width]

    # --- Attention Modulation

    def steers_at(self, level: NoiseLevel) -> bool:
        """Return whether AM acts at `level`; if so the host runs a native pass first."""
        return self.config.am_acts_at(self.rho(level))

    def native_input(self, level: NoiseLevel) -> tuple[Tensor, NoiseLevel]:
        """Return the native UNet input (B, C, h, w) in unit variance (VP space) and the level it stands at.

        Recorded: the native run's own latent of the nearest timestep. Replay: the native latent diffused to `level`.
        """
        if self.record:
            recorded, latent = self.record.nearest(level)
            return latent / recorded.scale, recorded
        return level.diffused(self.native, self.native_noise) / level.scale, level

    def keep_map(self, site: str, q: Tensor, k: Tensor, *, size: Size) -> None:
        """Keep the queries and keys (B, heads, h*w, d) of a native call at `site` with grid `size`."""
        self._maps[site] = (q.cpu(), k.cpu(), size) if self.low_memory else (q, k, size)

    def drop_maps(self) -> None:
        """Forget the native maps: they are their own step's."""
        self._maps.clear()

    def blended(
        self, site: str, q: Tensor, k: Tensor, v: Tensor, *, size: Size, scale: float | None = None
    ) -> Tensor | None:
        """Return the attention output (B, heads, H*W, d) with the native map of `site` blended in (Eq. 7); None, attend
        as usual, where none is kept, and where another method runs this grid smaller than the native one. A map is
        used once. Raises `ConfigError` where it was kept for another number of rows."""
        if site not in self._maps:
            return None
        native_q, native_k, native_size = self._maps.pop(site)  # one call, one use: the UNet's memory peaks later
        if any(side < native for side, native in zip(size, native_size, strict=True)):
            return None
        if native_q.shape[0] != q.shape[0]:
            raise ConfigError(
                f"site {site} has {q.shape[0]} rows but its native pass had {native_q.shape[0]}; run both with the same"
            )
        self.report.am_calls[site] = self.report.am_calls.get(site, 0) + 1
        return modulated_attention(
            q,
            k,
            v,
            native_q.to(q.device),
            native_k.to(q.device),
            size=size,
            native_size=native_size,
            strength=self.config.attention,
            interp=self.config.am_interp,
            scale=scale,
        )


def seeded_noise(shape: tuple[int, ...], seeds: list[int], *, salt: int = 0) -> Tensor:
    """Return standard normal noise (len(seeds), *shape) in float32 on the CPU: one stream per (seed, salt).

    A picture's noise does not depend on its neighbours in the batch, nor on the device.
    """
    streams = (torch.Generator().manual_seed((seed * 1_000_003 + salt) % 2**63) for seed in seeds)
    return torch.stack([torch.randn(shape, generator=stream) for stream in streams])
