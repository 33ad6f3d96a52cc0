"""What a picture file says about itself, and the settings that follow from its texts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, cast

from fam_ext.metadata import containers, programs
from fam_ext.metadata.dissect import Infotext

XMP_KEY = "XML:com.adobe.xmp"
"""PNG's keyword for an XMP packet."""


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
    frames: int = 1
    texts: tuple[PngText, ...] = ()
    unread: int = 0
    """Texts that are damaged or too large to read; they are not written again."""
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: bytes | None = None
    """JPEG's own comment segment."""
    iptc: bytes | None = None
    """The caption, credit and keywords that Photoshop's segment of a JPEG holds."""
    name: str = ""
    """The file's name, "" where only its bytes were read."""
    hidden: str | None = None
    """The text in the pixels' lowest bits; looked for where no other says how the picture was made."""

    @functools.cached_property
    def places(self) -> containers.Texts:
        """Every text of the file with its place."""
        chunks = ((t.key, t.value) for t in self.texts)
        return containers.collect(chunks, self.exif, self.xmp, self.comment, hidden=self.hidden, file=self.name)

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
            origin = {"EXIF": "exif", "XMP": "xmp", "JPEG": "comment", "pixels": "pixels"}.get(place, "parameters")
            return found.as_infotext(), origin
        return found.as_infotext(), found.program.casefold().replace(" ", "-")


def positive_dpi(value: object) -> tuple[float, float] | None:
    """Return the pair as numbers, None for one that is no resolution."""
    try:
        horizontal, vertical = cast("tuple[Any, Any]", value)
        pair = (float(horizontal), float(vertical))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return pair if all(0 < side < 1e6 for side in pair) else None
