"""Settings of every program's files, each built here from what its writer is known to write; bounded readers."""

import io
import json
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fam_ext.metadata import programs
from fam_ext.metadata.containers import Text, Texts
from fam_ext.metadata.pictures import decode, encode, read_header
from fam_ext.metadata.programs import READERS, read, read_text
from fam_ext.samplers import names
from tests.inputs import drawn
from tests.metadata.files import (
    INFOTEXT,
    LINE,
    NEGATIVE,
    PROMPT,
    RIGHT,
    api,
    comment,
    node,
    of,
    png,
    raw_chunk,
    with_chunks,
)

SWARM = {"sui_image_params": {"prompt": PROMPT, "negativeprompt": NEGATIVE, "seed": 777, "steps": 21, "cfgscale": 5.5}}
SWARM["sui_image_params"] |= {"sampler": "euler_ancestral", "scheduler": "normal", "model": "demo"}
FOOOCUS = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": "777", "steps": 21, "guidance_scale": 5.5}
FOOOCUS |= {"sampler": "euler_ancestral", "scheduler": "karras", "base_model": "demo", "metadata_scheme": "fooocus"}
INVOKE = {"positive_prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 777, "steps": 21, "cfg_scale": 5.5}
INVOKE |= {"scheduler": "euler_a", "model": {"name": "demo"}}
INVOKE_2 = {"prompt": [{"prompt": f"{PROMPT} [{NEGATIVE}]", "weight": 1}], "steps": 21, "cfg_scale": 5.5, "seed": 777}
NOVEL = {"steps": 21, "scale": 5.5, "seed": 777, "sampler": "k_euler_ancestral", "noise_schedule": "native"}
NOVEL_4 = {
    "v4_prompt": {"caption": {"base_caption": "a red barn", "char_captions": [{"char_caption": "evening"}]}},
    "v4_negative_prompt": {"caption": {"base_caption": NEGATIVE, "char_captions": []}},
}
DRAW = {"c": PROMPT, "uc": NEGATIVE, "seed": 777, "steps": 21, "scale": 5.5, "sampler": "Euler A"}
HORDE = {"prompt": f"{PROMPT}###{NEGATIVE}", "params": {"sampler_name": "k_euler_a", "cfg_scale": 5.5, "steps": 21}}
HORDE["params"]["seed"] = "777"
EASY = {"Prompt": PROMPT, "Negative Prompt": NEGATIVE, "Seed": "777", "Steps": "21", "Guidance Scale": "5.5"}
MOCHI = f"Include in Image: {PROMPT}; Exclude from Image: {NEGATIVE}; Model: demo; Steps: 21; Guidance Scale: 5.5; "
MOCHI += "Seed: 777; Size: 64x48; Scheduler: Euler Ancestral; Generator: Mochi Diffusion 4"
TENSOR = {"prompt": PROMPT, "negativePrompt": NEGATIVE, "steps": 21, "cfgScale": 5.5, "seed": "777"}
MATRIX = {"PositivePrompt": PROMPT, "NegativePrompt": NEGATIVE, "Steps": 21, "CfgScale": 5.5, "Seed": 777}
SPACE = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "resolution": "64 x 48", "guidance_scale": 5.5, "seed": 777}
SPACE |= {"num_inference_steps": 21, "sampler": "Euler a", "Model": "demo", "use_upscaler": None}
RUINED = {
    "Prompt": PROMPT,
    "Negative": NEGATIVE,
    "steps": 21,
    "cfg": 5.5,
    "seed": 777,
    "sampler_name": "euler_ancestral",
}
RUINED |= {"scheduler": "karras", "base_model_name": "demo.safetensors", "loras": [], "software": "RuinedFooocus"}
MRE = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "real_prompt": [], "steps": 21, "cfg": 5.5, "seed": 777}
MRE |= {"sampler": "euler_ancestral", "scheduler": "karras", "software": "Fooocus 1.0.51 MRE"}
EASY_NAMES = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": "777", "num_inference_steps": "21"}
EASY_NAMES |= {"guidance_scale": "5.5", "use_stable_diffusion_model": "sd/demo", "sampler_name": "euler_a"}
EASY_NAMES |= {"use_vae_model": "None", "clip_skip": "False", "use_lora_model": "None"}
CIVITAI = {
    "prompt": PROMPT,
    "negativePrompt": NEGATIVE,
    "steps": 21,
    "cfgScale": 5.5,
    "sampler": "Euler a",
    "seed": 777,
}
CIVITAI |= {"workflow": "txt2img", "resources": [{"modelVersionId": 1}], "clipSkip": 2}
FORMS = {
    "SwarmUI": [("parameters", SWARM)],
    "Fooocus": [("parameters", FOOOCUS)],
    "InvokeAI": [("invokeai_metadata", INVOKE)],
    "InvokeAI 2": [("sd-metadata", {"model_weights": "demo", "image": INVOKE_2 | {"sampler": "k_euler_a"}})],
    "InvokeAI 1": [("Dream", f'"{PROMPT} [{NEGATIVE}]" -s21 -S777 -W64 -H48 -C5.5 -A k_euler_a')],
    "NovelAI": [("Software", "NovelAI"), ("Comment", NOVEL | {"prompt": PROMPT, "uc": NEGATIVE})],
    "NovelAI 4": [("Software", "NovelAI"), ("Comment", NOVEL | NOVEL_4 | {"prompt": "other"})],
    "Mochi Diffusion": [("Description", MOCHI)],
    "Easy Diffusion": [*EASY.items(), ("Sampler", "euler_a")],
    "JSON": [("horde", HORDE)],
    "JSON 2": [("anything", TENSOR | {"samplerName": "Euler a"})],
    "JSON 4": [("parameters", SPACE)],
    "Tensor.Art": [("generation_data", TENSOR | {"seed": "-1", "ksamplerName": "euler_ancestral"}), ("prompt", api())],
    "Tensor.Art 2": [("generation_data", json.dumps(TENSOR | {"samplerName": "Euler a"}) + "\0\0")],
    "RuinedFooocus": [("parameters", RUINED)],
    "Fooocus 2": [("Comment", MRE)],
    "InvokeAI 3": [("invokeai_metadata", INVOKE | {"model": {"model_name": "demo"}, "clip_skip": 0})],
    "InvokeAI 4": [("invokeai_graph", {"nodes": {"core": INVOKE | {"type": "core_metadata"}}, "edges": []})],
    "Easy Diffusion 2": list(EASY_NAMES.items()),
    "Civitai": [("prompt", api() | {"extra": {"airs": []}, "extraMetadata": json.dumps(CIVITAI)})],
    "Civitai 2": [("extraMetadata", CIVITAI), ("prompt", {"1": node("SaveImage", images=["2", 0])})],
    "JSON 3": [("parameters-json", MATRIX | {"Sampler": "euler_ancestral"})],
}


