"""Texts in the pixels' lowest bits: found at little cost, and only where they are."""

import gzip
import io
import json
import random
import struct
import time
import zlib

import pytest
from PIL import Image

from fam_ext.metadata.pictures import encode, read_header
from tests.metadata.files import INFOTEXT, NEGATIVE, PROMPT, RIGHT, of, png, raw_chunk

NOVEL = {"prompt": PROMPT, "uc": NEGATIVE, "steps": 21, "scale": 5.5, "seed": 777, "sampler": "k_euler_ancestral"}
PACKED = json.dumps({"Software": "NovelAI", "Comment": json.dumps(NOVEL), "Source": "x", "Description": PROMPT})


def noise(size: tuple[int, int], mode: str) -> Image.Image:
    drawn = random.Random(1).randbytes(size[0] * size[1] * len(mode))
    return Image.frombytes(mode, size, drawn)


def hiding(text: str, size: tuple[int, int], *, mark: str = "stealth_pngcomp", mode: str = "RGBA", **options) -> bytes:
    """A PNG with `text` in its pixels' lowest bits, down the columns from the left."""
    payload = gzip.compress(text.encode()) if mark.endswith("comp") else text.encode()
    whole = mark.encode() + struct.pack(">I", 8 * len(payload)) + payload
    bits = "".join(f"{value:08b}" for value in whole)
    image = noise(size, mode)
    per = 1 if "png" in mark else 3
    assert len(bits) <= size[0] * size[1] * per
    pixels = image.load()
    for at in range(0, len(bits), per):
        column, row = divmod(at // per, size[1])
        pixel = list(pixels[column, row])
        for channel, bit in zip((3,) if per == 1 else (0, 1, 2), bits[at : at + per], strict=False):
            pixel[channel] = pixel[channel] & 254 | int(bit)
        pixels[column, row] = tuple(pixel)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(96, 64), (40, 200)])
@pytest.mark.parametrize("text", [INFOTEXT, PACKED])
@pytest.mark.parametrize("mark", ["stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp"])
def test_a_hidden_text_is_read(mark: str, text: str, size: tuple[int, int]) -> None:
    for mode in ("RGBA", "RGB") if "rgb" in mark else ("RGBA",):
        data = hiding(text, size, mark=mark, mode=mode)
        assert of(data) == RIGHT
        assert read_header(data).reading.place.endswith(("pixels UserComment", "Comment"))


@pytest.mark.parametrize("kind", range(5))
def test_the_mark_is_found_under_every_filter(kind: int) -> None:
    """The rows of one picture, each written anew with one of PNG's filters."""
    image = Image.open(io.BytesIO(hiding(INFOTEXT, (40, 200)))).convert("RGBA")
    width, height, raw = *image.size, image.tobytes()
    rows, above = bytearray(), bytes(4 * width)
    for row in range(height):
        line = raw[row * 4 * width : (row + 1) * 4 * width]
        left, corner = bytes(4) + line[:-4], bytes(4) + above[:-4]
        rows.append(kind)
        for value, a, b, c in zip(line, left, above, corner, strict=True):
            near = min((a, b, c), key=lambda candidate: abs(a + b - c - candidate))
            rows.append((value - (0, a, b, (a + b) // 2, near)[kind]) & 255)
        above = line
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
    assert of(b"\x89PNG\r\n\x1a\n" + b"".join(raw_chunk(*chunk) for chunk in chunks)) == RIGHT


def test_any_other_text_counts_first_and_pictures_without_are_cheap() -> None:
    buffer = io.BytesIO()
    noise((1500, 1500), "RGBA").save(buffer, "PNG", compress_level=1)
    began = time.process_time()
    assert read_header(buffer.getvalue()).reading is None
    assert time.process_time() - began < 0.3
    assert read_header(png(("parameters", INFOTEXT))).hidden is None


@pytest.mark.parametrize("end", [40, 60, 200, 5000])
def test_a_broken_picture_is_no_error_here(end: int) -> None:
    data = hiding(INFOTEXT, (40, 200))
    assert read_header(data[:end]).reading is None
    bomb = b"stealth_pngcomp" + struct.pack(">I", 2**32 - 1)
    assert read_header(hiding(bomb.decode("latin-1"), (40, 200), mark="stealth_pnginfo")).format == "PNG"


def test_the_output_says_in_words_what_was_hidden() -> None:
    origin = read_header(hiding(INFOTEXT, (40, 200)))
    assert origin.own_text == INFOTEXT
    out = encode(noise((80, 400), "RGB"), "PNG", origin=origin, infotext=f"{origin.own_text}, FAM version: 1")
    assert of(out.data) == RIGHT
