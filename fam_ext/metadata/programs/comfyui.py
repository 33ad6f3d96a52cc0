"""ComfyUI's graphs, API prompt or workflow: the settings of the sampler behind the saved picture. Nothing is run.

Each place of the graph is looked at once, texts are bounded, and a node whose effect on a text is not known ends the
search with a note: no text is better than a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fam_ext.metadata.containers import Texts, loaded
from fam_ext.metadata.programs.base import Settings, base_name, named, real, seed, text, whole
from fam_ext.samplers import names

Node = dict[str, Any]
_MAX_NODES = 10_000
_MAX_SAMPLERS = 12
_MAX_CHARS = 200_000
_MAX_DEPTH = 200
_PICTURE_INPUTS = ("images", "image", "samples", "pixels", "latent", "latent_image", "any", "input")
_LATENT_INPUTS = ("latent_image", "samples", "latent", "pixels", "image", "images", "optional_latent")
_PASSING = ("conditioning", "CONDITIONING", "cond", "conditioning_to")
_COMBINED = re.compile(r"conditioning_?\d*|conditioning_(to|from)|cond_?\d+")
# what a node writes into a text can't be known from the graph
_CHANGING = re.compile(
    r"translat|replace|regex|random|llm|gpt|ollama|gemini|florence|caption|tagger|interrog|generat|llava|vlm|split"
    r"|substring|trim|case|enhanc|loader from file|loadtext|load text|styler",
    re.IGNORECASE,
)
# nodes whose outputs do not begin with positive and negative: who follows them knows which text it wants
_BUNDLE = re.compile(r"^eff|pipe|context|ctx|\bbus\b|loader", re.IGNORECASE)
_TEXT_NAMES = (
    *("populated_text", "text", "string", "value", "prompt", "String", "Text", "STRING", "text_positive"),
    *("text_0", "any", "source", "anything", "input"),
)
_JOINED = re.compile(r"(string|text|str|input|prompt)_?([a-h]|\d{1,2})", re.IGNORECASE)
_WIDGETS: Mapping[str, tuple[str, ...]] = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "", "cfg"),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "VAELoader": ("vae_name",),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "RandomNoise": ("noise_seed", ""),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "FluxGuidance": ("guidance",),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "ConditioningAverage": ("conditioning_to_strength",),
}


class _StoppedError(Exception):
    """The text can't be followed further; the message names the node."""


@dataclass
class _Graph:
    nodes: Node
    notes: list[str] = field(default_factory=list[str])
    seen: dict[tuple[str, int, str], str] = field(default_factory=dict[tuple[str, int, str], str])

    def node(self, link: object) -> tuple[str, Node, int] | None:
        """Return (id, node, output slot) that a link names."""
        if not isinstance(link, list) or len(cast("list[Any]", link)) != 2:
            return None
        name, slot = cast("list[Any]", link)
        if not isinstance(name, str | int) or not isinstance(slot, int):
            return None
        found = self.nodes.get(str(name))
        return (str(name), cast("Node", found), slot) if isinstance(found, dict) else None


def read(texts: Texts) -> Settings | None:
    """Return the settings of the graph in `prompt`, else in `workflow`."""
    for key in ("prompt", "workflow", "Prompt", "Workflow", "UserComment"):
        raw = texts.get(key)
        graph = loaded(raw) if raw is not None and raw.lstrip().startswith("{") else None
        if not isinstance(graph, dict):
            continue
        value = cast("Node", graph)
        inner = value.get("prompt")
        if key == "UserComment" and isinstance(inner, dict):
            value = cast("Node", inner)
        for nodes in _node_sets(value):
            found = _read(_Graph(nodes), key) if len(nodes) <= _MAX_NODES else None
            if found is not None:
                return found
    return None


def _node_sets(value: Node) -> Iterator[Node]:
    """Yield the nodes of an API prompt or workflow, then of each subgraph that the workflow uses once.

    What comes into a subgraph from outside leads nowhere there: such a text is not taken.
    """
    if not isinstance(value.get("nodes"), list):
        yield value
        return
    yield _from_workflow(value)
    definitions = value.get("definitions")
    subgraphs = _list(cast("Node", definitions).get("subgraphs")) if isinstance(definitions, dict) else []
    kinds = [cast("Node", node).get("type") for node in _list(value.get("nodes")) if isinstance(node, dict)]
    for subgraph in subgraphs[:_MAX_SAMPLERS]:
        if isinstance(subgraph, dict) and kinds.count(cast("Node", subgraph).get("id")) == 1:
            yield _from_workflow(cast("Node", subgraph))


