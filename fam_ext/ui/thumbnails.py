"""Small pictures for tables, made once a file and a few at a time, so that no page waits for a folder. No gradio."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from fam_ext.jobs.compare import data_url
from fam_ext.metadata.decoding import eight_bits
from fam_ext.metadata.files import open_regular
from fam_ext.metadata.guard import open_known, strict_pillow

SIDE = 64
_MOST = 500
_SECONDS = 0.3
_MAX_PIXELS = 64_000_000
_MOST_SHOWN = 178_956_970
"""Pixels, Pillow's own limit: a whole page is made of one picture."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a data URL, and the (width, height) of the file."""

    url: str
    size: tuple[int, int]


class Thumbnails:
    """Remembers the thumbnails that were made; `begin` gives the time for more."""

    def __init__(self, side: int = SIDE, *, seconds: float = _SECONDS) -> None:
        self._side = side
        self._seconds = seconds
        self._made: dict[tuple[str, int], Thumbnail | None] = {}
        self._until = 0.0

    def begin(self) -> None:
        """Allow a little time for new ones."""
        self._until = time.monotonic() + self._seconds

    def of(self, path: Path) -> Thumbnail | None:
        """Return a file's thumbnail; None where it cannot be shown, or there is no time left for it now."""
        try:
            key = (str(path), path.stat().st_mtime_ns)
        except OSError:
            return None
        if key not in self._made and time.monotonic() < self._until:
            self._made[key] = _thumbnail(path, self._side)
            for old in list(self._made)[:-_MOST]:
                self._made.pop(old, None)  # another page may be at it
        return self._made.get(key)


def upright(picture: Image.Image) -> Image.Image:
    """Return the picture as people see it: turned as its EXIF says, transparency on white, RGB of 8 bits."""
    turned = eight_bits(picture)
    if picture.format != "TIFF":  # which Pillow turns while it loads
        turned = ImageOps.exif_transpose(turned)
    if turned.mode not in ("RGBA", "LA", "PA") and "transparency" not in turned.info:
        return turned.convert("RGB")
    whole = turned.convert("RGBA")
    ground = Image.new("RGB", whole.size, (255, 255, 255))
    ground.paste(whole, mask=whole.getchannel("A"))
    return ground


def seen(path: Path, *, side: int | None = None, most: int = _MOST_SHOWN) -> tuple[Image.Image, tuple[int, int]] | None:
    """Return a file's picture as people see it, and its own (width, height); None for whatever cannot be shown, or has
    more than `most` pixels. With `side` it may come smaller, though not below that, where its format is faster so."""
    try:
        with open_regular(path) as file:
            with strict_pillow():  # no longer: a job that runs waits for it
                image = open_known(file)
            size = image.size
            if image.width * image.height > most:
                return None
            if side is not None:
                image.draft("RGB", (side, side))
            picture = upright(image)
    except Exception:  # Pillow raises whatever it likes: a page never ends by a picture
        return None
    if (picture.width > picture.height) != (size[0] > size[1]):
        size = (size[1], size[0])
    return picture, size


def _thumbnail(path: Path, side: int) -> Thumbnail | None:
    found = seen(path, side=2 * side, most=_MAX_PIXELS)
    if found is None:
        return None
    small, size = found
    small.thumbnail((side, side))
    return Thumbnail(data_url(small, quality=70), size)
