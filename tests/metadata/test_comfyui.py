"""ComfyUI's graphs: the right text and numbers, or a note that says which node stopped the search."""

import html
import io
import json

import piexif
import pytest
from PIL import Image

from fam_ext.metadata.pictures import read_header
from tests.metadata.files import NEGATIVE, PROMPT, RIGHT, api, node, of, png, sampler

SAMPLING = {"seed": 777, "steps": 21, "cfg": 5.5, "sampler_name": "euler_ancestral", "scheduler": "normal"}
ADVANCED = {**SAMPLING, "noise_seed": 777, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}
del ADVANCED["seed"]
TWO_OF_TEN = {"string_1": "a red barn", "string_2": "", "string_10": "evening"}
GRAPHS = {
    "by slot": api(
        n3=sampler(positive=["20", 0], negative=["20", 1]),
        n20=node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0]),
    ),
    "a loader with both texts": api(
        n3=sampler(positive=["1", 1], negative=["1", 2]),
        n1=node("Efficient Loader", ckpt_name="demo", positive=PROMPT, negative=NEGATIVE),
    ),
    "passed through": api(n3=sampler(positive=["8", 0]), n8=node("FluxGuidance", guidance=3.5, conditioning=["6", 0])),
    "joined": api(
        n6=node("CLIPTextEncode", text=["9", 0]),
        n9=node("StringConcatenate", string_a="a red barn", string_b=["10", 0], delimiter=", "),
        n10=node("PrimitiveString", value="evening"),
    ),
    "combined": api(
        n3=sampler(positive=["8", 0]),
        n8=node("ConditioningCombine", conditioning_1=["9", 0], conditioning_2=["10", 0]),
        n9=node("CLIPTextEncode", text="a red barn"),
        n10=node("CLIPTextEncode", text="evening"),
    ),
    "wildcards": api(
        n6=node("CLIPTextEncode", text=["9", 0]),
        n9=node("ImpactWildcardProcessor", wildcard_text="a {red|blue} barn", populated_text=PROMPT),
    ),
    "a switch": api(
        n6=node("CLIPTextEncode", text=["9", 0]),
        n9=node("ImpactSwitch", select=2, input1=["7", 0], input2=["10", 0]),
        n10=node("PrimitiveString", value=PROMPT),
    ),
    "promoted": api(n3=sampler(seed=["9", 0]), n9=node("Seed (rgthree)", seed=777)),
    "not a number": api(n9=node("LoadImage", image="x") | {"is_changed": [float("nan")]}),
    "custom sampling": {
        **{key: value for key, value in api().items() if key != "3"},
        "30": node("SamplerCustomAdvanced", **{"noise": ["31", 0], "guider": ["32", 0], "latent_image": ["5", 0]})
        | {
            "inputs": {
                **{"noise": ["31", 0], "guider": ["32", 0], "sampler": ["33", 0]},
                **{"sigmas": ["35", 0], "latent_image": ["5", 0]},
            }
        },
        "31": node("RandomNoise", noise_seed=777),
        "32": node("CFGGuider", cfg=5.5, model=["4", 0], positive=["6", 0], negative=["7", 0]),
        "33": node("KSamplerSelect", sampler_name="euler_ancestral"),
        "34": node("BasicScheduler", scheduler="normal", steps=21, model=["4", 0]),
        "35": node("SplitSigmas", sigmas=["34", 0], step=3),
    },
    "the first of two samplers": api(
        n50=sampler(seed=1, steps=5, positive=["7", 0], latent_image=["51", 0]),
        n51=node("LatentUpscale", samples=["3", 0]),
        n52=node("VAEDecode", samples=["50", 0]),
        n53=node("SaveImage", images=["52", 0]),
    ),
    "a pipe taken apart": api(
        n3=sampler(positive=["8", 3], negative=["8", 4]),
        n8=node("FromBasicPipe", basic_pipe=["9", 0]),
        n9=node("ToBasicPipe", model=["4", 0], positive=["6", 0], negative=["7", 0]),
    ),
    "a context of a context": api(
        n3=sampler(positive=["8", 4], negative=["8", 5]),
        n8=node("Context (rgthree)", base_ctx=["9", 0]),
        n9=node("Context (rgthree)", model=["4", 0], positive=["6", 0], negative=["7", 0]),
    ),
    "contexts that say one thing each": api(
        n3=sampler(positive=["8", 4], negative=["8", 5], seed=["8", 8], model=["8", 1]),
        n8=node("Context (rgthree)", base_ctx=["9", 0], positive=["6", 0]),
        n9=node("Context (rgthree)", base_ctx=["10", 0], model=["4", 0], seed=["11", 0]),
        n10=node("Context (rgthree)", positive=["7", 0], negative=["7", 0], seed=5, clip=["4", 1]),
        n11=node("Seed (rgthree)", seed=777),
    ),
    "contexts that are merged": api(
        n3=sampler(positive=["8", 4], negative=["8", 5], sampler_name=["8", 13], steps=["8", 9], latent_image=["8", 6]),
        n8=node("Context Merge Big (rgthree)", ctx_01=["9", 0], ctx_02=["10", 0], ctx_03=["12", 0]),
        n9=node("Context Big (rgthree)", positive=["7", 0], negative=["7", 0], steps=3, sampler="euler", cfg=1),
        n10=node("Context Big (rgthree)", positive=["6", 0], steps=21, sampler="euler_ancestral", latent=["5", 0]),
        n12=node("Context Switch (rgthree)", ctx_02=["9", 0], ctx_01=["13", 0]),
        n13=node("Context (rgthree)", model=["4", 0]),
    ),
    "a sampler fed by a pipe": api(
        n3=node("easy kSampler", pipe=["8", 0]),
        n8=node("easy preSampling", pipe=["9", 0], **SAMPLING),
        n9=node("easy fullLoader", ckpt_name="demo", positive=["10", 0], negative=["11", 0]),
        n10=node("easy positive", positive=PROMPT),
        n11=node("easy negative", negative=NEGATIVE),
    ),
    "a sampler fed by Impact's pipe": api(
        n3=node("ImpactKSamplerBasicPipe", basic_pipe=["9", 0], **SAMPLING),
        n9=node("ToBasicPipe", model=["4", 0], positive=["6", 0], negative=["7", 0], seed=5),
    ),
    "texts of one node by slot": api(
        n6=node("CLIPTextEncode", text=["9", 0]),
        n9=node("Text String", text=PROMPT, text_b="other", text_c="", text_d=""),
    ),
    "several control nets": api(
        n3=sampler(positive=["20", 0], negative=["20", 1]),
        n20=node("CR Apply Multi-ControlNet", base_positive=["6", 0], base_negative=["7", 0], switch="On"),
    ),
    "a guider of two conditionings, a sampler's own node": {
        **{key: value for key, value in api().items() if key != "3"},
        "30": node("SamplerCustomAdvanced", noise=["31", 0], guider=["32", 0], sampler=["33", 0], sigmas=["34", 0]),
        "31": node("RandomNoise", noise_seed=777),
        "32": node("DualCFGGuider", cfg_conds=5.5, cond1=["6", 0], cond2=["7", 0], negative=["7", 0], model=["4", 0]),
        "33": node("SamplerEulerAncestral", eta=1.0),
        "34": node("KarrasScheduler", steps=21, rho=7.0),
    },
    "of two branches the saved one": api(
        n1=sampler(seed=1, positive=["7", 0]),
        n52=node("VAEDecode", samples=["3", 0]),
        n53=node("SaveImage", images=["52", 0]),
    ),
    "base and refiner": api(
        n3=node("KSamplerAdvanced", **ADVANCED, add_noise="enable", latent_image=["5", 0], end_at_step=17),
        n30=node(
            "KSamplerAdvanced",
            **{**ADVANCED, "noise_seed": 0, "positive": ["7", 0]},
            add_noise="disable",
            latent_image=["3", 0],
        ),
        n52=node("VAEDecode", samples=["30", 0]),
        n53=node("SaveImage", images=["52", 0]),
    ),
    "Efficiency's SDXL tuple": api(
        n3=node("KSampler SDXL (Eff.)", sdxl_tuple=["8", 0], **SAMPLING),
        n8=node("Eff. Loader SDXL", base_ckpt_name="demo", positive=["9", 0], negative=NEGATIVE),
        n9=node("Text Multiline", text=PROMPT),
    ),
    "an encoder with empty texts for others": api(
        n6=node("smZ CLIPTextEncode", text=PROMPT, text_g="", text_l="", with_SDXL=False, clip=["4", 1])
    ),
    "SDXL's encoder": api(n6=node("CLIPTextEncodeSDXL", text_g=PROMPT, text_l="", clip=["4", 1])),
    "SD3's encoder": api(n6=node("CLIPTextEncodeSD3", clip_l="", clip_g=PROMPT, t5xxl="", clip=["4", 1])),
    "a power prompt": api(
        n6=node("Power Prompt (rgthree)", prompt=PROMPT, opt_model=["4", 0], opt_clip=["4", 1], insert_lora="CHOOSE")
    ),
    "parts": api(
        n6=node("CLIPTextEncode", text=["9", 0]),
        n9=node("CR Combine Prompt", part1="a red barn", part2=["10", 0], part3="", separator=", "),
        n10=node("CR Text", text="evening"),
    ),
    "ten parts and a delimiter by link": api(
        n6=node("CLIPTextEncode", text=["9", 0]),
        n9=node("JoinStringMulti", delimiter=["11", 0], **{f"string_{n}": "" for n in range(3, 10)}, **TWO_OF_TEN),
        n11=node("PrimitiveString", value=", "),
    ),
    "a delimiter by name": api(
        n6=node("CLIPTextEncode", text=["9", 0]),
        n9=node("Text Concatenate (JPS)", text1="a red barn", text2="evening", delimiter="comma"),
    ),
    "a wildcard node without wildcards": api(
        n6=node("CLIPTextEncode", text=["9", 0]), n9=node("easy wildcards", text=PROMPT, seed=3)
    ),
    "tags that are tidied": api(
        n6=node("CLIPTextEncode", text=["9", 0]),
        n9=node("StringFunction|pysssss", action="append", tidy_tags="yes", text_a="a red barn", text_b="evening"),
    ),
    "regions that are cut off": api(
        n3=sampler(positive=["8", 0]),
        n8=node("BNK_CutoffRegionsToConditioning", clip_regions=["9", 0], mask_token="", strict_mask=1.0),
        n9=node("BNK_CutoffSetRegions", clip_regions=["10", 0], region_text="red barn", target_text="red", weight=1.0),
        n10=node("BNK_CutoffBasePrompt", text=PROMPT, clip=["4", 1]),
    ),
    "a box of GLIGEN": api(
        n3=sampler(positive=["8", 0]),
        n8=node("GLIGENTextBoxApply", conditioning_to=["6", 0], clip=["4", 1], text="a box", width=64),
    ),
    "a reroute": api(n6=node("CLIPTextEncode", text=["9", 0]), n9=node("Reroute") | {"inputs": {"": ["10", 0]}})
    | {"10": node("String Literal", string=PROMPT)},
    "a node of a subgraph": api(n3=sampler(positive=["57:6", 0])) | {"57:6": node("CLIPTextEncode", text=PROMPT)},
    "a branch by a primitive": api(
        n6=node("CLIPTextEncode", text=["9", 0]),
        n9=node("ComfySwitchNode", switch=["10", 0], on_false=["11", 0], on_true=["12", 0]),
        n10=node("PrimitiveBoolean", value=False),
        n11=node("PrimitiveStringMultiline", value=PROMPT),
        n12=node("TextGenerate", prompt="write a prompt"),
    ),
    "a branch of two texts": api(
        n6=node("CLIPTextEncode", text=["9", 0]), n9=node("Text Input Switch", boolean=True, text_a=PROMPT, text_b="x")
    ),
    "the first names of samplers": api(n3=sampler(sampler_name="sample_euler_ancestral")),
    "a seed in hexadecimal": api(n3=sampler(seed="0x309")),
    "settings from another node": api(
        n3=sampler(steps=["9", 0], cfg=["9", 2], sampler_name=["9", 3], scheduler=["9", 4]),
        n9=node("KSampler Config (rgthree)", steps_total=21, refiner_step=2, **SAMPLING),
    ),
    "a tiled pass over the picture": api(
        n20=node("UltimateSDUpscale", image=["52", 0], positive=["7", 0], negative=["6", 0], seed=1, steps=5),
        n52=node("VAEDecode", samples=["3", 0]),
        n53=node("SaveImage", images=["20", 0]),
    ),
    "wrapped": {"prompt": api(), "workflow": {"nodes": []}},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_comfy_graphs(name: str) -> None:
    assert of(png(("prompt", json.dumps(GRAPHS[name])))) == RIGHT


