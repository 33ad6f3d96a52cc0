"""Breadboard's XMP (`xmp:gm`): the words of pictures that it has listed."""

from __future__ import annotations

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, from_values


def read(texts: Texts) -> Settings | None:
    """Return the settings in Breadboard's packet, None when there is none."""
    values = {text.key.removeprefix("xmp:"): text.value for text in texts if text.place == "XMP"}
    if "prompt" not in values or "steps" not in values:
        return None
    return from_values(
        "Breadboard",
        "XMP",
        values,
        prompt=values["prompt"],
        negative=values.get("negative_prompt"),
        cfg=values.get("cfg_scale"),
        sampler=values.get("sampler"),
    )
