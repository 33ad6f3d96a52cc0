"""What a picture that Pillow has opened already says about its making: a page's, whose file is elsewhere."""

from __future__ import annotations

from typing import cast

from PIL import Image

from fam_ext.metadata import containers, programs
from fam_ext.metadata.infotext import format_infotext


def infotext_of_image(image: Image.Image) -> str:
    """Return the picture's infotext as it stands, else what its program wrote in the WebUI's keys, "" for nothing."""
    info = cast("dict[object, object]", image.info)
    chunks = [(key, value) for key, value in info.items() if isinstance(key, str) and isinstance(value, str)]
    block, xmp, comment = (info.get(name) for name in ("exif", "xmp", "comment"))
    texts = containers.collect(chunks, *(part if isinstance(part, bytes) else None for part in (block, xmp, comment)))
    found = programs.read(texts)
    if found is None:
        return texts.get("parameters") or texts.get("UserComment") or ""
    return found.infotext if found.infotext is not None else format_infotext(found.as_infotext())
