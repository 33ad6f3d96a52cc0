"""One run of one sampler: its levels, and a loop with everything that happens between two steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import Cancelled, NonFiniteLatentError, UsageError
from fam_ext.samplers.checks import LateChecks
from fam_ext.samplers.names import CFG_SHARE, MOST_STEPS, most_steps, split_name
from fam_ext.samplers.noise import BrownianPaths, Streams
from fam_ext.samplers.table import BROWNIAN, SAMPLERS, steps_of
from fam_ext.samplers.trained import Trained

OnLevel = Callable[[Tensor, NoiseLevel], Tensor]


class SamplerRun:
    """A sampler over one schedule for the pictures of `seeds`; see `hosts.base.Sampler`.

    Every picture has its own noise, so that its result does not depend on the batch. A run from `start` below 1 has
    the last part of the schedule, and remembers nothing of the rest.
    """

    def __init__(
        self,
        trained: Trained,
        name: str,
        schedule: str,
        *,
        steps: int,
        seeds: Sequence[int],
        start: float = 1.0,
        spacing: str | None = None,
    ) -> None:
        if not 1 <= steps <= MOST_STEPS:
            raise UsageError(f"steps is {steps}; choose 1 to {MOST_STEPS}")
        self.name, self.schedule = split_name(name, schedule)
        if steps > most_steps(self.name):
            raise UsageError(f"steps is {steps}; choose 1 to {most_steps(self.name)} with {self.name}")
        self.cfg_share = CFG_SHARE.get(self.name, 1.0)
        self.wants_both = self.name in CFG_SHARE
        whole = steps_of(self.name, self.schedule, trained, steps=steps, spacing=spacing)
        states = [level for level, _ in whole]
        first = next((at for at, level in enumerate(states) if level.timestep <= start * trained.steps), len(whole) - 1)
        self.levels = states[first:]
        self.end = whole[-1][1]
        """The level of what `run` returns: clean, or nearly (DDIM, KL Optimal)."""
        self._steps = whole[first:]
        self._trained = trained
        # over the whole schedule: where a run begins does not change a picture's path
        self._noise = (
            BrownianPaths(seeds, [*states, self.end]) if SAMPLERS[self.name].noise == BROWNIAN else Streams(seeds)
        )

    def run(
        self,
        latent: Tensor,
        model: OnLevel,
        *,
        modify: OnLevel = lambda latent, level: latent,
        step: Callable[[int, int], None] = lambda done, total: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Tensor:
        """Return the clean latent (B, C, H, W) from `latent` at `levels[0]`; contract in `hosts.base.Sampler`."""
        walk = _Walk(self, latent, model, modify, step, cancelled)
        latent = SAMPLERS[self.name].loop(latent, self._steps, walk)
        walk.finish(latent)
        return latent


class _Walk:
    """See `loops.Walk`."""

    def __init__(
        self,
        run: SamplerRun,
        latent: Tensor,
        model: OnLevel,
        modify: OnLevel,
        step: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._run = run
        self._like = latent
        self._model = model
        self._step = step
        self._cancelled = cancelled
        self._checks = LateChecks()
        self._begun = 0
        self.corrected = modify
        self.at = run._trained.at

    def begin(self, latent: Tensor, level: NoiseLevel) -> Tensor:
        if self._begun:
            self._made(latent)
        if self._cancelled():
            raise Cancelled(f"stopped by the user after {self._begun} of {self._total} steps")
        self._begun += 1
        return self.corrected(latent, level)

    def finish(self, latent: Tensor) -> None:
        self._made(latent)
        self._checks.finish()

    def denoise(self, latent: Tensor, level: NoiseLevel) -> Tensor:
        return self._clean(self._model(latent / level.scale, level), latent, level)

    def denoise_both(self, latent: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        guided, unguided = self._model(latent / level.scale, level).chunk(2)
        return self._clean(guided, latent, level), self._clean(unguided, latent, level)

    def _clean(self, output: Tensor, latent: Tensor, level: NoiseLevel) -> Tensor:
        if self._run._trained.prediction == "epsilon":
            return (latent - level.noise * output) / level.signal
        if self._run._trained.prediction == "v_prediction":
            return (level.signal / level.scale**2) * latent - (level.noise / level.scale) * output
        return output

    def noise(self, sigma: float, end: float) -> Tensor:
        return self._run._noise.draw(self._like, sigma, end)

    @property
    def _total(self) -> int:
        return len(self._run.levels)

    def _made(self, latent: Tensor) -> None:
        """Tell of the step that ended at `latent`; a value that is not finite is an error, on CUDA one step later."""
        fault = NonFiniteLatentError(
            f"the latent is not finite after step {self._begun} of {self._total} with {self._run.name};"
            " use --dtype float32, or another sampler"
        )
        self._checks.expect(torch.isfinite(latent).all(), fault)
        self._checks.send()
        self._step(self._begun, self._total)
