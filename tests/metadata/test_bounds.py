"""What a stranger's file may cost: under a second and 200 MB for 8 MB, whatever its shape."""

import io
import json
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import piexif
import pytest
from PIL import Image

from fam_ext.errors import PictureError
from fam_ext.metadata import programs
from fam_ext.metadata.containers import Text, Texts
from fam_ext.metadata.guard import strict_pillow
from fam_ext.metadata.pictures import decode, encode, read_header
from fam_ext.metadata.programs import READERS, comfyui
from tests.metadata.files import LINE, api, node, raw_chunk, sampler, with_chunks

SIZE = 8_000_000
JSON = 4_000_000


def branching(levels: int, kind: str) -> str:
    graph = api(n6=node("CLIPTextEncode", text=["100", 0]))
    for level in range(100, 100 + levels):
        link = [str(level + 1), 0]
        names_ = ("string_a", "string_b") if kind == "StringConcatenate" else ("conditioning_1", "conditioning_2")
        graph[str(level)] = node(kind, **dict.fromkeys(names_, link))
    graph[str(100 + levels)] = node("CLIPTextEncode", text="ab")
    return json.dumps(graph)


def instances(subgraph: dict, number: int, name: object = 1) -> str:
    nodes = [{"id": name, "type": "A"}] * number
    return json.dumps({"nodes": nodes, "links": [], "definitions": {"subgraphs": [subgraph]}})


CONTEXT = "Context (rgthree)"
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
    "many saved": (
        "prompt",
        json.dumps(
            {str(n): node("SaveImage", images=["4500", 0]) for n in range(4_500)}
            | {str(n): node("VAEDecode", samples=[str(n + 1), 0]) for n in range(4_500, 9_000)}
            | api(n9000=sampler())
        ),
    ),
    "long chain": ("prompt", json.dumps(api(**{f"n{n}": node("X", text=[str(n + 1), 0]) for n in range(6, 8000)}))),
    "brackets of NovelAI": (
        "Comment",
        '{"uc": "", "sampler": "", "request_type": "", "prompt": "' + "{}" * 400_000 + '"}',
    ),
    "tags of SwarmUI": (
        "parameters",
        '{"sui_image_params": {"prompt": "' + "<base:" * 200_000 + "<break>" * 90_000 + '"}}',
    ),
    "dashes": ("Dream", '"' + "[" * 1_000_000 + '"' + " -s" * 1_000_000),
    "negatives": ("parameters", "Negative prompt:" * 300_000),
}
REPEATED = {
    "a chain of pipes": (
        "prompt",
        json.dumps(
            {str(n): node("x", pipe=[str(n + 1), 0], **{f"k{n}_{k}": 1 for k in range(30)}) for n in range(2000)}
            | {"s": node("ksampler", pipe=["0", 0], steps=1)}
        ),
    ),
    "contexts again and again": (
        "prompt",
        json.dumps(
            {f"d{n}": node(CONTEXT, base_ctx=[f"d{n + 1}", 0], **{str(k): 1 for k in range(200)}) for n in range(199)}
            | {f"n{n}": node(CONTEXT, base_ctx=["d1", 0], ctx_01=["h", 0]) for n in range(1000)}
            | {"c": node("ConditioningCombine", **{f"conditioning_{n}": [f"n{n}", 0] for n in range(1000)})}
            | api(n3=sampler(positive=["c", 0]), nh=node(CONTEXT, positive=["6", 0]))
        ),
    ),
    "one long class": (
        "prompt",
        json.dumps(
            {f"n{n}": node("Text Concatenate", text_a="x", text_b="y", delimiter=["d", 0]) for n in range(500)}
            | {"c": node("ConditioningCombine", **{f"conditioning_{n}": [f"n{n}", 0] for n in range(500)})}
            | api(n3=sampler(positive=["c", 0]), nd=node("X" * 500_000, value=1))
        ),
    ),
    "instances of a subgraph": ("workflow", instances({"id": "A", "inputs": [{"name": "a"}] * 50_000}, 500)),
    "an id of 1 MB": ("workflow", instances({"id": "A", "nodes": [{"id": 1}] * 9000}, 1, name="i" * 1_000_000)),
    "bypassed": (
        "workflow",
        json.dumps({"nodes": [{"id": 1, "type": "A", "mode": 4, "inputs": [{}] * 5000, "outputs": [0] * 5000}]}),
    ),
    "lines above a long one": (
        "parameters",
        "Width: 1\n" * 2000 + LINE + "".join(f", k{n}: 1" for n in range(20_000)),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader[0])
def test_shapes_that_stopped_readers(reader, name: str) -> None:
    key, value = SHAPES[name]
    began = time.process_time()
    reader[1](Texts([Text("PNG", key, value)]))
    assert time.process_time() - began < 3


@pytest.mark.parametrize("name", REPEATED)
def test_what_stands_once_and_is_looked_at_often_costs_no_more(name: str) -> None:
    texts = Texts([Text("PNG", *REPEATED[name])])
    began = time.process_time()
    programs.read(texts)
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    "texts",
    [
        {f"text_{n:02}": "a" for n in range(100)} | {"delimiter": "x" * 100_000},
        {f"text_{n:02}": [f"n{n}", 0] for n in range(60)},
    ],
    ids=["delimiter", "many long ones"],
)
def test_texts_of_a_graph_are_counted_before_they_are_joined_and_kept(texts: dict) -> None:
    long = {f"n{n}": node("Text Concatenate", text_a=["b", 0], text_b=f"{n}") for n in range(60)}
    graph = long | api(n6=node("Text Concatenate", **texts), nb=node("CLIPTextEncode", text="x" * 199_000))
    found = comfyui.read(Texts([Text("PNG", "prompt", json.dumps(graph))]))
    assert found is not None and found.seed == 777 and found.prompt is None
    assert "positive prompt not taken: the graph's texts are more than 5000000 characters together" in found.notes


