"""Texts hidden in the lowest bits of a PNG's alpha or colours, column by column (NovelAI, SwarmUI, stealth-pnginfo)."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

from PIL import Image

from fam_ext.metadata.guard import open_known, strict_pillow

_MARKS = {b"stealth_pnginfo": "A", b"stealth_pngcomp": "A", b"stealth_rgbinfo": "RGB", b"stealth_rgbcomp": "RGB"}
_MARK_BITS = 120
_MAX_TEXT = 8 << 20
_SMALL = 1 << 20
"""Pixels of a picture that is decoded for its mark: a low one has its mark in several columns."""
_MAX_PIXELS = 8_000_000
_MAX_ROWS = 16 << 20
_BITS = bytes(48 + (value & 1) for value in range(256))
_CHUNK = 1 << 16


def read(file: BinaryIO) -> str | None:
    """Return the text hidden in a PNG of 8 bits a channel, None when there is none. Decodes only where there is a mark.

    Never raises for a damaged file.
    """
    file.seek(0)
    head = file.read(33)
    if len(head) < 33 or head[24] != 8 or head[25] not in (2, 6) or head[28] != 0:
        return None  # 8 bits, RGB or RGBA, not interlaced
    width, height = struct.unpack(">II", head[16:24])
    if width * height > _MAX_PIXELS:
        return None
    channels = 4 if head[25] == 6 else 3
    try:
        # the first letter of a mark first: nearly all pictures end there
        for rows in (8, _MARK_BITS) if height >= _MARK_BITS else ():
            file.seek(33)
            if not _marked(_first_column(file, width, channels, rows), channels):
                return None
        if height < _MARK_BITS and not 0 < width * height <= _SMALL:
            return None
        file.seek(0)
        with strict_pillow():
            return _hidden(open_known(file))
    except Exception:  # a picture that can't be read is judged elsewhere
        return None


def _marked(column: bytes, channels: int) -> bool:
    """Return whether the first column's pixels begin a mark, as far as they reach."""
    alpha = column[3::4] if channels == 4 else b""
    colours = b"".join(column[at : at + 3] for at in range(0, len(column), channels))
    begun = (_bytes(part, 0, min(len(part), _MARK_BITS) // 8 * 8) for part in (alpha, colours))
    return any(mark.startswith(letters) for letters in begun if letters for mark in _MARKS)


def _first_column(file: BinaryIO, width: int, channels: int, count: int) -> bytes:
    """Return the first pixel of the first `count` rows, unfiltered: what stands left of it is always zero."""
    stride = 1 + width * channels
    engine, rows = zlib.decompressobj(), bytearray()
    wanted = min(stride * count, _MAX_ROWS)
    while len(rows) < wanted:
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        length, kind = struct.unpack(">I4s", chunk)
        if kind != b"IDAT":
            file.seek(length + 4, io.SEEK_CUR)
            continue
        while length and len(rows) < wanted:
            part = file.read(min(length, _CHUNK))
            if not part:
                break
            length -= len(part)
            rows += engine.decompress(part, wanted - len(rows))
        file.seek(length + 4, io.SEEK_CUR)
    column, above = bytearray(), bytes(channels)
    for at in range(0, len(rows) - stride + 1, stride):
        share = {2: 1.0, 3: 0.5, 4: 1.0}.get(rows[at], 0.0)  # Up, Average and Paeth add to the pixel above
        pixel = rows[at + 1 : at + 1 + channels]
        above = bytes((value + int(share * upper)) & 255 for value, upper in zip(pixel, above, strict=True))
        column += above
    return bytes(column)


def _hidden(image: Image.Image) -> str | None:
    turned = image.transpose(Image.Transpose.TRANSPOSE)
    for mode in ("A", "RGB") if image.mode == "RGBA" else ("RGB",):
        data = (turned.getchannel("A") if mode == "A" else turned.convert("RGB")).tobytes()
        mark = _bytes(data, 0, _MARK_BITS)
        if _MARKS.get(mark) != mode:
            continue
        bits = int.from_bytes(_bytes(data, _MARK_BITS, 32), "big")
        if bits > 8 * _MAX_TEXT:
            return None
        raw = _bytes(data, _MARK_BITS + 32, bits // 8 * 8)
        if mark.endswith(b"comp"):
            raw = zlib.decompressobj(31).decompress(raw, _MAX_TEXT)
        return raw.decode("utf-8", "replace").strip("\x00") or None
    return None


def _bytes(data: bytes, start: int, bits: int) -> bytes:
    """Return the lowest bits of `data` from `start` on, eight to a byte; b"" where they are too few."""
    part = data[start : start + bits].translate(_BITS)
    return int(part, 2).to_bytes(bits // 8, "big") if part and len(part) == bits else b""