@pytest.mark.parametrize("name", FORMS)
def test_programs_with_json(name: str) -> None:
    chunks = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in FORMS[name]]
    data = png(*chunks)
    assert of(data) == RIGHT
    assert read_header(data).reading.program == name.rstrip("0123456789 ")
    assert "sui_image_params" not in (read_header(data).own_text or "")


def test_what_a_program_calls_nothing_is_nothing() -> None:
    found = read_header(png(*EASY_NAMES.items())).reading
    assert (found.vae, found.clip_skip, found.model) == (None, None, "demo")
    assert read_header(png(("parameters", json.dumps(FOOOCUS | {"vae": "Default (model)"})))).reading.vae is None


SWARM_MORE = {"clipstopatlayer": -2, "loras": ["fine", "off"], "loraweights": ["0.5", "0"]}
BESIDE = [
    ("invokeai_metadata", INVOKE | {"clip_skip": 1, "loras": [{"lora": {"model_name": "fine"}, "weight": 0.5}]}),
    ("parameters", {"sui_image_params": SWARM["sui_image_params"] | SWARM_MORE}),
    ("parameters", FOOOCUS | {"clip_skip": 2, "loras": [["fine", 0.5, "4852686128"]]}),
    ("parameters", RUINED | {"clip_skip": 2, "loras": [["4852686128", "0.5 - sub/fine.safetensors"]]}),
    ("Comment", DRAW | {"clip_skip": 2, "lora": [{"model": "fine.ckpt", "weight": 0.5, "mode": "all"}]}),
]


