"""A ComfyUI graph as data: nodes, links, and the plain values behind them. Each place is looked at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

Node = dict[str, Any]
MAX_DEPTH = 200
# what holds another program's nodes: Efficiency, Easy-Use, Impact, tinyterra
_PIPES = ("pipe", "basic_pipe", "base_basic_pipe", "sdxl_tuple", "sdxl_pipe")
# what primitive nodes call their one value; "" is Reroute's input
_PRIMITIVE = ("value", "Value", "int", "float", "Number", "number", "INT", "FLOAT", "string", "String", "")


@dataclass
class Graph:
    """The nodes by id, what was not understood, and the texts that were found so far."""

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


def list_of(value: object) -> list[Any]:
    """Return the value where it is a list, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def links(inputs: Node, *without: str) -> list[object]:
    """Return the inputs that are links."""
    return [value for name, value in inputs.items() if isinstance(value, list) and name not in without]


def class_of(node: object) -> str:
    """Return a node's class, "" for anything that is no node."""
    kind = cast("Node", node).get("class_type") if isinstance(node, dict) else None
    return kind if isinstance(kind, str) else ""


def inputs_of(node: object) -> Node:
    """Return a node's inputs, empty for anything that is no node."""
    inputs = cast("Node", node).get("inputs") if isinstance(node, dict) else None
    return cast("Node", inputs) if isinstance(inputs, dict) else {}


def pipe_of(inputs: Node) -> object:
    """Return the link of a node's pipe, None where it has none."""
    return next((inputs[name] for name in _PIPES if isinstance(inputs.get(name), list)), None)


def piped(graph: Graph, inputs: Node) -> Node:
    """Return a node's inputs with those of the nodes behind its pipe, the nearest first."""
    visited: set[str] = set()
    link = pipe_of(inputs)
    while (found := graph.node(link)) is not None and found[0] not in visited:
        visited.add(found[0])
        behind = inputs_of(found[1])
        inputs, link = {**behind, **inputs}, pipe_of(behind)
    return inputs


def plain(graph: Graph, value: object, names: tuple[str, ...]) -> object:
    """Return a number or word, also where primitive nodes bring it."""
    visited: set[str] = set()
    for _ in range(MAX_DEPTH):
        if not isinstance(value, list):
            return value
        found = graph.node(cast("object", value))
        if found is None or found[0] in visited:
            return None
        visited.add(found[0])
        inputs = inputs_of(found[1])
        name = next((name for name in (*names, *_PRIMITIVE) if name in inputs), None)
        behind = links(inputs)
        value = inputs[name] if name is not None else behind[0] if len(behind) == 1 else None
    return None


def far(graph: Graph, value: object, names: tuple[str, ...]) -> object:
    """Return the first of `names` on the nodes behind a link (a scheduler behind nodes that split its sigmas)."""
    visited: set[str] = set()
    while (found := graph.node(value)) is not None and found[0] not in visited:
        visited.add(found[0])
        inputs = inputs_of(found[1])
        for name in names:
            if name in inputs:
                return plain(graph, inputs[name], names)
        behind = links(inputs, "model")
        value = behind[0] if len(behind) == 1 else None
    return None
