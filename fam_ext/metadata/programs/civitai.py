"""Civitai's own generator where it ran a graph: `extraMetadata` holds the user's words, in the graph or beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fam_ext.metadata.containers import Texts, json_object
from fam_ext.metadata.programs import comfyui
from fam_ext.metadata.programs.base import Settings, from_values, inner, seed


def read(texts: Texts) -> Settings | None:
    """Return Civitai's settings, None when the file is not its."""
    values = _extra(texts)
    if not isinstance(values.get("prompt"), str):
        return None
    ran = comfyui.read(texts)
    if ran is not None and ran.seed is not None and seed(values.get("seed"))[0] is None:
        values = {**values, "seed": ran.seed}
    found = from_values(
        "Civitai",
        "extraMetadata",
        values,
        prompt=values.get("prompt"),
        negative=values.get("negativePrompt"),
        cfg=values.get("cfgScale"),
        sampler=values.get("sampler"),
        schedule=values.get("scheduler"),
        clip_skip=values.get("clipSkip"),
    )
    if ran is None:
        return found
    return replace(
        found,
        steps=found.steps or ran.steps,
        sampler=found.sampler or ran.sampler,
        schedule=found.schedule or (ran.schedule if found.sampler in (None, ran.sampler) else None),
        cfg=ran.cfg if found.cfg is None else found.cfg,
        model=ran.model,
        loras=found.loras or ran.loras,
    )


def _extra(texts: Texts) -> dict[str, Any]:
    for key in ("extraMetadata", "prompt", "workflow", "UserComment", "parameters"):
        values = texts.json(key) or {}
        extra = values if key == "extraMetadata" else values.get("extraMetadata")
        if isinstance(extra, str):
            extra = json_object(extra)
        if inner(extra):
            return inner(extra)
    return {}