def _links(inputs: Node, *without: str) -> list[object]:
    return [value for name, value in inputs.items() if isinstance(value, list) and name not in without]


def _class(node: object) -> str:
    kind = cast("Node", node).get("class_type") if isinstance(node, dict) else None
    return kind if isinstance(kind, str) else ""


def _inputs(node: object) -> Node:
    inputs = cast("Node", node).get("inputs") if isinstance(node, dict) else None
    return cast("Node", inputs) if isinstance(inputs, dict) else {}


# --- workflow form ------------------------------------------------------------------------------------------------


def _from_workflow(workflow: Node) -> Node:
    """Return a workflow's nodes in the API's form, as far as the names of their widgets are known."""
    sources: dict[int, list[Any]] = {}
    for link in _list(workflow.get("links")):
        if isinstance(link, list) and len(cast("list[Any]", link)) >= 3:
            number, origin, slot = cast("list[Any]", link)[:3]
        elif isinstance(link, dict):
            number, origin, slot = (cast("Node", link).get(name) for name in ("id", "origin_id", "origin_slot"))
        else:
            continue
        if isinstance(number, int):
            sources[number] = [str(origin), slot]
    nodes: Node = {}
    for raw in _list(workflow.get("nodes"))[:_MAX_NODES]:
        if not isinstance(raw, dict) or cast("Node", raw).get("mode") == 2:
            continue  # muted
        node = cast("Node", raw)
        kind = str(node.get("type", ""))[:200]
        inputs: Node = {}
        widgets: list[str] = []
        for entry in _list(node.get("inputs")):
            if not isinstance(entry, dict):
                continue
            slot_ = cast("Node", entry)
            name, link = slot_.get("name"), slot_.get("link")
            if isinstance(name, str) and isinstance(link, int) and link in sources:
                inputs[name] = sources[link]
            if isinstance(slot_.get("widget"), dict) and isinstance(name, str):
                widgets.append(name)
                if name in ("seed", "noise_seed"):
                    widgets.append("")  # what happens to the seed after a run
        values: object = node.get("widgets_values")
        if node.get("mode") == 4:
            kind = "Bypassed"
        elif isinstance(values, dict):
            inputs = {**cast("Node", values), **inputs}
        else:
            given = _list(values)
            names = _WIDGETS.get(kind) or (tuple(widgets) if len(widgets) == len(given) else ())
            if not names and kind.startswith(("Primitive", "String")) and given:
                names = ("value",)
            inputs = {**{name: value for name, value in zip(names, given, strict=False) if name}, **inputs}
        nodes[str(node.get("id"))] = {"class_type": kind, "inputs": inputs}
    return nodes


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


# --- the sampler --------------------------------------------------------------------------------------------------


def _is_sampler(node: object) -> bool:
    inputs = _inputs(node)
    if "guider" in inputs and "sigmas" in inputs:
        return True
    if _pipe(inputs) is not None and "ksampler" in _class(node).casefold():
        return True
    pair = isinstance(inputs.get("positive"), list)
    return pair and ("steps" in inputs or "sigmas" in inputs or "KSampler" in _class(node))


def _behind(graph: _Graph, start: str, names: tuple[str, ...], visited: set[str] | None = None) -> str | None:
    """Return the id of the nearest sampler behind `start`, through the inputs that hold pictures or latents.

    `visited` holds what an earlier search went through without finding one.
    """
    visited = set() if visited is None else visited
    visited.add(start)
    queue = [start]
    for current in queue:
        if current != start and _is_sampler(graph.nodes.get(current)):
            return current
        inputs = _inputs(graph.nodes.get(current))
        links = [inputs[name] for name in names if isinstance(inputs.get(name), list)]
        links = links or _links(inputs)
        for link in links:
            found = graph.node(link)
            if found is not None and found[0] not in visited:
                visited.add(found[0])
                queue.append(found[0])
    return None


