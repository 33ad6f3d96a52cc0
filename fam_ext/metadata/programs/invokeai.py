"""InvokeAI: `invokeai_metadata` (3 and later), the graph of a workflow alone, `sd-metadata` (2), `Dream` (1)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any, cast

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, first, from_values, inner, text, whole

_MAX_EDGES, _MAX_FIELDS = 30, 200
_HELD = ("prompt", "value", "item", "seed", "collection")
"""Where a node keeps what it passes on: an encoder its prompt, a primitive its value, a collector its item."""
# x++, (x)1.2, (a, b).and(): the WebUI has other words for them
_WEIGHTED = re.compile(r"\w\+{1,20}(?=[\s,.)]|$)|\)[+\-]|\)\d|\)\.[a-z]{1,10}\(")
_FIELDS = {
    **{"positive_prompt": "positive_conditioning", "negative_prompt": "negative_conditioning", "seed": "noise"},
    **{"steps": "steps", "cfg_scale": "cfg_scale", "scheduler": "scheduler"},
}


def read(texts: Texts) -> Settings | None:
    """Return InvokeAI's settings, None when the file is not its."""
    values = texts.json("invokeai_metadata")
    if values is not None and ("positive_prompt" in values or "generation_mode" in values):
        return _core("invokeai_metadata", values)
    graph = _from_graph(texts.json("invokeai_graph") or {})
    if graph is not None:
        return _core("invokeai_graph", graph)
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


def _from_graph(graph: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the graph of a workflow runs, under the names of `invokeai_metadata`; None when it draws nothing."""
    nodes = {name: inner(node) for name, node in inner(graph.get("nodes")).items()}
    sources: dict[tuple[object, object], object] = {}
    for edge in cast("list[Any]", graph.get("edges")) if isinstance(graph.get("edges"), list) else []:
        end, start = inner(inner(edge).get("destination")), inner(inner(edge).get("source"))
        if all(isinstance(part, str) for part in (end.get("node_id"), end.get("field"), start.get("node_id"))):
            sources[end["node_id"], end["field"]] = start["node_id"]

    def value(name: object, field: str, depth: int = 0) -> object:
        """Return a field, or what the node behind its edge holds."""
        source = sources.get((name, field))
        if not isinstance(source, str) or depth > _MAX_EDGES:
            return nodes.get(str(name), {}).get(field)
        behind = next((key for key in _HELD if key in nodes.get(source, {}) or (source, key) in sources), field)
        return value(source, behind, depth + 1)

    core = next((name for name, node in nodes.items() if node.get("type") == "core_metadata"), None)
    draws = next((name for name, node in nodes.items() if "denoise" in str(node.get("type"))), None)
    if core is None and draws is None:
        return None
    found = {field: value(core, field) for field in itertools.islice(nodes.get(core or "", {}), _MAX_FIELDS)}
    for field, own in _FIELDS.items():
        if found.get(field) is None and draws is not None:
            found[field] = value(draws, own)
    return found if isinstance(found.get("positive_prompt"), str) else None


def _core(place: str, values: Mapping[str, Any]) -> Settings:
    style = text(values.get("positive_style_prompt"))
    apart = style and style != text(values.get("positive_prompt"))
    words = (text(values.get(key)) or "" for key in ("positive_prompt", "negative_prompt"))
    notes = ("the style prompt is not used",) if apart else ()
    if any(_WEIGHTED.search(part) for part in words):
        notes += ("InvokeAI's weights (x++, (x)1.2) are not the WebUI's: they are drawn as they stand",)
    model = inner(values.get("model"))
    skipped = whole(values.get("clip_skip"), 99)
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
        clip_skip=None if skipped is None else skipped + 1,  # it counts the layers that are left off, the WebUI from 1
        notes=notes,
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
