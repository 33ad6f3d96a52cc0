"""The paper's comparison rows beside FAM: direct inference (DI) and the skip residual (SR).

DI*, direct from the diffused native picture, is `methods.base.Method` itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import ConfigError
from fam_ext.methods.base import Method, Pass, Pictures, Stage

COSINE_POWER = 3.0


class Direct(Method):
    """Plain sampling at the asked size from pure noise, every step of it whatever `start` says."""

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return [Stage(size, upsample=None)]


class SkipResidual(Method):
    """DemoFusion's skip residual in one pass, the paper's row SR: z <- (1 - c1) z + c1 z~_t.

    c1 = (0.5 + 0.5 cos(pi (1 - rho)))^3: near pure noise the state is the diffused reference, and the pull fades as
    rho falls. All frequencies alike.
    """

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        return SkipResidualPass(pictures)


class SkipResidualPass(Pass):
    """See `SkipResidual`."""

    power = COSINE_POWER

    def before_step(self, state: Tensor, level: NoiseLevel) -> Tensor:
        if self.pictures.target is None:
            raise ConfigError("the skip residual needs a reference; give its stage an `upsample`")
        share = (0.5 + 0.5 * math.cos(math.pi * (1 - self.pictures.rho(level)))) ** self.power
        return state.lerp(level.diffused(self.pictures.target, self.pictures.noise).to(state), share)
