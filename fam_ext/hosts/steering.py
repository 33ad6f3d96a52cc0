"""What the hooks in one network read: which pass is running, in which phase of a call, and where its sampler stands."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from torch import Tensor

from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import AlreadyGuidedError, ConfigError
from fam_ext.hosts.sites import Site
from fam_ext.methods.base import OFF, Pass, Patch
from fam_ext.methods.capabilities import ATTENTION


class Steering:
    """One for each hooked network. A host sets it around its calls; a hook only asks."""

    def __init__(self) -> None:
        self.active: Pass | None = None
        self.phase = OFF
        self.level: NoiseLevel | None = None
        """Where the sampler last called the model, and there its state (B, C, H, W): hosts whose loop is not ours."""
        self.latent: Tensor | None = None
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
            self.active = self.level = self.latent = None
            self.patches = {}

    @contextmanager
    def during(self, phase: str) -> Generator[None, None, None]:
        """While open, a call of the network is in `phase`."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def place(self, patches: Sequence[Patch], select: Callable[[str], list[Site]]) -> list[Site]:
        """Note which of `patches` act at which site, and return those sites in running order.

        `select` gives the sites that a patch's pattern means. Raises `ConfigError` where two patches that do not chain
        meet.
        """
        sites: dict[str, Site] = {}
        self.patches = {}
        for patch in patches:
            if patch.place != ATTENTION:
                raise ConfigError(f"this host's networks do not reach {patch.place}; choose a method without")
            for site in select(patch.sites):
                there = self.patches.setdefault(site.name, [])
                if there and not (patch.chains or all(other.chains for other in there)):
                    raise ConfigError(f"{site.name} is patched twice; choose methods or sites that do not meet")
                there.append(patch)
                sites[site.name] = site
        if len(patches) < 2:
            return list(sites.values())
        return [site for site in select("*") if site.name in sites]

    def attend(self, site: str, q: Tensor, k: Tensor, v: Tensor, *, size: Size, scale: float | None) -> Tensor | None:
        """Return what the running pass makes of the attention at `site`; None: attend as usual."""
        for patch in self.patches.get(site, ()):
            out = patch.act(site, q, k, v, size=size, scale=scale, phase=self.phase)
            if out is not None:
                return out
        return None
