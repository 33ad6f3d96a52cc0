"""EXIF edited in place: old bytes keep their place (maker notes hold offsets), changed tables go to the end."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass

ORIENTATION = 0x0112
EXIF_POINTER = 0x8769
USER_COMMENT = 0x9286
_HEADER = b"Exif\x00\x00"
_UNICODE = b"UNICODE\x00"
_ASCII = b"ASCII\x00\x00\x00"
_JIS = b"JIS\x00\x00\x00\x00\x00"
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_TEXT_TAGS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    USER_COMMENT: "UserComment",
    0x9C9B: "XPTitle",
    0x9C9C: "XPComment",
    0x9C9F: "XPSubject",
}
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SPARE_TAGS = (0x010E, 0x9C9C, 0x9C9F)
"""Where a text goes that ours takes the place of."""
_BYTE, _ASCII_KIND, _SHORT, _LONG, _UNDEFINED = 1, 2, 3, 4, 7
_MAX_ENTRIES = 4096


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    value: bytes
    """The four bytes of the value field as they stand: a value or an offset."""
    position: int
    """Where the entry begins, so that a value can be changed in place."""


class ExifError(ValueError):
    """The EXIF block is damaged."""


def _body(exif: bytes) -> bytes:
    return exif[len(_HEADER) :] if exif.startswith(_HEADER) else exif


def _order(tiff: bytes) -> str:
    if tiff[:4] == b"II*\x00":
        return "<"
    if tiff[:4] == b"MM\x00*":
        return ">"
    raise ExifError("no TIFF header")


def _table(tiff: bytes, offset: int) -> tuple[list[_Entry], int]:
    """Return the entries of the table at `offset` and the offset of the next one. Raises `ExifError`."""
    order = _order(tiff)
    try:
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        if count > _MAX_ENTRIES:
            raise ExifError("too many entries")
        entries: list[_Entry] = []
        for index in range(count):
            position = offset + 2 + 12 * index
            tag, kind, number, value = struct.unpack_from(order + "HHI4s", tiff, position)
            entries.append(_Entry(tag, kind, number, value, position))
        (following,) = struct.unpack_from(order + "I", tiff, offset + 2 + 12 * count)
    except struct.error:
        raise ExifError("a table runs past the end") from None
    return entries, following


def _first(tiff: bytes) -> int:
    try:
        return struct.unpack_from(_order(tiff) + "I", tiff, 4)[0]
    except struct.error:
        raise ExifError("no first table") from None


def _find(entries: list[_Entry], tag: int) -> _Entry | None:
    return next((entry for entry in entries if entry.tag == tag), None)


def _pointer(tiff: bytes, entry: _Entry) -> int:
    return struct.unpack(_order(tiff) + "I", entry.value)[0]


def orientation(exif: bytes) -> int:
    """Return the orientation 1 to 8; 1 when absent or damaged."""
    try:
        tiff = _body(exif)
        entry = _find(_table(tiff, _first(tiff))[0], ORIENTATION)
        if entry is None or entry.kind != _SHORT:
            return 1
        value = struct.unpack(_order(tiff) + "H", entry.value[:2])[0]
    except ExifError:
        return 1
    return value if 1 <= value <= 8 else 1


def user_comment(exif: bytes) -> str | None:
    """Return the UserComment as text, None when absent or damaged."""
    try:
        tiff = _body(exif)
        pointer = _find(_table(tiff, _first(tiff))[0], EXIF_POINTER)
        if pointer is None:
            return None
        entry = _find(_table(tiff, _pointer(tiff, pointer))[0], USER_COMMENT)
        if entry is None:
            return None
        start = _pointer(tiff, entry)
        raw = entry.value[: entry.count] if entry.count <= 4 else tiff[start : start + entry.count]
    except ExifError:
        return None
    return decode_comment(raw, big_endian=tiff[:2] == b"MM")


def texts(exif: bytes) -> list[tuple[str, str]]:
    """Return (tag's name, text) of every text tag in the first and the Exif table; damaged ones are left out."""
    found: list[tuple[str, str]] = []
    try:
        tiff = _body(exif)
        tables = [_table(tiff, _first(tiff))[0]]
    except ExifError:
        return found
    pointer = _find(tables[0], EXIF_POINTER)
    if pointer is not None:
        with contextlib.suppress(ExifError):
            tables.append(_table(tiff, _pointer(tiff, pointer))[0])
    budget = len(tiff)  # entries may overlap: together they are read once over
    for entries in tables:
        for entry in entries:
            name = _TEXT_TAGS.get(entry.tag)
            length = VALUE_SIZES.get(entry.kind, 0) * entry.count
            if name is None or not 0 < length <= budget:
                continue
            budget -= length
            start = _pointer(tiff, entry)
            raw = entry.value[:length] if length <= 4 else tiff[start : start + length]
            if name == "UserComment":
                text = decode_comment(raw, big_endian=tiff[:2] == b"MM")
            elif name.startswith("XP"):
                text = raw.decode("utf-16-le", "replace").strip("\x00")
            else:
                text = decode_plain(raw)
            if text:
                found.append((name, text))
    return found


def decode_plain(raw: bytes) -> str:
    """Return text whose encoding nothing says: a byte order mark is honoured, then UTF-8, else Windows' code page,
    which has letters where Latin-1 has control characters; else Latin-1."""
    for mark, codec in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(codec, "replace").strip("\x00")
    if len(raw) > 3 and 3 * raw.count(0) > len(raw) and raw.strip(b"\x00").count(0):
        return _decode_unicode(raw, big_endian=True).strip("\x00")  # UTF-16 that nobody marked
    raw = raw.rstrip(b"\x00")
    for codec in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode(codec).strip("\x00")
    return raw.decode("latin-1").strip("\x00")


def decode_comment(raw: bytes, *, big_endian: bool = True) -> str | None:
    """Return a UserComment's text from its bytes: UNICODE in any case (UTF-16 of either order, or UTF-8 behind it),
    ASCII, JIS, or unmarked."""
    if raw[:8].upper() == _UNICODE:
        text = _decode_unicode(raw[8:], big_endian)
    elif raw[:8].upper() == _ASCII or raw[:8] == b"\x00" * 8:
        text = decode_plain(raw[8:])
    elif raw[:8].upper() == _JIS:
        text = raw[8:].decode("shift_jis", "replace")  # as piexif, which the WebUI reads by
    else:
        text = decode_plain(raw)
    text = text.strip("\x00").rstrip(" \x00")
    return text or None


def _decode_unicode(payload: bytes, big_endian: bool) -> str:
    for mark, codec in _MARKS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(codec, "replace")
    bare = payload.strip(b"\x00")
    if b"\x00" not in bare and len(bare) > 3:
        try:
            text = bare.decode("utf-8")
            if text.isprintable() or "\n" in text:
                return text
        except UnicodeDecodeError:
            pass
    payload = payload[: len(payload) // 2 * 2]
    even, odd = payload[0::2], payload[1::2]
    # the byte that varies less is the high one, in any script; then the one that is zero more often
    spread = len(set(even)) - len(set(odd)) or odd.count(0) - even.count(0)
    # the WebUI (piexif) always writes big-endian, whatever the block's own order
    big = spread < 0 if spread else big_endian
    return payload.decode("utf-16-be" if big else "utf-16-le", "replace")


def encode_comment(text: str) -> bytes:
    """Return `text` as UserComment bytes, as the WebUI writes it (UNICODE, big-endian)."""
    return _UNICODE + text.encode("utf-16-be", "replace")


def spare_place(exif: bytes, text: str) -> str | None:
    """Return the first text tag that `text` can go to, None when all are taken or the block is damaged."""
    try:
        tiff = _body(exif)
        taken = {entry.tag for entry in _table(tiff, _first(tiff))[0]} - _blank_tags(exif)
    except ExifError:
        return None
    # ImageDescription is ASCII by its standard, and writers hold others to it
    spare = (tag for tag in _SPARE_TAGS if tag not in taken and (text.isascii() or tag != _SPARE_TAGS[0]))
    return next((_TEXT_TAGS[tag] for tag in spare), None)


def _blank_tags(exif: bytes) -> set[int]:
    """Return the spare tags that are there without a text in them (cameras write a row of spaces)."""
    filled = {name for name, text in texts(exif) if text.strip()}
    return {tag for tag in _SPARE_TAGS if _TEXT_TAGS[tag] not in filled}


def with_changes(
    exif: bytes | None, *, comment: str | None = None, size: tuple[int, int] | None = None, kept: str | None = None
) -> bytes:
    """Return the EXIF block with a new UserComment, and as that of a new, upright picture of `size` (height, width).
    Begins with `Exif 0 0`.

    What was there stays, byte for byte, except the comment, and with `size` orientation, sides and thumbnail; `kept`
    goes to the place that `spare_place` names. A damaged block is replaced by one that holds only the comment: EXIF is
    never a reason to fail.
    """
    place = spare_place(exif, kept) if exif and kept is not None else None
    try:
        tiff = _edit(_body(exif), comment, size) if exif else _fresh(comment)
        if place is not None and kept is not None:
            tiff = _with_text(tiff, place, kept)
    except ExifError:
        tiff = _fresh(comment)
    return _HEADER + tiff


def _fresh(comment: str | None) -> bytes:
    head = b"MM\x00*" + struct.pack(">I", 8)
    if comment is None:
        return head + struct.pack(">HI", 0, 0)
    raw = encode_comment(comment)
    first = struct.pack(">HHHII", 1, EXIF_POINTER, _LONG, 1, 26) + struct.pack(">I", 0)
    second = struct.pack(">HHHII", 1, USER_COMMENT, _UNDEFINED, len(raw), 44) + struct.pack(">I", 0)
    return head + first + second + raw


def _edit(tiff: bytes, comment: str | None, size: tuple[int, int] | None) -> bytes:
    if size is not None:
        tiff = _renewed(tiff, size)
    if comment is None:
        return tiff
    order = _order(tiff)
    data = bytearray(tiff)
    entries, following = _table(tiff, _first(tiff))
    pointer = _find(entries, EXIF_POINTER)
    inner: list[_Entry] = []
    inner_next = 0
    if pointer is not None:
        inner, inner_next = _table(tiff, _pointer(tiff, pointer))
    raw = encode_comment(comment)
    raw_at = _append(data, raw)
    inner = [entry for entry in inner if entry.tag != USER_COMMENT]
    inner.append(_Entry(USER_COMMENT, _UNDEFINED, len(raw), struct.pack(order + "I", raw_at), 0))
    inner_at = _append(data, _pack(order, inner, inner_next))
    target = struct.pack(order + "I", inner_at)
    if pointer is not None:
        struct.pack_into(order + "HI4s", data, pointer.position + 2, _LONG, 1, target)
        return bytes(data)
    entries = [*entries, _Entry(EXIF_POINTER, _LONG, 1, target, 0)]
    struct.pack_into(order + "I", data, 4, _append(data, _pack(order, entries, following)))
    return bytes(data)


def _renewed(tiff: bytes, size: tuple[int, int]) -> bytes:
    """Return the block as that of an upright picture of `size`, without the thumbnail of the earlier one."""
    order, data = _order(tiff), bytearray(tiff)
    first = _first(tiff)
    entries, following = _table(tiff, first)
    struct.pack_into(order + "I", data, first + 2 + 12 * len(entries), 0)
    pointer = _find(entries, EXIF_POINTER)
    if pointer is not None:
        with contextlib.suppress(ExifError):
            entries = entries + _table(tiff, _pointer(tiff, pointer))[0]
    for entry in entries:
        if entry.tag == ORIENTATION:
            struct.pack_into(order + "HIHH", data, entry.position + 2, _SHORT, 1, 1, 0)
        elif entry.tag == USER_COMMENT and entry.kind == _BYTE:
            # as Pillow writes it, and the WebUI's piexif can't read
            struct.pack_into(order + "H", data, entry.position + 2, _UNDEFINED)
        elif entry.tag in (*_WIDTHS, *_HEIGHTS):
            struct.pack_into(order + "HII", data, entry.position + 2, _LONG, 1, size[entry.tag in _WIDTHS])
    with contextlib.suppress(ExifError):
        second = _table(tiff, following)[0] if following else []
        thumbnail, length = _find(second, _THUMBNAIL), _find(second, _THUMBNAIL_LENGTH)
        if thumbnail is not None and length is not None:
            start = _pointer(tiff, thumbnail)
            behind = tiff[start + _pointer(tiff, length) :]
            if start > following and not behind.strip(b"\x00"):
                del data[start:]
    return bytes(data)


def without_orientation(exif: bytes) -> bytes:
    """Return a block of `with_changes` without its orientation 1: where it has one Pillow writes an AVIF's anew, and
    the comment so that the WebUI can't read it."""
    tiff = _body(exif)
    first = _first(tiff)
    entries, following = _table(tiff, first)
    packed = _pack(_order(tiff), [entry for entry in entries if entry.tag != ORIENTATION], following)
    return _HEADER + tiff[:first] + packed + tiff[first + len(packed) :]


def _with_text(tiff: bytes, name: str, text: str) -> bytes:
    """Return the block with `text` under a tag of the first table."""
    order, data = _order(tiff), bytearray(tiff)
    tag = next(tag for tag, known in _TEXT_TAGS.items() if known == name)
    wide = name.startswith("XP")
    raw = text.encode("utf-16-le", "replace") + b"\x00\x00" if wide else text.encode("utf-8", "replace") + b"\x00"
    raw = raw.ljust(5, b"\x00")  # up to four bytes would stand in the entry itself
    entries, following = _table(tiff, _first(tiff))
    value = struct.pack(order + "I", _append(data, raw))
    entries = [entry for entry in entries if entry.tag != tag]
    entries.append(_Entry(tag, _BYTE if wide else _ASCII_KIND, len(raw), value, 0))
    struct.pack_into(order + "I", data, 4, _append(data, _pack(order, entries, following)))
    return bytes(data)


def _append(data: bytearray, block: bytes) -> int:
    if len(data) % 2:
        data.append(0)  # TIFF tables begin at even offsets
    at = len(data)
    data.extend(block)
    return at


def _pack(order: str, entries: list[_Entry], following: int) -> bytes:
    ordered = sorted(entries, key=lambda entry: entry.tag)
    body = b"".join(struct.pack(order + "HHI4s", e.tag, e.kind, e.count, e.value) for e in ordered)
    return struct.pack(order + "H", len(ordered)) + body + struct.pack(order + "I", following)


VALUE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Bytes of one value by its TIFF kind."""
_INTEROP_POINTER = 0xA005
GPS_POINTER = 0x8825


def transplant(tiff_file: bytes, exif: bytes) -> bytes:
    """Return a little-endian TIFF file with the Exif and GPS tables of a little-endian EXIF block appended.

    Raises `ExifError` when either is damaged. Values move as bytes; a table's tables do not come along.
    """
    source = _body(exif)
    if _order(tiff_file) != "<" or _order(source) != "<":
        raise ExifError("both must be little-endian")
    data = bytearray(tiff_file)
    entries, following = _table(tiff_file, _first(tiff_file))
    outer, _ = _table(source, _first(source))
    added: list[_Entry] = []
    for tag in (EXIF_POINTER, GPS_POINTER):
        pointer = _find(outer, tag)
        if pointer is None:
            continue
        inner: list[_Entry] = []
        for entry in _table(source, _pointer(source, pointer))[0]:
            length = VALUE_SIZES.get(entry.kind, 0) * entry.count
            if length == 0 or entry.tag == _INTEROP_POINTER:
                continue
            value = entry.value
            if length > 4:
                start = _pointer(source, entry)
                value = struct.pack("<I", _append(data, source[start : start + length]))
            inner.append(_Entry(entry.tag, entry.kind, entry.count, value, 0))
        added.append(_Entry(tag, _LONG, 1, struct.pack("<I", _append(data, _pack("<", inner, 0))), 0))
    if added:
        kept = [entry for entry in entries if entry.tag not in (EXIF_POINTER, GPS_POINTER)]
        struct.pack_into("<I", data, 4, _append(data, _pack("<", [*kept, *added], following)))
    return bytes(data)
