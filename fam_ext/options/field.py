"""What an option is: one description a dataclass field, from which every door is drawn and every value is checked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fam_ext.errors import ConfigError

MAX_CHARS = 1 << 20
"""Characters that a text may have; what a model reads of a prompt is the renderer's to say."""
MOST_STEPS = 150
"""Of any sampler, at every door, as the WebUI's slider has it; a picture that says more runs with these, and a note."""
MAX_SIDE = 32768
"""Longest side of a target, px."""
CLI, PAGE, API, SCRIPT, XYZ, INFOTEXT = "cli", "page", "api", "script", "xyz", "infotext"
EVERY_JOB = (CLI, PAGE, API)
PANELS = {
    "where": "Which pictures",
    "size": "Size",
    "words": "Words and settings of a picture",
    "method": "Method",
    "model": "Model and device",
    "output": "Output files",
    "run": "Running",
}
"""Themes of options and their titles, in the order in which the doors show them."""


@dataclass(frozen=True)
class Option:
    """One option: how it is named, explained, checked, written and read, where it stands and what it decides."""

    kind: str
    """"float", "int", "bool", "choice", "text" (free words), "name" (no control characters), "path", "texts" and
    "paths" (several), "window" (start, end in rho), "size" (height, width in px)."""
    label: str
    """What people see, with the unit. Labels are an API: `ui-config.json` pins defaults by label."""
    help: str
    panel: str
    decides: str
    """What changes with it: "pixels", "size", "file" (its kind or metadata), "name" (its name or times) or "run"
    (nothing in a file)."""
    doors: tuple[str, ...] = ()
    name: str = ""
    """The dataclass field; also the name in the API and, with dashes, on the command line."""
    default: Any = None
    low: float | None = None
    high: float | None = None
    above: bool = False
    """`low` itself is not allowed."""
    step: float | None = None
    hint: str = ""
    """What an error says after the range."""
    choices: tuple[str, ...] = ()
    optional: bool = False
    """None is a value: automatic, no limit, the renderer's own."""
    off: Any = None
    """What says None at a door whose parts always have a value (0: no limit)."""
    own: bool = False
    """A picture's metadata may bring it; a rule says what then counts."""
    preset: bool = False
    """A preset may bring it."""
    key: str = ""
    """Infotext key: `FAM ` and then only word characters, space, - and /."""
    page: str = ""
    """The label on the page, where it says more than `label`."""
    host_key: str | None = None
    """The WebUI's own infotext key for the same thing, read where ours is absent."""
    flags: tuple[str, ...] = ()
    """Names on the command line where they are not `--` and the name."""
    since: bool = False
    """Later than the first journals: left out of a job's hash while it has its default."""

    @property
    def inverted(self) -> bool:
        """Whether it is a switch that is on by default: its key and its flag say that it is off."""
        return self.kind == "bool" and self.default is True


def option(default: Any = dataclasses.MISSING, **more: Any) -> Any:  # noqa: ANN401  # a field of any type
    """Return a dataclass field that is described by an `Option`; `more` are the Option's own fields."""
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={"option": Option(**more)})
    return dataclasses.field(default=default, metadata={"option": Option(default=default, **more)})


@functools.lru_cache(maxsize=64)
def options_of(table: type) -> tuple[Option, ...]:
    """Return the options of a dataclass in the order of its fields; fields without a description are left out."""
    return tuple(
        dataclasses.replace(field.metadata["option"], name=field.name)
        for field in dataclasses.fields(table)
        if "option" in field.metadata
    )


class Checked:
    """A dataclass whose options are checked when it is built. Raises `ConfigError` naming field, value and range."""

    def __post_init__(self) -> None:
        for spec in options_of(type(self)):
            object.__setattr__(self, spec.name, check(spec, getattr(self, spec.name)))


def check(spec: Option, value: Any) -> Any:  # noqa: ANN401  # options differ in type
    """Return `value` in the option's one type, so that equal values are equal: floats for numbers, tuples for lists.

    Raises `ConfigError` naming field, value and range.
    """
    if value is None and spec.optional:
        return None
    return _CHECKS[spec.kind](spec, value)


def spoken(spec: Option, value: Any) -> Any:  # noqa: ANN401
    """Return a value as `check` takes it, from a door that knows JSON's numbers and has no empty parts: 20.0 for 20,
    `off` for None."""
    if spec.off is not None and type(value) in (type(spec.off), int, float) and value == spec.off:
        return None
    if spec.kind == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def allowed(spec: Option) -> str:
    """Return the range or the choices as an error and the docs say them; "" where there is none."""
    if spec.choices:
        return ", ".join(spec.choices)
    if spec.low is None and spec.high is None:
        return ""
    low = f"{'more than ' if spec.above else ''}{number_shown(spec.low)}" if spec.low is not None else ""
    off = f", or {number_shown(spec.off)}" if isinstance(spec.off, int) else ""
    if spec.high is None:
        return f"at least {low}{off}"
    return (f"{low} to {number_shown(spec.high)}" if low else f"at most {number_shown(spec.high)}") + off


