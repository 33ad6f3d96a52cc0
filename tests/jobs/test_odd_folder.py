"""A folder as people have them: odd but good files are all made, each bad one fails in one line that names it."""

import io
import os
import struct
import sys
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from fam_ext.errors import UsageError
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.run import run_job
from tests.jobs.fakes import Odd, make_picture, options, outputs, strays
from tests.jobs.test_bad_inputs import encoded, png

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names, links and FIFOs that Windows cannot hold")
SIZE = (40, 32)
MADE = "a cat\nNegative prompt: dark\nSteps: 20, Sampler: Euler a, CFG scale: 6.5, Seed: 5"


class Picky(Odd):
    """Refuses what the standalone renderer refuses."""

    def render(self, image, request, progress):
        if request.sampler == "LCM" and request.steps > 50:
            raise UsageError("steps is 60; choose 1 to 50 with LCM")
        if (request.clip_skip or 1) > 12:
            raise UsageError(f"clip_skip is {request.clip_skip}; choose 1 to 12")
        return super().render(image, request, progress)


def save(path: Path, image: Image.Image, text: str | None = MADE, **more) -> None:
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_text("parameters", text)
    image.save(path, **({"pnginfo": info} if path.suffix == ".png" else {}), **more)


def good_files(folder: Path) -> set[str]:
    rgb = Image.frombytes("RGB", SIZE, os.urandom(SIZE[0] * SIZE[1] * 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = {
        "16-bit.png": Image.frombytes("I;16", SIZE, os.urandom(SIZE[0] * SIZE[1] * 2)),
        "grey.png": rgb.convert("L"),
        "grey-alpha.png": rgb.convert("LA"),
        "alpha.png": rgb.convert("RGBA"),
        "one-bit.png": rgb.convert("1"),
        "palette.png": rgb.quantize(16),
    }
    for name, image in plain.items():
        save(folder / name, image)
    save(folder / "palette-clear.png", rgb.quantize(16), transparency=3)
    save(folder / "palette-alpha.png", rgb.convert("RGBA").quantize(16))
    save(folder / "interlaced-dpi.png", rgb, dpi=(300, 300))
    save(folder / "bad-icc.png", rgb, icc_profile=b"no profile")
    save(folder / "rotated.jpg", rgb, exif=exif.tobytes())
    save(folder / "rotated.webp", rgb, exif=exif.tobytes(), lossless=True)
    save(folder / "cmyk.jpg", rgb.convert("CMYK"))
    save(folder / "progressive.jpeg", rgb, progressive=True)
    save(folder / "lower.TIF", rgb, compression="tiff_lzw")
    save(folder / "old.bmp", rgb)
    rgb.save(folder / "stereo.jpg", "MPO", save_all=True, append_images=[rgb])
    save(folder / "huge-text.png", rgb, "a cat, " * 40_000 + "\nSteps: 20, Sampler: Euler a, CFG scale: 6.5, Seed: 5")
    save(folder / "no-settings.png", rgb, None)
    save(folder / "empty-settings.png", rgb, "")
    save(folder / "unknown-sampler.png", rgb, MADE.replace("Euler a", "LMS"))
    save(folder / "clip-skip-99.png", rgb, MADE + ", Clip skip: 99")
    half = Image.Exif()
    half[0x8769] = {0x9286: b"UNICODE\x00" + ("a \ud800 cat" + MADE).encode("utf-16-be", "surrogatepass")}
    save(folder / "half-a-character.jpg", rgb, exif=half.tobytes())
    save(folder / "sgm.png", rgb, MADE + ", Schedule type: SGM Uniform")
    save(folder / "icon.png", rgb.resize((17, 23)))
    for name in ("line\nbreak.png", "right\u202eto left.png", "x" * 236 + ".png", "[b]{stem}%s.png", "-rf.png"):
        save(folder / name, rgb)
    save(folder / "fifo-beside.png", rgb)
    os.mkfifo(folder / "fifo-beside.txt")
    save(folder / "long-ago.png", rgb)
    os.utime(folder / "long-ago.png", (-(1 << 40), 1 << 40))
    (folder / "surrogate.png").write_bytes((folder / "no-settings.png").read_bytes())
    (folder / "surrogate.txt").write_bytes(b"a \xed\xa0\x80 cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    (folder / "wrong.png").write_bytes(encoded("JPEG"))
    (folder / "digits.png").write_bytes((folder / "no-settings.png").read_bytes())
    (folder / "digits.txt").write_text(f"x\nSteps: {'9' * 400}, Sampler: Euler a, CFG scale: inf, Seed: {'1' * 400}")
    make_picture(folder.parent / "far" / "link.png")
    (folder / "link.png").symlink_to(folder.parent / "far" / "link.png")
    return {path.name for path in folder.iterdir() if path.suffix != ".txt"}


def bad_files(folder: Path) -> set[str]:
    rgb = Image.new("RGB", SIZE)
    whole = encoded("JPEG")
    moving = io.BytesIO()
    Image.new("RGB", SIZE).save(moving, "WEBP", save_all=True, append_images=[Image.new("RGB", SIZE, "red")])
    files = {
        "one.png": png(1, 1, b"\x00" * 4),
        "ribbon.png": png(2000, 20),
        "bomb.png": png(60000, 60000),
        "cut.jpg": whole[: len(whole) // 2],
        "moving.webp": moving.getvalue(),
        "empty.png": b"",
        "page.jpg": b"<html></html>",
        "no-end.png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0x7FFFFFFF) + b"IHDR",
        "bad\x1b[31m\nname.png": b"GIF89a",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    save(folder / "lcm-60.png", rgb, MADE.replace("Steps: 20, Sampler: Euler a", "Steps: 60, Sampler: LCM"))
    save(folder / "raises.png", rgb, MADE.replace("a cat", "raise"))
    save(folder / "hopeless.png", rgb, MADE.replace("a cat", "hopeless"))
    (folder / "gone.png").symlink_to("nowhere.png")
    return {*files, "lcm-60.png", "raises.png", "hopeless.png", "gone.png"}


def test_an_odd_folder(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    good = good_files(source)
    bad = bad_files(source)
    assert len(good) >= 30 and len(bad) >= 12 and not good & bad
    for name in (".hidden.png", "._cat.png"):
        make_picture(source / name)
    (source / "loop").symlink_to("..", target_is_directory=True)
    (source / "made").symlink_to(output, target_is_directory=True)
    make_picture(tmp_path / "far" / "more" / "z.png")
    (source / "away").symlink_to(tmp_path / "far", target_is_directory=True)
    lines: dict[str, list[str]] = {}
    for _ in range(2):  # a rerun finds the same files, and again no more
        lines.clear()
        summary = run_job(
            options(source, output, recursive=True),
            Picky,
            on_event=lambda event: (
                lines.setdefault(event.key, []).append(event.message) if event.kind == "failed" else None
            ),
        )
        with Journal(output) as journal:
            items = {item.key: item for item in journal.items()}
        failed = {key: item.error for key, item in items.items() if item.state == "failed"}
        assert set(items) == good | bad
        assert failed.keys() == bad, {key: failed.get(key) for key in failed.keys() ^ bad}
        assert (summary.exit_code, summary.stopped, summary.pending) == (1, None, 0)
        assert lines.keys() == bad and all(len(found) == 1 for found in lines.values())
        for (line,) in lines.values():
            assert line.isprintable() and 10 < len(line) < 300
    made = outputs(output)
    assert len(made) == len(good)
    for name in made:
        with Image.open(output / name) as image:
            image.load()
    assert strays(output) == []


def test_a_tiny_picture_is_enlarged_first_where_the_target_allows(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "dot.png", size=(9, 12))
    assert run_job(options(tmp_path / "in", tmp_path / "small"), Picky).failed == 1
    summary = run_job(options(tmp_path / "in", tmp_path / "large", size=(256, 256)), Picky)
    assert (summary.done, summary.failed) == (1, 0)
    with Journal(tmp_path / "large") as journal:
        assert next(journal.items()).notes == ("enlarged from 9 x 12 to 16 x 21 px first, the least size",)
    with Image.open(tmp_path / "large" / "dot.png") as image:
        assert image.size == (192, 256)