BRANCHES = api(
    n10=sampler(seed=1, positive=["11", 0]),
    n11=node("CLIPTextEncode", text="a dog"),
    n12=node("VAEDecode", samples=["3", 0]),
    n13=node("VAEDecode", samples=["10", 0]),
    n14=node("SaveImage", filename_prefix="%date:yyyy%/barn", images=["12", 0]),
    n15=node("SaveImage", filename_prefix="dog", images=["13", 0]),
    n16=node("SaveImage", filename_prefix="loaded", images=["17", 0]),
    n17=node("LoadImage", image="x.png"),
)


@pytest.mark.parametrize(
    ("name", "prompt", "seed"),
    [
        ("barn_00001_.png", PROMPT, 777),
        ("dog_00012_.png", "a dog", 1),
        ("dog_hi_00001_.png", None, None),
        ("renamed.png", None, None),
    ],
)
def test_of_several_saved_pictures_the_file_s_name_tells_which_it_is(tmp_path, name, prompt, seed) -> None:
    (tmp_path / name).write_bytes(png(("prompt", json.dumps(BRANCHES))))
    found = read_header(tmp_path / name).reading
    assert (found.prompt, found.seed, found.negative, found.steps) == (prompt, seed, NEGATIVE, 21)
    assert (prompt is None) == ("saves 2 pictures" in " ".join(found.notes))
    assert prompt is not None or "prompt, seed not taken" in found.notes[0]