def number_shown(value: float) -> str:
    """Return a bound for people: 2^64 - 1 rather than its twenty digits."""
    if isinstance(value, int) and value > 10**9:
        power = value.bit_length()
        return f"2^{power} - 1" if value == 2**power - 1 else f"2^{power - 1}"
    return f"{value:g}"


def said(value: Any) -> str:  # noqa: ANN401  # whatever was given
    """Return a value for a sentence: on one line, and short whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def error(spec: Option, value: Any, choose: str) -> ConfigError:  # noqa: ANN401
    """Return the usual sentence: what was given, what is allowed."""
    hint = f" ({spec.hint})" if spec.hint else ""
    return ConfigError(f"{spec.name} is {said(value)}; choose {choose}{hint}")


def pick(values: Mapping[str, Any], known: Collection[str], what: str) -> dict[str, Any]:
    """Return `values`; raises `ConfigError` for a name that is not in `known`."""
    for name in values:
        if name not in known:
            raise ConfigError(f"{said(name)[1:-1]} is not a field of {what}; choose from {', '.join(known)}")
    return dict(values)


def _bool(spec: Option, value: Any) -> bool:  # noqa: ANN401
    if not isinstance(value, bool):
        raise error(spec, value, "true or false")
    return value


def _choice(spec: Option, value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str) or value not in spec.choices:
        raise error(spec, value, ", ".join(spec.choices))
    return value


def _number(spec: Option, value: Any) -> float:  # noqa: ANN401
    whole = spec.kind == "int"
    good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if good:
        # also false for nan, and true comparisons for numbers with more digits than a float holds
        good = (spec.low is None or value >= spec.low) and (spec.high is None or value <= spec.high) and value == value
        good = good and not (spec.above and value == spec.low)
    if not good:
        kind = "a whole number from " if whole and spec.low is not None and spec.high is not None else ""
        raise error(spec, value, f"{kind}{allowed(spec) or 'a number'}")
    return value if whole else float(value)


def _text(spec: Option, value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str):
        raise error(spec, value, "a text")
    if len(value) > MAX_CHARS:
        raise ConfigError(f"{spec.name} has {len(value)} characters; choose at most {MAX_CHARS}")
    if spec.kind in ("path", "paths"):
        if "\x00" in value:
            raise error(spec, value, "a path without NUL")
        return value
    try:
        value.encode()
    except UnicodeEncodeError as problem:
        raise ConfigError(
            f"{spec.name} holds {value[problem.start]!a}, half of a character; write the text again without it"
        ) from None
    if spec.kind == "name" and not value.isprintable():
        raise error(spec, value, "a name without control characters")
    return value


def _texts(spec: Option, value: Any) -> tuple[str, ...]:  # noqa: ANN401
    if not isinstance(value, tuple | list):
        raise error(spec, value, "a list of texts")
    return tuple(_text(spec, part) for part in cast("list[object]", value))


def _window(spec: Option, value: Any) -> tuple[float, float]:  # noqa: ANN401
    ends = list(cast("list[object]", value)) if isinstance(value, tuple | list) else []
    numbers = [end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(ends) != 2 or len(numbers) != 2 or not 1.0 >= numbers[0] >= numbers[1] >= 0.0:
        raise error(spec, value, "(start, end) in rho with 1 >= start >= end >= 0")
    return float(numbers[0]), float(numbers[1])


def _size(spec: Option, value: Any) -> tuple[int, int]:  # noqa: ANN401
    low, step = int(spec.low or 8), int(spec.step or 1)
    rule = f"multiples of {step} from {low} to {MAX_SIDE}" if step > 1 else f"{low} to {MAX_SIDE} px a side"
    sides = list(cast("list[object]", value)) if isinstance(value, tuple | list) else []
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool)]
    if len(sides) != 2 or len(whole) != 2:
        raise error(spec, value, f"(height, width), {rule}")
    if not all(low <= side <= MAX_SIDE and side % step == 0 for side in whole):
        shown = "x".join(said(side) for side in reversed(whole))
        raise ConfigError(f"the {spec.name} is {shown}; choose {rule}")
    return whole[0], whole[1]


_CHECKS: Mapping[str, Callable[[Option, Any], Any]] = {
    "bool": _bool,
    "choice": _choice,
    "float": _number,
    "int": _number,
    "text": _text,
    "name": _text,
    "path": _text,
    "texts": _texts,
    "paths": _texts,
    "window": _window,
    "size": _size,
}