def test_damaged_texts_cost_what_they_were_inflated_to(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(zlib, "decompressobj", lambda real=zlib.decompressobj: made.append(1) or real())
    damaged = zlib.compress(b"a" * SIZE)[:-4] + b"abcd"
    header = read_header(with_chunks(*[raw_chunk(b"zTXt", b"k\0\0" + damaged)] * 100))
    assert header.unread == 100 and len(made) < 5


def text(key: bytes, value: bytes) -> bytes:
    return raw_chunk(b"tEXt", key + b"\0" + value)


def xmp(value: bytes) -> bytes:
    return raw_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + value)


def picture(target: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, target, **options)
    return buffer.getvalue()


def table(entries: int, size: int) -> bytes:
    """An EXIF or TIFF table whose every entry is one and the same value."""
    rows = b"".join(struct.pack("<HHII", 0x1000 + n, 2, size, 14 + 12 * entries) for n in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + rows + struct.pack("<I", 0) + b"a" * size


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    base = picture("JPEG")
    made = (b"\xff" + bytes([kind]) + struct.pack(">H", len(data) + 2) + data for kind, data in segments)
    return base[:2] + b"".join(made) + base[2:]


def webp(block: bytes, packet: bytes) -> bytes:
    header = b"VP8X" + struct.pack("<IB3x", 10, 12) + (struct.pack("<I", 15)[:3]) * 2
    chunks = ((b"EXIF", block), (b"XMP ", packet))
    made = (kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    inner = b"WEBP" + header + picture("WEBP")[12:] + b"".join(made)
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


def tiff(*, entries: int = 0, size: int = 0, frames: int = 0) -> bytes:
    """A TIFF with entries that share one value, or with more tables, one a frame."""
    data = bytearray(picture("TIFF"))
    at = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, at)[0]
    rows = bytes(data[at + 2 : at + 2 + 12 * count])
    value = len(data)
    data += b"a" * size
    shared = b"".join(struct.pack("<HHII", 0xC000 + n, 2, size, value) for n in range(entries))
    struct.pack_into("<I", data, 4, len(data))
    data += struct.pack("<H", count + entries) + rows + shared
    for _ in range(frames):
        data += struct.pack("<I", len(data) + 4) + struct.pack("<H", count) + rows
    return bytes(data + struct.pack("<I", 0))


def comment(raw: bytes) -> bytes:
    return piexif.dump({"Exif": {piexif.ExifIFD.UserComment: raw}})[6:]


FILES = {
    "three texts of 8 MB": lambda: with_chunks(*(text(key, b"a" * SIZE) for key in (b"parameters", b"Comment", b"x"))),
    "4 bytes a character": lambda: with_chunks(
        raw_chunk(b"iTXt", b"parameters\0\0\0\0\0" + "😀".encode() * (SIZE // 4))
    ),
    "many texts": lambda: with_chunks(text(b"k", b"v") * (SIZE // 15)),
    "many chunks": lambda: with_chunks(raw_chunk(b"abCd", b"") * (SIZE // 12)),
    "many lines": lambda: with_chunks(text(b"parameters", b"Steps: 1\n" * (SIZE // 9))),
    "a list that never ends": lambda: with_chunks(text(b"parameters", b"a\nSteps: 1, Sampler: b, X: " + b"[" * SIZE)),
    "JSON: objects": lambda: with_chunks(text(b"prompt", b"[" + b"{}," * (JSON // 3) + b"1]")),
    "JSON: keys": lambda: with_chunks(text(b"prompt", json.dumps({str(n): 1 for n in range(JSON // 13)}).encode())),
    "JSON: strings": lambda: with_chunks(text(b"prompt", b"[" + b'"a",' * (JSON // 4 - 9) + b"1]")),
    "JSON: one string": lambda: with_chunks(text(b"prompt", b'{"prompt":"' + b"\\u1234" * (JSON // 6 - 9) + b'"}')),
    "XMP: entities": lambda: with_chunks(xmp(b"<dc:description>" + b"&amp;" * (SIZE // 5) + b"</dc:description>")),
    "XMP: items": lambda: with_chunks(xmp(b"<dc:description>" + b"<rdf:li>" * (SIZE // 8) + b"</dc:description>")),
    "PNG: EXIF on one value": lambda: with_chunks(raw_chunk(b"eXIf", table(3000, SIZE - 200_000))),
    "PNG: a comment": lambda: with_chunks(
        raw_chunk(b"eXIf", comment(b"UNICODE\0" + "é".encode("utf-16-be") * (SIZE // 2)))
    ),
    "JPEG: segments": lambda: jpeg(*[(0xE5, b"")] * (SIZE // 4)),
    "JPEG: EXIF again and again": lambda: jpeg(*[(0xE1, b"Exif\0\0" + table(2000, 30_000))] * 120),
    "JPEG: XMP again and again": lambda: jpeg(*[(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<a>" * 21_000)] * 120),
    "WebP: both": lambda: webp(comment(b"ASCII\0\0\0" + b"a" * SIZE), b"<dc:title>" + b"&lt;" * 1_000_000),
    "WebP: EXIF on one value": lambda: webp(table(3000, SIZE - 200_000), b""),
    "TIFF: tags on one value": lambda: tiff(entries=2000, size=SIZE),
    "TIFF: frames": lambda: tiff(frames=60_000),
}
MEASURE = """
import sys, time
from PIL import Image
from fam_ext.metadata.pictures import read_header
from fam_ext.errors import PictureError
Image.init()
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
base = peak()
for path in sys.argv[1:]:
    data = open(path, "rb").read()
    began = time.process_time()
    try:
        found = read_header(data).reading
        if found is not None:
            found.as_infotext()
    except PictureError:
        pass
    print(time.process_time() - began, peak() - base)
"""


@pytest.mark.slow
def test_files_of_every_shape_are_read_in_a_second_and_200_mb(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    paths = [tmp_path / str(number) for number in range(len(FILES))]
    for path, make in zip(paths, FILES.values(), strict=True):
        path.write_bytes(make())
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    for name, line in zip(FILES, done.stdout.splitlines(), strict=True):
        seconds, kilobytes = map(float, line.split())
        assert seconds < 1, f"{name}: {seconds:.1f} s"
        assert kilobytes < 200 << 10, f"{name}: {kilobytes / 1024:.0f} MB"


@pytest.mark.parametrize("name", ["many texts", "many chunks", pytest.param("JPEG: segments", marks=pytest.mark.slow)])
def test_parts_by_the_hundred_thousand_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(PictureError, match=r"more than [0-9]+ .*open and save it again"):
        read_header(FILES[name]())


def test_what_is_too_large_to_read_is_said_and_not_kept() -> None:
    data = with_chunks(*(text(key, b"a" * SIZE) for key in (b"one", b"two", b"three")))
    header = read_header(data)
    assert [entry.key for entry in header.texts] == ["one", "two"]
    notes = encode(Image.new("RGB", (16, 16)), "PNG", origin=header).notes
    assert "1 texts are damaged or too large" in notes[0]


def test_tables_that_overlap_are_refused_by_any_pillow() -> None:
    """Pillow before 12.1 would copy the value as often as it is named."""
    with strict_pillow(), pytest.raises(ValueError, match="overlap"):
        Image.Exif().load(b"Exif\0\0" + table(100, 100_000))
    with strict_pillow():
        block = Image.Exif()
        block.load(b"Exif\0\0" + table(1, 100_000))
        assert len(block) == 1


def test_texts_over_pillow_s_limit_decode_and_bombs_are_refused() -> None:
    data = with_chunks(raw_chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(b"a" * (3 << 20))))
    assert decode(data).image.size == (16, 16)
    bomb = zlib.compress(b"\x00" * (200 << 20), 1)
    many = [raw_chunk(b"zTXt", b"A\x00\x00" + bomb), raw_chunk(b"iCCP", b"A\x00\x00" + bomb)]
    many += [raw_chunk(b"iTXt", b"A\x00\x01\x00\x00\x00" + bomb)] * 20
    file = with_chunks(*many)
    began = time.process_time()
    assert read_header(file).texts == ()
    decode(file)
    assert time.process_time() - began < 3
