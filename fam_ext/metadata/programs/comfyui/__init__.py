"""ComfyUI's graphs, API prompt or workflow: the settings of the sampler behind the saved picture. Nothing is run."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import cast

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, base_name, guided, last_layer, named, real, seed, whole
from fam_ext.metadata.programs.comfyui.graph import (
    Graph,
    Node,
    carried,
    class_of,
    far,
    followed,
    inputs_of,
    is_context,
    links,
    piped,
    plain,
)
from fam_ext.metadata.programs.comfyui.samplers import first_samplers
from fam_ext.metadata.programs.comfyui.texts import NOT_TEXT, prompt_of
from fam_ext.metadata.programs.comfyui.workflow import MAX_NODES, from_workflow
from fam_ext.samplers import names

_OWN = ("prompt", "negative", "seed", "steps", "sampler", "schedule", "cfg", "model", "vae", "clip_skip", "loras")


def read(texts: Texts) -> Settings | None:
    """Return the settings of the graph in `prompt`, else in `workflow`."""
    for key in ("prompt", "workflow", "Prompt", "Workflow", "UserComment", "parameters"):
        value: Node = texts.json(key) or {}
        inner = value.get("prompt")
        if isinstance(inner, dict) and "class_type" not in inner:
            value = cast("Node", inner)
        if not 0 < len(value) <= MAX_NODES:
            continue
        nodes = from_workflow(value) if isinstance(value.get("nodes"), list) else value
        graph = Graph(nodes)
        samplers = first_samplers(graph, texts.file)
        found = [read for sampler in samplers if (read := _read(graph, sampler, key)) is not None]
        if found:
            return _shared(found)
    return None


def _shared(found: list[Settings]) -> Settings:
    """Return what is so of every picture that the graph saves: which of them the file is can't be told."""
    values = {name: {getattr(settings, name) for settings in found} for name in _OWN}
    differ = [name for name, told in values.items() if len(told) > 1]
    if not differ:
        return found[0]
    note = f"the graph saves {len(found)} pictures, and the file's name does not tell which this is: "
    note += f"{', '.join(differ)} not taken"
    notes = dict.fromkeys(note for settings in found for note in settings.notes)
    return replace(found[0], **{name: () if name == "loras" else None for name in differ}, notes=(note, *notes))


def _read(graph: Graph, sampler: str, place: str) -> Settings | None:
    graph.notes.clear()
    graph.seen.clear()
    inputs = piped(graph, inputs_of(graph.nodes[sampler]))
    guider_link = graph.node(inputs.get("guider"))
    guider = inputs_of(guider_link[1]) if guider_link is not None else inputs

    def of(name: str, *inner: str) -> object:
        """Return a setting from the sampler itself, or from the node that brings it."""
        value = inputs.get(name)
        if name in ("noise", "sampler", "sigmas"):
            return _told(graph, inner[0], far(graph, value, inner), inner)
        return _told(graph, name, value, (name, *inner))

    number, wrapped = seed(of("noise_seed", "seed") if "noise_seed" in inputs else of("seed", "noise_seed"))
    if number is None and "noise" in inputs:
        number, wrapped = seed(of("noise", "noise_seed", "seed"))
    steps = of("steps", "steps_total") if "steps" in inputs else of("sigmas", "steps")
    sampler_name = of("sampler_name") if "sampler_name" in inputs else of("sampler", "sampler_name", "solver")
    schedule = of("scheduler", "scheduler_name") if "scheduler" in inputs else of("sigmas", "scheduler")
    if sampler_name is None and (found := graph.node(inputs.get("sampler"))) is not None:
        kind = class_of(found[1]).removeprefix("Sampler")  # SamplerEulerAncestral
        sampler_name = kind if names.sampler(kind) is not None else None
    if schedule is None and (found := graph.node(inputs.get("sigmas"))) is not None:
        kind = re.sub("(Sampling)?Scheduler$|^SD", "", class_of(found[1]))  # KarrasScheduler
        schedule = names.schedule(kind) if kind else None
    own, plan = named(sampler_name, schedule)
    cfg = next((guider[name] for name in ("cfg", "cfg_conds") if name in guider), None)
    if cfg is None and class_of(guider_link[1] if guider_link is not None else None) == "BasicGuider":
        cfg = 1.0  # one conditioning, no guidance
    asked = next((name for name in ("positive", "cond1", "conditioning") if name in guider), "positive")
    if "cond2" in guider and guider["cond2"] != guider.get("cond1"):
        graph.notes.append("the second conditioning of DualCFGGuider is not used")
    prompt = prompt_of(graph, guider, asked, "positive")
    negative = prompt_of(graph, guider, "negative", "negative")
    if prompt is None and negative is None and number is None and own is None and steps is None:
        return None  # whatever drew this keeps its settings elsewhere
    if negative and negative == prompt:
        negative = ""  # distilled models without guidance are given one text twice
        graph.notes.append("the negative prompt is the positive one: not used")
    model, vae, clip_skip, loras = _model(graph, inputs.get("model", guider.get("model")))
    scale, rescaled = guided(sampler_name, real(_told(graph, "cfg", cfg, ("cfg",))))
    return Settings(
        "ComfyUI",
        prompt,
        negative,
        number,
        whole(steps, 100_000),
        own,
        plan,
        scale,
        model=model,
        vae=vae,
        clip_skip=_clip_skip(graph, guider.get(asked)) if clip_skip is None else clip_skip,
        loras=loras,
        notes=(*graph.notes, *wrapped, *rescaled),
        place=place,
    )


