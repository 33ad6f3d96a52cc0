"""Every text of a picture file with its place, whatever the container: PNG chunks, EXIF, XMP, JPEG's comment."""

from __future__ import annotations

import html
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from fam_ext.metadata import exif

MAX_TEXT = 8 << 20
MAX_READ = 1000
"""Texts of a file that are looked at for settings; all are carried over."""
MAX_DEPTH = 64
"""Deepest JSON that is read."""
_XMP_ITEM = re.compile(r"<rdf:li[^>]{0,200}>([^<]*)</rdf:li>")
_XMP_TOOL = re.compile(r'xmp:CreatorTool="([^"]{0,200})"')
_BRACKETS = re.compile(r'"(?:\\.|[^"\\])*"|[\[\]{}]')


@dataclass(frozen=True)
class Text:
    """One text of a file."""

    place: str
    """"PNG", "EXIF", "XMP" or "JPEG comment"."""
    key: str
    """The chunk's keyword, the tag's or the property's name."""
    value: str


class Texts(tuple[Text, ...]):
    """The texts of one file, in their order."""

    def get(self, *keys: str, place: str | None = None) -> str | None:
        """Return the text of the first key that is there; of equal keys the last."""
        for key in keys:
            for text in reversed(self):
                if text.key == key and place in (None, text.place):
                    return text.value
        return None

    def json(self, *keys: str) -> dict[str, Any] | None:
        """Return the JSON object under the first key that holds one."""
        for key in keys:
            for text in reversed(self):
                if text.key == key:
                    found = json_object(text.value)
                    if found is not None:
                        return found
        return None


def collect(chunks: Iterable[tuple[str, str]], block: bytes | None, xmp: bytes | None, comment: bytes | None) -> Texts:
    """Return every text of a file from its parts: PNG's (keyword, value) pairs, EXIF, XMP, JPEG's comment."""
    found = [Text("PNG", key, value) for key, value in chunks if key != "XML:com.adobe.xmp"]
    if block is not None:
        found += [Text("EXIF", *_prefixed(name, value)) for name, value in exif.texts(block)]
    if xmp is not None:
        found += [Text("XMP", key, value) for key, value in _xmp_texts(xmp)]
    if comment:
        key, separator, value = comment.partition(b"\x00")
        if separator and value.strip(b"\x00") and key.isascii() and len(key) < 80:
            found.append(Text("JPEG comment", key.decode("ascii"), exif.decode_plain(value)))
        else:
            found.append(Text("JPEG comment", "Comment", exif.decode_plain(comment)))
    told = (text for text in found if text.value.strip() and len(text.value) <= MAX_TEXT)
    return Texts(itertools.islice(told, MAX_READ))


def _prefixed(name: str, value: str) -> tuple[str, str]:
    """ComfyUI writes `prompt:{...}` and `workflow:{...}` into Make, Model and their neighbours."""
    key, separator, rest = value[:9].partition(":")
    if separator and key.casefold() in ("prompt", "workflow") and (rest + value[9:10]).lstrip().startswith("{"):
        return key.casefold(), value[len(key) + 1 :]
    return name, value


def _xmp_texts(xmp: bytes) -> list[tuple[str, str]]:
    packet = xmp[:MAX_TEXT].decode("utf-8", "replace")
    found: list[tuple[str, str]] = []
    for name in ("dc:description", "exif:UserComment", "dc:title", "xmp:CreatorTool"):
        start = packet.find(f"<{name}")
        end = packet.find(f"</{name}>", start) if start >= 0 else -1
        if end < 0:
            continue
        inner = packet[start:end]
        item = _XMP_ITEM.search(inner)
        text = item.group(1) if item is not None else inner.partition(">")[2]
        found.append((name, html.unescape(text).strip()))
    tool = _XMP_TOOL.search(packet)
    if tool is not None:
        found.append(("xmp:CreatorTool", html.unescape(tool.group(1))))
    return found


def is_json(text: str) -> bool:
    """Return whether the text is a JSON document, which is never a prompt; also one too deep or damaged to read."""
    bare = text.strip()
    return bare[:1] + bare[-1:] in ("{}", "[]") and (loaded(bare) is not None or '":' in bare)


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object in the text, None when there is none. NaN and Infinity are numbers, as Python's."""
    value = loaded(text)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def loaded(text: str) -> object | None:
    """Return the JSON value in the text, None when it is no JSON, too long or deeper than MAX_DEPTH."""
    bare = text.strip().strip("\x00")
    if bare[:1] not in ("{", "[") or len(bare) > MAX_TEXT:
        return None
    depth = 0
    for match in _BRACKETS.finditer(bare):
        mark = match.group()
        depth += (mark in "[{") - (mark in "]}") if len(mark) == 1 else 0
        if depth > MAX_DEPTH:
            return None
    try:
        return cast("object", json.loads(bare))
    except (ValueError, RecursionError):
        return None
