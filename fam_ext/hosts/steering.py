"""What the hooks in one network read: which pass is running, in which phase of a call, and where its sampler stands."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import AlreadyGuidedError, ConfigError
from fam_ext.hosts.base import LateChecks
from fam_ext.methods.base import OFF, Pass, Patch

Reach = Mapping[str, Callable[[str], Sequence[Any]]]
"""A kind of site -> what gives those that a pattern of names means, in running order; each has a `name`."""
Placed = dict[str, list[Any]]
"""A kind of site -> those that a pass patches, in running order."""

Row = tuple[int, bool]
"""Of a network's input: its picture, and whether it is unconditional."""


class Steering:
    """One for each hooked network. A host sets it around its calls; a hook only asks."""

    def __init__(self) -> None:
        self.active: Pass | None = None
        self.phase = OFF
        self.level: NoiseLevel | None = None
        """Where the sampler last called the model, and there its state (B, C, H, W): hosts whose loop is not ours."""
        self.latent: Tensor | None = None
        self.is_other = False
        """Whether the network runs on a latent that it was not called with: ControlNet's reference."""
        self.layout: list[Row] | None = None
        """The rows that the network is to be given at this state, call by call; None: not known."""
        self.checks = LateChecks()
        self.patches: dict[str, list[Patch]] = {}
        """By name of a site, those that act there, first to be asked first."""

    @contextmanager
    def running(self, steered: Pass) -> Generator[None, None, None]:
        """While open, hooks ask `steered`. Raises `AlreadyGuidedError` on a second entry."""
        if self.active is not None:
            raise AlreadyGuidedError("this model is being guided already; let that generation finish first")
        self.active = steered
        try:
            yield
        finally:
            self.active = self.level = self.latent = self.layout = None
            self.patches = {}

    @contextmanager
    def during(self, phase: str) -> Generator[None, None, None]:
        """While open, a call of the network is in `phase`."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def place(self, patches: Sequence[Patch], reach: Reach) -> Placed:
        """Note which of `patches` act at which site, and return those sites by kind, in running order.

        `reach` gives, by kind, the sites that a patch's pattern means. Raises `ConfigError` where it has no such kind,
        and where two patches that do not chain meet.
        """
        self.patches = {}
        for patch in patches:
            if patch.place not in reach:
                raise ConfigError(f"this host's networks do not reach {patch.place}; choose a method without")
            for site in reach[patch.place](patch.sites):
                there = self.patches.setdefault(site.name, [])
                if there and not (patch.chains or all(other.chains for other in there)):
                    raise ConfigError(f"{site.name} is patched twice; choose methods or sites that do not meet")
                there.append(patch)
        places = {patch.place for patch in patches}
        return {
            place: [site for site in select("*") if site.name in self.patches] if place in places else []
            for place, select in reach.items()
        }

    def next_rows(self, count: int) -> tuple[Row, ...] | None:
        """Return the next `count` rows of the layout, and take them off it; None where it ends."""
        layout = self.layout or []
        rows, self.layout = layout[:count], layout[count:]
        return tuple(rows) if len(rows) == count else None

    def attend(self, site: str, q: Tensor, k: Tensor, v: Tensor, *, size: Size, scale: float | None) -> Tensor | None:
        """Return what the running pass makes of the attention at `site`; None: attend as usual."""
        return self.ask(site, q, k, v, size=size, scale=scale)

    def ask(self, site: str, *given: Any, **more: Any) -> Tensor | None:  # noqa: ANN401
        """Return what the first patch at `site` that acts makes of what is given; None: as usual."""
        for patch in self.patches.get(site, ()):
            out = patch.act(site, *given, **more, phase=self.phase)
            if out is not None:
                return out
        return None
