"""The text behind a sampler's positive or negative input.

A node whose effect on a text is not known ends the search with a note: no text is better than a wrong one.
"""

from __future__ import annotations

import re

from fam_ext.metadata.programs.base import own_prompt
from fam_ext.metadata.programs.comfyui.graph import (
    MAX_DEPTH,
    Graph,
    Node,
    carried,
    class_of,
    inputs_of,
    is_context,
    links,
    plain,
)

_MAX_CHARS = 200_000
_MAX_TOGETHER = 5_000_000
"""Characters of all texts that nodes pass on in one file's graph: each costs memory, and is searched."""
_PASSING = ("conditioning", "CONDITIONING", "cond", "conditioning_to", "clip_regions")
_COMBINED = re.compile(r"conditioning_?\d*|conditioning_(to|from)|cond_?\d+")
# what a node writes into a text can't be known from the graph
_CHANGING = re.compile(
    r"translat|replace|regex|random|llm|gpt|ollama|gemini|openai|claude|florence|qwen.{0,4}vl|joy|caption|tagger"
    r"|interrog|generat|llava|vlm|vision|chat|split|substring|trim|case|enhanc|magic|lucky|jinja|onebutton"
    r"|loader from file|loadtext|load text|load line|promptline|easy prompt$|superprompt|expan|upsampl|rewrit"
    r"|shuffle|remove|noodle|\(nsp\)",
    re.IGNORECASE,
)
# these take a text word for word; others may draw from what looks like a template
_WORD_FOR_WORD = re.compile(r"cliptextencode|^primitive|^string|^text|^cr (prompt )?text|^show ?text", re.IGNORECASE)
_STYLED = re.compile(r"styler|styles ?selector", re.IGNORECASE)
# nodes whose outputs do not begin with positive and negative: who follows them knows which text it wants
_BUNDLE = re.compile(r"^eff|pipe|context|ctx|\bbus\b|loader", re.IGNORECASE)
_TEXT_NAMES = (
    *("populated_text", "text", "string", "value", "prompt", "String", "Text", "STRING", "text_positive"),
    *("prompt_text", "caption", "user_prompt", "text_0", "any", "source", "anything", "input"),
)
_JOINED = re.compile(r"(string|text|str|input|prompt|part)_?([a-h]|\d{1,2})", re.IGNORECASE)
_SEVERAL = (("text_g", "text_l"), ("prompt_g", "prompt_l"), ("t5xxl", "clip_g", "clip_l"), ("mt5xl", "bert"))
"""One prompt for several text encoders: the first that says something counts."""
_TEMPLATE = re.compile(r"__[^_\s]|\{[^{}]{0,2000}\|")
_DELIMITERS = {"space": " ", "comma": ", ", "newline": "\n", "none": ""}
NOT_TEXT = ("clip", "model", "vae", "image", "mask", "latent", "control_net", "style_model", "clip_vision_output")


class _StoppedError(Exception):
    """The text can't be followed further; the message names the node."""


def prompt_of(graph: Graph, inputs: Node, name: str, role: str) -> str | None:
    """Return the text behind the input `name`; None, and a note, where it can't be told. `role` is positive or
    negative."""
    if name not in inputs:
        # a sampler of one text has no negative; one of none has its texts elsewhere
        return "" if role == "negative" and not {"positive", "cond1", "conditioning"}.isdisjoint(inputs) else None
    try:
        return own_prompt(_text(graph, inputs[name], role, 0))
    except _StoppedError as stop:
        graph.notes.append(f"{role} prompt not taken: {stop}")
        return None


