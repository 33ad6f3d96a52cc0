"""NovelAI, versions 1 to 4.5: JSON in `Comment`; version 4 and later hold their captions in `v4_prompt`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, from_values, inner, text

# a weight and what ends it, brackets, and what stands escaped already
_MARK = re.compile(r"\\[()\[\]{}\\]|(?<![\w.])(-?\d{0,4}\.?\d{1,4})::|::|[{}\[\]()]")
_STRONGER = 1.05
_MAX_BRACKETS = 100


def read(texts: Texts) -> Settings | None:
    """Return NovelAI's settings, None when the file is not its."""
    values = texts.json("Comment") or {}
    signed = (texts.get("Software") or "").startswith("NovelAI") and bool(values)
    if not signed and not ({"uc", "sampler"} <= values.keys() and "request_type" in values):
        return None
    caption = inner(inner(values.get("v4_prompt")).get("caption"))
    against = inner(inner(values.get("v4_negative_prompt")).get("caption"))
    prompt = text(_captions(caption) or values.get("prompt") or texts.get("Description"))
    negative = text(_captions(against) or values.get("uc"))
    written = weighted(prompt or ""), weighted(negative or "")
    return from_values(
        "NovelAI",
        "Comment",
        values,
        prompt=prompt if written[0] is None else written[0],
        negative=negative if written[1] is None else written[1],
        cfg=values.get("scale"),
        sampler=values.get("sampler"),
        schedule=values.get("noise_schedule"),
        model=texts.get("Source"),
        notes=("NovelAI's emphasis is not balanced: its brackets are drawn as they stand",) if None in written else (),
    )


def _captions(caption: Mapping[str, Any]) -> str | None:
    base = text(caption.get("base_caption"))
    if base is None:
        return None
    rows = caption.get("char_captions")
    extra = [text(inner(row).get("char_caption")) for row in cast("list[Any]", rows)] if isinstance(rows, list) else []
    parts = [part.strip(" ,") for part in (base, *extra) if part and part.strip(" ,")]
    return ", ".join(parts) if len(parts) > 1 else base


def weighted(words: str) -> str | None:
    """Return NovelAI's emphasis as the WebUI's: {x} is (x:1.05), [x] (x:0.9524), 1.5::x:: (x:1.5); factors multiply.

    Its round brackets are plain ones. None where what opens does not close, in its order.
    """
    opened: list[str] = []
    pieces: list[tuple[str, float]] = []
    parts: list[str] = []
    weight: float | None = None
    at, depth = 0, 0
    for match in _MARK.finditer(words):
        mark = match.group(0)
        parts.append(words[at : match.start()])
        at = match.end()
        if mark in "()" or mark.startswith("\\"):
            parts.append(mark if len(mark) > 1 else f"\\{mark}")
            continue
        pieces.append(("".join(parts), (1.0 if weight is None else weight) * _STRONGER**depth))
        parts.clear()
        if mark in "{[":
            opened.append(mark)
        elif match.group(1) is not None:
            opened += ["::"] if weight is None else []
            weight = float(match.group(1))
        elif not opened or opened.pop() != {"}": "{", "]": "["}.get(mark, "::"):
            return None
        else:
            weight = None if mark == "::" else weight
        depth += {"{": 1, "]": 1, "}": -1, "[": -1}.get(mark, 0)
        if abs(depth) > _MAX_BRACKETS:
            return None
    pieces.append(("".join([*parts, words[at:]]), 1.0))
    return None if opened else "".join(_factored(piece, factor) for piece, factor in pieces)


def _factored(words: str, factor: float) -> str:
    bare = words.strip()
    if not bare or factor == 1:
        return words
    start = words.index(bare)
    return f"{words[:start]}({bare}:{round(factor, 4):g}){words[start + len(bare) :]}"
