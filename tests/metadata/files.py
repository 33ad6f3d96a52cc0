"""Small picture files with the texts that programs write, built for the tests."""

import io
import struct
import zlib

import piexif
from PIL import Image, ImageCms, PngImagePlugin

from fam_ext.metadata.pictures import FORMATS, can_write, read_header

PROMPT, NEGATIVE = "a red barn, evening", "fog, letters"
LINE = "Steps: 21, Sampler: Euler a, CFG scale: 5.5, Seed: 777, Size: 64x48"
INFOTEXT = f"{PROMPT}\nNegative prompt: {NEGATIVE}\n{LINE}"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WRITABLE = [name for name in FORMATS if can_write(name) is None]


def picture(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, (width, height))
    image.putdata(
        [
            tuple((x * 9 + y * 5 + band * 40) % 256 for band in range(len(mode)))
            for y in range(height)
            for x in range(width)
        ]
    )
    return image


def file_of(picture_format: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).save(buffer, picture_format, **options)
    return buffer.getvalue()


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


def of(data: bytes):
    found = read_header(data).reading
    assert found is not None
    return found.prompt, found.negative, found.seed, found.steps, found.sampler, found.cfg


RIGHT = (PROMPT, NEGATIVE, 777, 21, "Euler a", 5.5)
