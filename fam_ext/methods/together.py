"""Two methods as one: the first's stages, with what both do to each pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fam_ext.core.guide import GuideReport
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.base import OFF, TARGET, Call, Condition, Method, Pass, Patch, Pictures, Stage


class Together(Method):
    """`first` says where the way leads and how a pass begins; `second` joins in each pass.

    Before a step first, then second; around the network `first` outside, so that each of its calls is a `second`'s.
    Inside the network hosts refuse a site that both patch, unless one says that it chains.
    """

    def __init__(self, first: Method, second: Method) -> None:
        super().__init__(first.config)
        self.first = first
        self.second = second
        self.wants_record = first.wants_record or second.wants_record

    def stages(self, size: Size, native: Size) -> Sequence[Stage]:
        return self.first.stages(size, native)

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        return TogetherPass(self.first.begin(stage, pictures), self.second.begin(stage, pictures))


class TogetherPass(Pass):
    """See `Together`."""

    def __init__(self, first: Pass, second: Pass) -> None:
        super().__init__(first.pictures)
        self.first = first
        self.second = second

    def initial(self, level: NoiseLevel) -> Tensor:
        return self.first.initial(level)

    def before_step(self, state: Tensor, level: NoiseLevel) -> Tensor:
        return self.second.before_step(self.first.before_step(state, level), level)

    def around_model(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        def inner(latent: Tensor, level: NoiseLevel, condition: Condition, *, phase: str = TARGET) -> Tensor:
            # where the first lets its own sites sleep, those of the second go on
            outer = TARGET if phase == OFF and self.second.patches() else phase

            def innermost(latent: Tensor, level: NoiseLevel, condition: Condition, *, phase: str = TARGET) -> Tensor:
                return call(latent, level, condition, phase=phase if outer == TARGET else outer)

            return self.second.around_model(innermost, latent, level, condition)

        return self.first.around_model(inner, latent, level, condition)

    def patches(self) -> Sequence[Patch]:
        return [*self.first.patches(), *self.second.patches()]

    def finish(self, latent: Tensor) -> Tensor:
        return self.second.finish(self.first.finish(latent))

    def ran(self) -> GuideReport:
        return self.first.ran().plus(self.second.ran())
