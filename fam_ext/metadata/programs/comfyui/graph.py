"""A ComfyUI graph as data: nodes, links, and the plain values behind them. Each place is looked at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, cast

Node = dict[str, Any]
MAX_DEPTH = 200
_MAX_LOOKS = 1_000_000
"""Nodes and inputs that are looked at for one file: a search follows each link once, but there are many searches."""
# what holds another program's nodes: Efficiency, Easy-Use, Impact, tinyterra
_PIPES = ("pipe", "basic_pipe", "base_basic_pipe", "sdxl_tuple", "sdxl_pipe")
# what primitive nodes call their one value; "" is Reroute's input
_PRIMITIVE = ("value", "Value", "int", "float", "Number", "number", "INT", "FLOAT", "string", "String", "")

# what comes out is not what went in
_CALCULATING = re.compile(r"math|expression|calc|operation|multipl|random ?number|increment", re.IGNORECASE)


@dataclass
class Graph:
    """The nodes by id, what was not understood, the texts that were found so far, and what the search has cost."""

    nodes: Node
    notes: list[str] = field(default_factory=list[str])
    seen: dict[tuple[str, int, str], str] = field(default_factory=dict[tuple[str, int, str], str])
    looks: int = 0
    characters: int = 0

    def node(self, link: object) -> tuple[str, Node, int] | None:
        """Return (id, node, output slot) that a link names. Raises `ValueError` where it is one look too many."""
        if not isinstance(link, list) or len(cast("list[Any]", link)) != 2:
            return None
        name, slot = cast("list[Any]", link)
        if not isinstance(name, str | int) or not isinstance(slot, int):
            return None
        if isinstance(name, int) and abs(name) >= 2**63:  # thousands of digits take a millisecond to write
            return None
        found = self.nodes.get(str(name))
        if not isinstance(found, dict):
            return None
        self.looks += 1 + len(inputs_of(cast("Node", found)))
        if self.looks > _MAX_LOOKS:
            raise ValueError("the graph takes too long to search")
        return str(name), cast("Node", found), slot


def list_of(value: object) -> list[Any]:
    """Return the value where it is a list, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def links(inputs: Node, *without: str) -> list[object]:
    """Return the inputs that are links."""
    return [value for name, value in inputs.items() if isinstance(value, list) and name not in without]


def class_of(node: object) -> str:
    """Return a node's class, which is searched for words often, "" for anything that is no node."""
    kind = cast("Node", node).get("class_type") if isinstance(node, dict) else None
    return kind[:200] if isinstance(kind, str) else ""


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
    merged, link = dict(inputs), pipe_of(inputs)
    while (found := graph.node(link)) is not None and found[0] not in visited:
        visited.add(found[0])
        behind = inputs_of(found[1])
        for name, value in behind.items():
            merged.setdefault(name, value)
        link = pipe_of(behind)
    return merged


def is_context(node: object) -> bool:
    """Return whether a node is one of rgthree's, which pass on what they and the contexts before them were given."""
    kind = class_of(node)
    return "Context" in kind and "rgthree" in kind


def carried(graph: Graph, node: Node, name: str, visited: set[str] | None = None) -> object:
    """Return what a context passes on under a name: its own, else its base's, of merged ones the last's."""
    visited = set() if visited is None else visited
    inputs = inputs_of(node)
    if inputs.get(name) is not None:
        return inputs[name]
    before = sorted(key for key in inputs if key.startswith("ctx_"))
    # a switch takes the first that is there
    before = before[:1] if "Switch" in class_of(node) else before[::-1]
    for key in ("base_ctx", *before):
        found = graph.node(inputs.get(key))
        if found is not None and found[0] not in visited and len(visited) < MAX_DEPTH:
            visited.add(found[0])
            value = carried(graph, found[1], name, visited) if is_context(found[1]) else None
            if value is not None:
                return value
    return None


def plain(graph: Graph, value: object, names: tuple[str, ...]) -> object:
    """Return a number or word, also where primitive nodes bring it."""
    return followed(graph, value, names)[0]


def followed(graph: Graph, value: object, names: tuple[str, ...]) -> tuple[object, str | None]:
    """Return what `plain` does, and where it is None the class of the node that ended the search."""
    visited: set[str] = set()
    kind = ""
    for _ in range(MAX_DEPTH):
        if not isinstance(value, list):
            return value, kind if value is None and visited else None
        found = graph.node(cast("object", value))
        if found is None or found[0] in visited:
            break
        visited.add(found[0])
        kind, inputs = class_of(found[1]), inputs_of(found[1])
        if is_context(found[1]):  # sampler_name comes as "sampler"
            held = (carried(graph, found[1], key) for name in names for key in (name, name.removesuffix("_name")))
            value = next((one for one in held if one is not None), None)
            continue
        if _CALCULATING.search(kind) is not None:
            break
        name = next((name for name in (*names, *_PRIMITIVE) if name in inputs), None)
        behind = links(inputs)
        # one link and nothing else is passed on, by whatever node
        value = inputs[name] if name is not None else behind[0] if len(behind) == len(inputs) == 1 else None
    return None, kind


def far(graph: Graph, value: object, names: tuple[str, ...]) -> object:
    """Return the first of `names` on the nodes behind a link, a link itself where it is one (a scheduler's steps behind
    nodes that split its sigmas)."""
    visited: set[str] = set()
    while (found := graph.node(value)) is not None and found[0] not in visited:
        visited.add(found[0])
        inputs = inputs_of(found[1])
        for name in names:
            if name in inputs:
                return inputs[name]
        behind = links(inputs, "model")
        value = behind[0] if len(behind) == 1 else None
    return None
