"""FamConfig: every choice of one guided pass, checked once when it is built. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fam_ext.errors import ConfigError

CUTOFF_REFERENCES = ("native", "target", "cycles")
REFERENCES = ("diffused", "constant")
AM_INTERPS = ("bilinear", "nearest")
AM_SOURCES = ("auto", "recorded", "replay")
UPSAMPLES = ("auto", "latent_bicubic", "latent_bilinear", "latent_nearest", "pixel_bicubic", "pixel_lanczos")
MAX_CYCLES = 512.0

Window = tuple[float, float]


@dataclass(frozen=True)
class FamConfig:
    """The dials of FAM. Building one with a value out of range raises `ConfigError`, which names field, value and
    range."""

    cutoff: float = 0.5
    """c of Eq. 9-10: how far the pinned low band reaches at the end, as a share of the side that `cutoff_reference`
    names; raising it keeps more of the native structure, too much blurs."""
    attention: float = 0.7
    """lambda of Eq. 7: share of the native attention map in the blend, 0 (off) to 1 (native map only)."""
    fm: bool = True
    """Frequency Modulation on or off."""
    am: bool = True
    """Attention Modulation on or off."""
    fm_window: Window = (1.0, 0.0)
    """(start, end) in rho between which FM acts; rho falls from 1 (noise) to 0."""
    am_window: Window = (1.0, 0.0)
    """(start, end) in rho between which AM acts; a shorter window is faster."""
    am_sites: str = "auto"
    """"auto" = every self-attention of the first up-block that has attention, or a comma-separated list of site name
    patterns (`*` and `?` allowed)."""
    am_interp: str = "bilinear"
    """How native attention maps are spread to the target's grid: "bilinear" (smooth) or "nearest" (blocky)."""
    am_source: str = "auto"
    """Where native attention comes from: "recorded" (latents of our own native run), "replay" (the diffused native
    picture), "auto" = recorded when there is a record."""
    cutoff_reference: str = "native"
    """What `cutoff` is a share of: "native" latent side (the paper), "target" latent side, or "cycles" (then `cutoff`
    is the reach at rho = 0 in cycles per picture; SDXL with c = 0.5 reaches 32)."""
    reference: str = "diffused"
    """"diffused" = the upsampled latent at the current noise level (the paper), "constant" = clean at every step (the
    paper's ablation)."""
    start: float = 1.0
    """Where the hires pass begins in rho: 1 = pure noise (the paper); lower is faster and stays nearer to the native
    picture."""
    upsample: str = "auto"
    """How the native picture is brought to the target's size: "latent_*" in latent space (the paper: bicubic),
    "pixel_*" decoded, resized and encoded again; "auto" = pixel_bicubic, or the host's own upscaler."""
    step_invariant: bool = False
    """Take K to the power 50 * start / steps, so that the total pull of FM does not depend on the number of steps."""

    def __post_init__(self) -> None:
        for name in ("fm", "am", "step_invariant"):
            if not isinstance(getattr(self, name), bool):
                raise _error(name, getattr(self, name), "true or false")
        cycles = self.cutoff_reference == "cycles"
        _check_choice("cutoff_reference", self.cutoff_reference, CUTOFF_REFERENCES)
        _check_number(
            "cutoff",
            self.cutoff,
            0.0,
            MAX_CYCLES if cycles else 1.0,
            hint="cycles per picture at rho = 0; 32 is SDXL's at c = 0.5" if cycles else "0.5 is the paper's",
        )
        _check_number("attention", self.attention, 0.0, 1.0, hint="0.7 is the paper's")
        _check_window("fm_window", self.fm_window)
        _check_window("am_window", self.am_window)
        if not isinstance(self.am_sites, str) or not self.am_sites.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _error("am_sites", self.am_sites, '"auto" or site name patterns separated by commas')
        _check_choice("am_interp", self.am_interp, AM_INTERPS)
        _check_choice("am_source", self.am_source, AM_SOURCES)
        _check_choice("reference", self.reference, REFERENCES)
        _check_number("start", self.start, 0.0, 1.0, hint="1 is the paper's, 0.6 to 0.7 is faster", open_low=True)
        _check_choice("upsample", self.upsample, UPSAMPLES)
        # lists come from JSON and sliders: keep one type, so that equal configs are equal and hashable
        object.__setattr__(self, "fm_window", (float(self.fm_window[0]), float(self.fm_window[1])))
        object.__setattr__(self, "am_window", (float(self.am_window[0]), float(self.am_window[1])))
        for name in ("cutoff", "attention", "start"):
            object.__setattr__(self, name, float(getattr(self, name)))

    def fm_acts_at(self, rho: float) -> bool:
        """Return whether FM is on at `rho`; both ends of the window count."""
        return self.fm and self.cutoff > 0 and self.fm_window[0] >= rho >= self.fm_window[1]

    def am_acts_at(self, rho: float) -> bool:
        """Return whether AM is on at `rho`; both ends of the window count."""
        return self.am and self.attention > 0 and self.am_window[0] >= rho >= self.am_window[1]

    def replace(self, **changes: Any) -> FamConfig:  # noqa: ANN401  # fields differ in type
        """Return a copy with `changes`, checked again. Raises `ConfigError` for an unknown field."""
        return FamConfig.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values (windows as tuples)."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FamConfig:
        """Build from named fields; raises `ConfigError` naming the first unknown field."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f"{name} is not a field of FamConfig; choose from {', '.join(known)}")
        return cls(**dict(values))


def _error(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{name} is {value!r}; choose {allowed}")


def _check_number(name: str, value: object, low: float, high: float, *, hint: str, open_low: bool = False) -> None:
    allowed = f"{'more than ' if open_low else ''}{low:g} to {high:g} ({hint})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _error(name, value, allowed)
    if not low <= value <= high or (open_low and value == low):  # NaN and integers beyond any float as well
        raise _error(name, value, allowed)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise _error(name, value, ", ".join(choices))


def _check_window(name: str, value: object) -> None:
    allowed = "(start, end) in rho with 1 >= start >= end >= 0"
    if not isinstance(value, tuple | list) or len(value) != 2:  # pyright: ignore[reportUnknownArgumentType]
        raise _error(name, value, allowed)  # pyright: ignore[reportUnknownArgumentType]
    start, end = value  # pyright: ignore[reportUnknownVariableType]
    for side in (start, end):  # pyright: ignore[reportUnknownVariableType]
        if isinstance(side, bool) or not isinstance(side, int | float):
            raise _error(name, value, allowed)  # pyright: ignore[reportUnknownArgumentType]
    if not 1.0 >= start >= end >= 0.0:
        raise _error(name, value, allowed)  # pyright: ignore[reportUnknownArgumentType]
