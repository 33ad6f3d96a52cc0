"""Infotext as A1111, Forge and reForge write it: parse, format, FAM's own keys, and a nesting that can be undone."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fam_ext import __version__
from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.options.field import Option
from fam_ext.options.presets import SETTINGS, Preset
from fam_ext.options.table import BY_NAME, CONFIG_FIELDS, VERSION_KEY

# One "Key: value" pair: a key of at least two characters out of \w, space, - and /; a JSON string or anything up to
# the next comma. The same grammar as the WebUI's, so what we write it reads, and the other way round; only that we
# read a JSON list or object as one value, and go through the line once (the WebUI's expression takes quadratic time).
_KEY_RUN = re.compile(r"[\w \-/]+")
_KEY_START = re.compile(r"\w")
_QUOTED = re.compile(r'\s*("(?:\\.|[^\\"])+")(?:,|$)')
_SPACE = re.compile(r"\s*")
_JSON = json.JSONDecoder()
_MAX_JSON_FAILURES = 16
_SPECIAL = re.compile(r'[,:\n\r"]')
_MIN_PAIRS = 3
_NEGATIVE = "Negative prompt:"
_NEGATIVE_START = re.compile(r"negative[ _]prompt:", re.IGNORECASE)
_KNOWN = ("steps", "sampler", "seed", "cfg scale")
# a one-line infotext: the settings begin in the middle of a line
_INLINE = re.compile(r"(?:^|[\s.,;])(Steps: ?\d{1,5} ?[,|] ?[A-Za-z][\w /\-]{1,40}: )", re.IGNORECASE)
_INLINE_NEGATIVE = re.compile(r"(?:^|[\s.,;])(negative[ _]prompt:)", re.IGNORECASE)
_BARS = re.compile(r" ?\| ?(?=[A-Za-z][\w /\-]{1,40}:)")
_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?(e[+\-]?\d{1,3})?", re.IGNORECASE)
_MAX_CHARS = 1 << 20

ORIGINAL_KEY = "FAM original"
"""Holds the verbatim earlier infotext where it is not simply the part before FAM's own keys."""