@pytest.mark.parametrize(("key", "values"), BESIDE)
def test_clip_skip_is_the_webui_s_and_loras_beside_the_prompt_are_noted(key: str, values: dict) -> None:
    found = read_header(png((key, json.dumps(values)))).reading
    assert (found.clip_skip, found.loras) == (2, ("fine:0.5",))
    assert found.notes[-1].startswith("LoRAs beside the prompt are not taken: fine:0.5; give")


def test_what_needs_no_note_has_none() -> None:
    named = read_header(png(("parameters", INFOTEXT.replace("barn", "barn <lora:fine:0.5>")))).reading
    unskipped = read_header(png(("invokeai_metadata", json.dumps(INVOKE | {"clip_skip": 0, "loras": []})))).reading
    plain = read_header(png(("parameters", json.dumps(FOOOCUS | {"styles": "[]"})))).reading
    assert (named.notes, unskipped.notes, unskipped.clip_skip, plain.notes) == ((), (), 1, ())
    styled = read_header(png(("parameters", json.dumps(FOOOCUS | {"styles": "['Fooocus V2', 'SAI Anime']"})))).reading
    assert styled.notes == ("the words of its styles are not used: Fooocus V2, SAI Anime",)


def test_a_fork_s_cfgpp_is_guided_and_read_again_the_same() -> None:
    line = LINE.replace("Euler a", "Euler a CFG++").replace("5.5", "1.5")
    for more in ("", ", FAM version: 1, FAM sampler: DDIM CFG++, FAM CFG scale: 18.75"):
        params = read_header(png(("parameters", f"{PROMPT}\n{line}{more}"))).reading.as_infotext().params
        assert (params["Sampler"], params["CFG scale"]) == ("DDIM CFG++", "18.75")
    own = read_header(png(("parameters", INFOTEXT.replace("Euler a", "DDIM CFG++")))).reading
    assert (own.sampler, own.cfg, own.notes) == ("DDIM CFG++", 5.5, ())


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("generation_data", TENSOR | {"seed": "-1", "cfgScale": 1.5, "ksamplerName": "euler_cfg_pp"}),
        ("extraMetadata", CIVITAI | {"seed": -1, "cfgScale": 1.5, "sampler": "euler_cfg_pp"}),
    ],
)
def test_the_graphs_seed_takes_no_other_note_away_and_needs_none(key: str, values: dict) -> None:
    found = read_header(png((key, json.dumps(values)), ("prompt", json.dumps(api())))).reading
    assert (found.seed, found.cfg) == (777, 18.75)
    assert found.notes == ("euler_cfg_pp at CFG 1.5 is read as DDIM CFG++ at CFG scale 18.75",)


def test_a_whole_file_in_one_comment() -> None:
    """Converters to JPEG and WebP keep PNG's texts as one JSON object."""
    for chunks in (
        {"prompt": api(), "workflow": {"nodes": []}},
        {"parameters": INFOTEXT},
        {"prompt": json.dumps(api())},
    ):
        for order in ("utf-16-be", "utf-16-le"):
            assert of(png(exif=comment(b"UNICODE\0" + json.dumps(chunks).encode(order)))) == RIGHT
    upscaled = {"1": node("LoadImage", image="x"), "extra": {}, "extraMetadata": json.dumps(CIVITAI)}
    assert of(png(exif=comment(b"UNICODE\0" + json.dumps(upscaled).encode("utf-16-be")))) == RIGHT


