"""A comparison's folder as one HTML page that needs no other file. No torch."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, features

from fam_ext.comparison.results import PAGE, Attention, Results, write_whole
from fam_ext.errors import PictureError
from fam_ext.escapes import shown
from fam_ext.jobs import compare
from fam_ext.metadata.pictures import MAX_SIDE, decode, read_file
from fam_ext.methods.catalog import METHODS

MOST_BYTES = 15_000_000
"""A page is kept below this, by a lower quality of its pictures, then by smaller ones."""
QUALITIES = (92, 85, 78, 70, 60, 50, 40)
SHARES = (0.7, 0.5, 0.35, 0.25, 0.18, 0.125)
"""Of the pictures' sides, where the lowest quality is not enough."""
_TRIES = [*((quality, 1.0) for quality in QUALITIES), *((QUALITIES[-1], share) for share in SHARES)]


def write_page(results: Results) -> tuple[Path, int, str]:
    """Write the page of what stands in `results`, and return its path, its size in bytes and in words how its pictures
    are shown.

    That is the first of `_TRIES` that keeps the page below MOST_BYTES, else the last. Raises `OutputError` and
    `PictureError`.
    """
    page, words = b"", ""
    for quality, share in _TRIES:
        words = f"quality {quality}" + (f", sides at {share:.0%}" if share < 1 else "")
        page = _page(results, quality, share, words)
        if len(page) <= MOST_BYTES:
            break
    path = results.folder / PAGE
    write_whole(path, page)
    return path, len(page), words


def check_readable(results: Results) -> None:
    """Raise `PictureError` for a file of the folder that is there and no picture: no page could be written."""
    attentions = [cell.attention for cell in results.cells.values() if cell.attention is not None]
    for each in (*results.natives.values(), *results.cells.values(), *attentions):
        if each.file is not None and results.holds(each.file):
            _read_picture(results.folder / each.file)


def _page(results: Results, quality: int, share: float, words: str) -> bytes:
    style, script, element = _read("page.css"), _read("page.js"), compare.script()
    policy = " ".join(f"'sha256-{_hash(text)}'" for text in (element, script))
    # "<" would end the element that holds it
    data = json.dumps(
        _data(results, quality, share, words), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).replace("<", "\\u003c")
    return (
        _HEAD.replace("{policy}", policy).replace("{style}", style)
        + f'<script type="application/json" id="data">{data}</script>\n'
        + f"<script>{element}</script>\n<script>{script}</script></body></html>\n"
    ).encode("utf-8", "replace")


def _data(results: Results, quality: int, share: float, words: str) -> dict[str, Any]:
    made = [cell for cell in results.cells.values() if cell.row in results.natives]
    methods = list(dict.fromkeys(cell.method for cell in made))
    spent = 0
    kind = "WebP" if features.check("webp") else "JPEG"

    def picture(file: str | None) -> str | None:
        nonlocal spent
        if file is None or not results.holds(file):
            return None
        if spent > MOST_BYTES and (quality, share) != _TRIES[-1]:
            return ""  # too large already: this page is thrown away
        url = _picture_url(results.folder / file, kind, quality, share)
        spent += len(url)
        return url

    return {
        "machine": results.machine,
        "pictures": f"{kind} {words}",
        "scales": sorted({cell.scale for cell in made}),
        "methods": [{"name": name, "title": METHODS[name].title if name in METHODS else name} for name in methods],
        "rows": [{**asdict(native), "src": picture(native.file)} for native in results.natives.values()],
        "cells": [
            {
                **asdict(cell),
                "src": picture(cell.file),
                "attention": _attention(results, cell.attention),
            }
            for cell in made
        ],
    }


def _attention(results: Results, attention: Attention | None) -> dict[str, Any] | None:
    if attention is None or not results.holds(attention.file):
        return None
    url = "data:image/png;base64," + base64.b64encode(read_file(results.folder / attention.file)).decode("ascii")
    return {**asdict(attention), "src": url}


def _read_picture(path: Path) -> Image.Image:
    try:
        return decode(read_file(path)).image
    except PictureError as error:
        raise PictureError(
            f"{shown(path)} cannot be read ({error}); take it away: the command that made it makes it again, and for "
            "another the page says that it is gone"
        ) from None


def _picture_url(path: Path, kind: str, quality: int, share: float) -> str:
    image = _read_picture(path).convert("RGB")
    if share < 1:
        width, height = (max(1, round(share * side)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    if max(image.size) > MAX_SIDE.get(kind.upper(), max(image.size)):
        kind = "JPEG"
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src {policy}; base-uri 'none'; form-action 'none'"><title>FAM Hires: methods side by side</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>{style}</style></head><body><noscript><p>This page needs JavaScript, its own; the pictures lie beside it.</p>
</noscript>
"""
