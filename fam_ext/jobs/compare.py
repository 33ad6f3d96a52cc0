"""Before and after as one HTML element, for the WebUI's tab, report.html and pages of their own; see compare.js."""

from __future__ import annotations

import base64
import functools
import io
from pathlib import Path

from PIL import Image


@functools.cache
def script() -> str:
    """Return the element's JavaScript, which a page runs once."""
    return (Path(__file__).parent / "compare.js").read_text(encoding="utf-8")


def compare_html(before: Image.Image, after: Image.Image, *, most: int, quality: int = 90) -> str:
    """Return the element that compares two RGB pictures. `after` is shown with at most `most` px a side, `before` at
    its own size where that is smaller; the element shows both at the size of `after`."""
    scale = min(1.0, most / max(after.size))
    size = max(1, round(after.width * scale)), max(1, round(after.height * scale))
    # a browser enlarges by itself, so the smaller picture travels
    native = before if before.width <= size[0] else before.resize(size)
    pictures = (("before", native), ("after", after if scale == 1 else after.resize(size)))
    inside = "".join(
        f'<img slot="{name}" alt="{name}" src="{data_url(picture, quality=quality)}">' for name, picture in pictures
    )
    return f'<fam-compare data-scale="{scale:.4g}">{inside}</fam-compare>'


def data_url(picture: Image.Image, *, quality: int = 90) -> str:
    """Return an RGB picture as a JPEG in a data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
