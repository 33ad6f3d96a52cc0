"""Infotext as A1111, Forge and reForge write it: format, FAM's own keys, and a nesting that can be undone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fam_ext import __version__
from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.metadata.dissect import (
    MARKERS,
    MIN_PAIRS,
    NEGATIVE,
    OTHER_KEY,
    Infotext,
    has_params,
    pairs_of,
    parse,
    tokens,
)
from fam_ext.options.field import Option
from fam_ext.options.presets import SETTINGS, Preset
from fam_ext.options.request import HiresRequest
from fam_ext.options.table import BY_KEY, BY_NAME, CONFIG_FIELDS, VERSION_KEY

_SPECIAL = re.compile(r'[,:\n\r"]')

ORIGINAL_KEY = "FAM original"
"""Holds the verbatim earlier infotext where it is not simply the part before FAM's own keys."""
_LINE = ("steps", "sampler", "schedule", "cfg_scale", "seed", "size")
"""What a settings line of ours says."""


def quote(value: str) -> str:
    """Return `value` as it may stand after a key: JSON-quoted where a plain one would be read differently."""
    plain = value != "" and value == value.strip() and _SPECIAL.search(value) is None
    return value if plain else json.dumps(value, ensure_ascii=False)


def format_params(params: Mapping[str, str]) -> str:
    """Return the settings line: "Key: value, Key: value"."""
    return ", ".join(f"{key}: {quote(value)}" for key, value in params.items())


def format_infotext(infotext: Infotext) -> str:
    """Return the text that `parse` takes apart again."""
    parts = [infotext.prompt]
    if infotext.negative_prompt:
        parts.append(f"{NEGATIVE} {infotext.negative_prompt}")
    if infotext.params:
        parts.append(format_params(infotext.params))
    return "\n".join(part for part in parts if part)


def number(value: float) -> str:
    """Return the shortest text that reads back as the same number: 1 for 1.0."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def format_value(spec: Option, value: Any) -> str:  # noqa: ANN401  # fields differ in type
    """Return a field's value as infotext. Sizes and windows avoid the form 12x34, which WebUIs split in two."""
    if spec.kind == "window":
        return f"{number(value[0])} to {number(value[1])}"
    if spec.kind == "size":
        return f"{value[1]} x {value[0]}"
    return number(value) if spec.kind == "float" else str(value)


def parse_value(spec: Option, text: str) -> Any:  # noqa: ANN401  # fields differ in type
    """Return a field's value from its infotext. Raises `ConfigError` naming the key."""
    try:
        if spec.kind == "window":
            start, _, end = text.partition(" to ")
            return (float(start), float(end))
        if spec.kind == "size":
            width, _, height = text.partition("x")
            return (int(height), int(width))
        if spec.kind == "float":
            return float(text)
        if spec.kind == "int":
            return int(text)
        if spec.kind == "bool":
            return (text.strip().lower() in ("true", "1", "yes", "on")) != spec.inverted
    except ValueError:
        raise ConfigError(f"{spec.key} is {text[:60]!r}; choose a value like {_example(spec)}") from None
    return text


def _example(spec: Option) -> str:
    examples = {"window": "1 to 0", "size": "1024 x 1024", "float": "0.5", "int": "20"}
    return examples.get(spec.kind, "text")


def to_fields(config: FamConfig) -> dict[str, str]:
    """Return FAM's infotext keys for `config`: the version first, then what differs from the defaults."""
    fields = {VERSION_KEY: __version__}
    for spec in CONFIG_FIELDS:
        value = getattr(config, spec.name)
        if value == spec.default:
            continue
        fields[spec.key] = "True" if spec.kind == "bool" else format_value(spec, value)
    return fields


def from_fields(params: Mapping[str, str]) -> FamConfig:
    """Return the config that `to_fields` wrote; keys that are absent take the defaults, foreign keys are ignored.

    Raises `ConfigError` naming the key when one of ours has a value out of range.
    """
    params = migrate(params)
    values: dict[str, Any] = {}
    for spec in CONFIG_FIELDS:
        if spec.key in params:
            values[spec.name] = parse_value(spec, params[spec.key])
    return FamConfig.from_dict(values)


def readable_fields(params: Mapping[str, str]) -> tuple[FamConfig, list[str]]:
    """Return the config of the keys that can be read, and one sentence for each that cannot; those take the default."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    # the unit before the number that needs it
    for spec in sorted(CONFIG_FIELDS, key=lambda spec: spec.name != "cutoff_reference"):
        if spec.key in (current := migrate(params)):
            try:
                value = parse_value(spec, current[spec.key])
                FamConfig.from_dict({**values, spec.name: value})
            except ConfigError as error:
                problems.append(str(error))
            else:
                values[spec.name] = value
    if "cutoff" not in values:
        values.pop("cutoff_reference", None)  # a unit alone would give its meaning to another number
    return FamConfig.from_dict(values), problems


def migrate(params: Mapping[str, str]) -> dict[str, str]:
    """Return `params` in today's keys, whatever `FAM version` wrote them. 0.1 is the first: nothing to rename yet."""
    return dict(params)


