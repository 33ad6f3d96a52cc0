"""Pictures before and after on one HTML page that needs no other file. No torch."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fam_ext.errors import FamError, OutputError, PictureError, UsageError
from fam_ext.escapes import shown
from fam_ext.jobs import compare
from fam_ext.jobs.walk import natural_key
from fam_ext.metadata.pictures import decode, format_of, read_file
from fam_ext.placing import drop, put_new, replace

MOST_PAIRS = 50
"""Pairs of one page: each travels whole."""
_SIDE, _SIDE_OF_MANY = 4096, 1600


@dataclass(frozen=True)
class Pair:
    """Two files of one scene."""

    name: str
    before: Path
    after: Path


def pairs(before: Path, after: Path) -> tuple[list[Pair], str]:
    """Return two files as one pair, of two folders those of one name, whatever their endings; and what has no other, as
    a sentence. Raises `UsageError`."""
    for path in (before, after):
        if not os.path.exists(path):
            raise UsageError(f"{shown(path)} does not exist; check the path")
    if os.path.isdir(before) != os.path.isdir(after):
        raise UsageError(f"{shown(before)} and {shown(after)} are a file and a folder; give two files, or two folders")
    if not os.path.isdir(before):
        return [Pair(after.name, before, after)], ""
    old, new = _by_stem(before), _by_stem(after)
    found = [Pair(stem, old[stem], new[stem]) for stem in sorted(old.keys() & new.keys(), key=natural_key)]
    if not found:
        raise UsageError(
            f"{shown(before)} and {shown(after)} have no picture of one name; give the two folders of a job"
        )
    alone = len(old) + len(new) - 2 * len(found)
    sentences = [f"{alone} pictures have no other of their name"] if alone else []
    if len(found) > MOST_PAIRS:
        sentences.append(f"the first {MOST_PAIRS} of {len(found)} pairs are shown")
    return found[:MOST_PAIRS], "; ".join(sentences)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return a folder's pictures by their place in it without the ending; of two the first. Hidden ones stay out."""
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        for name in sorted(files, key=natural_key):
            if format_of(name) is not None and not name.startswith("."):
                path = Path(place, name)
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def write_page(found: Sequence[Pair], note: str, target: Path, *, overwrite: bool = False) -> list[str]:
    """Write the page whole, and return a sentence for each pair that cannot be shown.

    Raises `OutputError` where the page exists and may not be replaced or cannot be written, `PictureError` where no
    pair can be shown.
    """
    if os.path.exists(target) and not overwrite:
        raise OutputError(f"{shown(target)} exists; choose another --out, or add --overwrite")
    temporary = target.parent / f".fam-{secrets.token_hex(8)}.part"
    problems: list[str] = []
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(_HEAD.replace("{script}", _script_hash()))
            file.write(f"<h1>Before and after</h1><p>{html.escape(note)}</p>")
            for pair in found:
                try:
                    file.write(_section(pair, most=_SIDE if len(found) == 1 else _SIDE_OF_MANY))
                except PictureError as error:
                    problems.append(str(error))
            if len(problems) == len(found):
                raise PictureError(problems[0])
            file.write(f"<script>{compare.script()}</script></body></html>\n")
            file.flush()
            os.fsync(file.fileno())
        (replace if overwrite else put_new)(temporary, target)
    except OSError as error:
        raise OutputError(f"{shown(target)} cannot be written ({error.strerror}); choose another --out") from None
    finally:
        drop(temporary)
    return problems


def _section(pair: Pair, *, most: int) -> str:
    before, after = _picture(pair.before), _picture(pair.after)
    sizes = f"{before.width} x {before.height} to {after.width} x {after.height}"
    title = html.escape(shown(pair.name))
    return f"<section><h2>{title}</h2><p>{sizes} px</p>{compare.compare_html(before, after, most=most)}</section>\n"


def _picture(path: Path) -> Image.Image:
    try:
        return decode(read_file(path)).image
    except FamError as error:
        raise PictureError(f"{shown(path)} cannot be shown: {error}") from None


def _script_hash() -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(compare.script().encode()).digest()).decode()}"


_HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src '{script}'; base-uri 'none'; form-action 'none'"><title>FAM Hires: before and after</title>
<meta name="viewport" content="width=device-width">
<style>
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem;color:#222;background:#fff}
section{margin-bottom:3rem}h2{font-size:1.1rem;margin-bottom:0;overflow-wrap:anywhere}section p{margin:.2rem 0 .6rem}
fam-compare:not(:defined) img{max-width:100%}
@media (prefers-color-scheme:dark){body{background:#181818;color:#ddd}}
</style></head><body>"""
