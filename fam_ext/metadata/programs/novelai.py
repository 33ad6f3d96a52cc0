"""NovelAI, versions 1 to 4.5: JSON in `Comment`; version 4 and later hold their captions in `v4_prompt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, from_values, inner, text


def read(texts: Texts) -> Settings | None:
    """Return NovelAI's settings, None when the file is not its."""
    values = texts.json("Comment") or {}
    signed = (texts.get("Software") or "").startswith("NovelAI") and bool(values)
    if not signed and not ({"uc", "sampler"} <= values.keys() and "request_type" in values):
        return None
    caption = inner(inner(values.get("v4_prompt")).get("caption"))
    against = inner(inner(values.get("v4_negative_prompt")).get("caption"))
    return from_values(
        "NovelAI",
        "Comment",
        values,
        prompt=_captions(caption) or values.get("prompt") or texts.get("Description"),
        negative=_captions(against) or values.get("uc"),
        cfg=values.get("scale"),
        sampler=values.get("sampler"),
        schedule=values.get("noise_schedule"),
        model=texts.get("Source"),
    )


def _captions(caption: Mapping[str, Any]) -> str | None:
    base = text(caption.get("base_caption"))
    if base is None:
        return None
    rows = caption.get("char_captions")
    extra = [text(inner(row).get("char_caption")) for row in cast("list[Any]", rows)] if isinstance(rows, list) else []
    parts = [part.strip(" ,") for part in (base, *extra) if part and part.strip(" ,")]
    return ", ".join(parts) if len(parts) > 1 else base
