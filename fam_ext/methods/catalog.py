"""The methods by name: what people call them, what they need, which options they read, where their code is.

No torch: planning and help read this list, and a method's code is loaded when it first runs. This is the only place
where a method's name decides anything; elsewhere ask what it needs or reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fam_ext.errors import UsageError
from fam_ext.methods.capabilities import (
    ATTENTION,
    CAPABILITIES,
    CONVOLUTION,
    CROSS_ATTENTION,
    FEATURE_SIZE,
    NATIVE_PASS,
    PIXELS,
    SAMPLER_STATE,
    STAGES,
    VIEW_PROMPTS,
    VIEWS,
)

_DIALS = (
    *("cutoff", "attention", "fm", "am", "fm_window", "fm_boundary", "fm_edge", "am_window", "am_sites", "am_interp"),
    *("am_source", "cutoff_reference", "reference", "step_invariant"),
)
_FAM = frozenset((SAMPLER_STATE, NATIVE_PASS, ATTENTION))


def _but(fixed: str) -> tuple[str, ...]:
    return tuple(dial for dial in _DIALS if dial != fixed)


@dataclass(frozen=True)
class Entry:
    """One method."""

    name: str
    title: str
    """What people call it, in a sentence."""
    code: str
    """"module:attribute" of what makes the method from a FamConfig; see `methods.base.Method`."""
    needs: frozenset[str] = frozenset()
    """Of the host and the sampler; names of `methods.capabilities`."""
    knobs: tuple[str, ...] = ()
    """Options that it reads, by name, beside those that every pass has (size, seed, steps ..., `start`, `upsample`)."""
    diffuses: bool = False
    """It begins at `start` from the native picture, enlarged as `upsample` says."""

    def __post_init__(self) -> None:
        if unknown := self.needs - CAPABILITIES:
            raise ValueError(f"method {self.name} needs {', '.join(sorted(unknown))}, which no host can give")

    @property
    def dials(self) -> tuple[str, ...]:
        """The fields of a FamConfig that it reads."""
        return (*self.knobs, "start", "upsample") if self.diffuses else self.knobs

    def load(self) -> Callable[..., Any]:
        """Return what makes the method. Loads its code, and torch with it."""
        module, _, attribute = self.code.partition(":")
        return getattr(import_module(module), attribute)


FAM = "fam"
"""What is named after this extension, and runs without a word from the user."""
WITHOUT_FAM = "direct-from-native"
"""What runs where FAM is switched off: the pass without anything of FAM."""

METHODS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(FAM, "FAM", "fam_ext.methods.fam:Fam", _FAM, _DIALS, diffuses=True),
        Entry("direct", "direct inference", "fam_ext.methods.ablation:Direct"),
        Entry(WITHOUT_FAM, "direct, from the diffused native picture", "fam_ext.methods.base:Method", diffuses=True),
        Entry(
            "skip-residual",
            "skip residual",
            "fam_ext.methods.ablation:SkipResidual",
            frozenset((SAMPLER_STATE,)),
            diffuses=True,
        ),
        Entry(
            "fam-constant",
            "FAM with a static reference",
            "fam_ext.methods.fam:ConstantFam",
            _FAM,
            _but("reference"),
            diffuses=True,
        ),
        Entry(
            "fam-swap",
            "FAM with the native map alone",
            "fam_ext.methods.fam:SwapFam",
            _FAM,
            _but("attention"),
            diffuses=True,
        ),
        Entry("multidiffusion", "MultiDiffusion", "fam_ext.methods.multidiffusion:MultiDiffusion", frozenset((VIEWS,))),
        Entry(
            "demofusion",
            "DemoFusion",
            "fam_ext.methods.demofusion:DemoFusion",
            frozenset((SAMPLER_STATE, VIEWS, STAGES)),
        ),
        Entry(
            "accdiffusion",
            "AccDiffusion",
            "fam_ext.methods.accdiffusion:AccDiffusion",
            frozenset((SAMPLER_STATE, NATIVE_PASS, CROSS_ATTENTION, VIEWS, VIEW_PROMPTS, STAGES)),
        ),
        Entry("scalecrafter", "ScaleCrafter", "fam_ext.methods.scalecrafter:ScaleCrafter", frozenset((CONVOLUTION,))),
        Entry(
            "fouriscale",
            "FouriScale",
            "fam_ext.methods.fouriscale:FouriScale",
            frozenset((CONVOLUTION, ATTENTION)),
        ),
        Entry(
            "hidiffusion",
            "HiDiffusion",
            "fam_ext.methods.hidiffusion:HiDiffusion",
            frozenset((CONVOLUTION, FEATURE_SIZE, ATTENTION)),
        ),
        Entry(
            "hidiffusion+fam",
            "FAM on HiDiffusion",
            "fam_ext.methods.hidiffusion:with_fam",
            _FAM | {CONVOLUTION, FEATURE_SIZE},
            _DIALS,
            diffuses=True,
        ),
        Entry("diffusehigh", "DiffuseHigh", "fam_ext.methods.diffusehigh:DiffuseHigh", frozenset((PIXELS, STAGES))),
        Entry(
            "freescale",
            "FreeScale",
            "fam_ext.methods.freescale:FreeScale",
            frozenset((SAMPLER_STATE, CONVOLUTION, ATTENTION, STAGES)),
        ),
        Entry("resize", "a plain resize", "fam_ext.methods.upscaler:Resize", frozenset((PIXELS,))),
        Entry("upscaler", "the upscaler alone", "fam_ext.methods.upscaler:Upscaler", frozenset((PIXELS,))),
        Entry(
            "upscaler+img2img",
            "upscaler, then img2img",
            "fam_ext.methods.upscaler:UpscalerImg2img",
            frozenset((PIXELS, STAGES)),
        ),
        Entry(
            "tiled",
            "upscaler, then img2img in tiles",
            "fam_ext.methods.upscaler:Tiled",
            frozenset((PIXELS, STAGES, VIEWS)),
        ),
    )
}
"""FAM first, then the paper's comparison rows (DI, DI*, SR) and ablations, then the neighbours."""


def reads(method: str | None, option: str) -> bool:
    """Return whether the method reads that option; an unknown one (of a later version, of none) reads nothing."""
    entry = METHODS.get(method or "")
    return entry is not None and option in entry.knobs


def choices(gives: Collection[str] = CAPABILITIES) -> list[str]:
    """Return the names of the methods that run where `gives` is given."""
    return [name for name, entry in METHODS.items() if entry.needs <= set(gives)]


def entry_for(method: str, gives: Collection[str], *, where: str) -> Entry:
    """Return the method's entry. Raises `UsageError` for a name that there is not, and for a method that needs more
    than `gives`; `where` says who gives, as "the WebUI" or "sampler UniPC"."""
    if method not in METHODS:
        raise UsageError(f"method is {method!r}; choose one of {', '.join(choices(gives))}")
    if lacking := METHODS[method].needs - set(gives):
        raise UsageError(
            f"method {method} needs {' and '.join(sorted(lacking))}, which {where} does not give; choose one of "
            f"{', '.join(choices(gives)) or 'none'}"
        )
    return METHODS[method]
