"""Picture files: header and metadata without decoding pixels; decode upright; save with everything that was there."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import Image, ImageFile, PngImagePlugin

from fam_ext.errors import PictureError
from fam_ext.metadata import containers, exif, programs
from fam_ext.metadata.infotext import Infotext, has_settings

log = logging.getLogger(__name__)

SUFFIXES: Mapping[str, str] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".pjpeg": "JPEG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".jxl": "JXL",
}
PLUGINS: Mapping[str, tuple[str, str]] = {
    "HEIF": ("pillow_heif", "pillow-heif"),
    "JXL": ("pillow_jxl", "pillow-jxl-plugin"),
}
"""Formats that are read where their Pillow plugin is installed: its module and package. They are not written."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_JXL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP")
PREFERRED_SUFFIX: Mapping[str, str] = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "TIFF": ".tif",
    "BMP": ".bmp",
}
MAX_SIDE: Mapping[str, int] = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}
DEFAULT_MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 2 << 30

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_KEY = "XML:com.adobe.xmp"
_MAX_TEXT = 8 << 20
_MAX_TEXTS = 16 << 20
_JPEG_SEGMENT = 65533
_SETTINGS = threading.RLock()
_TIFF_TEXT_TAGS = (270, 271, 272, 305, 306, 315, 33432, *range(0x9C9B, 0x9CA0))
_XMP_TIFF_TAG = 700


@dataclass(frozen=True)
class PngText:
    """One text chunk, so that it can be written again as it was."""

    key: str
    value: str
    international: bool = False
    language: str = ""
    translated: str = ""
    compressed: bool = False
    raw: tuple[bytes, bytes] | None = None
    """The chunk's kind and bytes as they stood in the file."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself, read without decoding a pixel."""

    format: str
    """One of FORMATS, by content, whatever the file's name says."""
    size: tuple[int, int]
    """Upright (height, width) in pixels."""
    orientation: int = 1
    """EXIF orientation of the stored pixels, 1 to 8."""
    has_alpha: bool = False
    frames: int = 1
    texts: tuple[PngText, ...] = ()
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: bytes | None = None
    """JPEG's own comment segment."""

    @functools.cached_property
    def places(self) -> containers.Texts:
        """Every text of the file with its place."""
        return containers.collect(((t.key, t.value) for t in self.texts), self.exif, self.xmp, self.comment)

    @functools.cached_property
    def reading(self) -> programs.Settings | None:
        """What the file says about its making, by whichever program wrote it; None when nothing does."""
        return programs.read(self.places)

    @property
    def own_text(self) -> str | None:
        """The infotext that ours is built on: the one the settings come from, None where they come from elsewhere."""
        return self.reading.infotext if self.reading is not None else None

    @property
    def infotext(self) -> str | None:
        """The WebUI's infotext as it stands, else what a WebUI would show: `parameters` or the EXIF comment."""
        return self.own_text or self.places.get("parameters") or self.places.get("UserComment")

    def settings(self) -> tuple[Infotext | None, str | None]:
        """Return the picture's own settings and where they come from ("parameters", "exif", "comfyui", or the
        program's name), or Nones."""
        found = self.reading
        if found is None:
            return None, None
        if found.infotext is not None:
            place = found.place.partition(" ")[0]
            origin = {"EXIF": "exif", "XMP": "xmp", "JPEG": "comment"}.get(place, "parameters")
            return found.as_infotext(), origin
        return found.as_infotext(), found.program.casefold().replace(" ", "-")


@dataclass(frozen=True)
class Picture:
    """A decoded picture: upright RGB, its alpha apart, its header for the way back."""

    image: Image.Image
    alpha: Image.Image | None
    header: Header


@dataclass(frozen=True)
class Encoded:
    """A file's bytes, and what its format could not hold (one sentence each)."""

    data: bytes
    notes: tuple[str, ...] = field(default=())


def format_of(name: str | Path) -> str | None:
    """Return the format that a file name's suffix stands for, None for any other suffix."""
    text = str(name)
    return SUFFIXES.get(text[text.rfind(".") :].lower()) if "." in text else None


