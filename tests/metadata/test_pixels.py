"""Pixels of picture files: upright, in RGB by their colour profile, and transparency that comes back as it was."""

import io
import struct
import zlib

import piexif
import pytest
from PIL import Image, ImageChops

from fam_ext.metadata.pictures import decode, encode
from tests.metadata.files import SRGB, WRITABLE, file_of, picture, raw_chunk

TURNS = dict(enumerate((None, *map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2))), 1))
"""What brings the pixels upright, by EXIF orientation."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "TIFF in LZW"])
def test_every_orientation_is_brought_upright(kind: str, orientation: int) -> None:
    options = {"exif": piexif.dump({"0th": {piexif.ImageIFD.Orientation: orientation}})}
    if kind.startswith("TIFF"):
        options = {"tiffinfo": {0x0112: orientation}, "compression": "tiff_lzw" if "LZW" in kind else "raw"}
    if kind == "WEBP":
        options |= {"lossless": True}
    data = file_of(kind[:4], **options)
    stored = picture() if kind != "JPEG" else decode(file_of("JPEG")).image
    expected = stored if TURNS[orientation] is None else stored.transpose(TURNS[orientation])
    loaded = decode(data)
    assert loaded.image.tobytes() == expected.tobytes()
    assert loaded.header.size == (expected.height, expected.width)


@pytest.mark.parametrize("target", [name for name in WRITABLE if name not in ("JPEG", "BMP")])
def test_alpha_comes_back(target: str) -> None:
    loaded = decode(file_of("PNG", picture(mode="RGBA")))
    assert loaded.alpha is not None
    encoded = encode(loaded.image.resize((48, 32)), target, origin=loaded.header, alpha=loaded.alpha)
    alpha = Image.open(io.BytesIO(encoded.data)).getchannel("A")
    assert alpha.size == (48, 32)
    if target in ("PNG", "TIFF"):
        assert alpha.tobytes() == loaded.alpha.resize((48, 32), Image.Resampling.LANCZOS).tobytes()


@pytest.mark.parametrize("target", ["PNG", "TIFF"])
def test_half_transparent_colours_lose_the_white_that_they_lay_on(target: str) -> None:
    colours = [(0, 0, 0, 77), (255, 0, 0, 128), (40, 90, 200, 200), (9, 8, 7, 255), (255, 255, 255, 0)]
    for colour in colours:
        loaded = decode(file_of("PNG", Image.new("RGBA", (24, 16), colour)))
        big = loaded.image.resize((48, 32), Image.Resampling.LANCZOS)
        encoded = encode(big, target, origin=loaded.header, alpha=loaded.alpha)
        found = Image.open(io.BytesIO(encoded.data)).getpixel((20, 20))
        assert found == pytest.approx(colour, abs=0 if colour[3] in (0, 255) else 3)


def test_an_edge_looks_on_white_as_it_was_drawn() -> None:
    shape = Image.new("RGBA", (24, 16), (200, 0, 0, 0))
    shape.paste((200, 0, 0, 255), (8, 4, 16, 12))
    loaded = decode(file_of("PNG", shape.resize((48, 32), Image.Resampling.BICUBIC)))
    drawn = loaded.image.resize((96, 64), Image.Resampling.LANCZOS)
    made = decode(encode(drawn, "PNG", origin=loaded.header, alpha=loaded.alpha).data)
    white = Image.merge("RGB", [ImageChops.invert(made.alpha)] * 3)  # what shows through: no colour is darker
    apart = ImageChops.difference(made.image, ImageChops.lighter(drawn, white))
    assert max(high for _, high in apart.getextrema()) <= 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_modes_become_rgb(mode: str) -> None:
    base = picture(mode="RGBA")
    image = Image.new("I;16", (24, 16), 0x8080) if mode == "I;16" else base.convert("RGB" if mode == "P" else mode)
    if mode == "P":
        image = image.quantize(16)
    loaded = decode(file_of("TIFF" if mode == "CMYK" else "PNG", image))
    assert loaded.image.mode == "RGB"
    if mode == "I;16":
        assert loaded.image.getpixel((0, 0)) == (0x80, 0x80, 0x80)
    assert (loaded.alpha is not None) == (mode in ("LA", "RGBA"))


@pytest.mark.parametrize("value", [0, 200, 255])
def test_integers_of_32_bits_are_not_made_black(value: int) -> None:
    loaded = decode(file_of("TIFF", Image.new("I", (24, 16), value)))
    assert loaded.image.getpixel((3, 3)) == (value,) * 3
    assert decode(file_of("TIFF", Image.new("I", (24, 16), 0x8080))).image.getpixel((3, 3)) == (0x80,) * 3
    assert max(decode(file_of("PNG", Image.new("I;16", (24, 16), value))).image.getpixel((3, 3))) == 0  # of 65535


@pytest.mark.parametrize(
    ("depth", "kind", "row", "key"),
    [
        (1, 0, b"\x80", b"\0\1"),
        (2, 0, b"\x60", b"\0\1"),
        (4, 0, b"\x3c", b"\0\3"),
        (8, 0, b"\x3c\x40", b"\0\x3c"),
        (16, 0, b"\x12\x34\x80\0", b"\x12\x34"),
        (8, 2, b"\1\2\3\4\5\6", b"\0\1\0\2\0\3"),
        (16, 2, b"\x12\x34" * 3 + b"\x80\0" * 3, b"\x12\x34" * 3),
    ],
)
def test_a_png_s_transparent_colour_is_found_at_any_depth(depth: int, kind: int, row: bytes, key: bytes) -> None:
    head = raw_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, kind, 0, 0, 0)) + raw_chunk(b"tRNS", key)
    pixels = raw_chunk(b"IDAT", zlib.compress(b"\0" + row)) + raw_chunk(b"IEND", b"")
    loaded = decode(b"\x89PNG\r\n\x1a\n" + head + pixels)
    assert loaded.alpha is not None
    assert loaded.alpha.tobytes() == b"\0\xff"


def profile(space: bytes, pcs: bytes, *tags: tuple[bytes, bytes]) -> bytes:
    """A colour profile (ICC 2.1) of a printer's inks or a grey scale."""
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, value in tags:
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s12x4s28x", start + len(body), b"", 0x02100000, b"prtr", space, pcs, b"acsp")
    return head + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D) + bytes(48) + table + body


