"""PNG files by their chunks: the header without a pixel, the pixels without a text."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

from fam_ext.errors import PictureError
from fam_ext.metadata import exif
from fam_ext.metadata.header import XMP_KEY, Header, PngText, positive_dpi

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_TEXT = 8 << 20
_MAX_TEXTS = 16 << 20
_PIXELS = (
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD"),
    *(b"acTL", b"fcTL", b"fdAT"),
)
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_MAX_CHUNKS = 20_000
"""Chunks beside the pixels': each takes a step to read."""
_MOST_INFLATED = 1032
"""Bytes that one byte of zlib's can become."""
_TEXT_COST = 2048
"""Bytes that a text takes of the budget beside its own."""


def read(file: BinaryIO) -> Header:
    """Walk the chunks: a text after the pixels is found too, and no pixel is touched."""
    file.seek(len(SIGNATURE))
    size: tuple[int, int] | None = None
    frames = 1
    texts: list[PngText] = []
    budget = _MAX_TEXTS
    unread = others = 0
    block: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    while True:
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if length > 0x7FFFFFFF or kind == b"IEND":
            break
        if kind in (b"IDAT", b"fdAT"):
            file.seek(length + 4, io.SEEK_CUR)
            continue
        others += 1
        if others > _MAX_CHUNKS:
            raise PictureError(
                f"the file has more than {_MAX_CHUNKS} PNG chunks beside its pixels; open and save it again"
            )
        wanted = kind in (*_TEXTS, b"IHDR", b"eXIf", b"iCCP", b"pHYs", b"acTL")
        if not wanted or length > min(_MAX_TEXT, budget):
            unread += kind in _TEXTS
            file.seek(length + 4, io.SEEK_CUR)
            continue
        data = file.read(length)
        if len(data) < length:
            break
        file.seek(4, io.SEEK_CUR)
        if kind == b"IHDR" and length >= 13:
            width, height = struct.unpack_from(">II", data)
            size = (height, width)
        elif kind == b"acTL" and length >= 4:
            frames = struct.unpack_from(">I", data)[0]
        elif kind == b"eXIf":
            block = b"Exif\x00\x00" + data
            budget -= length
        elif kind == b"iCCP":
            icc, size_ = _inflate(data.partition(b"\x00")[2][1:], budget)
            budget -= size_
        elif kind == b"pHYs" and length >= 9 and data[8] == 1:
            horizontal, vertical = struct.unpack_from(">II", data)
            dpi = positive_dpi((horizontal * 0.0254, vertical * 0.0254))
        elif kind in _TEXTS:
            entry, size_ = _text(kind, data, budget)
            if entry is not None and size_ <= budget:
                texts.append(entry)
            else:
                unread += 1
            budget -= size_ + _TEXT_COST
    if size is None or 0 in size:
        raise PictureError("the header is damaged (no size); copy the file again")
    turned = exif.orientation(block) if block is not None else 1
    xmp = next((entry.value.encode("utf-8", "replace") for entry in texts if entry.key == XMP_KEY), None)
    return Header(
        format="PNG",
        size=(size[1], size[0]) if turned >= 5 else size,
        orientation=turned,
        frames=frames,
        texts=tuple(texts),
        unread=unread,
        exif=block,
        icc=icc,
        xmp=xmp,
        dpi=dpi,
    )


def _text(kind: bytes, data: bytes, budget: int) -> tuple[PngText | None, int]:
    """Return the text of a chunk and its size once inflated; None for one damaged or over `budget`."""
    raw_key, separator, rest = data.partition(b"\x00")
    if not separator or len(raw_key) > 79:
        return None, 0
    key = raw_key.decode("latin-1")
    raw = (kind, data)
    if kind == b"tEXt":
        return PngText(key, exif.decode_plain(rest), raw=raw), len(rest)
    if kind == b"zTXt":
        inflated, size = _inflate(rest[1:], budget)
        if inflated is None:
            return None, size
        return PngText(key, exif.decode_plain(inflated), compressed=True, raw=raw), size
    if len(rest) < 2:
        return None, 0
    packed = rest[0] == 1
    language, _, rest = rest[2:].partition(b"\x00")
    translated, _, value = rest.partition(b"\x00")
    inflated, size = _inflate(value, budget) if packed else (value, len(value))
    size += len(language) + len(translated)
    if inflated is None:
        return None, size
    entry = PngText(
        key,
        inflated.decode("utf-8", "replace"),
        international=True,
        language=language.decode("latin-1"),
        translated=translated.decode("utf-8", "replace"),
        compressed=packed,
        raw=raw,
    )
    return entry, size


def _inflate(data: bytes, budget: int) -> tuple[bytes | None, int]:
    """Return the inflated bytes (None when damaged, or larger than a text may be) and how many were made, at most."""
    engine = zlib.decompressobj()
    most = max(1, min(_MAX_TEXT, budget))
    try:
        out = engine.decompress(data, most)
    except zlib.error:
        return None, min(most, _MOST_INFLATED * len(data))  # the damage may be at the end
    return (None if engine.unconsumed_tail else out), len(out)


def pixels(data: bytes) -> bytes:
    """Return a PNG without its texts, profile and EXIF, which the header has read already."""
    kept = [data[: len(SIGNATURE)]]
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in _PIXELS:
            kept.append(data[position:end])
        position = end
        if kind == b"IEND":
            break
    return b"".join(kept)


def is_whole(data: bytes) -> bool:
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return True
        position += 12 + length
    return False