def normal_format(name: str) -> str:
    """Return one of FORMATS for what a user typed ("jpg", ".webp"). Raises `PictureError`."""
    wanted = name.strip().lower().lstrip(".")
    for candidate in FORMATS:
        if wanted == candidate.lower() or SUFFIXES.get("." + wanted) == candidate:
            return candidate
    raise PictureError(f"format is {name!r}; choose png, jpeg, webp, avif, tiff or bmp")


@functools.lru_cache(maxsize=16)
def can_write(picture_format: str) -> str | None:
    """Return None when this Pillow writes the format, else the sentence that says what to do."""
    Image.init()
    if picture_format in Image.SAVE:
        return None
    if picture_format == "AVIF":
        return "this Pillow has no AVIF; install Pillow 11.3 or newer (or pillow-avif-plugin), or choose another format"
    return f"this Pillow cannot write {picture_format}; choose another format"


def read_header(
    source: str | Path | bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, first_frame: bool = False
) -> Header:
    """Return the header of a file or of its bytes. No pixel is decoded.

    Raises `PictureError`, one sentence, for anything that is not a still picture of a known format within
    `max_pixels`; with `first_frame` an animated one passes.
    """
    try:
        if isinstance(source, bytes):
            header = _read_header(io.BytesIO(source))
        else:
            with open(source, "rb", buffering=32768) as file:
                header = _read_header(file)
    except PictureError:
        raise
    except OSError as error:
        raise PictureError(_os_sentence(error)) from None
    _check(header, max_pixels, first_frame)
    return header


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, first_frame: bool = False) -> Picture:
    """Return the picture upright, RGB and alpha apart; transparent parts of the RGB lie on white.

    Raises `PictureError`, one sentence, whatever is wrong with the file.
    """
    header = read_header(data, max_pixels=max_pixels, first_frame=first_frame)
    if header.format == "PNG" and not _png_is_whole(data):
        raise PictureError("the file is truncated (its end is missing); copy it again")
    try:
        with _strict_pillow():
            # Pillow refuses texts of more than 1 MB: it is given the pixels only
            image = _open(io.BytesIO(_png_pixels(data) if header.format == "PNG" else data))
            image.load()
            image = _eight_bits(image)
            transparent = image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info
            image = image.convert("RGBA" if transparent else "RGB")
    except PictureError:
        raise
    except MemoryError:
        raise PictureError("the picture is too large for this machine's memory; lower the pixel limit") from None
    except Exception as error:  # decoders raise whatever they like on damaged data
        raise PictureError(f"the pixels cannot be decoded ({_first_line(error)}); open and save it again") from None
    image = _upright(image, header.orientation)
    if image.mode != "RGBA":
        return Picture(_bare(image), None, header)
    alpha = image.getchannel("A")
    ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Picture(Image.alpha_composite(ground, image).convert("RGB"), alpha, header)


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
    """Return `image` (RGB, upright) as a file with `origin`'s metadata and the new `infotext`.

    `alpha` is resized to the image. EXIF, ICC profile, XMP, DPI and text chunks stay as they were, except that the
    orientation becomes 1. `strip` writes pixels and colour profile only. Equal arguments give equal bytes.
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
    image = _bare(image)
    if alpha is not None:
        if picture_format in ("JPEG", "BMP"):
            notes.append(f"{picture_format} holds no transparency; the picture lies on white")
        else:
            image = image.copy()
            resized = alpha if alpha.size == image.size else alpha.resize(image.size, Image.Resampling.LANCZOS)
            image.putalpha(resized)
    options = _save_options(picture_format, origin, infotext, strip, notes)
    options |= _quality(picture_format, quality)
    # libtiff cannot write the Exif table through Pillow: it is appended to the finished file
    tiff_exif = cast("bytes | None", options.pop("exif", None)) if picture_format == "TIFF" else None
    buffer = io.BytesIO()
    try:
        image.save(buffer, picture_format, **options)
    except (OSError, ValueError, struct.error, SystemError) as error:
        raise PictureError(f"the picture cannot be written as {picture_format} ({_first_line(error)})") from None
    data = buffer.getvalue()
    return Encoded(data if tiff_exif is None else _with_tiff_exif(data, tiff_exif, notes), tuple(notes))


# --- reading ------------------------------------------------------------------------------------------------------


def _read_header(file: BinaryIO) -> Header:
    start = file.read(16)
    if not start:
        raise PictureError("the file is empty; copy it again")
    file.seek(0)
    if start.startswith(_PNG_SIGNATURE):
        return _png_header(file)
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis") and can_write("AVIF") is not None:
        raise PictureError(cast("str", can_write("AVIF")))
    plugin = "HEIF" if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS else None
    plugin = "JXL" if start.startswith(_JXL_STARTS) else plugin
    if plugin is not None and not _has_plugin(plugin):
        raise PictureError(f"{plugin} is read with a Pillow plugin; install {PLUGINS[plugin][1]}, or convert the file")
    try:
        with _strict_pillow():
            image = _open(file)
            return _pillow_header(image)
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(
            "the picture has more pixels than Pillow opens; it looks like a decompression bomb"
        ) from None
    except Exception as error:  # header parsers raise whatever they like on damaged data
        raise PictureError(f"the header is damaged ({_first_line(error)}); open and save it again") from None


def _has_plugin(picture_format: str) -> bool:
    """Return whether Pillow opens the format, having loaded its plugin where that is installed."""
    Image.init()
    if picture_format not in Image.OPEN:
        try:
            module = importlib.import_module(PLUGINS[picture_format][0])
            getattr(module, "register_heif_opener", lambda: None)()  # the other registers itself
        except Exception:  # a plugin that cannot be loaded is none
            log.debug("no plugin for %s", picture_format, exc_info=True)
    return picture_format in Image.OPEN


@contextlib.contextmanager
def _strict_pillow() -> Generator[None]:
    """Damaged files make Pillow warn; what matters becomes a `PictureError`, also where the host has told Pillow to
    fill up truncated files with grey. One thread at a time: both settings are the whole process's."""
    with _SETTINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = kept