def _text(graph: Graph, value: object, role: str, depth: int) -> str:
    """Return the text behind a link of conditioning or text; each output is followed once. Raises `_StoppedError`."""
    if isinstance(value, str):
        return _counted(graph, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _counted(graph, f"{value}")
    found = graph.node(value)
    if found is None:
        raise _StoppedError("a link leads nowhere")
    name, node, slot = found
    key = (name, slot, role)
    if key in graph.seen:
        return _counted(graph, graph.seen[key])
    if depth > MAX_DEPTH:
        raise _StoppedError("the graph is too deep")
    graph.seen[key] = ""  # links in a circle end here
    made = _node_text(graph, node, slot, role, depth + 1)
    if len(made) > _MAX_CHARS:
        raise _StoppedError(f"{class_of(node)[:60]} makes a text of more than {_MAX_CHARS} characters")
    graph.seen[key] = made
    return _counted(graph, made)


def _counted(graph: Graph, text: str, times: int = 1) -> str:
    """Return a text whose characters are counted first, as often as it will stand in another. Raises
    `_StoppedError`."""
    graph.characters += times * len(text)
    if graph.characters > _MAX_TOGETHER:
        raise _StoppedError(f"the graph's texts are more than {_MAX_TOGETHER} characters together")
    return text


def _node_text(graph: Graph, node: Node, slot: int, role: str, depth: int) -> str:
    kind, inputs = class_of(node), inputs_of(node)

    def follow(name: str) -> str:
        return _text(graph, inputs[name], role, depth)

    if re.search("zero_?out|negativeconditioningplaceholder", kind, re.IGNORECASE):
        return ""
    if _STYLED.search(kind):
        raise _StoppedError(f"node {kind[:60]} adds a style's words")
    if is_context(node):
        held = carried(graph, node, role)
        if held is None:
            raise _StoppedError(f"node {kind[:60]} holds none")
        return _text(graph, held, role, depth)
    if "positive" in inputs and "negative" in inputs:
        # conditioning comes out as it went in, by slot; a loader with both texts is asked for its role
        both = isinstance(inputs["positive"], list) and isinstance(inputs["negative"], list)
        by_slot = {0: "positive", 1: "negative"}.get(slot, role)
        return follow(by_slot if both and not (_BUNDLE.search(kind) or "ckpt_name" in inputs) else role)
    if "base_positive" in inputs and "base_negative" in inputs:
        return follow(("base_positive", "base_negative")[slot == 1])
    alone = [name for name in ("positive", "negative") if name in inputs]
    if len(alone) == 1 and not links(inputs, alone[0]):
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
    for several in _SEVERAL:
        parts = [follow(name) for name in several if name in inputs and not isinstance(inputs[name], bool)]
        said = next((part for part in parts if part.strip()), None)
        if said is not None:
            return said
        if parts and "text" not in inputs:
            return ""
    chosen = _switch(graph, kind, inputs)
    if chosen is not None:
        return follow(chosen)
    if _CHANGING.search(kind) and "populated_text" not in inputs:
        raise _StoppedError(f"node {kind[:60]} changes the text in a way the file does not tell")
    joined = [name for name in inputs if _JOINED.fullmatch(name) and isinstance(inputs[name], str | list)]
    joined.sort(key=lambda name: (len(name), name))
    if len(joined) > 1 and re.search(r"concat|join|combine|append|merge|string|text", kind, re.IGNORECASE):
        usual = ", " if inputs.get("tidy_tags") == "yes" else " " if "join" in kind.casefold() else ""
        delimiter = inputs.get("delimiter", inputs.get("separator", usual))
        delimiter = plain(graph, delimiter, ("delimiter", "text", "value"))
        delimiter = _DELIMITERS.get(delimiter, delimiter) if isinstance(delimiter, str) else ""
        _counted(graph, delimiter, len(joined))
        parts = [follow(name) for name in joined]
        clean = inputs.get("clean_whitespace") == "true"
        return delimiter.replace("\\n", "\n").join(part.strip() if clean else part for part in parts if part)
    if inputs.get("populated_text") == "" and any(inputs.get(name) for name in ("text", "wildcard_text")):
        raise _StoppedError(f"node {kind[:60]} has not kept the words that it drew")
    for name in _TEXT_NAMES:
        if isinstance(inputs.get(name), str | list) and not (name in ("any", "input") and len(inputs) > 1):
            return _drawn(kind, follow(name), populated=name == "populated_text")
    for name in _PASSING:
        if isinstance(inputs.get(name), list):
            return follow(name)
    behind = [name for name, value in inputs.items() if isinstance(value, list) and name not in NOT_TEXT]
    words = [name for name, value in inputs.items() if isinstance(value, str)]
    if len(behind) == 1 and not words:
        return follow(behind[0])
    raise _StoppedError(f"node {kind[:60] or '?'} is not known")


def _drawn(kind: str, made: str, *, populated: bool) -> str:
    """Return the text unless the node still draws from it. Raises `_StoppedError`."""
    if not populated and _TEMPLATE.search(made) is not None and _WORD_FOR_WORD.search(kind) is None:
        raise _StoppedError(f"node {kind[:60]} draws the words at random")
    return made


_BRANCHES = (("on_true", "on_false"), ("input_true", "input_false"), ("true", "false"), ("text_a", "text_b"))


def _switch(graph: Graph, kind: str, inputs: Node) -> str | None:
    """Return the input that a switch lets through, None when the node is no switch. Raises `_StoppedError`."""
    if not re.search(r"switch|select|if ?else", kind, re.IGNORECASE):
        return None
    for on, off in _BRANCHES:
        if on in inputs or off in inputs:
            state = plain(graph, inputs.get("boolean", inputs.get("switch", inputs.get("value"))), ("value", "boolean"))
            if isinstance(state, bool) and (on if state else off) in inputs:
                return on if state else off
    index = plain(graph, inputs.get("select", inputs.get("Input", inputs.get("index"))), ("value",))
    if isinstance(index, int) and 0 <= index < 1000:
        for pattern in ("input{}", "input_{}", "text{}", "text_{}", "value{}", "conditioning{}", "conditioning_{}"):
            if pattern.format(index) in inputs:
                return pattern.format(index)
    names = [name for name, value in inputs.items() if isinstance(value, list)]
    if "rgthree" in kind and names:
        return min(names)  # Any Switch: the first that is connected
    raise _StoppedError(f"node {kind[:60]} chooses in a way the file does not tell")
