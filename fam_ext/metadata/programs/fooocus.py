"""Fooocus, MRE and RuinedFooocus: JSON in `parameters`, `Comment` or the EXIF comment; old logs by title."""

from __future__ import annotations

import re
from typing import Any

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, first, from_values

_MARKS = ("base_model", "Base Model", "base_model_name", "full_prompt", "real_prompt", "refiner_model")


def read(texts: Texts) -> Settings | None:
    """Return Fooocus's settings, None when the file is not its."""
    for key in ("parameters", "UserComment", "Comment"):
        values = texts.json(key) or {}
        software = str(first(values, "software", "version"))
        ours = values.get("metadata_scheme") == "fooocus" or "Fooocus" in software
        if ours or any(mark in values and isinstance(values[mark], str | list) for mark in _MARKS):
            return _settings(key, values, "RuinedFooocus" if "Ruined" in software else "Fooocus")
    return None


def _settings(key: str, values: dict[str, Any], program: str) -> Settings:
    # of prompt and full_prompt (with the styles' words) the user's own
    lowered = {str(name).casefold(): value for name, value in values.items()}
    styles = re.sub(r"[\[\]']", "", str(lowered.get("styles") or ""))
    return from_values(
        program,
        key,
        lowered,
        prompt=lowered.get("prompt"),
        negative=first(lowered, "negative_prompt", "negative prompt", "negative"),
        cfg=first(lowered, "guidance_scale", "guidance scale", "cfg"),
        sampler=first(lowered, "sampler", "sampler_name"),
        schedule=lowered.get("scheduler"),
        model=first(lowered, "base_model", "base model", "base_model_name"),
        vae=lowered.get("vae"),
        clip_skip=first(lowered, "clip_skip", "clip skip"),
        notes=(f"the words of its styles are not used: {styles[:120]}",) if styles else (),
    )
