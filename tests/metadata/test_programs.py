"""Settings of every program's files, each built here from what its writer is known to write; bounded readers."""

import io
import json
import resource
import struct
import time
import zlib

import piexif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from fam_ext.metadata.containers import Text, Texts
from fam_ext.metadata.pictures import decode, encode, read_header
from fam_ext.metadata.programs import READERS, read, read_text
from fam_ext.samplers import names

PROMPT, NEGATIVE = "a red barn, evening", "fog, letters"
LINE = "Steps: 21, Sampler: Euler a, CFG scale: 5.5, Seed: 777, Size: 64x48"
INFOTEXT = f"{PROMPT}\nNegative prompt: {NEGATIVE}\n{LINE}"


def png(*chunks: tuple[str, str], exif: bytes | None = None) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in chunks:
        info.add_itxt(key, value) if not value.isascii() else info.add_text(key, value)
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG", pnginfo=info, **({"exif": exif} if exif else {}))
    return buffer.getvalue()


def raw_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(*chunks: bytes) -> bytes:
    base = png()
    return base[:33] + b"".join(chunks) + base[33:]


def comment(raw: bytes) -> bytes:
    return piexif.dump({"Exif": {piexif.ExifIFD.UserComment: raw}})


def api(**nodes) -> dict:
    graph = {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                **{"seed": 777, "steps": 21, "cfg": 5.5, "sampler_name": "euler_ancestral", "scheduler": "normal"},
                **{"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]},
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sub\\demo.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": NEGATIVE, "clip": ["4", 1]}},
    }
    return graph | {key.lstrip("n"): value for key, value in nodes.items()}


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def sampler(**inputs) -> dict:
    return node("KSampler", **{**api()["3"]["inputs"], **inputs})


SAMPLING = {"seed": 777, "steps": 21, "cfg": 5.5, "sampler_name": "euler_ancestral", "scheduler": "normal"}
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
    "a sampler fed by a pipe": api(
        n3=node("easy kSampler", pipe=["8", 0]),
        n8=node("easy preSampling", pipe=["9", 0], **SAMPLING),
        n9=node("easy fullLoader", ckpt_name="demo", positive=["10", 0], negative=["11", 0]),
        n10=node("easy positive", positive=PROMPT),
        n11=node("easy negative", negative=NEGATIVE),
    ),
    "a sampler fed by Impact's pipe": api(
        n3=node("ImpactKSamplerBasicPipe", basic_pipe=["9", 0], **SAMPLING),
        n9=node("ToBasicPipe", model=["4", 0], positive=["6", 0], negative=["7", 0]),
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
}


def of(data: bytes):
    found = read_header(data).reading
    assert found is not None
    return found.prompt, found.negative, found.seed, found.steps, found.sampler, found.cfg


RIGHT = (PROMPT, NEGATIVE, 777, 21, "Euler a", 5.5)


@pytest.mark.parametrize("name", GRAPHS)
def test_comfy_graphs(name: str) -> None:
    assert of(png(("prompt", json.dumps(GRAPHS[name])))) == RIGHT


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


def test_no_text_is_better_than_a_wrong_one() -> None:
    graph = api(n6=node("CLIPTextEncode", text=["9", 0]), n9=node("TextTranslate", text="ein Haus", to="en"))
    found = read_header(png(("prompt", json.dumps(graph)))).reading
    assert (found.prompt, found.negative, found.seed) == (None, NEGATIVE, 777)
    assert "TextTranslate" in found.notes[0]


def test_a_zeroed_negative_is_empty_and_never_the_prompt() -> None:
    graph = api(n3=sampler(negative=["8", 0]), n8=node("ConditioningZeroOut", conditioning=["6", 0]))
    assert read_header(png(("prompt", json.dumps(graph)))).reading.negative == ""


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
    "JSON 2": [("generation_data", TENSOR | {"samplerName": "Euler a"})],
    "JSON 3": [("parameters-json", MATRIX | {"Sampler": "euler_ancestral"})],
}


@pytest.mark.parametrize("name", FORMS)
def test_programs_with_json(name: str) -> None:
    chunks = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in FORMS[name]]
    data = png(*chunks)
    assert of(data) == RIGHT
    assert read_header(data).reading.program == name.rstrip("0123456789 ")
    assert "sui_image_params" not in (read_header(data).own_text or "")


def test_a_novelai_webp_holds_its_chunks_as_one_object() -> None:
    inner = json.dumps(NOVEL | {"prompt": PROMPT, "uc": NEGATIVE})
    outer = json.dumps({"Comment": inner, "Software": "NovelAI", "Description": PROMPT, "Source": "x"})
    assert of(png(exif=comment(b"UNICODE\x00" + outer.encode("utf-16-be")))) == RIGHT


