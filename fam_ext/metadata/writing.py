"""A picture as a file's bytes, with everything its origin's file said."""

from __future__ import annotations

import io
import logging
import re
import struct
from dataclasses import dataclass, field
from typing import Any, cast

from PIL import Image, ImageChops, PngImagePlugin

from fam_ext.errors import PictureError
from fam_ext.metadata import containers, exif
from fam_ext.metadata.decoding import bare
from fam_ext.metadata.dissect import has_settings
from fam_ext.metadata.formats import MAX_SIDE, can_write
from fam_ext.metadata.guard import strict_pillow
from fam_ext.metadata.header import XMP_KEY, Header
from fam_ext.metadata.reading import IPTC_RESOURCE, TIFF_TEXT_TAGS, XMP_HEADER, XMP_TIFF_TAG, first_line, latin

log = logging.getLogger(__name__)

_JPEG_SEGMENT = 65533


@dataclass(frozen=True)
class Encoded:
    """A file's bytes, and what its format could not hold (one sentence each)."""

    data: bytes
    notes: tuple[str, ...] = field(default=())


def encode(
    image: Image.Image,
    picture_format: str,
    *,
    origin: Header | None = None,
    alpha: Image.Image | None = None,
    infotext: str | None = None,
    strip: bool = False,
    quality: int | None = None,
) -> Encoded:
    """Return `image` (RGB, upright, on white) as a file with `origin`'s metadata and the new `infotext`.

    `alpha` is resized to the image, whose half-transparent colours lose the white. EXIF, ICC profile, XMP, DPI and
    text chunks stay as they were, except that EXIF tells the new sides, orientation 1 and no thumbnail. `strip` writes
    pixels and colour profile only. Equal arguments give equal bytes.
    Raises `PictureError` when the format cannot hold the picture or is not there.
    """
    missing = can_write(picture_format)
    if missing is not None:
        raise PictureError(missing)
    longest = MAX_SIDE.get(picture_format)
    if longest is not None and max(image.size) > longest:
        raise PictureError(
            f"{image.width} x {image.height} px is more than {picture_format} holds ({longest} px a side); "
            "choose --format png"
        )
    notes: list[str] = []
    image = bare(image)
    if alpha is not None:
        if picture_format in ("JPEG", "BMP"):
            notes.append(f"{picture_format} holds no transparency; the picture lies on white")
        else:
            image = _off_white(
                image, alpha if alpha.size == image.size else alpha.resize(image.size, Image.Resampling.LANCZOS)
            )
    with strict_pillow():  # some EXIF blocks go through Pillow's tables
        options = _save_options(picture_format, (image.height, image.width), origin, infotext, strip, notes)
    options |= _quality(picture_format, quality)
    # libtiff cannot write the Exif table through Pillow: it is appended to the finished file
    tiff_exif = cast("bytes | None", options.pop("exif", None)) if picture_format == "TIFF" else None
    buffer = io.BytesIO()
    try:
        image.save(buffer, picture_format, **options)
    except (OSError, ValueError, struct.error, SystemError) as error:
        raise PictureError(f"the picture cannot be written as {picture_format} ({first_line(error)})") from None
    data = buffer.getvalue()
    if tiff_exif is not None:
        with strict_pillow():
            data = _with_tiff_exif(data, tiff_exif, notes)
    return Encoded(data, tuple(notes))


