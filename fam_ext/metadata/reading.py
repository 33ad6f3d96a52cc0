"""A picture file's header, whatever its format, without decoding a pixel."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import Image, TiffImagePlugin

from fam_ext.errors import PictureError
from fam_ext.metadata import exif, png, stealth
from fam_ext.metadata.files import open_regular
from fam_ext.metadata.formats import HEIF_BRANDS, JXL_STARTS, PLUGINS, can_write, has_plugin
from fam_ext.metadata.guard import check_segments, open_known, strict_pillow
from fam_ext.metadata.header import Header, positive_dpi

DEFAULT_MAX_PIXELS = 64_000_000
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\x00"
XMP_TIFF_TAG = 700
IPTC_RESOURCE = 0x0404
TIFF_TEXT_TAGS = (270, 271, 272, 305, 306, 315, 33432, *range(0x9C9B, 0x9CA0))
_SUBFILE_TYPE = 254
_MAX_FRAMES = 100
"""Frames of a TIFF are counted no further: each is a table of its own."""


def read_header(
    source: str | Path | bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, first_frame: bool = False
) -> Header:
    """Return the header of a file or of its bytes. No pixel is decoded.

    Raises `PictureError`, one sentence, for anything that is not a still picture of a known format within
    `max_pixels`; with `first_frame` an animated one passes.
    """
    try:
        if isinstance(source, bytes):
            header = _with_hidden(_read_header(file := io.BytesIO(source)), file)
        else:
            with open_regular(source) as file:
                header = dataclasses.replace(_read_header(file), name=Path(source).name)
                header = _with_hidden(header, file)
    except PictureError:
        raise
    except OSError as error:
        raise PictureError(_os_sentence(error)) from None
    _check(header, max_pixels, first_frame)
    return header


def _read_header(file: BinaryIO) -> Header:
    start = file.read(16)
    if not start:
        raise PictureError("the file is empty; copy it again")
    file.seek(0)
    if start.startswith(png.SIGNATURE):
        return png.read(file)
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis") and can_write("AVIF") is not None:
        raise PictureError(cast("str", can_write("AVIF")))
    plugin = "HEIF" if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS else None
    plugin = "JXL" if start.startswith(JXL_STARTS) else plugin
    if plugin is not None and not has_plugin(plugin):
        raise PictureError(f"{plugin} is read with a Pillow plugin; install {PLUGINS[plugin][1]}, or convert the file")
    if start.startswith(b"\xff\xd8"):
        check_segments(file)
    try:
        with strict_pillow():
            image = open_known(file)
            return _pillow_header(image)
    except PictureError:
        raise
    except Exception as error:  # header parsers raise whatever they like on damaged data
        raise PictureError(f"the header is damaged ({first_line(error)}); open and save it again") from None


def _pillow_header(image: Image.Image) -> Header:
    info = cast("dict[str, Any]", image.info)
    picture_format = "JPEG" if image.format == "MPO" else str(image.format)
    frames = _frames(image)
    block = info.get("exif")
    xmp = info.get("xmp")
    if picture_format == "TIFF":
        block, xmp = _tiff_exif(image)
    if picture_format == "JPEG" and xmp is None:
        segments = cast("list[tuple[str, bytes]]", getattr(image, "applist", []))
        found = [data for name, data in segments if name == "APP1" and data.startswith(XMP_HEADER)]
        xmp = found[0][len(XMP_HEADER) :] if found else None
    block = block if isinstance(block, bytes) and block else None
    turned = 1
    if block is not None:
        turned = exif.orientation(block)
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow's own size is upright from 11 on
        width, height = cast("tuple[int, int]", (image.tag_v2[256], image.tag_v2[257]))
    icc = info.get("icc_profile")
    comment = info.get("comment")
    iptc = cast("dict[int, object]", info.get("photoshop", {})).get(IPTC_RESOURCE) if picture_format == "JPEG" else None
    return Header(
        format=picture_format,
        size=(width, height) if turned >= 5 else (height, width),
        orientation=turned,
        frames=frames,
        exif=block,
        icc=icc if isinstance(icc, bytes) and icc else None,
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
        dpi=positive_dpi(info.get("dpi")),
        comment=comment if isinstance(comment, bytes) else None,
        iptc=iptc if isinstance(iptc, bytes) and iptc else None,
    )


def _with_hidden(header: Header, file: BinaryIO) -> Header:
    """Return the header with the text in a PNG's pixels, which is looked for where no other text has a prompt."""
    said = header.reading is not None and header.reading.prompt
    if header.format != "PNG" or said or header.frames > 1:
        return header
    hidden = stealth.read(file)
    return header if hidden is None else dataclasses.replace(header, hidden=hidden)


def _frames(image: Image.Image) -> int:
    if image.format in ("JPEG", "MPO", "BMP"):
        return 1  # MPO's further pictures are previews
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1))
    previews = 0
    for number in range(1, _MAX_FRAMES):
        try:
            image.seek(number)
        except EOFError:
            break
        previews += cast("Any", image).tag_v2.get(_SUBFILE_TYPE) == 1  # a smaller picture of another page
    else:
        number = _MAX_FRAMES
    image.seek(0)
    return number - previews


def _tiff_exif(image: Image.Image) -> tuple[bytes | None, bytes | None]:
    """Return a TIFF's descriptive tags as an EXIF block, and its XMP. Tags about strips and tiles stay behind."""
    try:
        source = image.getexif()
        kept = Image.Exif()
        for tag in (*TIFF_TEXT_TAGS, exif.ORIENTATION):
            if tag in source:
                kept[tag] = latin(source[tag])
        for pointer in (exif.EXIF_POINTER, 0x8825):
            inner = source.get_ifd(pointer)
            if inner:
                kept[pointer] = dict(inner)
        xmp = source.get(XMP_TIFF_TAG)
        block = kept.tobytes() if len(kept) else None
    except Exception:  # EXIF is never a reason to fail
        return None, None
    return block, xmp if isinstance(xmp, bytes) else None


def _check(header: Header, max_pixels: int, first_frame: bool) -> None:
    height, width = header.size
    if height < 1 or width < 1:
        raise PictureError("the header is damaged (no size); copy the file again")
    if height * width > max_pixels:
        raise PictureError(
            f"{width} x {height} px is {height * width / 1e6:.0f} MP, more than the limit of {max_pixels / 1e6:g} MP; "
            "raise --max-input-megapixels if the file can be trusted"
        )
    if header.frames > 1 and not first_frame:
        raise PictureError(
            f"the file holds {header.frames} frames; only still pictures can be upscaled (--first-frame takes frame 1)"
        )


def _os_sentence(error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"the file cannot be read ({reason}); check that it exists and that its permissions allow reading"


def first_line(error: BaseException) -> str:
    """Return an error's first line, bounded, for a sentence."""
    text = str(error).strip().split("\n", 1)[0]
    return text[:120] if text else type(error).__name__


def latin(value: Any) -> Any:  # noqa: ANN401  # a tag's value
    """Pillow reads a tag's bytes as Latin-1 and would write anything but ASCII as question marks."""
    return value.encode("latin-1", "replace") if isinstance(value, str) and not value.isascii() else value
