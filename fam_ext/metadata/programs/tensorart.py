"""Tensor.Art: `generation_data`, JSON with what the user chose, beside the graph that ran, which knows the seed."""

from __future__ import annotations

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs import comfyui
from fam_ext.metadata.programs.base import Settings, first, from_values, inner, seed


def read(texts: Texts) -> Settings | None:
    """Return Tensor.Art's settings, None when the file is not its."""
    values = texts.json("generation_data") or {}
    if not isinstance(values.get("prompt"), str) or "steps" not in values:
        return None
    ran = comfyui.read(texts)
    if ran is not None and ran.seed is not None and seed(values.get("seed"))[0] is None:
        values = {**values, "seed": ran.seed}  # -1 was drawn before the graph ran
    return from_values(
        "Tensor.Art",
        "generation_data",
        values,
        prompt=values.get("prompt"),
        negative=values.get("negativePrompt"),
        cfg=values.get("cfgScale"),
        sampler=first(values, "samplerName", "ksamplerName", "sampler"),
        schedule=values.get("schedule"),
        model=first(inner(values.get("baseModel")), "modelFileName", "label"),
        vae=values.get("sdVae"),
        clip_skip=values.get("clipSkip"),
    )