def _open(file: BinaryIO) -> Image.Image:
    """Open with our own formats only: Pillow's others include interpreters that a folder must never reach."""
    Image.init()
    formats = [name for name in (*FORMATS, "MPO", *PLUGINS) if name in Image.OPEN]
    try:
        return Image.open(file, formats=formats)
    except Image.UnidentifiedImageError:
        raise PictureError(
            "the file is not a picture that can be read; choose PNG, JPEG, WebP, AVIF, TIFF or BMP"
        ) from None


def _pillow_header(image: Image.Image) -> Header:
    info = cast("dict[str, Any]", image.info)
    picture_format = "JPEG" if image.format == "MPO" else str(image.format)
    frames = 1 if image.format in ("JPEG", "MPO", "BMP") else int(getattr(image, "n_frames", 1))
    block = info.get("exif")
    xmp = info.get("xmp")
    if picture_format == "TIFF":
        block, xmp = _tiff_exif(image)
    if picture_format == "JPEG" and xmp is None:
        segments = cast("list[tuple[str, bytes]]", getattr(image, "applist", []))
        found = [data for name, data in segments if name == "APP1" and data.startswith(_XMP_HEADER)]
        xmp = found[0][len(_XMP_HEADER) :] if found else None
    block = block if isinstance(block, bytes) and block else None
    turned = 1
    if block is not None:
        turned = exif.orientation(block)
    width, height = image.size
    icc = info.get("icc_profile")
    comment = info.get("comment")
    return Header(
        format=picture_format,
        size=(width, height) if turned >= 5 else (height, width),
        orientation=turned,
        has_alpha=image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in info,
        frames=frames,
        exif=block,
        icc=icc if isinstance(icc, bytes) and icc else None,
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
        dpi=_dpi(info.get("dpi")),
        comment=comment if isinstance(comment, bytes) else None,
    )


def _tiff_exif(image: Image.Image) -> tuple[bytes | None, bytes | None]:
    """Return a TIFF's descriptive tags as an EXIF block, and its XMP. Tags about strips and tiles stay behind."""
    try:
        source = image.getexif()
        kept = Image.Exif()
        for tag in (*_TIFF_TEXT_TAGS, exif.ORIENTATION):
            if tag in source:
                kept[tag] = _latin(source[tag])
        for pointer in (exif.EXIF_POINTER, 0x8825):
            inner = source.get_ifd(pointer)
            if inner:
                kept[pointer] = dict(inner)
        xmp = source.get(_XMP_TIFF_TAG)
        block = kept.tobytes() if len(kept) else None
    except Exception:  # EXIF is never a reason to fail
        return None, None
    return block, xmp if isinstance(xmp, bytes) else None


