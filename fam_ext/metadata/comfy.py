"""ComfyUI's prompt graph read for text and sampler settings, where they can be found. JSON only; nothing is run."""

from __future__ import annotations

import json
from typing import Any, cast

from fam_ext.metadata.infotext import Infotext, number

_SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_gpu": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
    "lcm": "LCM",
}
_SCHEDULES = {"karras": "Karras", "exponential": "Exponential", "sgm_uniform": "SGM Uniform", "simple": "Simple"}
_MAX_DEPTH = 64
_MAX_BYTES = 8 << 20

Node = dict[str, Any]


def parse_graph(text: str) -> Infotext | None:
    """Return prompt, negative prompt and settings of the first sampler in the graph; None when there is none."""
    if len(text) > _MAX_BYTES:
        return None
    try:
        loaded: object = json.loads(text.replace("NaN", "null"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(loaded, dict):
        return None
    graph = cast("dict[str, Any]", loaded)
    for node in graph.values():
        if "KSampler" in _class(node) and isinstance(_inputs(node).get("positive"), list):
            return _from_sampler(graph, node)
    return None


def _class(node: object) -> str:
    kind = cast("Node", node).get("class_type") if isinstance(node, dict) else None
    return kind if isinstance(kind, str) else ""


def _inputs(node: object) -> Node:
    inputs = cast("Node", node).get("inputs") if isinstance(node, dict) else None
    return cast("Node", inputs) if isinstance(inputs, dict) else {}


def _linked(graph: Node, value: object) -> object:
    if isinstance(value, list) and value:
        return graph.get(str(cast("list[Any]", value)[0]))
    return None


def _text(graph: Node, value: object, depth: int = 0) -> str:
    """Return the text behind a conditioning or string link, through whatever nodes stand between."""
    if isinstance(value, str):
        return value
    node = _linked(graph, value)
    if node is None or depth > _MAX_DEPTH:
        return ""
    inputs = _inputs(node)
    for name in ("text", "text_g", "string", "value", "conditioning", "conditioning_1", "positive"):
        if name in inputs:
            found = _text(graph, inputs[name], depth + 1)
            if found:
                return found
    return ""


def _plain(graph: Node, value: object) -> object:
    """Return a number or string, also where it comes from a primitive node."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(value, list):
            return value
        inputs = _inputs(_linked(graph, cast("list[Any]", value)))
        value = next((inputs[name] for name in ("value", "seed", "noise_seed", "int", "float") if name in inputs), None)
    return None


def _from_sampler(graph: Node, node: object) -> Infotext:
    inputs = _inputs(node)
    params: dict[str, str] = {}
    for name, key in (("steps", "Steps"), ("cfg", "CFG scale"), ("seed", "Seed"), ("noise_seed", "Seed")):
        value = _plain(graph, inputs.get(name))
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**64:
            params[key] = number(value) if isinstance(value, float) else str(value)
    sampler = inputs.get("sampler_name")
    if isinstance(sampler, str):
        params["Sampler"] = _SAMPLERS.get(sampler, sampler)
    scheduler = inputs.get("scheduler")
    if isinstance(scheduler, str):
        params["Schedule type"] = _SCHEDULES.get(scheduler, "Automatic")
    model: object = inputs.get("model")
    for _ in range(_MAX_DEPTH):
        source = _linked(graph, model)
        name = _inputs(source).get("ckpt_name")
        if isinstance(name, str):
            params["Model"] = name.rsplit("\\", 1)[-1].rsplit("/", 1)[-1].rsplit(".", 1)[0]
            break
        model = _inputs(source).get("model")
        if model is None:
            break
    return Infotext(_text(graph, inputs.get("positive")), _text(graph, inputs.get("negative")), params)
