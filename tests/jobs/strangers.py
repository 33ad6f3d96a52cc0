"""A folder as strangers leave them: each good picture is odd in one way, each bad one cannot be used. All are small."""

import io
import json
import os
import socket
import struct
import zlib
from pathlib import Path

from PIL import Image, PngImagePlugin

from tests.metadata.files import raw_chunk

SIZE = (48, 40)
MADE = "a cat\nNegative prompt: dark\nSteps: 20, Sampler: Euler a, CFG scale: 6.5, Seed: 5"


def noise(mode: str, size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.effect_noise(size, 60).convert("RGB").convert(mode)


def png(bits: int, color: int, channels: int, *chunks: bytes, size: tuple[int, int] = SIZE) -> bytes:
    """Return a PNG of any depth, written by hand: Pillow writes few of them."""
    line = b"\x00" + os.urandom((size[0] * bits * channels + 7) // 8)
    head = raw_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, color, 0, 0, 0))
    body = raw_chunk(b"IDAT", zlib.compress(line * size[1]))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body + raw_chunk(b"IEND", b"")


def text_chunk(text: str | bytes, key: bytes = b"parameters") -> bytes:
    raw = text if isinstance(text, bytes) else text.encode("latin-1")
    return raw_chunk(b"tEXt", key + b"\x00" + raw)


def saved(image: Image.Image, picture_format: str, **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, picture_format, **more)
    return buffer.getvalue()


def said(**changed: str) -> bytes:
    """Return a PNG whose settings are changed: "Steps" or the like -> value."""
    pairs = {"Steps": "20", "Sampler": "Euler a", "CFG scale": "6.5", "Seed": "5", **changed}
    line = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in pairs.items())
    info = PngImagePlugin.PngInfo()
    info.add_itxt("parameters", f"a cat\nNegative prompt: dark\n{line}")
    return saved(noise("RGB"), "PNG", pnginfo=info)


def with_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def comfy(nodes: object) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", nodes if isinstance(nodes, str) else json.dumps(nodes))
    return saved(noise("RGB"), "PNG", pnginfo=info)


def apng(frames: int) -> bytes:
    return saved(noise("RGB"), "PNG", save_all=True, append_images=[noise("RGB") for _ in range(frames - 1)])