def _told(graph: Graph, setting: str, value: object, names: tuple[str, ...]) -> object:
    """Return a setting's value; None, and a note where a link was followed without finding it."""
    found, stopped = followed(graph, value, names)
    if found is None and stopped is not None:
        graph.notes.append(f"{setting} not taken: it is not known what node {stopped[:60] or '?'} brings")
    return found


def _model(graph: Graph, link: object) -> tuple[str | None, str | None, int | None, tuple[str, ...]]:
    visited: set[str] = set()
    loras: list[str] = []
    while (found := graph.node(link)) is not None and found[0] not in visited:
        visited.add(found[0])
        if is_context(found[1]):
            link = carried(graph, found[1], "model")
            continue
        inputs = inputs_of(found[1])
        loras += _loras(inputs)
        for name in ("ckpt_name", "unet_name", "model_name", "base_ckpt_name"):
            value = base_name(plain(graph, inputs.get(name), (name,)))
            if value:
                skip = last_layer(inputs.get("clip_skip"))
                return value, base_name(inputs.get("vae_name")), skip, tuple(loras[:32])
        behind = links(inputs)
        link = inputs.get("model", behind[0] if len(behind) == 1 else None)
    return None, None, None, tuple(loras[:32])


def _clip_skip(graph: Graph, link: object) -> int | None:
    """Return the clip skip of the text encoder behind a conditioning, None where no node sets it."""
    visited: set[str] = set()
    behind = [link]
    for value in behind:
        found = graph.node(value)
        if found is None or found[0] in visited:
            continue
        visited.add(found[0])
        inputs = inputs_of(found[1])
        if "stop_at_clip_layer" in inputs:
            return last_layer(plain(graph, inputs["stop_at_clip_layer"], ("stop_at_clip_layer",)))
        behind += [inputs["clip"]] if "clip" in inputs else links(inputs, *NOT_TEXT)
    return None


def _loras(inputs: Node) -> list[str]:
    rows = [(inputs.get("lora_name"), inputs.get("strength_model", 1.0))]
    for value in inputs.values():
        if isinstance(value, dict) and cast("Node", value).get("on") is True:  # Power Lora Loader
            rows.append((cast("Node", value).get("lora"), cast("Node", value).get("strength", 1.0)))
    named_ = ((base_name(name), real(strength)) for name, strength in rows)
    return [f"{name}:{1.0 if strength is None else strength:g}" for name, strength in named_ if name and strength != 0]
