"""FAM Diffusion (arXiv 2411.18552): Frequency Modulation of the state, Attention Modulation in the network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fam_ext.core.attention import attention
from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport, HiresGuide
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import ConfigError
from fam_ext.methods.base import NATIVE, OFF, Call, Condition, Method, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import ATTENTION


class Fam(Method):
    """FM and AM by the dials of `config`; docs/equations.md says where each equation is."""

    def __init__(self, config: FamConfig) -> None:
        super().__init__(config)
        self.wants_record = _attends(config) and config.am_source != "replay"

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        """Return a pass that leaves the network alone where AM is off."""
        return FamPass(self.config, pictures) if _attends(self.config) else FmPass(self.config, pictures)


class ConstantFam(Fam):
    """FAM with the clean upsampled latent as the reference at every step: the paper's Fig. 7 (a)."""

    def __init__(self, config: FamConfig) -> None:
        super().__init__(config.replace(reference="constant"))


class SwapFam(Fam):
    """FAM with the native attention map in the target's place, lambda = 1: the paper's Fig. 8."""

    def __init__(self, config: FamConfig) -> None:
        super().__init__(config.replace(attention=1.0))


class FmPass(Pass):
    """FM alone: f_t before each step (Eq. 3-4)."""

    def __init__(self, config: FamConfig, pictures: Pictures) -> None:
        super().__init__(pictures)
        if pictures.target is None:
            raise ConfigError("FAM needs a reference; give its stage an `upsample`")
        self.guide = HiresGuide(
            config,
            native=pictures.native,
            target=pictures.target,
            noise=pictures.noise,
            native_noise=pictures.native_noise,
            steps=pictures.steps,
            record=pictures.record,
            num_train_timesteps=pictures.num_train_timesteps,
            low_memory=pictures.low_memory,
        )

    def before_step(self, state: Tensor, level: NoiseLevel) -> Tensor:
        return self.guide.modulate(state, level)

    def ran(self) -> GuideReport:
        return self.guide.report


class FamPass(FmPass):
    """FM, and AM: a native call that leaves its maps, then the call that blends them in (Eq. 7)."""

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        guide = self.guide
        if not guide.steers_at(level):
            return call(latent, level, condition, phase=OFF)
        native, native_level = guide.native_input(level)
        try:
            call(native.to(latent)[condition.rows], native_level, condition, phase=NATIVE)
            return call(latent, level, condition)
        finally:
            guide.drop_maps()

    def patches(self) -> Sequence[Patch]:
        return [Patch(ATTENTION, self.guide.config.am_sites, self.attend)]

    def attend(
        self, site: str, q: Tensor, k: Tensor, v: Tensor, *, size: Size, scale: float | None, phase: str
    ) -> Tensor | None:
        """See `methods.base.Attend`: keep the map of a native call, blend it in afterwards."""
        if phase == NATIVE:
            self.guide.keep_map(site, q, k, size=size)
            return attention(q, k, v, scale=scale)
        return self.guide.blended(site, q, k, v, size=size, scale=scale)


def _attends(config: FamConfig) -> bool:
    return config.am and config.attention > 0
