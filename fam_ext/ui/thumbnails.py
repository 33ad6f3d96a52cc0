"""Small pictures for tables, made once a file and a few at a time, so that no page waits for a folder. No gradio."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from fam_ext.errors import PictureError
from fam_ext.jobs.compare import data_url
from fam_ext.metadata.decoding import eight_bits

SIDE = 64
_MOST = 500
_SECONDS = 0.3
_MAX_PIXELS = 64_000_000


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
                del self._made[old]
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


def _thumbnail(path: Path, side: int) -> Thumbnail | None:
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            size = image.size
            image.draft("RGB", (2 * side, 2 * side))
            small = upright(image)
    except (OSError, ValueError, SyntaxError, PictureError):  # Pillow's for a damaged file
        return None
    if (small.width > small.height) != (size[0] > size[1]):
        size = (size[1], size[0])
    small.thumbnail((side, side))
    return Thumbnail(data_url(small, quality=70), size)