def test_a_saver_s_word_for_no_prompt() -> None:
    text = (
        "unknown\nNegative prompt: unknown\nSteps: 20, Sampler: euler_simple, CFG Scale: 8.0, Seed: 0, Version: ComfyUI"
    )
    assert of(png(("parameters", text), ("prompt", json.dumps(api())))) == RIGHT
    alone = read_header(png(("parameters", text))).reading
    assert (alone.prompt, alone.negative, alone.steps, alone.schedule) == (None, None, 20, "Simple")


@pytest.mark.parametrize(
    ("line", "sampler_name", "schedule", "skip"),
    [
        (
            "Sampler: Euler a, Scheduler: EulerAncestralDiscreteScheduler, App: SD.Next, CLiP-skip: 2",
            "Euler a",
            None,
            2,
        ),
        ("Scheduler: EulerAncestralDiscreteScheduler, App: SD.Next", "Euler a", None, None),
        ("Sampler: DDIM, Sampler sigma: exponential, App: SD.Next", "DDIM", "Exponential", None),
        ("Sampler: DPM++ 2M SDE Karras, Scheduler: karras, Version: Fooocus v2.5.5", "DPM++ 2M SDE", "Karras", None),
        ('Sampler: euler_a discrete, Version: stable-diffusion.cpp, SDCPP: {"a": [1]}', "Euler a", "Normal", None),
        ("Sampler: Euler Ancestral Karras, Model: x", "Euler a", "Karras", None),
        ("Sampler: Default, Version: v1", None, None, None),
        ("Sampler: Creative - Euler a, Model hash: unknown", "Euler a", None, None),
        ("Sampler: Flux - Euler simple, Model hash: unknown", "Euler", "Simple", None),
        ("Sampler: DPM++ 2M - Karras, Model hash: unknown", "DPM++ 2M", "Karras", None),
    ],
)
def test_names_of_the_forks(line: str, sampler_name: str, schedule: str, skip: int) -> None:
    found = read_header(png(("parameters", f"{PROMPT}\nSteps: 20, Size: 64x48, Seed: 7, CFG scale: 6, {line}"))).reading
    assert (found.prompt, found.sampler, found.schedule, found.clip_skip) == (PROMPT, sampler_name, schedule, skip)


@pytest.mark.parametrize(
    ("given_seed", "used", "note"),
    [
        ("42.0", 42, None),
        ("0x2A", 42, None),
        (str(2**64 + 5), 5, "outside 0 to 2^64"),
        ("9" * 60, int("9" * 60) % 2**64, "outside 0 to 2^64"),
        ("-1", None, "drawn at random"),
        ("abc", None, "no whole number"),
    ],
)
def test_seeds_of_every_kind(given_seed: str, used: int | None, note: str | None) -> None:
    found = read_header(png(("parameters", INFOTEXT.replace("777", given_seed)))).reading
    assert found.seed == used
    assert (note is None and found.notes == ()) or note in found.notes[0]


def test_settings_without_any_words() -> None:
    found = read_header(png(("parameters", LINE))).reading
    assert (found.prompt, found.steps) == ("", 21)
    both = png(("parameters", "None"), ("Comment", INFOTEXT))
    assert of(both) == RIGHT
    assert not read_header(png(("parameters", "None"))).reading.prompt