def test_a_sampler_that_tells_nothing_leaves_no_note_behind(tmp_path) -> None:
    odd = {"class_type": "KSampler", "inputs": {key: ["18", 0] for key in ("seed", "positive", "negative")}}
    graph = {**BRANCHES, "3": odd, "18": node("Mystery")}
    (tmp_path / "renamed.png").write_bytes(png(("prompt", json.dumps(graph))))
    found = read_header(tmp_path / "renamed.png").reading
    assert (found.prompt, found.notes) == ("a dog", ())


def test_a_saved_picture_that_no_sampler_made_has_no_settings(tmp_path) -> None:
    (tmp_path / "loaded_00001_.png").write_bytes(png(("prompt", json.dumps(BRANCHES))))
    assert read_header(tmp_path / "loaded_00001_.png").reading is None


def test_saved_pictures_of_one_prompt_and_a_filled_prefix(tmp_path) -> None:
    graph = {**BRANCHES, "10": sampler(seed=777)}
    assert of(png(("prompt", json.dumps(graph)))) == RIGHT
    graph = {**BRANCHES, "15": node("SaveImage", filename_prefix="dog_%KSampler.seed%", images=["13", 0])}
    (tmp_path / "dog_1_00001_.png").write_bytes(png(("prompt", json.dumps(graph))))
    assert read_header(tmp_path / "dog_1_00001_.png").reading.prompt == "a dog"


