"""The paper's ablation rows as changes of the sampler's state: DI, DI* and SR beside FAM."""

from __future__ import annotations

import math

from torch import Tensor

from fam_ext.core.guide import HiresGuide
from fam_ext.core.schedule import NoiseLevel

COSINE_POWER = 3.0


class SkipResidual:
    """DemoFusion's skip residual, the paper's row SR: z <- (1 - c1) z + c1 z~_t.

    c1 = (0.5 + 0.5 cos(pi (1 - rho)))^3: near pure noise the state is the diffused reference, and the pull fades as
    rho falls. All frequencies alike.
    """

    def __init__(self, guide: HiresGuide, *, power: float = COSINE_POWER) -> None:
        self._guide = guide
        self._power = power

    def __call__(self, latent: Tensor, level: NoiseLevel) -> Tensor:
        """Return the mixed state (B, C, H, W) at `level`."""
        share = (0.5 + 0.5 * math.cos(math.pi * (1 - self._guide.rho(level)))) ** self._power
        return latent.lerp(self._guide.diffused(level).to(latent), share)
