"""ComfyUI's workflow form (what its page saves) brought into the API's, as far as the names of widgets are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fam_ext.metadata.programs.comfyui.graph import Node, class_of, list_of

MAX_NODES = 10_000
_MAX_ROWS = 200_000
"""Links, nodes, inputs, outputs and widgets; those of a subgraph count again for each of its instances."""
_MAX_ID = 64
_MAX_DEPTH = 8
_LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
_WIDGETS: Mapping[str, tuple[str, ...]] = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "", "cfg"),
    "CLIPTextEncode": ("text",),
    "SaveImage": ("filename_prefix",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "CheckpointLoader": ("config_name", "ckpt_name"),
    "ImageOnlyCheckpointLoader": ("ckpt_name",),
    "unCLIPCheckpointLoader": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "VAELoader": ("vae_name",),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "RandomNoise": ("noise_seed", ""),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "SDTurboScheduler": ("steps", "denoise"),
    "AlignYourStepsScheduler": ("model_type", "steps", "denoise"),
    "LTXVScheduler": ("steps",),
    "Flux2Scheduler": ("steps",),
    "CFGGuider": ("cfg",),
    "DualCFGGuider": ("cfg_conds", "cfg_cond2_negative"),
    "TextEncodeQwenImageEdit": ("prompt",),
    "TextEncodeQwenImageEditPlus": ("prompt",),
    "FluxGuidance": ("guidance",),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "ConditioningAverage": ("conditioning_to_strength",),
    "CLIPTextEncodeSDXL": (
        *("width", "height", "crop_w", "crop_h", "target_width", "target_height"),
        *("text_g", "text_l"),
    ),
    "CLIPTextEncodeSDXLRefiner": ("ascore", "width", "height", "text"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl", "empty_padding"),
    "Seed (rgthree)": ("seed",),
    "ImpactWildcardProcessor": ("wildcard_text", "populated_text", "mode", "seed"),
    "ImpactWildcardEncode": ("wildcard_text", "populated_text", "mode"),
    "Text Multiline": ("text",),
    "CR Text": ("text",),
    "CR Prompt Text": ("prompt",),
    "String Literal": ("string",),
    "easy positive": ("positive",),
    "easy negative": ("negative",),
    "Power Prompt (rgthree)": ("prompt",),
    "SDXLPromptStyler": ("text_positive", "text_negative", "style"),
    "Efficient Loader": (
        *("ckpt_name", "vae_name", "clip_skip", "lora_name", "lora_model_strength", "lora_clip_strength"),
        *("positive", "negative"),
    ),
    "KSampler (Efficient)": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
}
"""The names of a node's widgets in their order, where the file itself does not tell them."""
_INTO, _OUT_OF = -10, -20
"""The nodes of a subgraph that stand for its inputs and outputs."""