def _dpi(value: object) -> tuple[float, float] | None:
    try:
        horizontal, vertical = cast("tuple[Any, Any]", value)
        pair = (float(horizontal), float(vertical))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return pair if all(0 < side < 1e6 for side in pair) else None


def _png_header(file: BinaryIO) -> Header:
    """Walk the chunks: a text after the pixels is found too, and no pixel is touched."""
    file.seek(len(_PNG_SIGNATURE))
    size: tuple[int, int] | None = None
    alpha = False
    frames = 1
    texts: list[PngText] = []
    budget = _MAX_TEXTS
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
        wanted = kind in (b"IHDR", b"tRNS", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"pHYs", b"acTL")
        if not wanted or length > min(_MAX_TEXT, budget):
            file.seek(length + 4, io.SEEK_CUR)
            continue
        data = file.read(length)
        if len(data) < length:
            break
        file.seek(4, io.SEEK_CUR)
        if kind == b"IHDR" and length >= 13:
            width, height, _depth, colour = struct.unpack_from(">IIBB", data)
            size = (height, width)
            alpha = colour in (4, 6)
        elif kind == b"tRNS":
            alpha = True
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
            dpi = _dpi((horizontal * 0.0254, vertical * 0.0254))
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            entry, size_ = _png_text(kind, data, budget)
            if entry is not None and size_ <= budget:
                texts.append(entry)
            budget -= size_
    if size is None or 0 in size:
        raise PictureError("the header is damaged (no size); copy the file again")
    turned = exif.orientation(block) if block is not None else 1
    xmp = next((entry.value.encode("utf-8", "replace") for entry in texts if entry.key == _XMP_KEY), None)
    return Header(
        format="PNG",
        size=(size[1], size[0]) if turned >= 5 else size,
        orientation=turned,
        has_alpha=alpha,
        frames=frames,
        texts=tuple(texts),
        exif=block,
        icc=icc,
        xmp=xmp,
        dpi=dpi,
    )


def _png_text(kind: bytes, data: bytes, budget: int) -> tuple[PngText | None, int]:
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
    """Return the inflated bytes (None when damaged, or larger than a text may be) and how many were made."""
    engine = zlib.decompressobj()
    most = max(1, min(_MAX_TEXT, budget))
    try:
        out = engine.decompress(data, most)
    except zlib.error:
        return None, 0
    return (None if engine.unconsumed_tail else out), len(out)


def _png_pixels(data: bytes) -> bytes:
    """Return a PNG without its texts, profile and EXIF, which the header has read already."""
    kept = [data[: len(_PNG_SIGNATURE)]]
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"):
            kept.append(data[position:end])
        position = end
        if kind == b"IEND":
            break
    return b"".join(kept)


def _png_is_whole(data: bytes) -> bool:
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return True
        position += 12 + length
    return False


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


# --- pixels -------------------------------------------------------------------------------------------------------

_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _bare(image: Image.Image) -> Image.Image:
    """Return `image` as RGB without any info: writers would put the old text and EXIF back by themselves."""
    bare = image.copy() if image.mode == "RGB" else image.convert("RGB")
    bare.info = {}
    return bare


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        scaled = image.convert("I").point(lambda value: value * (1 / 256))  # pyright: ignore[reportUnknownLambdaType, reportUnknownMemberType]
        return scaled.convert("L")
    if image.mode == "F":
        raise PictureError("the picture holds floating-point values; save it with 8 or 16 bits a channel")
    return image


# --- writing ------------------------------------------------------------------------------------------------------


