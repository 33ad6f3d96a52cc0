"""A text as A1111 and its forks write it, taken apart: prompt, negative prompt, settings. Any text, in linear time."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from fam_ext.options.table import VERSION_KEY

# One "Key: value" pair: a key of at least two characters out of \w, space, - and /; a JSON string or anything up to
# the next comma. The same grammar as the WebUI's, so what we write it reads, and the other way round; only that we
# read a JSON list or object as one value, and go through the line once (the WebUI's expression takes quadratic time).
_KEY_RUN = re.compile(r"[\w \-/]+")
_KEY_START = re.compile(r"\w")
_QUOTED = re.compile(r'\s*("(?:\\.|[^\\"])+")(?:,|$)')
_SPACE = re.compile(r"\s*")
_JSON = json.JSONDecoder()
_MAX_JSON_FAILURES = 16
MIN_PAIRS = 3
NEGATIVE = "Negative prompt:"
_NEGATIVE_START = re.compile(r"negative[ _]prompt:", re.IGNORECASE)
_KNOWN = ("steps", "sampler", "seed", "cfg scale")
# a one-line infotext: the settings begin in the middle of a line
_INLINE = re.compile(r"(?:^|(?<!FAM)[\s.,;])(Steps: ?\d{1,5} ?[,|] ?[A-Za-z][\w /\-]{1,40}: )", re.IGNORECASE)
_INLINE_NEGATIVE = re.compile(r"(?:^|[\s.,;])(negative[ _]prompt:)", re.IGNORECASE)
_BARS = re.compile(r" ?\| ?(?=[A-Za-z][\w /\-]{1,40}:)")
_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?(e[+\-]?\d{1,3})?", re.IGNORECASE)
_HEADING = re.compile(r"^(?:(?:positive )?prompt|parameters) ?:", re.IGNORECASE)
_MAX_CHARS = 1 << 20
_MAX_LINES = 20_000
_MAX_KEY_LINE = 1000
# keys that may stand on a line of their own beside a settings line, or one on each line (Easy Diffusion's .txt)
_LINE_KEYS = frozenset(
    (
        *("steps", "sampler", "seed", "cfg scale", "guidance scale", "schedule type", "scheduler", "size", "width"),
        *("height", "model", "model hash", "vae", "vae model", "vae hash", "clip skip", "stable diffusion model"),
        *("prompt strength", "denoising strength", "use face correction", "use upscaling", "upscale by", "version"),
        *("app", "backend", "pipeline", "parser", "operations", "lora model", "lora strength", "hypernetwork model"),
        *("hypernetwork strength", "embedding models", "seamless tiling", "controlnet model", "controlnet strength"),
        *("distilled guidance", "rng", "ensd", "eta", "latent upscaler steps", "controlnet filter", "created date"),
    )
)
# of those the ones whose value tells a setting from a prompt's words
_TELLING: Mapping[str, re.Pattern[str]] = {
    **dict.fromkeys(("steps", "seed", "cfg scale", "guidance scale", "width", "height", "clip skip"), _NUMBER),
    **dict.fromkeys(("denoising strength", "prompt strength", "lora strength", "upscale by", "ensd", "eta"), _NUMBER),
    **dict.fromkeys(("model hash", "vae hash"), re.compile(r"[0-9a-f]{6,64}", re.IGNORECASE)),
    **{"size": re.compile(r"\d{1,6} ?x ?\d{1,6}"), "version": re.compile(r"\S{0,40}\d\S{0,40}")},
}

OTHER_KEY = "Upscaled by"
"""Marks what we added to a picture that one of the comparison methods made: it is not labelled FAM."""
MARKERS = (VERSION_KEY, OTHER_KEY)
_SPELLING = {
    key.casefold(): key
    for key in ("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "VAE", "Clip skip")
} | {"clip-skip": "Clip skip"}


@dataclass(frozen=True)
class Infotext:
    """One picture's infotext, taken apart. `params` keeps the order and the unquoted values."""

    prompt: str = ""
    negative_prompt: str = ""
    params: Mapping[str, str] = field(default_factory=dict[str, str])


