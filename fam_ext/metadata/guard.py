"""What Pillow is kept from while it reads a stranger's file."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Callable, Generator
from typing import Any, BinaryIO

from PIL import Image, ImageFile, TiffImagePlugin

from fam_ext.errors import PictureError
from fam_ext.metadata.exif import VALUE_SIZES
from fam_ext.metadata.formats import FORMATS, PLUGINS

_SETTINGS = threading.RLock()
_MAX_SEGMENTS = 2000
_Load = Callable[[Any, BinaryIO], None]


@contextlib.contextmanager
def strict_pillow() -> Generator[None]:
    """Damaged files make Pillow warn; what matters becomes a `PictureError`, also where the host has told Pillow to
    fill up truncated files with grey. Pillow's own limit of pixels is off: the caller's counts. One thread at a time:
    the settings are the whole process's."""
    with _SETTINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept, most = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
        tables: Any = TiffImagePlugin.ImageFileDirectory_v2
        load: _Load = tables.load
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
        tables.load = _checked(load)
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = kept, most
            tables.load = load


def _checked(load: _Load) -> _Load:
    """Pillow before 12.1 copies each value of a TIFF or EXIF table, and a thousand may be one and the same 8 MB."""

    def checked(self: Any, fp: BinaryIO) -> None:  # noqa: ANN401  # Pillow's table
        start = fp.tell()
        length = fp.seek(0, io.SEEK_END)
        fp.seek(start)
        order = getattr(self, "_endian", "<")
        large = getattr(self, "_bigtiff", False)
        head, entry, room = ("Q", "HHQ8x", 8) if large else ("H", "HHI4x", 4)
        raw = fp.read(struct.calcsize(order + head))
        count = struct.unpack(order + head, raw)[0] if len(raw) == struct.calcsize(order + head) else 0
        size = struct.calcsize(order + entry)
        table = fp.read(min(count, 1 << 16) * size)
        fp.seek(start)
        rows = struct.iter_unpack(order + entry, table[: len(table) // size * size])
        sizes = (VALUE_SIZES.get(kind, 0) * number for _, kind, number in rows)
        if sum(size for size in sizes if size > room) > length:
            raise ValueError("its tags overlap, or are larger than the file")
        load(self, fp)

    return checked


def open_known(file: BinaryIO) -> Image.Image:
    """Open with our own formats only: Pillow's others include interpreters that a folder must never reach."""
    Image.init()
    formats = [name for name in (*FORMATS, "MPO", *PLUGINS) if name in Image.OPEN]
    try:
        return Image.open(file, formats=formats)
    except Image.UnidentifiedImageError:
        raise PictureError(
            "the file is not a picture that can be read; choose PNG, JPEG, WebP, AVIF, TIFF or BMP"
        ) from None


def check_segments(file: BinaryIO) -> None:
    """Raise `PictureError` for a JPEG of more segments than any program writes: Pillow keeps each. Reads no pixel."""
    file.seek(2)
    for _ in range(_MAX_SEGMENTS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA or head[1] == 0xFF:  # SOS, or what Pillow judges
            file.seek(0)
            return
        file.seek(struct.unpack(">H", head[2:])[0] - 2, io.SEEK_CUR)
    raise PictureError(f"the file has more than {_MAX_SEGMENTS} JPEG segments; open and save it again")
