"""InvokeAI: `invokeai_metadata` (3 and later), the graph of a workflow alone, `sd-metadata` (2), `Dream` (1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, first, from_values, inner, text


def read(texts: Texts) -> Settings | None:
    """Return InvokeAI's settings, None when the file is not its."""
    values = texts.json("invokeai_metadata")
    if values is not None and ("positive_prompt" in values or "generation_mode" in values):
        return _core("invokeai_metadata", values)
    graph = inner((texts.json("invokeai_graph") or {}).get("nodes"))
    core = [node for node in graph.values() if inner(node).get("type") == "core_metadata"]
    if core and "positive_prompt" in core[0]:
        return _core("invokeai_graph", inner(core[0]))
    old = texts.json("sd-metadata") or {}
    image = inner(old.get("image"))
    if image:
        prompt: object = image.get("prompt")
        if isinstance(prompt, list):
            prompt = next((inner(row).get("prompt") for row in cast("list[Any]", prompt)), None)
        return _bracketed("sd-metadata", image, prompt, image.get("sampler"), old.get("model_weights"))
    dream = texts.get("Dream")
    if dream is not None and '"' in dream:
        end = dream.rfind('"')
        flags = dict(re.findall(r"-([sSCAWH])\s?(\S{1,40})", dream[end:][:2000]))
        image = {"steps": flags.get("s"), "seed": flags.get("S"), "cfg_scale": flags.get("C")}
        image |= {"width": flags.get("W"), "height": flags.get("H")}
        return _bracketed("Dream", image, dream[dream.find('"') + 1 : end], flags.get("A"), None)
    return None


def _core(place: str, values: Mapping[str, Any]) -> Settings:
    style = text(values.get("positive_style_prompt"))
    apart = style and style != text(values.get("positive_prompt"))
    model = inner(values.get("model"))
    return from_values(
        "InvokeAI",
        place,
        values,
        prompt=values.get("positive_prompt"),
        negative=values.get("negative_prompt"),
        cfg=values.get("cfg_scale"),
        sampler=values.get("scheduler"),
        model=first(model, "name", "model_name"),
        vae=first(inner(values.get("vae")), "name", "model_name"),
        clip_skip=values.get("clip_skip"),
        notes=("the style prompt is not used",) if apart else (),
    )


def _bracketed(place: str, image: Mapping[str, Any], prompt: object, sampler: object, model: object) -> Settings:
    """Version 1 and 2 wrote the negative prompt into the prompt, in square brackets."""
    full = text(prompt) or ""
    negative = ", ".join(re.findall(r"\[([^\[\]]{0,20000})\]", full))
    positive = re.sub(r"\[[^\[\]]{0,20000}\]", "", full).strip() if negative else full
    return from_values(
        "InvokeAI",
        place,
        image,
        prompt=positive,
        negative=negative,
        cfg=image.get("cfg_scale"),
        sampler=sampler,
        model=model,
    )