def test_a_guider_without_a_negative_has_no_guidance() -> None:
    graph = dict(GRAPHS["custom sampling"]) | {"32": node("BasicGuider", model=["4", 0], conditioning=["6", 0])}
    assert of(png(("prompt", json.dumps(graph)))) == (PROMPT, "", 777, 21, "Euler a", 1.0)


def test_a_comfy_workflow_alone_is_read() -> None:
    kinds = {"text": "CLIPTextEncode"}
    nodes = [
        {
            **{"id": 3, "type": "KSampler", "widgets_values": [777, "fixed", 21, 5.5, "euler_ancestral", "normal", 1]},
            "inputs": [{"name": "positive", "link": 1}, {"name": "negative", "link": 2}, {"name": "model", "link": 3}],
        },
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["demo.safetensors"]},
        {"id": 6, "type": kinds["text"], "inputs": [], "widgets_values": [PROMPT]},
        {"id": 7, "type": kinds["text"], "inputs": [], "widgets_values": [NEGATIVE]},
    ]
    links = [[1, 6, 0, 3, 1, "CONDITIONING"], [2, 7, 0, 3, 2, "CONDITIONING"], [3, 4, 0, 3, 0, "MODEL"]]
    data = png(("workflow", json.dumps({"nodes": nodes, "links": links})))
    assert of(data) == RIGHT
    assert read_header(data).reading.model == "demo"