class _Flat:
    """A workflow's nodes in the API's form; subgraphs stand in place of their instances, as ComfyUI itself runs them.

    `instead` says what a link to a place leads to in truth: another place, or a plain value.
    """

    def __init__(self, definitions: Mapping[str, Node]) -> None:
        self.nodes: Node = {}
        self.instead: dict[tuple[str, int], object] = {}
        self._definitions = definitions
        self._set: dict[str, object] = {}
        self._get: list[tuple[str, str]] = []
        self._visits = 0
        self._counted = 0

    def add(self, workflow: Node, prefix: str = "", depth: int = 0) -> None:
        """Add a workflow's or subgraph's nodes, whose ids begin with `prefix`. Raises `ValueError`."""
        sources: dict[int, list[Any]] = {}
        for link in self._rows(workflow, "links"):
            row = cast("Node", link) if isinstance(link, dict) else dict(zip(_LINK, list_of(link), strict=False))
            source = [f"{prefix}{_id(row.get('origin_id'))}", row.get("origin_slot")]
            if isinstance(row.get("id"), int):
                sources[row["id"]] = source
            if row.get("target_id") == _OUT_OF and isinstance(row.get("target_slot"), int):
                self.instead[prefix[:-1], row["target_slot"]] = source
        for raw in self._rows(workflow, "nodes"):
            self._visits += 1
            if self._visits > MAX_NODES:
                return
            if isinstance(raw, dict) and cast("Node", raw).get("mode") != 2:  # 2 is muted
                self._add_node(cast("Node", raw), prefix, sources, depth)

    def _rows(self, holder: Node, name: str) -> list[Any]:
        """Return a list that a workflow or node holds, counted. Raises `ValueError`."""
        value: object = holder.get(name)
        rows = list_of(value)
        self._counted += len(cast("Node", value) if isinstance(value, dict) else rows)
        if self._counted > _MAX_ROWS:
            raise ValueError(f"the workflow has more than {_MAX_ROWS} rows")
        return rows

    def _add_node(self, node: Node, prefix: str, sources: Mapping[int, list[Any]], depth: int) -> None:
        name, kind = f"{prefix}{_id(node.get('id'))}", class_of({"class_type": node.get("type")})
        slots = [cast("Node", slot) for slot in self._rows(node, "inputs") if isinstance(slot, dict)]
        came = [sources.get(slot["link"]) if isinstance(slot.get("link"), int) else None for slot in slots]
        given = self._rows(node, "widgets_values")
        if node.get("mode") == 4:  # bypassed: an output is the input of its number, else the first of its type
            types = [str(slot.get("type")) for slot in slots]
            first = {type_: source for type_, source in zip(types[::-1], came[::-1], strict=True) if source}
            for index, out in enumerate(self._rows(node, "outputs")):
                type_ = str(cast("Node", out).get("type")) if isinstance(out, dict) else "None"
                own = came[index] if types[index : index + 1] == [type_] else None
                self.instead[name, index] = own or first.get(type_)
            return
        if kind in self._definitions and depth < _MAX_DEPTH:
            links = {s.get("name"): c for s, c in zip(slots, came, strict=True) if c}
            values = iter(given)
            without = {s.get("name") for s in slots if not isinstance(s.get("widget"), dict)}
            for index, name_ in enumerate(
                _names(self._rows(self._definitions[kind], "inputs")) or [s.get("name") for s in slots]
            ):
                value = None if name_ in without else next(values, None)
                self.instead[f"{name}:{_INTO}", index] = links.get(name_, value)
            self.add(self._definitions[kind], f"{name}:", depth + 1)
            return
        word = given[0] if given and isinstance(given[0], str) else ""
        if kind.endswith(("SetNode", "setNode")) and word:
            self._set[word] = next((link for link in came if link), None)
        elif kind.endswith(("GetNode", "getNode")) and word:
            self._get.append((name, word))
        inputs = {s["name"]: c for s, c in zip(slots, came, strict=True) if c and isinstance(s.get("name"), str)}
        self.nodes[name] = {"class_type": kind, "inputs": inputs, "widgets": _widgets(kind, node, slots)}

    def resolved(self) -> Node:
        """Return the nodes with every link leading where it leads in truth."""
        self.instead |= {(name, 0): self._set.get(word) for name, word in self._get}
        for node in self.nodes.values():
            came = {key: self._truth(value) for key, value in node["inputs"].items()}
            # an input that nothing reaches keeps its widget's value
            node["inputs"] |= {**node.pop("widgets"), **{k: v for k, v in came.items() if v is not None}}
        return self.nodes

    def _truth(self, value: object) -> object:
        for _ in range(_MAX_DEPTH * 8):
            place = tuple(list_of(value))
            if len(place) != 2 or not isinstance(place[0], str) or place not in self.instead:
                break
            value = self.instead[place]
        place = list_of(value)
        return None if place and str(place[0]).endswith(f":{_INTO}") else value


def _id(value: object) -> str:
    """Return a node's id, no longer than ComfyUI's own: those within a subgraph begin with its instance's."""
    return f"{value}"[:_MAX_ID] if isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**63) else ""


def _names(inputs: list[Any]) -> list[object]:
    """Return the names of a subgraph's inputs in their order."""
    return [cast("Node", row).get("name") for row in inputs if isinstance(row, dict)]


def _widgets(kind: str, node: Node, slots: list[Node]) -> Node:
    """Return the values of a node's widgets by name, as far as the names are known."""
    values: object = node.get("widgets_values")
    if isinstance(values, dict):
        return dict(cast("Node", values))
    given = list_of(values)
    named: list[str] = []
    for slot in slots:
        if isinstance(slot.get("widget"), dict) and isinstance(slot.get("name"), str):
            named.append(slot["name"])
            if slot["name"] in ("seed", "noise_seed"):
                named.append("")  # what happens to the seed after a run
    names = _WIDGETS.get(kind) or (tuple(named) if len(named) == len(given) else ())
    if not names and kind.startswith(("Primitive", "String")) and given:
        names = ("value",)
    return {name: value for name, value in zip(names, given, strict=False) if name}


def from_workflow(workflow: Node) -> Node:
    """Return a workflow's nodes in the API's form."""
    outer = workflow.get("definitions")
    subgraphs = list_of(cast("Node", outer).get("subgraphs")) if isinstance(outer, dict) else []
    known = (cast("Node", subgraph) for subgraph in subgraphs if isinstance(subgraph, dict))
    flat = _Flat({str(subgraph.get("id")): subgraph for subgraph in known})
    flat.add(workflow)
    return flat.resolved()