def _save_options(
    picture_format: str, origin: Header | None, infotext: str | None, strip: bool, notes: list[str]
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if origin is not None and origin.icc is not None and origin.icc[16:20] == b"RGB " and picture_format != "BMP":
        options["icc_profile"] = origin.icc
    if strip:
        return options
    if origin is not None and origin.dpi is not None and picture_format in ("PNG", "JPEG", "TIFF", "BMP"):
        options["dpi"] = origin.dpi
    block = origin.exif if origin is not None else None
    xmp = _upright_xmp(origin.xmp) if origin is not None and origin.xmp is not None else None
    if picture_format == "PNG":
        options["pnginfo"] = _png_info(origin, infotext, xmp)
        if block is not None:
            # the WebUI takes the EXIF comment before the text chunk: old settings must not stay there, other words do
            comment = exif.user_comment(block)
            stale = infotext if comment is not None and has_settings(comment) else None
            kept = _displaced(block, stale, notes)
            options["exif"] = exif.with_changes(block, comment=stale or None, upright=True, kept=kept)
        return options
    if picture_format == "BMP":
        if infotext or block:
            notes.append("BMP holds no metadata; choose --format png to keep it")
        return options
    if origin is not None:
        lost = sorted({entry.key for entry in origin.texts} - {"parameters", _XMP_KEY})
        if lost:
            notes.append(f"{picture_format} holds no PNG text; not kept: {', '.join(lost)[:80]}")
    if infotext or block is not None:
        kept = None if block is None else _displaced(block, infotext, notes)
        options["exif"] = exif.with_changes(block, comment=infotext or None, upright=True, kept=kept)
        if kept is not None and picture_format == "JPEG" and len(options["exif"]) > _JPEG_SEGMENT:
            options["exif"] = exif.with_changes(block, comment=infotext or None, upright=True)
            options["comment"] = kept.encode("utf-8", "replace")[:_JPEG_SEGMENT]
        block = options["exif"]
    if picture_format == "JPEG":
        _fit_jpeg(options, infotext, notes)
        if origin is not None and origin.comment is not None and len(origin.comment) <= _JPEG_SEGMENT:
            if "comment" in options:
                notes.append("the file has a JPEG comment already; choose --format png to keep its EXIF comment")
            options["comment"] = origin.comment
        if xmp is not None and len(xmp) + len(_XMP_HEADER) <= _JPEG_SEGMENT:
            payload = _XMP_HEADER + xmp
            options["extra"] = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    elif picture_format == "TIFF":
        options["tiffinfo"] = _tiff_tags(block) | ({} if xmp is None else {_XMP_TIFF_TAG: xmp})
    elif xmp is not None:
        options["xmp"] = xmp
    return options


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


def _tiff_tags(block: bytes | None) -> dict[int, Any]:
    """Return the descriptive tags of an EXIF block for a TIFF's own first table."""
    source = Image.Exif()
    try:
        source.load(block or b"")
        return {tag: _latin(source[tag]) for tag in _TIFF_TEXT_TAGS if isinstance(source.get(tag), str | bytes)}
    except Exception:  # EXIF is never a reason to fail
        return {}


def _latin(value: Any) -> Any:  # noqa: ANN401  # a tag's value
    """Pillow reads a tag's bytes as Latin-1 and would write anything but ASCII as question marks."""
    return value.encode("latin-1", "replace") if isinstance(value, str) and not value.isascii() else value


def _with_tiff_exif(data: bytes, block: bytes, notes: list[str]) -> bytes:
    try:
        return exif.transplant(data, _little_endian(block))
    except Exception:  # EXIF is never a reason to fail
        notes.append("the EXIF block could not be carried over to TIFF; choose --format png to keep it")
    comment = exif.user_comment(block)  # ours, which says what ran
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
        if entry.key == _XMP_KEY:
            continue
        if entry.raw is not None:
            chunks.add(*entry.raw)
        elif entry.international:
            chunks.add_itxt(entry.key, entry.value, entry.language, entry.translated, zip=entry.compressed)
        else:
            chunks.add_text(entry.key, entry.value, zip=entry.compressed)
    if infotext:
        chunks.add_text("parameters", infotext)
    if xmp is not None:
        chunks.add_itxt(_XMP_KEY, xmp.decode("utf-8", "replace"))
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


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return text[:120] if text else type(error).__name__


def _os_sentence(error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"the file cannot be read ({reason}); check that it exists and that its permissions allow reading"