def unquote(value: str) -> str:
    """Return the value that `quote` was given; anything that is not a whole JSON string is returned as it is."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        loaded: object = json.loads(value)
    except ValueError:
        return value
    return loaded if isinstance(loaded, str) else value


def tokens(line: str) -> Iterator[tuple[int, str, str]]:
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


def pairs_of(line: str) -> list[tuple[str, str]]:
    """Return the (key, value) pairs of a line."""
    return [(key, unquote(value)) for _, key, value in tokens(line)]


def has_params(line: str) -> bool:
    """Return whether `line` holds settings for the WebUI: at least three pairs."""
    return sum(1 for _ in itertools.islice(tokens(line), MIN_PAIRS)) >= MIN_PAIRS


def _setting_pairs(line: str) -> list[tuple[str, str]] | None:
    """Return the pairs of a settings line, None for any other: a known key, followed by others."""
    if ":" not in line:
        return None
    first = _BARS.split(line, 1)[0]
    if first != line and "," not in first and first.strip().casefold().startswith(_KNOWN):
        # ours stand behind a comma, and may hold any text
        ours = next((start for start, key, _ in tokens(line) if key in MARKERS), len(line))
        parts = (part.partition(":") for part in _BARS.split(line[:ours]))
        pairs = [(key.strip(), unquote(value.strip(" ,"))) for key, _, value in parts] + pairs_of(line[ours:])
    else:
        pairs = pairs_of(line)
    for index, (key, value) in enumerate(pairs):
        if key in MARKERS:
            return pairs if len(pairs) >= MIN_PAIRS else None
        if key.casefold() in _KNOWN and _fits(key, value):
            rest = len(pairs) - index - 1
            # two pairs alone may be prose: then both must be ours to know
            others = any(other.casefold() in _KNOWN for other, _ in pairs[index + 1 :])
            return pairs if rest >= 2 or (rest == 1 and others) else None
    return None


def _fits(key: str, value: str) -> bool:
    return value != "" if key.casefold() == "sampler" else _NUMBER.fullmatch(value) is not None


def has_settings(text: str) -> bool:
    """Return whether `text` is an infotext with a settings line, wherever it stands."""
    return dissect(text)[2]


def parse(text: str) -> Infotext:
    """Return `text` taken apart. Never raises: text without a settings line is all prompt."""
    return dissect(text)[0]


def dissect(text: str) -> tuple[Infotext, tuple[str, ...], bool]:
    """Return `text` taken apart, the lines after its settings (templates, wildcards), and whether it has settings.

    Settings are the last block of lines that has a known key followed by others; prompt and negative prompt stand
    before the first such block.
    """
    text = text[:_MAX_CHARS].replace("\r\n", "\n").replace("\r", "\n").strip()
    lines = text.split("\n")[:_MAX_LINES] if text else []
    blocks = _blocks(lines)
    first = lines
    params: list[tuple[str, str]] = []
    trailing: tuple[str, ...] = ()
    if blocks:
        # words that look like settings stand above a whole line of them; ours are below what was there
        whole = (block for block in blocks if _is_whole(block[2]) and not _is_ours(block[2]))
        start, _, _ = next(whole, blocks[0])
        before = _cut_inline(lines[start])[0]
        first = [*lines[:start], before] if before else lines[:start]
        _, end, params = blocks[-1]
        trailing = tuple(line.strip() for line in lines[end:] if line.strip())
    prompt, negative = _words(first, one_line=bool(blocks))
    if not negative:  # older texts of Easy Diffusion have it among the settings
        negative = next((value for key, value in params if key.casefold() == "negative prompt"), "")
    return Infotext(prompt, negative, _known_spelling(params)), trailing, bool(blocks)


def _blocks(lines: list[str]) -> list[tuple[int, int, list[tuple[str, str]]]]:
    """Return (first line, line after the last, pairs) of every block of settings.

    A block is one settings line, with the lines of known keys directly around it, or at least three lines of one known
    key each. Above a line that says all that a sampler needs, a line is a setting only where its values show it: any
    words may be a model's name, and the last words of a prompt.
    """
    blocks: list[tuple[int, int, list[tuple[str, str]]]] = []
    start, rows = 0, list[list[tuple[str, str]]]()
    strong, known, whole = False, False, False
    for index, line in enumerate([*lines, ""]):
        own = _setting_pairs(line)
        added = _key_line(line, inside=known) if own is None else _cut_inline(line)[1] or own
        listed = known and sum(map(len, rows[:MIN_PAIRS])) >= MIN_PAIRS
        if added:
            if own is not None and _is_whole(added) and not whole:
                whole = True
                if not _is_ours(added) or not (strong or listed):  # ours stand below whatever was there
                    keys = {key.casefold() for key, _ in added}
                    rows = [*itertools.takewhile(lambda row, keys=keys: _is_told(row, keys), reversed(rows))][::-1]
                    start = index - len(rows)
            start = start if rows else index
            rows.append(added)
            strong = strong or own is not None
            known = known or any(key.casefold() in _KNOWN and _fits(key, value) for key, value in added)
            continue
        if strong or listed:
            blocks.append((start, index, [*itertools.chain.from_iterable(rows)]))
        rows, strong, known, whole = [], False, False, False
    return blocks


def _is_whole(pairs: list[tuple[str, str]]) -> bool:
    return {"steps", "sampler"} <= {key.casefold() for key, _ in pairs}


def _is_ours(pairs: list[tuple[str, str]]) -> bool:
    return any(key in MARKERS for key, _ in pairs)


def _is_told(row: list[tuple[str, str]], keys: set[str]) -> bool:
    """Return whether a line of known keys adds to the settings below it, which have `keys`: its values are a program's,
    its keys new."""
    named = {key.casefold(): value for key, value in row}
    fits = [_TELLING[key].fullmatch(value) is not None for key, value in named.items() if key in _TELLING]
    return bool(fits) and all(fits) and keys.isdisjoint(named)


def _cut_inline(line: str) -> tuple[str, list[tuple[str, str]] | None]:
    """Return what stands before the settings of a line, and those settings, where they begin in its middle."""
    at = _INLINE.search(line)
    if at is None:
        return "", None
    return line[: at.start(1)].strip().rstrip(",;"), _setting_pairs(line[at.start(1) :])


def _key_line(line: str, *, inside: bool) -> list[tuple[str, str]]:
    """Return the pairs of a line that holds known keys and nothing else; a negative prompt only among them."""
    if len(line) > _MAX_KEY_LINE or ":" not in line:
        return []
    if inside and (cut := _NEGATIVE_START.match(line.strip())) is not None:
        return [("Negative prompt", line.strip()[cut.end() :].strip())]
    pairs = pairs_of(line)
    named = [key.casefold() for key, _ in pairs]
    bare = line.strip().rstrip(",").casefold()
    whole = bool(named) and bare.startswith(named[0]) and bare.count(",") + 1 == len(pairs)
    return pairs if whole and _LINE_KEYS.issuperset(named) else []


def _words(lines: list[str], *, one_line: bool) -> tuple[str, str]:
    """Return prompt and negative prompt; where settings follow, the negative may begin in the middle of a line."""
    prompt: list[str] = []
    negative: list[str] = []
    target = prompt
    for index, line in enumerate(lines):
        stripped = line.strip()
        cut = _NEGATIVE_START.match(stripped)
        if cut is None and one_line:
            cut = _INLINE_NEGATIVE.search(stripped)
        if cut is not None and target is prompt:
            start = cut.start(cut.lastindex or 0)
            before = _HEADING.sub("", stripped[:start]).strip()
            if before:
                prompt.append(before.rstrip(",;"))
            target = negative
            stripped = stripped[cut.end() :].strip()
        elif one_line and index == 0:
            stripped = _HEADING.sub("", stripped).strip()
        if stripped or target:
            target.append(stripped)
    return "\n".join(prompt).strip(), "\n".join(negative).strip()


def _known_spelling(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs with the keys we read in their usual spelling ("CFG Scale" is "CFG scale")."""
    return {_SPELLING.get(key.casefold(), key): value for key, value in pairs}