CHANGED = {
    "TextTranslate": {"text": "ein Haus", "to": "en"},
    "DPRandomGenerator": {"text": "a {red|blue} barn", "seed": 1},
    "Text Find and Replace": {"text": "a barn", "find": "barn", "replace": "house"},
    "SDXLPromptStyler": {"text_positive": "a barn", "text_negative": "", "style": "oil"},
    "easy stylesSelector": {"styles": "fooocus_styles", "positive": "a barn", "negative": ""},
    "Joy_caption": {"image": ["5", 0], "prompt": "describe"},
    "Wildcard Processor": {"prompt": "a {red|blue} barn", "seed": 3},
    "easy wildcards": {"text": "a __colour__ barn", "seed": 3},
    "NobodysNode": {"first": "a", "second": "b"},
    "easy promptLine": {"prompt": "a barn\na house", "start_index": 1, "max_rows": 1},
    "easy prompt": {"text": "a barn", "prefix": "photo of", "subject": "girl"},
    "Text Parse Noodle Soup Prompts": {"text": "a barn", "mode": "Wildcards", "noodle_key": "__"},
    "CLIPTextEncode (NSP)": {"text": "a barn", "mode": "Wildcards", "noodle_key": "__"},
    "Superprompt": {"instruction_prompt": "Expand", "prompt": "a barn"},
    "PromptExpansion": {"text": "a barn", "seed": 3},
    "PromptUpsampler": {"prompt": "a barn"},
    "Somebodys Prompts": {"text": "a {red|blue} barn", "seed": 3},
    "ImpactWildcardProcessor": {"wildcard_text": "a __colour__ barn", "populated_text": "", "mode": "populate"},
}


@pytest.mark.parametrize("kind", CHANGED)
def test_no_text_is_better_than_a_wrong_one(kind: str) -> None:
    graph = api(n6=node("CLIPTextEncode", text=["9", 0]), n9=node(kind, **CHANGED[kind]))
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.prompt, found.negative, found.seed) == (None, NEGATIVE, 777)
    assert kind in found.notes[0]


def test_a_number_never_comes_from_another_setting() -> None:
    graph = api(n3=sampler(cfg=["9", 0]), n9=node("SomebodysSeed", seed=9))
    assert read_header(png(("prompt", json.dumps(graph)))).reading.cfg is None


