"""Which sampler made the picture: behind the saved one, and of several the one that adds noise first."""

from __future__ import annotations

import itertools
import re

from fam_ext.metadata.programs.comfyui.graph import Graph, class_of, inputs_of, is_context, links, pipe_of

_MAX_SAMPLERS = 12
_MAX_OUTPUTS, _MAX_BRANCHES = 32, 8
_PICTURES = ("images", "image", "samples", "pixels", "latent", "latent_image", "any", "input")
_LATENTS = ("latent_image", "samples", "latent", "pixels", "image", "images", "optional_latent", "upscaled_image")


def first_samplers(graph: Graph, file: str) -> list[str]:
    """Return the ids of the samplers whose settings may be the picture's: one, where the graph saves one picture or
    the file's name tells which it is. None of them where no sampler made it.
    """
    for word in ("save", "preview"):
        outputs = [name for name, node in graph.nodes.items() if word in class_of(node).casefold()]
        named = [name for name in outputs if _is_named(file, inputs_of(graph.nodes[name]).get("filename_prefix"))]
        found: dict[str, str] = {}
        searched: set[str] = set()
        told = (_behind(graph, output, _PICTURES, searched) for output in named or outputs)
        for sampler in itertools.islice(filter(None, told), _MAX_OUTPUTS):
            if sampler not in found and len(found) < _MAX_BRANCHES:
                found[sampler] = _earliest(graph, sampler)
        if found:
            return [*dict.fromkeys(found.values())]
        if named and any(_behind(graph, output, _PICTURES, searched) for output in outputs):
            return []  # another of the graph's pictures was drawn
    sampler = next((name for name, node in graph.nodes.items() if _is_sampler(node)), None)
    return [] if sampler is None else [_earliest(graph, sampler)]


def _is_named(file: str, prefix: object) -> bool:
    """Return whether ComfyUI gives a node of this prefix the file's name: PREFIX_00001_.png; %date% may be anything."""
    if not isinstance(prefix, str):
        return False
    fixed, filled, _ = re.split(r"[\\/]", prefix)[-1].partition("%")
    if filled:
        return fixed != "" and file.startswith(fixed)
    return re.fullmatch(r"_\d{1,9}_?\.\w{1,5}", file.removeprefix(fixed)) is not None and file.startswith(fixed)


def _earliest(graph: Graph, sampler: str) -> str:
    visited: set[str] = set()
    while sampler not in visited and len(visited) < _MAX_SAMPLERS:
        visited.add(sampler)
        inputs = inputs_of(graph.nodes[sampler])
        latent = [name for name in _LATENTS if isinstance(inputs.get(name), list)]
        earlier = _behind_latent(graph, sampler, latent[0]) if latent else None
        if earlier is None or earlier in visited:
            break
        if inputs_of(graph.nodes[earlier]).get("add_noise") == "disable":
            break
        sampler = earlier
    return sampler


def _is_sampler(node: object) -> bool:
    inputs = inputs_of(node)
    if "guider" in inputs and "sigmas" in inputs:
        return True
    if pipe_of(inputs) is not None and "ksampler" in class_of(node).casefold():
        return True
    if is_context(node):
        return False  # it may hold all that a sampler does
    pair = isinstance(inputs.get("positive"), list)
    return pair and ("steps" in inputs or "sigmas" in inputs or "KSampler" in class_of(node))


def _behind(graph: Graph, start: str, names: tuple[str, ...], searched: set[str] | None = None) -> str | None:
    """Return the id of the nearest sampler behind `start`, through the inputs that hold pictures or latents.

    `searched` holds what earlier searches went through without finding one, and gets what this one did.
    """
    searched = set() if searched is None else searched
    visited = {start}
    queue = [start]
    for current in queue:
        if current != start and _is_sampler(graph.nodes.get(current)):
            return current
        inputs = inputs_of(graph.nodes.get(current))
        behind = [inputs[name] for name in names if isinstance(inputs.get(name), list)]
        for link in behind or links(inputs):
            found = graph.node(link)
            if found is not None and found[0] not in visited and found[0] not in searched:
                visited.add(found[0])
                queue.append(found[0])
    searched |= visited
    return None


def _behind_latent(graph: Graph, sampler: str, name: str) -> str | None:
    found = graph.node(inputs_of(graph.nodes[sampler]).get(name))
    if found is None:
        return None
    return found[0] if _is_sampler(found[1]) else _behind(graph, found[0], _PICTURES)