def test_an_invokeai_graph_is_followed_along_its_edges() -> None:
    nodes = {
        "words": {"type": "string", "value": PROMPT},
        "pos": {"type": "sdxl_compel_prompt", "prompt": "", "style": ""},
        "neg": {"type": "compel", "prompt": NEGATIVE},
        "all": {"type": "collect", "item": None},
        "number": {"type": "integer", "value": 777},
        "noise": {"type": "noise", "seed": 0},
        "draw": {"type": "denoise_latents", "steps": 21, "cfg_scale": 5.5, "scheduler": "euler_a", "noise": None},
        "core": {
            "type": "core_metadata",
            "positive_prompt": None,
            "seed": None,
            "steps": 21,
            "model": {"name": "demo"},
        },
    }
    ends = [
        ("words", "pos.prompt"),
        ("pos", "all.item"),
        ("all", "draw.positive_conditioning"),
        ("number", "noise.seed"),
    ]
    ends += [("neg", "draw.negative_conditioning"), ("noise", "draw.noise"), ("words", "core.positive_prompt")]
    edges = [
        {
            "source": {"node_id": start, "field": "any"},
            "destination": dict(zip(("node_id", "field"), end.split("."), strict=True)),
        }
        for start, end in ends
    ]
    for left_out in ("none", "core"):
        graph = {"nodes": {name: node for name, node in nodes.items() if name != left_out}, "edges": edges}
        assert of(png(("invokeai_graph", json.dumps(graph)))) == RIGHT
    edges[0]["source"]["node_id"] = "pos"  # a circle
    assert not read_header(png(("invokeai_graph", json.dumps(graph)))).reading.prompt


def test_a_style_prompt_of_its_own_is_said() -> None:
    found = read_header(png(("invokeai_metadata", json.dumps(INVOKE | {"positive_style_prompt": "comic"})))).reading
    assert found.prompt == PROMPT and "style prompt" in found.notes[0]


@pytest.mark.parametrize(
    ("given", "prompt", "left_out"),
    [
        (
            f"{PROMPT} <segment:face,0.6,0.5//cid=11> detailed face",
            PROMPT,
            "<segment:face,0.6,0.5//cid=11> detailed face",
        ),
        (f"{PROMPT}<refiner//cid=1>fine fur", PROMPT, "<refiner//cid=1>fine fur"),
        (f"{PROMPT} <video> it walks <videoswap> on", PROMPT, "<video> it walks"),
        (
            "a red barn,<region:0,0,1,0.5> a cat <region:end//cid=12> evening <clear:sky>",
            PROMPT,
            "<region:0,0,1,0.5> a cat",
        ),
        ("a red barn, <base> evening <object:0,0,1,1> a dog", PROMPT, "<object:0,0,1,1> a dog"),
        ("a red barn<break>evening", "a red barn BREAK evening", None),
        ("a barn <lora:red:0.5> <3 <based>", "a barn <lora:red:0.5> <3 <based>", None),
    ],
)
@pytest.mark.parametrize("key", ["prompt", "negativeprompt"])
def test_swarmui_s_sections_are_no_words_of_the_main_prompt(given, prompt, left_out, key: str) -> None:
    values = SWARM["sui_image_params"] | {key: given}
    found = read_header(png(("parameters", json.dumps({"sui_image_params": values})))).reading
    assert (found.prompt if key == "prompt" else found.negative) == prompt
    assert (left_out is None and found.notes == ()) or left_out in found.notes[0]


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ("a {red} barn, {{evening}}, [fog]", "a (red:1.05) barn, (evening:1.1025), (fog:0.9524)"),
        ("1.5::a red barn, ::evening, -1::fog::", "(a red barn,:1.5) evening, (fog:-1)"),
        ("{a 2::red:: barn} [{x}]", "(a:1.05) (red:2.1) (barn:1.05) x"),
        ("1.2::red 0.5::barn:: :3, 1::a 2::b::", "(red:1.2) (barn:0.5) :3, a (b:2)"),
        (r"barn (farm), silo \(red\)", r"barn \(farm\), silo \(red\)"),
        (PROMPT, PROMPT),
    ],
)
def test_novelai_s_emphasis_is_written_as_the_webui_s(given: str, prompt: str) -> None:
    rows = ("Software", "NovelAI"), ("Comment", json.dumps(NOVEL | {"prompt": given, "uc": given}))
    found = read_header(png(*rows)).reading
    assert (found.prompt, found.negative, found.notes) == (prompt, prompt, ())