def good_pictures() -> dict[str, bytes]:
    ring = {str(n): {"class_type": "KSampler", "inputs": {"model": [str(n % 3 + 1), 0], "seed": n}} for n in (1, 2, 3)}
    palette = raw_chunk(b"PLTE", bytes(range(12)))
    files = {
        "cmyk.jpg": saved(noise("CMYK"), "JPEG"),
        "rgb-48.png": png(16, 2, 3, text_chunk(MADE)),
        "grey-alpha-16.png": png(16, 4, 2),
        "rgba-64.png": png(16, 6, 4),
        "grey-1.png": png(1, 0, 1),
        "grey-2-key.png": png(2, 0, 1, raw_chunk(b"tRNS", b"\x00\x01")),
        "palette-2-clear.png": png(2, 3, 1, palette, raw_chunk(b"tRNS", b"\x00\x80\xff")),
        "rgb-key.png": png(8, 2, 3, raw_chunk(b"tRNS", b"\x00\x01\x00\x02\x00\x03")),
        "no-density.png": png(8, 2, 3, raw_chunk(b"pHYs", b"\x00" * 9), raw_chunk(b"gAMA", b"\x00" * 4)),
        "junk-exif.png": png(8, 2, 3, raw_chunk(b"eXIf", b"MM\x00*\xff\xff\xff\xff")),
        "nul-text.png": png(8, 2, 3, text_chunk(b"a\x00cat\x00\nSteps: 3, Sampler: Euler, CFG scale: 5, Seed: 1")),
        "text-without-end.png": png(8, 2, 3, raw_chunk(b"tEXt", b"parameters")),
        "long-key.png": png(8, 2, 3, text_chunk("x", b"k" * 200), text_chunk("y", b"")),
        "zlib-junk.png": png(8, 2, 3, raw_chunk(b"zTXt", b"parameters\x00\x00no zlib"), text_chunk(MADE)),
        "junk-icc.jpg": saved(noise("RGB"), "JPEG", icc_profile=b"\x00\x00\x02\x0cjunk" * 40),
        "profile-bomb.png": png(8, 2, 3, raw_chunk(b"iCCP", b"x\x00\x00" + zlib.compress(b"\x00" * (90 << 20)))),
        "junk-iccp.png": png(8, 2, 3, raw_chunk(b"iCCP", b"x\x00\x00junk")),
        "after-the-end.png": png(8, 2, 3) + b"PK\x03\x04" * 1000,
        "after-the-end.jpg": saved(noise("RGB"), "JPEG") + b"\x00" * 5000,
        "grey.jpg": saved(noise("L"), "JPEG", quality=1),
        "mirrored.jpg": saved(noise("RGB"), "JPEG", exif=with_exif(5)),
        "turned.png": saved(noise("RGBA"), "PNG", exif=with_exif(8)),
        "orientation-99.jpg": saved(noise("RGB"), "JPEG", exif=with_exif(99)),
        "lossless.webp": saved(noise("RGBA"), "WEBP", lossless=True, exif=with_exif(6)),
        "lab.tif": saved(noise("RGB").convert("LAB"), "TIFF"),
        "cmyk.tiff": saved(noise("CMYK"), "TIFF", compression="tiff_lzw"),
        "one-bit.tif": saved(noise("1"), "TIFF", compression="group4"),
        "one-bit.bmp": saved(noise("1"), "BMP"),
        "upside-down.bmp": top_down(saved(noise("RGB"), "BMP")),
        "jpeg-named.png": saved(noise("RGB"), "JPEG", exif=with_exif(3)),
        "png-named.jpg": said(),
        "one-frame.png": apng(1),
        "ring.png": comfy(ring),
        "deep.png": comfy('{"1":' * 2000 + "1" + "}" * 2000),
        "nan.png": comfy('{"1": {"class_type": "KSampler", "inputs": {"cfg": NaN, "steps": Infinity, "seed": 1e999}}}'),
        "no-object.png": comfy("[1, 2, 3]"),
        "long-words.png": png(
            8, 2, 3, text_chunk("(a cat), " * 35_000 + "\nSteps: 3, Sampler: Euler, CFG scale: 5, Seed: 1")
        ),
    }
    odd = {
        "steps-0": {"Steps": "0"},
        "steps-minus": {"Steps": "-1"},
        "steps-many": {"Steps": "1000000000"},
        "steps-float": {"Steps": "20.5"},
        "seed-minus": {"Seed": "-1"},
        "seed-large": {"Seed": str(2**70)},
        "seed-word": {"Seed": "random"},
        "cfg-0": {"CFG scale": "0"},
        "cfg-huge": {"CFG scale": "1e308"},
        "sampler-junk": {"Sampler": '"\x1b]0;x\x07\u202e <b>"'},
        "sampler-long": {"Sampler": "x" * 50_000},
        "schedule-junk": {"Schedule type": "nobody's"},
        "lora": {"Lora hashes": '"x: 1234"', "Model": "gone", "Model hash": "deadbeef", "VAE": "gone.pt"},
        "size-junk": {"Size": "99999999x0", "Clip skip": "0", "ENSD": "inf"},
        "clip-skip": {"Clip skip": "99"},
        "fam-junk": {"FAM version": "99", "FAM cutoff": "1e999", "FAM attention": "nan", "FAM method": "magic"},
    }
    files |= {f"{name}.png": said(**pairs) for name, pairs in odd.items()}
    plain = saved(noise("RGB"), "PNG")
    names = ("\U0001f431 cat.png", "two\nlines.png", "é" * 125 + ".png", " a .png", "a\\b.png", "NUL.png", "-o.png")
    names += ("UPPER.PNG", "upper.png", "upper.jpeg.png", "e\u0301.png", "\u00e9.png", "$(touch x).png", "a;b&c|d.png")
    names += (os.fsdecode(b"latin-\xe9.png"), "{stem}.png", "%s%n.png", "~.png", "a..png", "\u200b.png")
    return files | dict.fromkeys(names, plain)


