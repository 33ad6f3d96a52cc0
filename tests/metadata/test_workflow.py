"""ComfyUI's workflows without a graph: muted and bypassed nodes, wires that are not drawn, subgraphs."""

import json

import pytest

from fam_ext.metadata.pictures import read_header
from tests.metadata.files import NEGATIVE, PROMPT, RIGHT, api, of, png, sampler


def workflow(nodes: list[dict], links: list, **more) -> bytes:
    return png(("workflow", json.dumps({"nodes": nodes, "links": links, **more})))


def slots(**links: int) -> list[dict]:
    kinds = {"positive": "CONDITIONING", "negative": "CONDITIONING", "text": "STRING"}
    return [{"name": name, "link": link, "type": kinds.get(name, name.upper())} for name, link in links.items()]


K_SAMPLER = {"id": 3, "type": "KSampler", "widgets_values": [777, "fixed", 21, 5.5, "euler_ancestral", "normal", 1]}
K_SAMPLER["inputs"] = slots(positive=1, negative=2)
TEXT, AGAINST = ({"id": n, "type": "CLIPTextEncode", "widgets_values": [w]} for n, w in ((6, PROMPT), (7, NEGATIVE)))
PAIR = [[1, 6, 0, 3, 1, "CONDITIONING"], [2, 7, 0, 3, 2, "CONDITIONING"]]


def test_a_muted_node_is_not_there_and_a_bypassed_one_lets_its_first_input_through() -> None:
    muted = {"id": 8, "type": "KSampler", "mode": 2, "widgets_values": [1, "fixed", 2, 3, "euler", "normal", 1]}
    combine = {"id": 9, "type": "ConditioningCombine", "mode": 4, "outputs": [{"type": "CONDITIONING"}]}
    combine["inputs"] = [{"name": f"conditioning_{n}", "link": n + 2, "type": "CONDITIONING"} for n in (1, 2)]
    combine["inputs"].insert(0, {"name": "text", "type": "STRING"})
    links = [[3, 6, 0, 9, 0, "C"], [4, 7, 0, 9, 1, "C"], [1, 9, 0, 3, 1, "C"], PAIR[1]]
    assert of(workflow([muted, K_SAMPLER, TEXT, AGAINST, combine], links)) == RIGHT


def test_a_bypassed_node_of_two_texts_keeps_them_apart() -> None:
    guide = {"id": 9, "type": "LTXVAddGuide", "mode": 4, "inputs": slots(positive=3, negative=4)}
    guide["outputs"] = [{"type": "CONDITIONING"}, {"type": "CONDITIONING"}]
    links = [[3, 6, 0, 9, 0, "C"], [4, 7, 0, 9, 1, "C"], [1, 9, 0, 3, 1, "C"], [2, 9, 1, 3, 2, "C"]]
    assert of(workflow([K_SAMPLER, TEXT, AGAINST, guide], links)) == RIGHT


def test_the_positive_text_is_never_the_negative() -> None:
    found = read_header(png(("prompt", json.dumps(api(n3=sampler(negative=["6", 0])))))).reading
    assert (found.prompt, found.negative) == (PROMPT, "")
    assert "the negative prompt is the positive one" in found.notes[0]


def test_a_workflow_s_wireless_nodes_and_primitives_are_followed() -> None:
    encode = {"id": 6, "type": "CLIPTextEncode", "inputs": slots(text=3), "widgets_values": ["stale"]}
    primitive = {"id": 11, "type": "PrimitiveNode", "widgets_values": [PROMPT, "fixed"]}
    setter = {"id": 10, "type": "SetNode", "inputs": slots(STRING=4), "widgets_values": ["words"]}
    getter = {"id": 12, "type": "GetNode", "widgets_values": ["words"]}
    links = [*PAIR, [3, 12, 0, 6, 0, "STRING"], [4, 11, 0, 10, 0, "STRING"]]
    assert of(workflow([K_SAMPLER, encode, AGAINST, primitive, setter, getter], links)) == RIGHT


def subgraph(**more) -> dict:
    """A sampler with its negative text; the positive comes from outside, a latent goes out."""
    links = [(1, -10, 0, 3, 0), (2, 7, 0, 3, 1), (5, 3, 0, -20, 0)]
    rows = [
        dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot"), row, strict=True)) for row in links
    ]
    return {"id": "a-b-c", "nodes": [K_SAMPLER, AGAINST], "links": rows, **more}