def _first_sampler(graph: _Graph) -> str | None:
    outputs = [name for name, node in graph.nodes.items() if re.search("save|preview", _class(node), re.IGNORECASE)]
    outputs.sort(key=lambda name: "save" not in _class(graph.nodes[name]).casefold())
    sampler = None
    searched: set[str] = set()
    for output in outputs:
        sampler = _behind(graph, output, _PICTURE_INPUTS, searched)
        if sampler is not None:
            break
    if sampler is None:
        sampler = next((name for name, node in graph.nodes.items() if _is_sampler(node)), None)
    visited: set[str] = set()
    while sampler is not None and sampler not in visited and len(visited) < _MAX_SAMPLERS:
        visited.add(sampler)
        latent = [name for name in _LATENT_INPUTS if isinstance(_inputs(graph.nodes[sampler]).get(name), list)]
        earlier = _behind_latent(graph, sampler, latent[0]) if latent else None
        if earlier is None or earlier in visited:
            break
        if _inputs(graph.nodes[earlier]).get("add_noise") == "disable":
            break
        sampler = earlier
    return sampler


def _behind_latent(graph: _Graph, sampler: str, name: str) -> str | None:
    found = graph.node(_inputs(graph.nodes[sampler]).get(name))
    if found is None:
        return None
    return found[0] if _is_sampler(found[1]) else _behind(graph, found[0], _PICTURE_INPUTS)


def _read(graph: _Graph, place: str) -> Settings | None:
    sampler = _first_sampler(graph)
    if sampler is None:
        return None
    inputs = _piped(graph, _inputs(graph.nodes[sampler]))
    guider_link = graph.node(inputs.get("guider"))
    guider = _inputs(guider_link[1]) if guider_link is not None else inputs

    def of(name: str, *inner: str) -> object:
        """Return a setting from the sampler itself, or from the node that brings it."""
        value = inputs.get(name)
        if name in ("noise", "sampler", "sigmas"):
            return _far(graph, value, inner)
        return _plain(graph, value, (name, *inner))

    number, wrapped = seed(of("noise_seed", "seed") if "noise_seed" in inputs else of("seed", "noise_seed"))
    if number is None and "noise" in inputs:
        number, wrapped = seed(of("noise", "noise_seed", "seed"))
    steps = of("steps", "steps_total") if "steps" in inputs else of("sigmas", "steps")
    sampler_name = of("sampler_name") if "sampler_name" in inputs else of("sampler", "sampler_name")
    schedule = of("scheduler") if "scheduler" in inputs else of("sigmas", "scheduler")
    if sampler_name is None and (found := graph.node(inputs.get("sampler"))) is not None:
        sampler_name = _class(found[1]).removeprefix("Sampler") or None  # SamplerEulerAncestral
    if schedule is None and (found := graph.node(inputs.get("sigmas"))) is not None:
        kind = re.sub("(Sampling)?Scheduler$|^SD", "", _class(found[1]))  # KarrasScheduler
        schedule = names.schedule(kind) if kind else None
    own, plan = named(sampler_name, schedule)
    cfg = next((guider[name] for name in ("cfg", "cfg_conds") if name in guider), None)
    if cfg is None and _class(guider_link[1] if guider_link is not None else None) == "BasicGuider":
        cfg = 1.0  # one conditioning, no guidance
    asked = next((name for name in ("positive", "cond1", "conditioning") if name in guider), "positive")
    if "cond2" in guider and guider["cond2"] != guider.get("cond1"):
        graph.notes.append("the second conditioning of DualCFGGuider is not used")
    prompt = _prompt(graph, guider, asked, "positive")
    negative = _prompt(graph, guider, "negative", "negative")
    model, vae, clip_skip, loras = _model(graph, inputs.get("model", guider.get("model")))
    return Settings(
        "ComfyUI",
        prompt,
        negative,
        number,
        whole(steps, 100_000),
        own,
        plan,
        real(_plain(graph, cfg, ("cfg", "value", "float"))),
        model=model,
        vae=vae,
        clip_skip=clip_skip,
        loras=loras,
        notes=(*graph.notes, *wrapped),
        place=place,
    )


def _pipe(inputs: Node) -> object:
    return next((inputs[name] for name in ("pipe", "basic_pipe") if isinstance(inputs.get(name), list)), None)


