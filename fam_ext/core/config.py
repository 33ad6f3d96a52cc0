"""FamConfig: every choice of one guided pass, checked once when it is built. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fam_ext.errors import ConfigError
from fam_ext.options.field import API, CLI, INFOTEXT, PAGE, SCRIPT, XYZ, Checked, check, option, options_of, pick

MAX_CYCLES = 512.0
CUTOFFS = {"native": 0.5, "target": 0.5, "cycles": 32.0}
"""Units of a cut-off, with the value of each that is usual: the paper's c, and what it reaches on SDXL."""


def _dial(default: Any, kind: str, label: str, help: str, key: str, **more: Any) -> Any:  # noqa: ANN401
    doors = (CLI, PAGE, API, SCRIPT, XYZ, INFOTEXT)
    return option(
        default, kind=kind, label=label, help=help, key=key, panel="method", decides="pixels", doors=doors, **more
    )


@dataclass(frozen=True)
class FamConfig(Checked):
    """The dials of FAM. Building one with a value out of range raises `ConfigError`, which names field, value and
    range."""

    cutoff: float = _dial(
        0.5,
        "float",
        "Cutoff c",
        "How far the pinned low band reaches at the end (c of Eq. 9-10), as a share, 0 to 1, of the side named by the "
        "cutoff reference, or in cycles; given without a reference, of the native side. Higher keeps more of the "
        "native structure; too high blurs.",
        "FAM cutoff",
        low=0.0,
        high=MAX_CYCLES,
        step=0.05,
        hint="cycles per picture at rho = 0; 32 is SDXL's at c = 0.5",
        page="How much is kept: cut-off c",
    )
    attention: float = _dial(
        0.7,
        "float",
        "Native attention share",
        "Lambda of Eq. 7: share of the native attention map in the blend, 0 (off) to 1 (native map only). "
        "Higher keeps textures consistent; too high softens them.",
        "FAM attention",
        low=0.0,
        high=1.0,
        step=0.05,
        hint="0.7 is the paper's",
        page="How closely texture follows: native attention share",
    )
    fm: bool = _dial(True, "bool", "Frequency Modulation", "Keeps the native picture's structure.", "FAM no FM")
    am: bool = _dial(
        True,
        "bool",
        "Attention Modulation",
        "Keeps local textures consistent; costs one truncated native pass a step.",
        "FAM no AM",
    )
    fm_window: tuple[float, float] = _dial(
        (1.0, 0.0),
        "window",
        "FM window (rho)",
        "Start and end of Frequency Modulation in rho; 1 is pure noise, 0 the finished picture.",
        "FAM FM window",
        low=0.0,
        high=1.0,
        step=0.05,
    )
    am_window: tuple[float, float] = _dial(
        (1.0, 0.0),
        "window",
        "AM window (rho)",
        "Start and end of Attention Modulation in rho; a shorter window is faster.",
        "FAM AM window",
        low=0.0,
        high=1.0,
        step=0.05,
    )
    fm_boundary: str = _dial(
        "periodic",
        "choice",
        "FM boundary",
        'What FM takes to lie beyond the borders: the picture again ("periodic", the paper), so that opposite borders '
        'pull at each other; or its mirror image ("mirrored").',
        "FAM FM boundary",
        choices=("periodic", "mirrored"),
        since=True,
    )
    fm_edge: float = _dial(
        0.0,
        "float",
        "FM edge",
        "How softly the pinned low band ends, as a share of its reach: 0 cuts it off (the paper); 0.5 lets it fade "
        "between half and one and a half of the cut-off, which spares ringing along edges.",
        "FAM FM edge",
        low=0.0,
        high=1.0,
        step=0.05,
        since=True,
    )
    am_sites: str = _dial(
        "auto",
        "name",
        "AM sites",
        'Attention layers to steer: "auto" is every self-attention of the first up-block that has attention; or '
        "layer name patterns separated by commas (* and ? allowed).",
        "FAM AM sites",
    )
    am_interp: str = _dial(
        "bilinear",
        "choice",
        "AM interpolation",
        'How native attention maps are spread to the target\'s grid: "bilinear" is smooth, "nearest" blocky.',
        "FAM AM interpolation",
        choices=("bilinear", "nearest"),
    )
    am_source: str = _dial(
        "auto",
        "choice",
        "AM source",
        'Where native attention comes from: "recorded" latents of our own native run, "replay" of the diffused native '
        'picture, or "auto": recorded when there is a record.',
        "FAM AM source",
        choices=("auto", "recorded", "replay"),
    )
    cutoff_reference: str = _dial(
        "native",
        "choice",
        "Cutoff reference",
        'What the cutoff is a share of: the "native" latent side (the paper), the "target" latent side, or "cycles" '
        "per picture (SDXL with c = 0.5 reaches 32).",
        "FAM cutoff reference",
        choices=tuple(CUTOFFS),
    )
    reference: str = _dial(
        "diffused",
        "choice",
        "Reference",
        '"diffused": the upsampled latent at the current noise level (the paper); "constant": clean at every step '
        "(the paper's ablation).",
        "FAM reference",
        choices=("diffused", "constant"),
    )
    start: float = _dial(
        1.0,
        "float",
        "Start (rho)",
        "Where the hires pass begins: 1 is pure noise (the paper); lower is faster and stays nearer to the native "
        "picture.",
        "FAM start",
        low=0.0,
        high=1.0,
        above=True,
        step=0.05,
        hint="1 is the paper's, 0.6 to 0.7 is faster",
        page="How early it starts: rho",
    )
    upsample: str = _dial(
        "auto",
        "choice",
        "Upsampling",
        'How the native picture reaches the target\'s size: in latent space (the paper: bicubic) or in pixels; "auto" '
        "is pixel_bicubic, or the host's own upscaler.",
        "FAM upsample",
        choices=("auto", "latent_bicubic", "latent_bilinear", "latent_nearest", "pixel_bicubic", "pixel_lanczos"),
    )
    step_invariant: bool = _dial(
        False,
        "bool",
        "Same pull for any step count",
        "Makes the total pull of FM independent of the number of steps (K to the power 50 * start / steps); meant for "
        "few-step models.",
        "FAM step invariant",
    )

    def __post_init__(self) -> None:
        if self.cutoff_reference != "cycles":  # first: its range depends on its unit
            cutoff = next(spec for spec in options_of(type(self)) if spec.name == "cutoff")
            check(dataclasses.replace(cutoff, high=1.0, hint="0.5 is the paper's"), self.cutoff)
        super().__post_init__()
        if not self.am_sites.strip():
            raise ConfigError(f'am_sites is {self.am_sites!r}; choose "auto" or site name patterns separated by commas')

    def fm_acts_at(self, rho: float) -> bool:
        """Return whether FM is on at `rho`; both ends of the window count."""
        return self.fm and self.cutoff > 0 and self.fm_window[0] >= rho >= self.fm_window[1]

    def am_acts_at(self, rho: float) -> bool:
        """Return whether AM is on at `rho`; both ends of the window count."""
        return self.am and self.attention > 0 and self.am_window[0] >= rho >= self.am_window[1]

    def idle(self) -> list[str]:
        """Return a sentence for each part that is on, and whose window ends before the pass begins."""
        fm, am = self.fm and self.cutoff > 0, self.am and self.attention > 0
        parts = (("FM", fm, self.fm_window), ("AM", am, self.am_window))
        return [
            f"{name} does not act: its window ends at rho {window[1]:g}, and the pass begins at {self.start:g}"
            for name, on, window in parts
            if on and window[1] > self.start
        ]

    def replace(self, **changes: Any) -> FamConfig:  # noqa: ANN401  # fields differ in type
        """Return a copy with `changes`, checked again. Raises `ConfigError` for an unknown field."""
        return FamConfig.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values (windows as tuples)."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FamConfig:
        """Build from named fields; raises `ConfigError` naming the first unknown field."""
        return cls(**pick(values, [spec.name for spec in options_of(cls)], "FamConfig"))