LINEAR = profile(b"GRAY", b"XYZ ", (b"kTRC", b"curv" + struct.pack(">IIH", 0, 1, 256)), (b"wtpt", b"XYZ " + bytes(16)))
_RAMP = bytes(range(256))
_INKS = b"".join(bytes((0 if n & 1 else 255 - 100 * (n > 1), 128, 128)) for n in range(16))  # 1 is black, 14 a grey
INKS = profile(
    b"CMYK",
    b"Lab ",
    (b"A2B0", b"mft1" + bytes((0, 0, 0, 0, 4, 3, 2, 0)) + bytes(36) + _RAMP * 4 + _INKS + _RAMP * 3),
    (b"wtpt", b"XYZ " + bytes(16)),
)


@pytest.mark.parametrize(
    ("colour", "icc", "expected"),
    [
        (64, LINEAR, (137, 137, 137)),  # a quarter of the light
        ((64, 100), LINEAR, (137, 137, 137)),
        ((255, 0, 0, 0), INKS, (145, 145, 145)),  # L* of 60
        ((0, 0, 0, 255), INKS, (0, 0, 0)),
        (64, SRGB, (64, 64, 64)),
    ],
)
def test_grey_and_inks_become_rgb_by_their_profile(colour, icc: bytes, expected: tuple[int, ...]) -> None:
    mode = {int: "L", tuple: "CMYK"}[type(colour)] if colour != (64, 100) else "LA"
    data = file_of("TIFF" if mode == "CMYK" else "PNG", Image.new(mode, (24, 16), colour), icc_profile=icc)
    loaded = decode(data)
    seen = encode(loaded.image, "PNG", origin=loaded.header, alpha=loaded.alpha)
    found = Image.open(io.BytesIO(seen.data)).getpixel((3, 3))
    assert found[:3] == pytest.approx(expected, abs=2)
    assert loaded.notes == ()
    if mode == "LA":
        assert found[3] == 100


@pytest.mark.parametrize("icc", [LINEAR[:140], b"x" * 16 + b"GRAY" + b"x" * 200])
def test_a_profile_that_cannot_be_used_is_a_note(icc: bytes) -> None:
    loaded = decode(file_of("PNG", Image.new("L", (24, 16), 64), icc_profile=icc))
    assert loaded.image.getpixel((3, 3)) == (64, 64, 64)
    assert "colour profile" in loaded.notes[0]
