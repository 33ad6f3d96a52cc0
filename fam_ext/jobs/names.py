"""What a result is called: the pattern's name, made safe on every system, and what to try where two would be equal."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Any

from fam_ext.errors import ConfigError
from fam_ext.metadata import pictures
from fam_ext.options.request import HiresRequest

_MAX_NAME_BYTES = 240
_PLAIN = re.compile(r"(?!(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$))[\w \-()\[\],;+=@%~]{1,100}")
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")


def output_name(
    key: str,
    request: HiresRequest,
    native: tuple[int, int],
    picture_format: str,
    pattern: str,
    index: int,
) -> str:
    """Return the output's place below the output folder: the mirrored folder and the pattern's name, made safe."""
    folder, _, name = key.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    mild = pattern == "{stem}"
    made = stem if mild else _fill(pattern, stem, request, native, picture_format, index)
    ending = "." + suffix if pictures.format_of(name) == picture_format else pictures.PREFERRED_SUFFIX[picture_format]
    parts = [safe_name(part, mild=True) for part in folder.split("/") if part]
    made_parts = [part for part in (made.split("/") if not mild else [made]) if part.strip(" .")]
    parts += [safe_name(part, mild=mild) for part in made_parts[:-1]]
    parts.append(safe_name(made_parts[-1] if made_parts else "picture", mild=mild, ending=ending))
    return "/".join(parts)


def _fill(
    pattern: str, stem: str, request: HiresRequest, native: tuple[int, int], picture_format: str, index: int
) -> str:
    values: dict[str, Any] = {
        "stem": stem,
        "format": picture_format.lower(),
        "width": request.size[1],
        "height": request.size[0],
        "scale": round(request.size[0] / native[0], 2),
        "seed": request.seed,
        "index": index,
        "steps": request.steps,
        "method": request.method,
    }
    try:
        return pattern.format_map(values)  # no value has a slash; the rest is made safe part by part
    except (ValueError, TypeError):
        raise ConfigError(f"name pattern {pattern!r} does not fit its fields; use d for whole numbers") from None


def safe_name(part: str, *, mild: bool = False, ending: str = "") -> str:
    """Return one path component that is safe on every system: no separators, control or direction marks, no device
    names, no `..`, at most 240 bytes. `mild` keeps what a file system already holds (as ? on Linux)."""
    text = unicodedata.normalize("NFC", part) if not mild else part
    if part.isascii() and part.isprintable() and mild and _PLAIN.fullmatch(part):
        return part + ending
    unwanted = ("Cc", "Cf", "Cs", "Zl", "Zp") if mild else ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co")
    text = "".join("_" if unicodedata.category(mark) in unwanted else mark for mark in text)
    text = re.sub(r"[/\\]" if mild else r'[<>:"/\\|?*]', "_", text)
    if not mild:
        text = text.strip(" ")
        text = text.rstrip(".")
    if text in ("", ".", "..") or _RESERVED.match(text + ending):
        text = "_" + text.replace(".", "_")
    if len((text + ending).encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        mark = "~" + hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        room = _MAX_NAME_BYTES - len(mark) - len(ending.encode())
        text = text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore") + mark
    return text + ending


def fold(name: str) -> str:
    """Return a name's form for comparing: file systems that ignore case or normalise must not merge two outputs."""
    return unicodedata.normalize("NFC", name).casefold()


def is_name_of(name: str, wanted: str, key: str) -> bool:
    """Return whether `name` is one of the `alternatives`."""
    number = re.search(r"-([0-9]{1,6})\.\w+$", name)
    tried = islice(alternatives(wanted, key, start=int(number[1]) if number else 2), 3)
    return fold(name) in map(fold, tried)


def alternatives(wanted: str, key: str, *, start: int = 2) -> Iterator[str]:
    """Yield names to try in order: the wanted one, one with the source's suffix, then those numbered from `start`."""
    yield wanted
    folder, slash, name = wanted.rpartition("/")
    stem, _, suffix = name.rpartition(".")
    source_suffix = key.rsplit(".", 1)[-1].lower()
    if source_suffix != suffix.lower() and "/" not in source_suffix:
        yield folder + slash + safe_name(f"{stem}-{source_suffix}", mild=True, ending="." + suffix)
    for number in range(start, 1_000_000):
        yield folder + slash + safe_name(f"{stem}-{number}", mild=True, ending="." + suffix)
