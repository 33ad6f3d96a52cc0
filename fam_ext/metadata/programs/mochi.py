"""Mochi Diffusion: `Include in Image: ...; Exclude from Image: ...; Steps: ...` in one text. Known by report only."""

from __future__ import annotations

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, from_values


def read(texts: Texts) -> Settings | None:
    """Return Mochi Diffusion's settings, None when the file is not its."""
    for item in texts:
        before, found, rest = item.value.partition("Include in Image: ")
        if not found or before.strip():
            continue
        words, _, line = rest.rpartition("; Model: ")
        prompt, _, negative = words.partition("; Exclude from Image: ")
        pairs = (part.partition(": ") for part in f"Model: {line}".split("; ")[:40])
        values = {key.casefold(): value for key, _, value in pairs}
        if prompt and "steps" in values:
            return from_values(
                "Mochi Diffusion",
                f"{item.place} {item.key}",
                values,
                prompt=prompt,
                negative=negative,
                cfg=values.get("guidance scale"),
                sampler=values.get("scheduler"),
                model=values.get("model"),
            )
    return None