def top_down(data: bytes) -> bytes:
    """Return a BMP whose height is negative: its first line is the upper one."""
    return data[:22] + struct.pack("<i", -struct.unpack("<i", data[22:26])[0]) + data[26:]


def bad_pictures() -> dict[str, bytes]:
    whole, photo = saved(noise("RGB"), "PNG"), saved(noise("RGB"), "JPEG")
    tiff = saved(noise("RGB"), "TIFF")
    return {
        "zero.png": b"",
        "zero.jpg": b"",
        "half.jpg": photo[: len(photo) // 2],
        "half.png": whole[: len(whole) * 2 // 3],
        "half.webp": saved(noise("RGB"), "WEBP")[:200],
        "half.tif": saved(noise("RGB"), "TIFF", compression="tiff_lzw")[:600],
        "head.jpg": photo[:20],
        "huge.png": png(8, 2, 3, size=SIZE).replace(struct.pack(">II", *SIZE), struct.pack(">II", 60000, 60000), 1),
        "huge.bmp": b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
        "moving.png": apng(3),
        "moving.webp": saved(noise("RGB"), "WEBP", save_all=True, append_images=[noise("RGB")]),
        "pages.tif": saved(noise("RGB"), "TIFF", save_all=True, append_images=[noise("RGB")]),
        "gif.png": saved(noise("P"), "GIF"),
        "ico.png": saved(noise("RGB"), "ICO"),
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "paper.jpg": b"%PDF-1.4\n",
        "thread.png": png(8, 2, 3, size=(2, 2000)),
        "no-color.png": png(8, 5, 3),
        "no-data.png": png(8, 2, 3).replace(b"IDAT", b"iDAT"),
        "small.png": saved(noise("RGB", (17, 23)), "PNG"),
        "head.tif": tiff[:8],
        "esc\x1b[2Jape.png": b"no picture",
    }


def other_entries(folder: Path, far: Path) -> tuple[set[str], set[str]]:
    """Make what is no plain file, and return the good and the bad names of it."""
    plain = saved(noise("RGB"), "PNG")
    far.mkdir()
    (far / "far.png").write_bytes(plain)
    for name in ("beside-folder", "beside-loop", "beside-pipe", "beside-large", "beside-bytes", "locked", "read-only"):
        (folder / f"{name}.png").write_bytes(plain)
    (folder / "beside-folder.txt").mkdir()
    (folder / "beside-loop.txt").symlink_to("beside-loop.txt")
    os.mkfifo(folder / "beside-pipe.txt")
    (folder / "beside-large.txt").write_bytes(b"a cat, " * 2_000_000)
    (folder / "beside-bytes.txt").write_bytes(bytes(range(256)) * 100)
    (folder / "read-only.png").chmod(0o444)
    (folder / "link.png").symlink_to(far / "far.png")
    os.link(folder / "read-only.png", folder / "hard.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inner.png").write_bytes(plain)
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.png"))
    (folder / "around").symlink_to(".", target_is_directory=True)
    (folder / "up").symlink_to("..", target_is_directory=True)
    for name in (".hidden.png", "._mac.png", "Thumbs.db"):
        (folder / name).write_bytes(plain)
    good = {"beside-folder", "beside-loop", "beside-pipe", "beside-large", "beside-bytes", "read-only", "link", "hard"}
    good |= {"folder.png/inner"}
    (folder / "locked.png").chmod(0)
    return {f"{name}.png" for name in good}, {"gone.png", "loop.png"}
