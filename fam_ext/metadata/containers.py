"""Every text of a picture file with its place, whatever the container: PNG chunks, EXIF, XMP, JPEG's comment."""

from __future__ import annotations

import functools
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
_MAX_JSON = 4 << 20
_MAX_BRACKETS = 200_000
"""Most lists and objects of a JSON text: each takes a hundred bytes, however short it is written."""
_MAX_XMP = 2 << 20
_XMP_NAMES = (
    *("dc:description", "exif:UserComment", "dc:title", "xmp:CreatorTool", "comfy:prompt", "comfy:workflow"),
    *(f"xmp:{name}" for name in ("prompt", "negative_prompt", "sampler", "steps", "cfg_scale", "seed", "agent")),
)
_XMP_ITEM = re.compile(r"<rdf:li[^>]{0,200}>([^<]*)</rdf:li>")
_PREFIX = re.compile(r"\s*(prompt|workflow)\s*:\s*(?=\{)", re.IGNORECASE)
_PROFILE = "Raw profile type "
# keys of a JSON object that holds a file's texts as its values, as converters and NovelAI's WebP write it
_PACKED = (
    *("parameters", "prompt", "workflow", "invokeai_metadata", "invokeai_graph", "sd-metadata", "Dream"),
    *("generation_data", "extraMetadata", "Comment", "Software", "Description", "Source"),
)


@dataclass(frozen=True)
class Text:
    """One text of a file."""

    place: str
    """"PNG", "EXIF", "XMP", "JPEG comment" or "pixels"."""
    key: str
    """The chunk's keyword, the tag's or the property's name."""
    value: str

    @functools.cached_property
    def parsed(self) -> object | None:
        """The JSON value in the text, None when it is no JSON."""
        return loaded(self.value)

    @property
    def object(self) -> dict[str, Any] | None:
        """The JSON object in the text, None when there is none."""
        value = self.parsed
        return cast("dict[str, Any]", value) if isinstance(value, dict) else None

    @property
    def is_json(self) -> bool:
        """Whether the text is a JSON document, which is never a prompt; also one too deep or damaged to read."""
        bare = self.value.strip()
        return bare[:1] + bare[-1:] in ("{}", "[]") and (self.parsed is not None or '":' in bare)


class Texts(tuple[Text, ...]):
    """The texts of one file, in their order."""

    file: str = ""
    """The file's name, "" where it is not known: ComfyUI tells the pictures of one graph apart by it."""

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
                if text.key == key and text.object is not None:
                    return text.object
        return None


def collect(
    chunks: Iterable[tuple[str, str]],
    block: bytes | None,
    xmp: bytes | None,
    comment: bytes | None,
    *,
    hidden: str | None = None,
    file: str = "",
) -> Texts:
    """Return every text of a file from its parts: PNG's (keyword, value) pairs, EXIF, XMP, JPEG's comment, and the one
    `hidden` in its pixels, which stands for an EXIF comment. `file` is its name."""
    rows = list(chunks)
    found = [Text("PNG", key, value) for key, value in rows if key != "XML:com.adobe.xmp"]
    profiles = {key.rpartition(" ")[2].casefold(): value for key, value in rows if key.startswith(_PROFILE)}
    block = block or _profile(profiles.get("exif") or profiles.get("app1", ""))
    xmp = xmp or _profile(profiles.get("xmp", ""))
    if block is not None:
        found += [Text("EXIF", *_prefixed(name, value)) for name, value in exif.texts(block)]
    if xmp is not None:
        found += [Text("XMP", key, value) for key, value in _xmp_texts(xmp)]
    if comment:
        found.append(Text("JPEG comment", *jpeg_comment(comment)))
    if hidden is not None:
        found.append(Text("pixels", "UserComment", hidden))
    told = (text for text in found if text.value.strip() and len(text.value) <= MAX_TEXT)
    found = list(itertools.islice(told, MAX_READ))
    texts = Texts([*found, *(inner for text in found for inner in _unpacked(text))])
    texts.file = file
    return texts


