"""The data that travels: one picture's request, what a renderer gives back, and the renderer itself. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.metadata.fields import BY_NAME, Field

MAX_TARGET_SIDE = 32768
MAX_SEED = 2**64 - 1
MAX_PROMPT = 1 << 20
"""Characters that a prompt may have; what a model reads of them is the renderer's to say."""
METHODS = ("fam", "direct", "direct-from-native", "skip-residual")


@dataclass(frozen=True)
class HiresRequest:
    """One picture to make: everything the result depends on, and nothing else. Equal requests give equal pictures.

    Building one with a value of the wrong type or out of range raises `ConfigError`, which names field, value and
    range. Names (sampler, schedule, model) are the renderer's to know.
    """

    size: tuple[int, int]
    """Target (height, width) in pixels, multiples of 8."""
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 30
    sampler: str = "DDIM"
    schedule: str = "Automatic"
    cfg_scale: float = 7.0
    method: str = "fam"
    """One of METHODS: FAM, or the paper's ablation rows DI, DI*, SR."""
    config: FamConfig = field(default_factory=FamConfig)
    model: str | None = None
    """Checkpoint by name, hash or path; None = the renderer's own."""
    vae: str | None = None
    clip_skip: int | None = None
    tile: int | None = None
    """Side in pixels of the VAE's tiles; None = automatic, 0 = never tiled. The degrade chain lowers it."""
    low_memory: bool = False
    """Trade speed for memory: the halves of the guidance one after the other, native queries and keys in main memory.
    The degrade chain sets it where the renderer can."""

    def __post_init__(self) -> None:
        _check_size(self.size)
        for name in ("prompt", "negative_prompt", "sampler", "schedule", "model", "vae"):
            check_value(name, getattr(self, name))
        for name in ("seed", "steps", "cfg_scale", "clip_skip", "tile", "method", "low_memory"):
            check_value(name, getattr(self, name))
        if not isinstance(self.config, FamConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"config is {_said(self.config)}; choose a FamConfig")
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))


OPTIONAL = ("model", "vae", "clip_skip", "tile")
"""Fields of a request that may be None: the renderer's own choice."""


def check_value(name: str, value: object) -> None:
    """Raise `ConfigError` naming field, value and range when `value` cannot stand in a request. For every door."""
    if value is None and name in OPTIONAL:
        return
    spec = BY_NAME[name]
    if spec.kind == "bool":
        if not isinstance(value, bool):
            raise ConfigError(f"{name} is {_said(value)}; choose true or false")
    elif spec.kind == "choice":
        if value not in spec.choices:
            raise ConfigError(f"{name} is {_said(value)}; choose {', '.join(spec.choices)}")
    elif spec.kind == "text":
        _check_text(name, value)
    else:
        _check_number(spec, value)


def _check_number(spec: Field, value: object) -> None:
    low, high = spec.low, MAX_SEED if spec.name == "seed" else spec.high
    whole = spec.kind == "int"
    good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if isinstance(value, int | float) and good:
        # also false for nan, and true comparisons for numbers with more digits than a float holds
        good = (low is None or value >= low) and (high is None or value <= high) and value == value
    if not good:
        least = f"{low:g}" if low is not None else "any"
        most = "2^64 - 1" if spec.name == "seed" else f"{high:g}" if high is not None else "any"
        kind = "a whole number from " if whole else ""
        raise ConfigError(f"{spec.name} is {_said(value)}; choose {kind}{least} to {most}")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {_said(value)}; choose a text")
    if len(value) > MAX_PROMPT:
        raise ConfigError(f"{name} has {len(value)} characters; choose at most {MAX_PROMPT}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} holds {value[error.start]!a}, half of a character; write the text again without it"
        ) from None
    if name in ("sampler", "schedule") and not value.isprintable():
        raise ConfigError(f"{name} is {_said(value)}; choose a name without control characters")


def _check_size(size: object) -> None:
    sides = list(cast("list[object]", size)) if isinstance(size, tuple | list) else []
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise ConfigError(f"size is {_said(size)}; choose (height, width), multiples of 8 from 8 to {MAX_TARGET_SIDE}")
    if not all(8 <= side <= MAX_TARGET_SIDE and side % 8 == 0 for side in cast("list[int]", sides)):
        shown = "x".join(_said(side) for side in reversed(sides))
        raise ConfigError(f"the size is {shown}; choose multiples of 8 from 8 to {MAX_TARGET_SIDE}")


def _said(value: Any) -> str:  # noqa: ANN401  # whatever was given
    """Return a value for a sentence: on one line, and short whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class Rendered:
    """A finished picture with what really ran, for its metadata."""

    image: Image.Image
    ran: Mapping[str, str]
    """Infotext keys and values that describe what ran: `FAM ...` keys only where FAM acted."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """One sentence for each thing that was missing or replaced."""


@dataclass(frozen=True)
class Progress:
    """Callables that travel down: `step(done, total)` after each sampler step; `cancelled()` is asked between steps."""

    step: Callable[[int, int], None] = lambda done, total: None
    cancelled: Callable[[], bool] = lambda: False


class Renderer(Protocol):
    """Turns a native picture and its request into a target picture. Models are loaded once and kept."""

    name: str
    # and, where it can: can_give_up: tuple[str, ...], what the degrade chain may take from a request ("tile",
    # "low_memory", "am"); a renderer that does not say so is not asked to

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        """Return the picture at `request.size`. `image` is RGB, upright, alpha already dealt with.

        Raises `FamError`s: `Cancelled`, `OutOfMemoryError`, `UnsupportedSamplerError`, `NonFiniteLatentError`...; other
        exceptions are the renderer's own faults and are reported with their type.
        """
        ...