def _off_white(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return the RGBA picture that looks like `image` where it lies on white: C = (image - (1 - alpha)) / alpha, in
    [0, 1] by clipping. Opaque pixels keep their bytes; those that cannot be seen, too."""
    white = ImageChops.invert(alpha)
    seen = Image.merge("RGBa", (*(ImageChops.subtract(band, white) for band in image.split()), alpha)).convert("RGBA")
    hidden = image.copy()
    hidden.putalpha(0)
    return Image.composite(seen, hidden, alpha.point([0] + [255] * 255))


def _save_options(
    picture_format: str,
    size: tuple[int, int],
    origin: Header | None,
    infotext: str | None,
    strip: bool,
    notes: list[str],
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if origin is not None and origin.icc is not None and origin.icc[16:20] == b"RGB " and picture_format != "BMP":
        options["icc_profile"] = origin.icc
    if strip:
        return options
    if origin is not None and origin.dpi is not None and picture_format in ("PNG", "JPEG", "TIFF", "BMP"):
        options["dpi"] = origin.dpi
    if origin is not None and origin.unread:
        notes.append(f"{origin.unread} texts are damaged or too large (8 MB each, 16 MB together); not kept")
    if origin is not None and origin.iptc is not None and picture_format != "JPEG":
        notes.append("IPTC (caption, credit, keywords) is kept in JPEG only; choose --format jpeg to keep it")
    block = origin.exif if origin is not None else None
    xmp = _upright_xmp(origin.xmp) if origin is not None and origin.xmp is not None else None
    if picture_format == "PNG":
        options["pnginfo"] = _png_info(origin, infotext, xmp)
        if block is not None:
            # the WebUI takes the EXIF comment before the text chunk: old settings must not stay there, other words do
            comment = exif.user_comment(block)
            stale = infotext if comment is not None and _says_settings(comment) else None
            kept = _displaced(block, stale, notes)
            options["exif"] = exif.with_changes(block, comment=stale or None, size=size, kept=kept)
        return options
    if picture_format == "BMP":
        if infotext or block:
            notes.append("BMP holds no metadata; choose --format png to keep it")
        return options
    if origin is not None:
        lost = sorted({t.key for t in origin.texts if t.key != XMP_KEY and t.value not in (infotext or "")})
        if lost:
            notes.append(f"{picture_format} holds no PNG text; not kept: {', '.join(lost)[:80]}")
    if infotext or block is not None:
        kept = None if block is None else _displaced(block, infotext, notes)
        options["exif"] = exif.with_changes(block, comment=infotext or None, size=size, kept=kept)
        if kept is not None and picture_format == "JPEG" and len(options["exif"]) > _JPEG_SEGMENT:
            options["exif"] = exif.with_changes(block, comment=infotext or None, size=size)
            options["comment"] = kept.encode("utf-8", "replace")[:_JPEG_SEGMENT]
        block = options["exif"]
    if origin is not None and origin.comment is not None and picture_format != "JPEG":
        block = _with_jpeg_comment(block, containers.jpeg_comment(origin.comment)[1], infotext, notes)
        options |= {} if block is None else {"exif": block}
    if picture_format == "JPEG":
        _fit_jpeg(options, infotext, notes)
        if origin is not None and origin.comment is not None and len(origin.comment) <= _JPEG_SEGMENT:
            if "comment" in options:
                notes.append("the file has a JPEG comment already; choose --format png to keep its EXIF comment")
            options["comment"] = origin.comment
        segments: list[tuple[bytes, bytes]] = []
        if xmp is not None and len(xmp) + len(XMP_HEADER) <= _JPEG_SEGMENT:
            segments.append((b"\xff\xe1", XMP_HEADER + xmp))
        elif xmp is not None:
            notes.append("JPEG holds 64 KB of XMP; it was left out, choose --format png to keep it")
        if origin is not None and origin.iptc is not None:
            segments.append((b"\xff\xed", _photoshop(origin.iptc)))
        options["extra"] = b"".join(
            marker + struct.pack(">H", len(payload) + 2) + payload for marker, payload in segments
        )
    elif picture_format == "TIFF":
        options["tiffinfo"] = _tiff_tags(block) | ({} if xmp is None else {XMP_TIFF_TAG: xmp})
    elif xmp is not None:
        options["xmp"] = xmp
    if picture_format == "AVIF" and block is not None:
        options["exif"] = exif.without_orientation(block)
    return options


def _says_settings(comment: str) -> bool:
    return has_settings(comment) or containers.Text("EXIF", "UserComment", comment).is_json  # another program's


def _photoshop(iptc: bytes) -> bytes:
    """Return IPTC as Photoshop's segment of a JPEG, without what else that says of the earlier picture."""
    resource = b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    return (b"Photoshop 3.0\x00" + resource)[:_JPEG_SEGMENT]  # it came from one: the padding alone may not fit


def _displaced(block: bytes, infotext: str | None, notes: list[str]) -> str | None:
    """Return the EXIF comment that ours takes the place of, unless ours holds it word for word, and note where it
    goes."""
    old = exif.user_comment(block)
    if not infotext or old is None or old in infotext:
        return None
    place = exif.spare_place(block, old)
    if place is None:
        notes.append(f"the EXIF comment {old[:40]!r} found no place beside ours; --format png keeps PNG texts")
    else:
        notes.append(f"the EXIF comment {old[:40]!r} is kept beside ours ({place})")
    return None if place is None else old


def _with_jpeg_comment(block: bytes | None, old: str, infotext: str | None, notes: list[str]) -> bytes | None:
    """Return the EXIF block with a JPEG's comment in a spare place, unless ours holds it word for word."""
    if not old or old in (infotext or ""):
        return block
    block = exif.with_changes(block)
    if exif.spare_place(block, old) is None:
        notes.append(f"the JPEG comment {old[:40]!r} found no place in EXIF; choose --format png to keep it")
        return block
    return exif.with_changes(block, kept=old)


def _tiff_tags(block: bytes | None) -> dict[int, Any]:
    """Return the descriptive tags of an EXIF block for a TIFF's own first table."""
    source = Image.Exif()
    try:
        source.load(block or b"")
        return {tag: latin(source[tag]) for tag in TIFF_TEXT_TAGS if isinstance(source.get(tag), str | bytes)}
    except Exception:  # EXIF is never a reason to fail
        return {}


def _with_tiff_exif(data: bytes, block: bytes, notes: list[str]) -> bytes:
    comment = exif.user_comment(block)  # ours, which says what ran
    try:
        little = _little_endian(block)
        if exif.user_comment(little) == comment:  # Pillow leaves out a table that it cannot read to its end
            return exif.transplant(data, little)
    except Exception:  # EXIF is never a reason to fail
        log.debug("an EXIF block cannot be carried over", exc_info=True)
    notes.append("the EXIF block could not be carried over to TIFF; choose --format png to keep it")
    return data if comment is None else exif.transplant(data, _little_endian(exif.with_changes(None, comment=comment)))


def _little_endian(block: bytes) -> bytes:
    source, little = Image.Exif(), Image.Exif()
    source.load(block)
    little.endian = "<"
    for pointer in (exif.EXIF_POINTER, exif.GPS_POINTER):
        inner = source.get_ifd(pointer)
        if inner:
            little[pointer] = dict(inner)
    return little.tobytes()


def _fit_jpeg(options: dict[str, Any], infotext: str | None, notes: list[str]) -> None:
    """A JPEG segment holds 64 KB: first the earlier EXIF goes, then the end of our text."""
    block = options.get("exif")
    if block is None or len(block) <= _JPEG_SEGMENT:
        return
    notes.append("JPEG holds 64 KB of EXIF; part of the metadata was left out, choose --format png to keep it")
    fresh = exif.with_changes(None, comment=infotext or None)
    if len(fresh) > _JPEG_SEGMENT and infotext is not None:
        fresh = exif.with_changes(None, comment=infotext[: (_JPEG_SEGMENT - 200) // 4])
    options["exif"] = fresh


def _png_info(origin: Header | None, infotext: str | None, xmp: bytes | None) -> PngImagePlugin.PngInfo:
    """Every chunk of the original as it was; ours after them: a reader takes the last of equal keys."""
    chunks = PngImagePlugin.PngInfo()
    for entry in origin.texts if origin is not None else ():
        if entry.key == XMP_KEY:
            continue
        if entry.raw is not None:
            chunks.add(*entry.raw)
        elif entry.international:
            chunks.add_itxt(entry.key, entry.value, entry.language, entry.translated, zip=entry.compressed)
        else:
            chunks.add_text(entry.key, entry.value, zip=entry.compressed)
    if origin is not None and origin.comment is not None:
        key, value = containers.jpeg_comment(origin.comment)
        chunks.add(b"tEXt", key.encode("latin-1") + b"\x00" + value.encode("utf-8", "replace"))
    if infotext:
        chunks.add_text("parameters", infotext)
    if xmp is not None:
        chunks.add_itxt(XMP_KEY, xmp.decode("utf-8", "replace"))
    return chunks


def _upright_xmp(xmp: bytes) -> bytes:
    """Return the packet with tiff:Orientation 1, at equal length."""
    pattern = rb'(tiff:Orientation\s*(?:=\s*["\']|>))\s*[2-8]'
    return re.sub(pattern, lambda match: match.group(1) + b"1", xmp)


def _quality(picture_format: str, quality: int | None) -> dict[str, Any]:
    if picture_format == "JPEG":
        return {"quality": 95 if quality is None else quality, "subsampling": 0}
    if picture_format == "WEBP":
        return {"quality": 95 if quality is None else quality, "method": 4}
    if picture_format == "AVIF":
        return {"quality": 90 if quality is None else quality}
    if picture_format == "TIFF":
        return {"compression": "tiff_adobe_deflate"}
    return {}