def _profile(text: str) -> bytes | None:
    """Return the bytes that ImageMagick keeps as hexadecimal digits: a name, a length, the digits on lines of their
    own."""
    try:
        return bytes.fromhex(text.strip().split("\n", 2)[2]) or None
    except (ValueError, IndexError):
        return None


def jpeg_comment(comment: bytes) -> tuple[str, str]:
    """Return a JPEG comment's key and text: stable-diffusion.cpp writes `parameters`, a zero byte and its text."""
    key, separator, value = comment.partition(b"\x00")
    if separator and value.strip(b"\x00") and key.isascii() and 0 < len(key) < 80:
        return key.decode("ascii"), exif.decode_plain(value)
    return "Comment", exif.decode_plain(comment)


def _unpacked(text: Text) -> list[Text]:
    """Return the texts that a JSON object in an EXIF or JPEG comment holds under the keys of PNG's texts."""
    if text.place == "PNG" or "Comment" not in text.key or text.object is None:
        return []
    found: list[Text] = []
    for key in _PACKED:
        value = text.object.get(key)
        if isinstance(value, dict) and value:
            value = json.dumps(value)
        # a prompt of its own is the object's word, not a text of the file
        if isinstance(value, str) and (key not in ("prompt", "workflow") or value.lstrip().startswith("{")):
            found.append(Text(text.place, key, value))
    return found


def _prefixed(name: str, value: str) -> tuple[str, str]:
    """ComfyUI writes `prompt:{...}` and `workflow:{...}` into Make, Model and their neighbours."""
    match = _PREFIX.match(value[:200])
    return (match.group(1).casefold(), value[match.end() :]) if match is not None else (name, value)


def _xmp_texts(xmp: bytes) -> list[tuple[str, str]]:
    packet = xmp[:_MAX_XMP].decode("utf-8", "replace")
    found = ((name, _xmp_value(packet, name)) for name in _XMP_NAMES)
    # "comfy:prompt" is ComfyUI's chunk; "xmp:prompt" keeps its name
    return [(name.removeprefix("comfy:"), value) for name, value in found if value]


def _xmp_value(packet: str, name: str) -> str:
    """Return a property's text, written as an element or as an attribute; "" when there is none."""
    start = re.search(rf"<{name}[\s>]", packet)
    end = packet.find(f"</{name}>", start.start()) if start is not None else -1
    if start is not None and end >= 0:
        inner = packet[start.end() - 1 : end]
        item = _XMP_ITEM.search(inner)
        text = item.group(1) if item is not None else inner.partition(">")[2]
        return html.unescape(text.replace("<![CDATA[", "").replace("]]>", "")).strip()
    attribute = re.search(rf"\s{name}\s?=\s?([\"'])", packet)
    if attribute is None:
        return ""
    end = packet.find(attribute.group(1), attribute.end())
    return html.unescape(packet[attribute.end() : end]).strip() if end >= 0 else ""


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object in the text, None when there is none. NaN and Infinity are numbers, as Python's."""
    value = loaded(text)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def loaded(text: str) -> object | None:
    """Return the JSON value in the text, None when it is no JSON, too large or deeper than MAX_DEPTH."""
    bare = text.strip().strip("\x00")
    if bare[:1] not in ("{", "[") or len(bare) > _MAX_JSON or bare.count("{") + bare.count("[") > _MAX_BRACKETS:
        return None
    try:
        value = cast("object", json.loads(bare))
    except (ValueError, RecursionError):
        return None
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _within(outer)]
        if not level:
            return value
    return None


def _within(value: object) -> list[object]:
    """Return the lists and objects directly within a JSON value."""
    if isinstance(value, dict):
        value = list(cast("dict[str, object]", value).values())
    rows = cast("list[object]", value) if isinstance(value, list) else []
    return [row for row in rows if isinstance(row, dict | list)]
