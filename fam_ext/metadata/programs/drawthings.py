"""Draw Things: JSON with the short keys `c` and `uc` in the EXIF comment or XMP."""

from __future__ import annotations

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, from_values, inner


def read(texts: Texts) -> Settings | None:
    """Return Draw Things' settings, None when the file is not its."""
    for key in ("UserComment", "exif:UserComment", "Comment"):
        values = texts.json(key) or {}
        if isinstance(values.get("c"), str) and "sampler" in values:
            return from_values(
                "Draw Things",
                key,
                values,
                prompt=values.get("c"),
                negative=values.get("uc"),
                cfg=values.get("scale"),
                sampler=values.get("sampler"),
                model=values.get("model"),
                clip_skip=inner(values.get("v2")).get("clipSkip", values.get("clip_skip")),
            )
    return None