def test_a_number_that_is_linked_and_not_found_is_said() -> None:
    context = node("Context (rgthree)", model=["4", 0], positive=["6", 0])
    graph = api(n3=sampler(seed=["9", 8], cfg=["10", 0], negative=["9", 5]), n9=context, n10=node("Nobodys", first=1))
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.prompt, found.negative, found.seed, found.cfg) == (PROMPT, None, None, None)
    assert "seed not taken: it is not known what node Context (rgthree) brings" in found.notes
    assert "cfg not taken: it is not known what node Nobodys brings" in found.notes
    assert "negative prompt not taken: node Context (rgthree) holds none" in found.notes


def test_a_switch_passes_on_its_first_context() -> None:
    graph = api(n3=sampler(seed=["8", 8], positive=["8", 4]))
    graph |= {"8": node("Context Switch (rgthree)", ctx_02=["10", 0], ctx_01=["9", 0])}
    graph |= {"9": node("Context (rgthree)", positive=["6", 0], seed=5)}
    graph |= {"10": node("Context (rgthree)", positive=["7", 0], seed=6)}
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.prompt, found.seed) == (PROMPT, 5)


def test_contexts_in_a_circle_hold_nothing() -> None:
    graph = api(n3=sampler(positive=["8", 4], seed=["8", 8]))
    graph |= {"8": node("Context Merge (rgthree)", ctx_01=["9", 0], ctx_02=["8", 0])}
    graph |= {"9": node("Context (rgthree)", base_ctx=["8", 0])}
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.prompt, found.seed, len(found.notes)) == (None, None, 2)


CALCULATED = {
    "MathExpression|pysssss": {"expression": "a/2", "a": ["10", 0]},
    "ComfyMathExpression": {"expression": "a/2", "values.a": ["10", 0]},
    "SimpleMath+": {"value": "a/2", "a": ["10", 0]},
    "easy mathInt": {"a": ["10", 0], "b": 10, "operation": "add"},
    "CR Integer Multiple": {"integer": ["10", 0], "multiple": 2},
    "Half of it": {"any": ["10", 0], "times": 0.5},
    "Number Operation": {"number": ["10", 0], "by": 2},
}


@pytest.mark.parametrize("kind", CALCULATED)
def test_a_number_that_a_node_calculates_is_not_taken(kind: str) -> None:
    graph = api(n3=sampler(steps=["9", 0]), n9=node(kind, **CALCULATED[kind]), n10=node("PrimitiveInt", value=50))
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.prompt, found.steps) == (PROMPT, None)
    assert f"node {kind}" in found.notes[0]


def test_steps_that_a_scheduler_is_given_by_a_calculation_are_not_taken() -> None:
    scheduler = node("BasicScheduler", scheduler="normal", steps=["36", 0], model=["4", 0])
    graph = dict(GRAPHS["custom sampling"]) | {"34": scheduler, "36": node("easy mathInt", a=20, b=1, operation="add")}
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.prompt, found.steps, found.schedule) == (PROMPT, None, "Normal")
    assert "steps not taken: it is not known what node easy mathInt brings" in found.notes


@pytest.mark.parametrize("kind", ["CLIPTextEncode", "CLIPTextEncodeSDXL", "PrimitiveStringMultiline"])
def test_a_text_that_only_looks_like_a_template_is_taken(kind: str) -> None:
    graph = api(n6=node("CLIPTextEncode", text=["9", 0]), n9=node(kind, text="a __sign__ {a|b}"))
    assert read_header(png(("prompt", json.dumps(graph)))).reading.prompt == "a __sign__ {a|b}"


def test_a_sampler_that_tells_nothing_is_none_and_a_placeholder_is_empty() -> None:
    hidden = {"1": node("TwoSamplersKSampler", basic_pipe=["9", 0], base_sampler=["2", 0])}
    assert read_header(png(("prompt", json.dumps(hidden)))).reading is None
    graph = api(n7=node("ImpactNegativeConditioningPlaceholder"))
    assert read_header(png(("prompt", json.dumps(graph)))).reading.negative == ""