@pytest.mark.parametrize("given", ["a {red barn", "red] barn", "{red] barn}", "a :: barn", "{1.5::red}::", "{" * 9999])
def test_novelai_s_unbalanced_emphasis_stays_with_a_note(given: str) -> None:
    rows = ("Software", "NovelAI"), ("Comment", json.dumps(NOVEL | {"prompt": given, "uc": "fog"}))
    found = read_header(png(*rows)).reading
    assert (found.prompt, found.negative) == (given, "fog")
    assert "not balanced" in found.notes[0]


@pytest.mark.parametrize("given", ["a red++ barn", "(a red barn)1.2", "(red barn)-", '("a", "b").blend(1, 2)'])
def test_invokeai_s_weights_are_said(given: str) -> None:
    found = read_header(png(("invokeai_metadata", json.dumps(INVOKE | {"negative_prompt": given})))).reading
    assert found.negative == given and "InvokeAI's weights" in found.notes[0]
    plain = read_header(png(("invokeai_metadata", json.dumps(INVOKE | {"positive_prompt": "a sci-fi (t-shirt), 1+1"}))))
    assert plain.reading.notes == ()


def test_midjourney_and_breadboard() -> None:
    job = "Job ID: 01234567-89ab-cdef-0123-456789abcdef"
    found = read_header(png(("Description", f"{PROMPT} --ar 3:2 --v 5 {job}"))).reading
    assert (found.program, found.prompt, found.steps) == ("Midjourney", PROMPT, None)
    assert "--ar 3:2 --v 5" in found.notes[0]
    assert read_header(png(("Description", f"{PROMPT} --ar 3:2"))).reading is None
    values = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "steps": 21, "cfg_scale": 5.5, "seed": 777}
    values["sampler"] = "Euler a"
    inner = "".join(f"<xmp:{key}>\n {value}\n</xmp:{key}>" for key, value in values.items())
    assert of(png(("XML:com.adobe.xmp", f"<rdf:Description><xmp:gm>{inner}</xmp:gm></rdf:Description>"))) == RIGHT


@pytest.mark.parametrize("name", ["dc:description", "exif:UserComment"])
def test_xmp_s_forms(name: str) -> None:
    text = INFOTEXT.replace("\n", "&#10;")
    for packet in (
        f"<rdf:Description {name}='{text}' a=''/>",
        f'<rdf:Description {name}="{text}">',
        f"<rdf:Description><{name}><rdf:Alt><rdf:li xml:lang='x-default'>{text}</rdf:li></rdf:Alt></{name}>",
        f"<{name}><![CDATA[{INFOTEXT}]]></{name}>",
    ):
        assert of(png(("XML:com.adobe.xmp", f"<x:xmpmeta>{packet}</x:xmpmeta>"))) == RIGHT
    caption = f"<{name}>A red barn at evening, Holland 2019</{name}>"
    assert read_header(png(("XML:com.adobe.xmp", caption))).reading is None


def test_a_novelai_webp_holds_its_chunks_as_one_object() -> None:
    inner = json.dumps(NOVEL | {"prompt": PROMPT, "uc": NEGATIVE})
    outer = json.dumps({"Comment": inner, "Software": "NovelAI", "Description": PROMPT, "Source": "x"})
    assert of(png(exif=comment(b"UNICODE\x00" + outer.encode("utf-16-be")))) == RIGHT


@pytest.mark.parametrize(
    "raw",
    [
        b"UNICODE\x00" + INFOTEXT.encode("utf-16-le"),
        b"UNICODE\x00" + INFOTEXT.encode("utf-16-be"),
        b"Unicode\x00" + INFOTEXT.encode("utf-16-be"),
        b"UNICODE\x00\xff\xfe" + INFOTEXT.encode("utf-16-le"),
        b"UNICODE\x00" + INFOTEXT.encode() + b"\x00\x00",
        b"ASCII\x00\x00\x00" + INFOTEXT.encode(),
        b"\x00" * 8 + INFOTEXT.encode(),
        b"JIS\x00\x00\x00\x00\x00" + INFOTEXT.encode("shift_jis"),
        INFOTEXT.encode(),
        INFOTEXT.replace("\n", "\r").encode(),
        INFOTEXT.encode("utf-16-le"),
        INFOTEXT.encode("utf-16-be"),
        INFOTEXT.encode("utf-16"),
        INFOTEXT.encode("utf-8-sig"),
        b"ASCII\x00\x00\x00" + INFOTEXT.encode("utf-16-le"),
    ],
)
@pytest.mark.parametrize("target", ["JPEG", "WEBP"])
def test_encodings_of_the_comment(raw: bytes, target: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, target, exif=comment(raw))
    assert of(buffer.getvalue()) == RIGHT


