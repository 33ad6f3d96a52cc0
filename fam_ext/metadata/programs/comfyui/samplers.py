"""Which sampler made the picture: behind the saved one, and of several the one that adds noise first."""

from __future__ import annotations

import re

from fam_ext.metadata.programs.comfyui.graph import Graph, class_of, inputs_of, links, pipe_of

_MAX_SAMPLERS = 12
_PICTURES = ("images", "image", "samples", "pixels", "latent", "latent_image", "any", "input")
_LATENTS = ("latent_image", "samples", "latent", "pixels", "image", "images", "optional_latent", "upscaled_image")


def first_sampler(graph: Graph) -> str | None:
    """Return the id of the sampler whose settings count, None where there is none."""
    outputs = [name for name, node in graph.nodes.items() if re.search("save|preview", class_of(node), re.IGNORECASE)]
    outputs.sort(key=lambda name: "save" not in class_of(graph.nodes[name]).casefold())
    sampler = None
    searched: set[str] = set()
    for output in outputs:
        sampler = _behind(graph, output, _PICTURES, searched)
        if sampler is not None:
            break
    if sampler is None:
        sampler = next((name for name, node in graph.nodes.items() if _is_sampler(node)), None)
    visited: set[str] = set()
    while sampler is not None and sampler not in visited and len(visited) < _MAX_SAMPLERS:
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
    pair = isinstance(inputs.get("positive"), list)
    return pair and ("steps" in inputs or "sigmas" in inputs or "KSampler" in class_of(node))


def _behind(graph: Graph, start: str, names: tuple[str, ...], visited: set[str] | None = None) -> str | None:
    """Return the id of the nearest sampler behind `start`, through the inputs that hold pictures or latents.

    `visited` holds what an earlier search went through without finding one.
    """
    visited = set() if visited is None else visited
    visited.add(start)
    queue = [start]
    for current in queue:
        if current != start and _is_sampler(graph.nodes.get(current)):
            return current
        inputs = inputs_of(graph.nodes.get(current))
        behind = [inputs[name] for name in names if isinstance(inputs.get(name), list)]
        for link in behind or links(inputs):
            found = graph.node(link)
            if found is not None and found[0] not in visited:
                visited.add(found[0])
                queue.append(found[0])
    return None


def _behind_latent(graph: Graph, sampler: str, name: str) -> str | None:
    found = graph.node(inputs_of(graph.nodes[sampler]).get(name))
    if found is None:
        return None
    return found[0] if _is_sampler(found[1]) else _behind(graph, found[0], _PICTURES)