@pytest.mark.parametrize("uses", [1, 2])
def test_a_subgraph_is_read_where_it_stands_once(uses: int) -> None:
    nodes = [
        {"id": 3, "type": "KSampler", "widgets_values": [777, "fixed", 21, 5.5, "euler_ancestral", "normal", 1]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": [PROMPT]},
    ]
    nodes[0]["inputs"] = [{"name": "positive", "link": 1}, {"name": "negative", "link": 2}]
    links = [{"id": number + 1, "origin_id": origin, "origin_slot": 0} for number, origin in enumerate((6, -10))]
    outer = [{"id": 20 + number, "type": "a-b-c"} for number in range(uses)]
    inner = {"subgraphs": [{"id": "a-b-c", "nodes": nodes, "links": links}]}
    found = read_header(png(("workflow", json.dumps({"nodes": outer, "definitions": inner})))).reading
    if uses == 2:
        assert found is None
        return
    assert (found.prompt, found.negative, found.seed) == (PROMPT, None, 777)
    assert "negative prompt not taken" in found.notes[0]


@pytest.mark.parametrize(
    "raw",
    [
        b"UNICODE\x00" + INFOTEXT.encode("utf-16-le"),
        b"UNICODE\x00" + INFOTEXT.encode("utf-16-be"),
        b"Unicode\x00" + INFOTEXT.encode("utf-16-be"),
        b"UNICODE\x00\xff\xfe" + INFOTEXT.encode("utf-16-le"),
        b"UNICODE\x00" + INFOTEXT.encode() + b"\x00\x00",
        b"ASCII\x00\x00\x00" + INFOTEXT.encode(),
        INFOTEXT.encode(),
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


def test_a_comfy_webp_holds_its_graph_in_exif() -> None:
    tags = {piexif.ImageIFD.Model: b"prompt:" + json.dumps(api()).encode(), piexif.ImageIFD.Make: b"workflow:{}"}
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "WEBP", exif=piexif.dump({"0th": tags}))
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


def test_texts_over_pillow_s_limit_decode_and_bombs_are_refused() -> None:
    data = with_chunks(raw_chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(b"a" * (3 << 20))))
    assert decode(data).image.size == (16, 16)
    bomb = zlib.compress(b"\x00" * (200 << 20))
    many = [raw_chunk(b"zTXt", b"A\x00\x00" + bomb), raw_chunk(b"iCCP", b"A\x00\x00" + bomb)]
    many += [raw_chunk(b"iTXt", b"A\x00\x01\x00\x00\x00" + bomb)] * 20
    file = with_chunks(*many)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_header(file).texts == ()
    decode(file)
    assert time.process_time() - began < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def branching(levels: int, kind: str) -> str:
    graph = api(n6=node("CLIPTextEncode", text=["100", 0]))
    for level in range(100, 100 + levels):
        link = [str(level + 1), 0]
        names_ = ("string_a", "string_b") if kind == "StringConcatenate" else ("conditioning_1", "conditioning_2")
        graph[str(level)] = node(kind, **dict.fromkeys(names_, link))
    graph[str(100 + levels)] = node("CLIPTextEncode", text="ab")
    return json.dumps(graph)


SHAPES = {
    "equal characters": ("parameters", "a" * 8_000_000 + "\n" + LINE),
    "open quotes": ("parameters", 'Key: "' * 1_000_000),
    "deep": ("prompt", "[" * 8_000_000),
    "deep objects": ("prompt", '{"a":' * 1_000_000 + "1" + "}" * 1_000_000),
    "branching links": ("prompt", branching(64, "ConditioningCombine")),
    "branching texts": ("prompt", branching(64, "StringConcatenate")),
    "a circle": ("prompt", json.dumps(api(n6=node("CLIPTextEncode", text=["6", 0])))),
    "many nodes": ("prompt", json.dumps({str(n): node("SaveImage", images=[str(n + 1), 0]) for n in range(9_000)})),
    "many samplers": (
        "prompt",
        json.dumps({str(n): sampler(latent_image=[str(n + 1), 0], a=[str(n + 2), 0]) for n in range(9_000)}),
    ),
    "long chain": ("prompt", json.dumps(api(**{f"n{n}": node("X", text=[str(n + 1), 0]) for n in range(6, 8000)}))),
    "dashes": ("Dream", '"' + "[" * 1_000_000 + '"' + " -s" * 1_000_000),
    "negatives": ("parameters", "Negative prompt:" * 300_000),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader[0])
def test_shapes_that_stopped_readers(reader, name: str) -> None:
    key, value = SHAPES[name]
    began = time.process_time()
    reader[1](Texts([Text("PNG", key, value)]))
    assert time.process_time() - began < 1


KEYS = ["parameters", "prompt", "workflow", "Comment", "UserComment", "invokeai_metadata", "sd-metadata", "Dream"]
WORDS = ["prompt", "steps", "seed", "nodes", "links", "c", "uc", "sampler", "image", "class_type", "inputs", "positive"]
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


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(KEYS), values), min_size=1, max_size=3))
def test_readers_never_fail_and_never_stop(chunks: list[tuple[str, str]]) -> None:
    texts = Texts(Text("PNG", key, value) for key, value in chunks)
    began = time.process_time()
    for _, reader in READERS:
        reader(texts)
    found = read(texts)
    assert time.process_time() - began < 1
    if found is not None:
        found.as_infotext()
        assert not (found.prompt or "").lstrip().startswith('{"')
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
        ("Euler", "Beta", ("Euler", "Uniform")),
        ("nobody's", "Karras", ("DPM++ 2M", "Karras")),
    ],
)
def test_names(given_name: str, schedule: str, runs: tuple[str, str]) -> None:
    sampler_name, schedule_name, notes = names.choose(given_name, schedule)
    assert (sampler_name, schedule_name) == runs
    for note in notes:
        assert "is not offered" in note and "is used" in note


def test_the_table_is_the_host_s() -> None:
    from fam_ext.hosts import diffusers_samplers as host

    assert {name: row[2] for name, row in host.SCHEDULERS.items()} == dict(names.OFFERED)
    assert set(host.SCHEDULES) == set(names.OFFERED_SCHEDULES) - {"Automatic"}
    for name in names.OFFERED:
        for plan in names.OFFERED_SCHEDULES:
            host.split_name(name, plan)