@pytest.mark.parametrize("order", ["le", "be"])
def test_a_comment_without_any_ascii(order: str) -> None:
    words = "銅のやかん、青い棚、朝の光が窓から静かに差し込む"
    data = png(exif=comment(b"UNICODE\x00" + words.encode(f"utf-16-{order}")))
    assert read_header(data).places.get("UserComment") == words


def test_containers_of_one_infotext() -> None:
    text = INFOTEXT.encode()
    packed = b"parameters\x00\x00" + zlib.compress(text)
    jpeg = io.BytesIO()
    Image.new("RGB", (16, 16)).save(jpeg, "JPEG", comment=b"parameters\x00" + text + b"\x00")
    for data in (with_chunks(raw_chunk(b"zTXt", packed)), jpeg.getvalue()):
        assert of(data) == RIGHT
    later = with_chunks(raw_chunk(b"tEXt", b"parameters\x00old words"), raw_chunk(b"tEXt", b"parameters\x00" + text))
    assert of(later) == RIGHT
    assert read_header(with_chunks(raw_chunk(b"tEXt", "parameters\0é 日本".encode()))).infotext == "é 日本"


@pytest.mark.parametrize("name", ["exif", "APP1"])
def test_exif_that_imagemagick_kept_as_digits(name: str) -> None:
    digits = (comment(b"UNICODE\0" + INFOTEXT.encode("utf-16-be"))).hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    assert of(png((f"Raw profile type {name}", f"\n{name}\n{len(digits) // 2:8}\n{lines}\n"))) == RIGHT
    for damaged in ("", "exif", f"\nexif\n 9\n{lines}x"):
        assert read_header(png((f"Raw profile type {name}", damaged + "."))).reading is None


@pytest.mark.parametrize("target", ["JPEG", "WEBP"])
def test_a_comment_in_the_first_table(target: str) -> None:
    """Fooocus and Easy Diffusion let Pillow put it there, as a plain text."""
    for value in (INFOTEXT, json.dumps(FOOOCUS), json.dumps(EASY_NAMES)):
        block = Image.Exif()
        block[0x9286] = value
        block[0x0131] = "Fooocus v2.5.5"
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16)).save(buffer, target, exif=block)
        assert of(buffer.getvalue()) == RIGHT


def test_a_camera_s_comment_and_json_are_never_prompts() -> None:
    assert read_header(png(exif=comment(b"ASCII\x00\x00\x00made with a camera"))).reading is None
    assert read_header(png(("parameters", '{"a": 1}'), ("Comment", "[1, 2]"))).reading is None
    assert read_text('{"prompt": "x"}') is None
    both = png(("parameters", INFOTEXT), exif=comment(b"ASCII\x00\x00\x00Screenshot"))
    assert of(both) == RIGHT


def test_every_chunk_of_the_original_stays_byte_for_byte() -> None:
    chunks = [
        raw_chunk(b"tEXt", b"parameters\x00first"),
        raw_chunk(b"tEXt", b"parameters\x00" + INFOTEXT.encode()),
        raw_chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(b"same", 1)),
        raw_chunk(b"iTXt", b"Titel\x00\x01\x00de\x00T\xc3\xaf\x00" + zlib.compress(b"words", 9)),
        raw_chunk(b"tEXt", b"latin\x00\xe9\xff"),
    ]
    data = with_chunks(*chunks)
    ours = f"{INFOTEXT}, FAM version: 1"
    out = encode(decode(data).image, "PNG", origin=read_header(data), infotext=ours).data
    places = [out.index(chunk) for chunk in chunks]
    assert places == sorted(places)
    assert read_header(out).infotext == ours
    stripped = encode(decode(data).image, "PNG", origin=read_header(data), infotext=ours, strip=True).data
    assert read_header(stripped).texts == ()