def settings_of(request: HiresRequest) -> dict[str, str]:
    """Return the settings line of a picture that has none of its own, in the WebUI's keys."""
    settings = {_line_key(name): format_value(BY_NAME[name], getattr(request, name)) for name in _LINE}
    return settings | {"Size": f"{request.size[1]}x{request.size[0]}"}  # as the WebUI writes it


def is_fam(params: Mapping[str, str]) -> bool:
    """Return whether the settings say that FAM made the picture."""
    return VERSION_KEY in params


def request_value(params: Mapping[str, str], name: str) -> Any:  # noqa: ANN401  # fields differ in type
    """Return a request field from the settings: our own key first, then the WebUI's; None when absent or garbage."""
    if not params:
        return None
    spec = BY_NAME[name]
    for key in (spec.key, spec.host_key):
        if key is not None and key in params:
            try:
                return parse_value(spec, params[key])
            except ConfigError:
                continue
    return None


def add(
    text: str | None, fields: Mapping[str, str], *, settings: Mapping[str, str] | None = None, heading: str = ""
) -> str:
    """Return `text` with our `fields` after it, so that `undo` gives `text` back verbatim.

    The earlier text stays the beginning, word for word. `settings` ("Steps": "30", ...) is written only where the
    earlier text has no settings line of its own, because a WebUI needs three pairs to see one; what it says, `fields`
    do not say again. `heading` (prompt and negative prompt) is written only where there is no earlier text. `fields`
    begins with `FAM version` where FAM ran, with `Upscaled by` where it did not (put first when neither is there).
    """
    tail = dict(fields)
    if next(iter(tail), None) not in MARKERS:
        tail = {OTHER_KEY: f"FAM Hires {__version__}", **tail}
    base = text or ""
    nested = {**tail, ORIGINAL_KEY: base}
    stem, earlier = _split(base)
    clean = stem.strip().rstrip(",")
    settings = settings or {}
    own_line = {**settings, **{key: value for key, value in nested.items() if not _is_said(settings, key, value)}}
    if len(own_line) < MIN_PAIRS:
        own_line["FAM pass"] = "hires"  # a reader needs three pairs
    candidates = [
        f"{base}, {format_params(tail)}" if earlier is None and _ends_in_params(base) else None,
        f"{clean}, {format_params(nested)}" if _ends_in_params(clean) else None,
        f"{clean}\n{format_params(own_line)}" if clean else None,
    ]
    for candidate in candidates:
        if candidate is not None and undo(candidate) == base:
            return candidate
    line = format_params(own_line)
    return f"{heading}\n{line}" if heading and not base and undo(f"{heading}\n{line}") == "" else line


def _is_said(settings: Mapping[str, str], key: str, value: str) -> bool:
    """Return whether a settings line says in the WebUI's key what our own `key` would say."""
    name = BY_KEY[key].name if key in BY_KEY else ""
    if name not in _LINE or _line_key(name) not in settings:
        return False
    said = request_value({key: settings[_line_key(name)]}, name)
    return said is not None and said == request_value({key: value}, name)


def _line_key(name: str) -> str:
    return BY_NAME[name].host_key or "Size"


def _ends_in_params(text: str) -> bool:
    return has_params(text.rsplit("\n", 1)[-1])


def undo(text: str) -> str:
    """Return the infotext as it was before FAM added to it ("" when there was none); other text unchanged."""
    stem, tail = _split(text)
    if tail is None:
        return text
    return tail.get(ORIGINAL_KEY, stem)


def _split(text: str) -> tuple[str, dict[str, str] | None]:
    """Return what stands before FAM's own keys, and those keys (None when there are none)."""
    line_start = text.rstrip().rfind("\n") + 1
    last = text[line_start:]
    if not has_params(last.rstrip()):
        return text, None
    for start_in_line, key, _ in tokens(last):
        if key in MARKERS:
            # the spaces before a key belong to it
            before = last[:start_in_line].rstrip()
            start = line_start + len(before)
            stem = text[:start]
            if before and stem.endswith(","):
                stem = stem[:-1]
            elif not before:
                stem = text[: max(0, line_start - 1)]  # the line break
            return stem, dict(pairs_of(last[start_in_line:]))
    return text, None


def to_preset(text: str, name: str) -> Preset:
    """Return a preset with the FAM fields and sampler settings of a picture's infotext. Raises `ConfigError`."""
    params = parse(text).params
    if not is_fam(params):
        raise ConfigError("the picture's metadata holds no FAM fields; choose a picture that FAM made")
    settings = {key: request_value(params, key) for key in SETTINGS}
    return Preset(name, "From a picture.", from_fields(params), {k: v for k, v in settings.items() if v is not None})