def test_loras_of_the_chain() -> None:
    graph = api(
        n3=sampler(model=["8", 0]),
        n8=node("LoraLoader", lora_name="a\\fine.safetensors", strength_model=0.5, model=["9", 0]),
        n9=node("Power Lora Loader (rgthree)", lora_1={"on": True, "lora": "x.pt", "strength": 1}, model=["4", 0])
        | {
            "inputs": {
                "lora_1": {"on": True, "lora": "x.pt", "strength": 1},
                "lora_2": {"on": False},
                "model": ["4", 0],
            }
        },
    )
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.loras, found.model) == (("fine:0.5", "x:1"), "demo")


def test_the_clip_skip_of_the_text_encoder() -> None:
    graph = api(
        n3=sampler(positive=["8", 0]),
        n8=node("FluxGuidance", conditioning=["6", 0]),
        n6=node("CLIPTextEncode", text=PROMPT, clip=["9", 1]),
        n9=node("LoraLoader", lora_name="x", strength_model=0, model=["4", 0], clip=["10", 0]),
        n10=node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["4", 1]),
    )
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.clip_skip, found.loras, found.notes) == (2, (), ())
    assert read_header(png(("prompt", json.dumps(api())))).reading.clip_skip is None
    graph["10"]["inputs"]["stop_at_clip_layer"] = 0  # none
    assert read_header(png(("prompt", json.dumps(graph)))).reading.clip_skip is None


def test_the_guidance_of_cfgpp_is_not_the_webui_s() -> None:
    graph = api(n3=sampler(sampler_name="dpmpp_2m_cfg_pp", cfg=1.2))
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.sampler, found.cfg) == ("DDIM CFG++", 15)
    assert found.notes == ("dpmpp_2m_cfg_pp at CFG 1.2 is read as DDIM CFG++ at CFG scale 15",)
    most = api(n3=sampler(sampler_name="dpmpp_2m_cfg_pp", cfg=7))
    assert read_header(png(("prompt", json.dumps(most)))).reading.cfg == 30  # the most that can be asked for


def test_a_zeroed_negative_is_empty_and_never_the_prompt() -> None:
    graph = api(n3=sampler(negative=["8", 0]), n8=node("ConditioningZeroOut", conditioning=["6", 0]))
    assert read_header(png(("prompt", json.dumps(graph)))).reading.negative == ""


def test_what_stops_one_picture_s_text_stops_the_next_one_s() -> None:
    lost = {name: {**each, "inputs": dict(each["inputs"])} for name, each in BRANCHES.items()}
    lost["6"]["inputs"]["text"] = ["99", 0]
    for each in lost.values():
        each["inputs"] |= {"positive": ["6", 0]} if "positive" in each["inputs"] else {}
    notes = read_header(png(("prompt", json.dumps(lost)))).reading.notes
    assert "which this is: seed not taken" in notes[0] and len(notes) == 2, "neither has a prompt"


def test_a_comfy_webp_holds_its_graph_in_exif() -> None:
    tags = {piexif.ImageIFD.Model: b"prompt:" + json.dumps(api()).encode(), piexif.ImageIFD.Make: b"workflow:{}"}
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "WEBP", exif=piexif.dump({"0th": tags}))
    assert of(buffer.getvalue()) == RIGHT


def test_a_comfy_webp_of_a_saver_has_capitals_and_spaces() -> None:
    tags = {piexif.ImageIFD.Make: b"Prompt: " + json.dumps(api()).encode()}
    tags[piexif.ImageIFD.ImageDescription] = b'Workflow: {"nodes": []}'
    data = png(exif=piexif.dump({"0th": tags}))
    assert of(data) == RIGHT
    assert read_header(data).places.json("workflow") == {"nodes": []}


def test_a_graph_in_xmp() -> None:
    packet = f"<rdf:Description xmlns:comfy='x'><comfy:prompt>{html.escape(json.dumps(api()))}</comfy:prompt>"
    assert of(png(("XML:com.adobe.xmp", packet))) == RIGHT