def _piped(graph: _Graph, inputs: Node) -> Node:
    """Return a node's inputs with those of the nodes behind its pipe (Easy-Use, Impact), the nearest first."""
    visited: set[str] = set()
    link = _pipe(inputs)
    while (found := graph.node(link)) is not None and found[0] not in visited:
        visited.add(found[0])
        behind = _inputs(found[1])
        inputs, link = {**behind, **inputs}, _pipe(behind)
    return inputs


def _plain(graph: _Graph, value: object, names: tuple[str, ...]) -> object:
    """Return a number or word, also where primitive nodes bring it."""
    visited: set[str] = set()
    for _ in range(_MAX_DEPTH):
        if not isinstance(value, list):
            return value
        found = graph.node(cast("object", value))
        if found is None or found[0] in visited:
            return None
        visited.add(found[0])
        inputs = _inputs(found[1])
        candidates = (*names, "value", "seed", "int", "float", "Number", "number", "INT", "FLOAT", "string", "")
        name = next((name for name in candidates if name in inputs), "")
        links = _links(inputs)
        value = inputs[name] if name else links[0] if len(links) == 1 else None
    return None


def _far(graph: _Graph, value: object, names: tuple[str, ...]) -> object:
    """Return the first of `names` on the nodes behind a link (a scheduler behind nodes that split its sigmas)."""
    visited: set[str] = set()
    while (found := graph.node(value)) is not None and found[0] not in visited:
        visited.add(found[0])
        inputs = _inputs(found[1])
        for name in names:
            if name in inputs:
                return _plain(graph, inputs[name], (name,))
        links = _links(inputs, "model")
        value = links[0] if len(links) == 1 else None
    return None


def _model(graph: _Graph, link: object) -> tuple[str | None, str | None, int | None, tuple[str, ...]]:
    visited: set[str] = set()
    loras: list[str] = []
    while (found := graph.node(link)) is not None and found[0] not in visited:
        visited.add(found[0])
        inputs = _inputs(found[1])
        lora = base_name(inputs.get("lora_name"))
        if lora and lora != "None":
            loras.append(f"{lora}:{real(inputs.get('strength_model')) or 1.0:g}")
        for name in ("ckpt_name", "unet_name", "model_name", "base_ckpt_name"):
            value = base_name(_plain(graph, inputs.get(name), (name,)))
            if value:
                skip = inputs.get("clip_skip", inputs.get("stop_at_clip_layer"))
                skip = -skip if isinstance(skip, int) and -100 < skip < 0 else None
                return value, base_name(inputs.get("vae_name")), skip, tuple(loras[:32])
        links = _links(inputs)
        link = inputs.get("model", links[0] if len(links) == 1 else None)
    return None, None, None, tuple(loras[:32])


# --- texts --------------------------------------------------------------------------------------------------------


def _prompt(graph: _Graph, inputs: Node, name: str, role: str) -> str | None:
    if name not in inputs:
        return "" if role == "negative" else None
    try:
        return text(_text(graph, inputs[name], role, 0))
    except _StoppedError as stop:
        graph.notes.append(f"{role} prompt not taken: {stop}")
        return None