OTHER_KEY = "Upscaled by"
"""Marks what we added to a picture that one of the comparison methods made: it is not labelled FAM."""
_MARKERS = (VERSION_KEY, OTHER_KEY)
_SPELLING = {
    key.casefold(): key
    for key in ("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "VAE", "Clip skip")
}


@dataclass(frozen=True)
class Infotext:
    """One picture's infotext, taken apart. `params` keeps the order and the unquoted values."""

    prompt: str = ""
    negative_prompt: str = ""
    params: Mapping[str, str] = field(default_factory=dict[str, str])


def quote(value: str) -> str:
    """Return `value` as it may stand after a key: JSON-quoted where a plain one would be read differently."""
    plain = value != "" and value == value.strip() and _SPECIAL.search(value) is None
    return value if plain else json.dumps(value, ensure_ascii=False)


def unquote(value: str) -> str:
    """Return the value that `quote` was given; anything that is not a whole JSON string is returned as it is."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        loaded: object = json.loads(value)
    except ValueError:
        return value
    return loaded if isinstance(loaded, str) else value


def _tokens(line: str) -> Iterator[tuple[int, str, str]]:
    """Yield (start, key, raw value) of each pair, in time linear in the line's length."""
    position, failures = 0, 0
    while True:
        run = _KEY_RUN.search(line, position)
        if run is None:
            return
        position = run.end()
        first = _KEY_START.search(run.group())
        if not line.startswith(":", position) or first is None:
            continue
        start = run.start() + first.start()
        key = line[start:position]
        if len(key) < 2:
            continue
        position += 1
        match = _QUOTED.match(line, position)
        if match is not None:
            value, position = match.group(1), match.end()
        else:
            begins = cast("re.Match[str]", _SPACE.match(line, position)).end()
            end = -1
            if line[begins : begins + 1] in ("[", "{") and failures < _MAX_JSON_FAILURES:
                end = _json_end(line, begins)
                failures += end < 0
            if end < 0:
                comma = line.find(",", position)
                end = len(line) if comma < 0 else comma
            value, position = line[position:end], end + 1
        yield start, key.strip(), value.strip()


def _json_end(line: str, start: int) -> int:
    try:
        _, end = _JSON.raw_decode(line, start)
    except (ValueError, RecursionError):
        return -1
    return end if line[end : end + 1] in ("", ",") else -1


def _pairs(line: str) -> list[tuple[str, str]]:
    return [(key, unquote(value)) for _, key, value in _tokens(line)]


def has_params(line: str) -> bool:
    """Return whether `line` holds settings for the WebUI: at least three pairs."""
    return sum(1 for _ in itertools.islice(_tokens(line), _MIN_PAIRS)) >= _MIN_PAIRS


def _setting_pairs(line: str) -> list[tuple[str, str]] | None:
    """Return the pairs of a settings line, None for any other: a known key, followed by others."""
    if ":" not in line:
        return None
    if _BARS.search(line) is not None and _BARS.split(line, 1)[0].strip().casefold().startswith(_KNOWN):
        parts = (part.partition(":") for part in _BARS.split(line))
        pairs = [(key.strip(), unquote(value.strip())) for key, _, value in parts]
    else:
        pairs = _pairs(line)
    for index, (key, value) in enumerate(pairs):
        folded = key.casefold()
        if key in _MARKERS:
            return pairs if len(pairs) >= _MIN_PAIRS else None
        good = value != "" if folded == "sampler" else _NUMBER.fullmatch(value) is not None
        if folded in _KNOWN and good:
            rest = len(pairs) - index - 1
            # two pairs alone may be prose: then both must be ours to know
            others = any(other.casefold() in _KNOWN for other, _ in pairs[index + 1 :])
            return pairs if rest >= 2 or (rest == 1 and others) else None
    return None


def has_settings(text: str) -> bool:
    """Return whether `text` is an infotext with a settings line, wherever it stands."""
    return dissect(text)[2]


def parse(text: str) -> Infotext:
    """Return `text` taken apart. Never raises: text without a settings line is all prompt."""
    return dissect(text)[0]


def dissect(text: str) -> tuple[Infotext, tuple[str, ...], bool]:
    """Return `text` taken apart, the lines after its settings (templates, wildcards), and whether it has settings.

    Settings are the last line that has a known key followed by others; prompt and negative prompt stand before the
    first such line.
    """
    text = text[:_MAX_CHARS].replace("\r\n", "\n").strip()
    lines = text.split("\n") if text else []
    found = [(index, pairs) for index, line in enumerate(lines) if (pairs := _setting_pairs(line)) is not None]
    if found:
        index, head = found[0][0], lines[found[0][0]]
        inline = _INLINE.search(head)
        before = head[: inline.start(1)].strip().rstrip(",;") if inline is not None else ""
        first = [*lines[:index], before] if before else lines[:index]
        last, params = found[-1]
        at = _INLINE.search(lines[last])
        if at is not None:
            params = _setting_pairs(lines[last][at.start(1) :]) or params
        trailing = tuple(line.strip() for line in lines[last + 1 :] if line.strip())
    else:
        first, params, trailing = lines, [], ()
    prompt: list[str] = []
    negative: list[str] = []
    target = prompt
    for number_, line in enumerate(first):
        stripped = line.strip()
        cut = _NEGATIVE_START.match(stripped)
        if cut is None and found:
            cut = _INLINE_NEGATIVE.search(stripped)
        if cut is not None and target is prompt:
            start = cut.start(cut.lastindex or 0)
            if stripped[:start].strip():
                prompt.append(stripped[:start].strip().rstrip(",;"))
            target = negative
            stripped = stripped[cut.end() :].strip()
        elif found and number_ == 0 and stripped[:7].casefold() == "prompt:":
            stripped = stripped[7:].strip()
        if stripped or target:
            target.append(stripped)
    read = Infotext("\n".join(prompt).strip(), "\n".join(negative).strip(), _known_spelling(params))
    return read, trailing, bool(found)


def _known_spelling(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs with the keys we read in their usual spelling ("CFG Scale" is "CFG scale")."""
    return {_SPELLING.get(key.casefold(), key): value for key, value in pairs}


def format_params(params: Mapping[str, str]) -> str:
    """Return the settings line: "Key: value, Key: value"."""
    return ", ".join(f"{key}: {quote(value)}" for key, value in params.items())


def format_infotext(infotext: Infotext) -> str:
    """Return the text that `parse` takes apart again."""
    parts = [infotext.prompt]
    if infotext.negative_prompt:
        parts.append(f"{_NEGATIVE} {infotext.negative_prompt}")
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
    if spec.kind in ("float", "int"):
        return number(value)
    return str(value)


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
    earlier text has no settings line of its own, because a WebUI needs three pairs to see one; `heading` (prompt and
    negative prompt) only where there is no earlier text. `fields` begins with `FAM version` where FAM ran, with
    `Upscaled by` where it did not (put first when neither is there).
    """
    tail = dict(fields)
    if next(iter(tail), None) not in _MARKERS:
        tail = {OTHER_KEY: f"FAM Hires {__version__}", **tail}
    base = text or ""
    nested = {**tail, ORIGINAL_KEY: base}
    stem, earlier = _split(base)
    clean = stem.strip().rstrip(",")
    own_line = {**(settings or {}), **nested}
    if len(own_line) < _MIN_PAIRS:
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
    for start_in_line, key, _ in _tokens(last):
        if key in _MARKERS:
            # the spaces before a key belong to it
            before = last[:start_in_line].rstrip()
            start = line_start + len(before)
            stem = text[:start]
            if before and stem.endswith(","):
                stem = stem[:-1]
            elif not before:
                stem = text[: max(0, line_start - 1)]  # the line break
            return stem, dict(_pairs(last[start_in_line:]))
    return text, None


def to_preset(text: str, name: str) -> Preset:
    """Return a preset with the FAM fields and sampler settings of a picture's infotext. Raises `ConfigError`."""
    params = parse(text).params
    if not is_fam(params):
        raise ConfigError("the picture's metadata holds no FAM fields; choose a picture that FAM made")
    settings = {key: request_value(params, key) for key in SETTINGS}
    return Preset(name, "From a picture.", from_fields(params), {k: v for k, v in settings.items() if v is not None})