KEYS = ["parameters", "prompt", "workflow", "Comment", "UserComment", "invokeai_metadata", "sd-metadata", "Dream"]
KEYS += ["generation_data", "extraMetadata", "invokeai_graph", "Description", "xmp:prompt", "xmp:steps"]
WORDS = ["prompt", "steps", "seed", "nodes", "links", "c", "uc", "sampler", "image", "class_type", "inputs", "positive"]
WORDS += ["definitions", "subgraphs", "type", "widgets_values", "core_metadata", "params", "num_inference_steps"]
WORDS += ["KSampler", "SaveImage", "sui_image_params", "base_model", "v4_prompt", "caption", "guidance_scale", "1"]
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(WORDS))
documents = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=25,
)
values = st.one_of(
    st.text(max_size=200),
    st.text(alphabet='abSteps:, "\\\n|{}[]0123Negative prompt', max_size=200),
    documents.map(json.dumps),
    st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")),
)


@settings(max_examples=drawn(2000), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(KEYS), values), min_size=1, max_size=3))
@example([("parameters", '{"')])
def test_readers_never_fail_and_never_stop(chunks: list[tuple[str, str]]) -> None:
    texts = Texts(Text("PNG", key, value) for key, value in chunks)
    began = time.process_time()
    for _, reader in READERS:
        reader(texts)
    found = read(texts)
    assert time.process_time() - began < 1
    if found is not None:
        found.as_infotext()
        assert found.params or not (found.prompt or "").lstrip().startswith('{"'), "JSON that is cut short is no prompt"
        assert found.seed is None or 0 <= found.seed < 2**64


@pytest.mark.parametrize(
    ("given_name", "schedule", "runs"),
    [
        ("dpmpp_2m", "normal", ("DPM++ 2M", "Normal")),
        ("dpmpp_2m_karras", "", ("DPM++ 2M", "Karras")),
        ("DPM++ 2M Karras", "Automatic", ("DPM++ 2M", "Karras")),
        ("k_euler_ancestral", "native", ("Euler a", "Normal")),
        ("DPMSolverMultistepScheduler", "", ("DPM++ 2M", "Automatic")),
        ("euler_k", "", ("Euler", "Karras")),
        ("DPM++ 2M Trailing", "", ("DPM++ 2M", "SGM Uniform")),
        ("ddim_trailing", "", ("DDIM", "SGM Uniform")),
        ("dpmpp_2m_sde_k", "", ("DPM++ 2M SDE", "Karras")),
        ("sample_dpmpp_2m", "normal", ("DPM++ 2M", "Normal")),
        ("Euler", "GITS", ("Euler", "Uniform")),
        ("iPNDM", "beta", ("DPM++ 2M", "Beta")),
        ("nobody's", "Karras", ("DPM++ 2M", "Karras")),
        ("Euler a CFG++", "Automatic", ("DDIM CFG++", "Automatic")),
        ("ddim_cfgpp", "", ("DDIM CFG++", "Automatic")),
    ],
)
def test_names(given_name: str, schedule: str, runs: tuple[str, str]) -> None:
    sampler_name, schedule_name, notes = names.choose(given_name, schedule)
    assert (sampler_name, schedule_name) == runs
    for note in notes:
        assert "is not offered" in note and "is used" in note


def test_every_reader_is_in_the_list() -> None:
    folder = Path(programs.__file__).parent
    files = {path.stem for path in folder.iterdir() if path.stem not in ("__init__", "__pycache__", "base")}
    assert {reader.__module__.rpartition(".")[2] for _, reader in READERS} == files