def _text(graph: _Graph, value: object, role: str, depth: int) -> str:
    """Return the text behind a link of conditioning or text; each output is followed once. Raises `_StoppedError`."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value}"
    found = graph.node(value)
    if found is None:
        raise _StoppedError("a link leads nowhere")
    name, node, slot = found
    key = (name, slot, role)
    if key in graph.seen:
        return graph.seen[key]
    if depth > _MAX_DEPTH:
        raise _StoppedError("the graph is too deep")
    graph.seen[key] = ""  # links in a circle end here
    made = _node_text(graph, node, slot, role, depth + 1)
    if len(made) > _MAX_CHARS:
        raise _StoppedError(f"{_class(node)[:60]} makes a text of more than {_MAX_CHARS} characters")
    graph.seen[key] = made
    return made


def _node_text(graph: _Graph, node: Node, slot: int, role: str, depth: int) -> str:
    kind, inputs = _class(node), _inputs(node)

    def follow(name: str) -> str:
        return _text(graph, inputs[name], role, depth)

    if "zeroout" in kind.casefold().replace("_", ""):
        return ""
    if "positive" in inputs and "negative" in inputs:
        # conditioning comes out as it went in, by slot; a loader with both texts is asked for its role
        links = isinstance(inputs["positive"], list) and isinstance(inputs["negative"], list)
        by_slot = {0: "positive", 1: "negative"}.get(slot, role)
        return follow(by_slot if links and not (_BUNDLE.search(kind) or "ckpt_name" in inputs) else role)
    if "base_positive" in inputs and "base_negative" in inputs:
        return follow(("base_positive", "base_negative")[slot == 1])
    alone = [name for name in ("positive", "negative") if name in inputs]
    if len(alone) == 1 and not _links(inputs, alone[0]):
        return follow(alone[0])  # "easy positive"
    if kind == "Text String":
        return follow(("text", "text_b", "text_c", "text_d")[slot] if 0 <= slot < 4 else "text")
    if inputs.get("action") == "replace":
        raise _StoppedError(f"node {kind[:60]} replaces parts of the text")
    if "ConditioningAverage" in kind and "conditioning_to" in inputs:
        return follow("conditioning_to")
    combined = [name for name in inputs if _COMBINED.fullmatch(name) and isinstance(inputs[name], list)]
    if combined:
        parts = [follow(name) for name in combined]
        return ", ".join(dict.fromkeys(part for part in parts if part))
    if "text_positive" in inputs and "text_negative" in inputs and not _CHANGING.search(kind):
        return follow(f"text_{role}")
    for first, second in (("text_g", "text_l"), ("t5xxl", "clip_l")):
        if first in inputs:
            parts = [follow(name) for name in (first, second) if name in inputs]
            return next((part for part in parts if part.strip()), "")
    chosen = _switch(graph, kind, inputs)
    if chosen is not None:
        return follow(chosen)
    if _CHANGING.search(kind) and "populated_text" not in inputs:
        raise _StoppedError(f"node {kind[:60]} changes the text in a way the file does not tell")
    joined = sorted(name for name in inputs if _JOINED.fullmatch(name) and isinstance(inputs[name], str | list))
    if len(joined) > 1 and re.search(r"concat|join|combine|append|merge|string|text", kind, re.IGNORECASE):
        delimiter = inputs.get("delimiter", inputs.get("separator", " " if "join" in kind.casefold() else ""))
        delimiter = delimiter if isinstance(delimiter, str) else ""
        parts = [follow(name) for name in joined]
        clean = inputs.get("clean_whitespace") == "true"
        return delimiter.replace("\\n", "\n").join(part.strip() if clean else part for part in parts if part)
    for name in _TEXT_NAMES:
        if isinstance(inputs.get(name), str | list) and not (name in ("any", "input") and len(inputs) > 1):
            return follow(name)
    for name in _PASSING:
        if isinstance(inputs.get(name), list):
            return follow(name)
    links = [name for name, value in inputs.items() if isinstance(value, list)]
    texts = [name for name, value in inputs.items() if isinstance(value, str)]
    if len(links) == 1 and not texts:
        return follow(links[0])
    raise _StoppedError(f"node {kind[:60] or '?'} is not known")


def _switch(graph: _Graph, kind: str, inputs: Node) -> str | None:
    """Return the input that a switch lets through, None when the node is no switch. Raises `_StoppedError`."""
    if not re.search(r"switch|select|if ?else", kind, re.IGNORECASE):
        return None
    for on, off in (("on_true", "on_false"), ("input_true", "input_false"), ("true", "false")):
        if on in inputs or off in inputs:
            state = _plain(
                graph, inputs.get("boolean", inputs.get("switch", inputs.get("value"))), ("value", "boolean")
            )
            if isinstance(state, bool) and (on if state else off) in inputs:
                return on if state else off
    index = _plain(graph, inputs.get("select", inputs.get("Input", inputs.get("index"))), ("value",))
    if isinstance(index, int):
        for pattern in ("input{}", "input_{}", "text{}", "text_{}", "value{}", "conditioning{}", "conditioning_{}"):
            if pattern.format(index) in inputs:
                return pattern.format(index)
    names = [name for name, value in inputs.items() if isinstance(value, list)]
    if "rgthree" in kind and names:
        return min(names)  # Any Switch: the first that is connected
    raise _StoppedError(f"node {kind[:60]} chooses in a way the file does not tell")