@pytest.mark.parametrize("uses", [1, 2])
def test_a_subgraph_is_read_from_outside_in(uses: int) -> None:
    nodes = [TEXT, {"id": 8, "type": "CLIPTextEncode", "widgets_values": ["another"]}]
    nodes += [{"id": 20 + n, "type": "a-b-c", "inputs": slots(positive=10 + n)} for n in range(uses)]
    nodes += [{"id": 30, "type": "SaveImage", "inputs": slots(images=20)}]
    links = [[10, 6, 0, 20, 0, "C"], [11, 8, 0, 21, 0, "C"], [20, 20, 0, 30, 0, "LATENT"]]
    assert of(workflow(nodes, links, definitions={"subgraphs": [subgraph()]})) == RIGHT


def test_a_subgraph_s_own_widget_and_one_that_holds_itself() -> None:
    encode = {"id": 6, "type": "CLIPTextEncode", "inputs": slots(text=7), "widgets_values": ["stale"]}
    inner = subgraph()
    inner["nodes"] = [K_SAMPLER, AGAINST, encode, {"id": 99, "type": "a-b-c"}]
    inner["links"][0] = {"id": 1, "origin_id": 6, "origin_slot": 0}
    inner["links"].append({"id": 7, "origin_id": -10, "origin_slot": 0})
    outer = {"id": 20, "type": "a-b-c", "widgets_values": [PROMPT]}
    outer["inputs"] = [{"name": "text", "type": "STRING", "widget": {"name": "text"}, "link": None}]
    save = {"id": 30, "type": "SaveImage", "inputs": slots(images=20)}
    assert of(workflow([outer, save], [[20, 20, 0, 30, 0]], definitions={"subgraphs": [inner]})) == RIGHT


def test_a_subgraph_s_promoted_widgets_are_its_instance_s() -> None:
    """The instance lists what is linked; its values are of the other inputs, in the definition's order."""
    links = {"positive": 1, "negative": 2, "seed": 9, "steps": 8, "cfg": 7}
    inner = subgraph(inputs=[{"name": name} for name in links])
    stale = [1, "fixed", 2, 3, "euler_ancestral", "normal", 1]
    inner["nodes"] = [{**K_SAMPLER, "inputs": slots(**links), "widgets_values": stale}]
    inner["links"] = [{"id": n, "origin_id": -10, "origin_slot": at} for at, n in enumerate(links.values())]
    inner["links"].append({"id": 5, "origin_id": 3, "origin_slot": 0, "target_id": -20, "target_slot": 0})
    outer = {"id": 20, "type": "a-b-c", "inputs": slots(positive=10, negative=11), "widgets_values": [777, 21, 5.5]}
    rows = [[10, 6, 0, 20, 0, "C"], [11, 7, 0, 20, 1, "C"], [20, 20, 0, 30, 0, "LATENT"]]
    save = {"id": 30, "type": "SaveImage", "inputs": slots(images=20)}
    assert of(workflow([outer, TEXT, AGAINST, save], rows, definitions={"subgraphs": [inner]})) == RIGHT


def test_a_subgraph_s_input_that_nothing_reaches_keeps_its_widget() -> None:
    inner = subgraph()
    inner["nodes"] = [{**K_SAMPLER, "inputs": [*K_SAMPLER["inputs"], {"name": "seed", "link": 9}]}, AGAINST, TEXT]
    inner["links"][0] = {"id": 1, "origin_id": 6, "origin_slot": 0}
    inner["links"].append({"id": 9, "origin_id": -10, "origin_slot": 0})
    outer = {"id": 20, "type": "a-b-c", "widgets_values": [], "inputs": [{"name": "seed", "widget": {"name": "seed"}}]}
    assert of(workflow([outer], [], definitions={"subgraphs": [inner]})) == RIGHT


def test_what_a_subgraph_does_not_get_is_said() -> None:
    data = workflow([{"id": 20, "type": "a-b-c"}], [], definitions={"subgraphs": [subgraph()]})
    found = read_header(data).reading
    assert (found.prompt, found.negative, found.seed) == (None, NEGATIVE, 777)
    assert "positive prompt not taken" in found.notes[0]
