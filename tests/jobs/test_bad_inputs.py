"""Hundreds of bad files: one-line errors, no crash, no stray file, and the good ones are still made."""

import io
import os
import random
import shutil
import struct
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from fam_ext.jobs.journal import Journal
from fam_ext.jobs.run import run_job
from fam_ext.options.parts import RunRule
from tests.jobs.fakes import Fast, infotext, make_picture, options, outputs, strays
from tests.metadata.files import raw_chunk


def encoded(picture_format: str, size: tuple[int, int] = (32, 32), **more) -> bytes:
    buffer = io.BytesIO()
    noise = random.Random(3).randbytes(size[0] * size[1] * 3)
    Image.frombytes("RGB", size, noise).resize((48, 48)).quantize(8).convert("RGB").save(buffer, picture_format, **more)
    return buffer.getvalue()


def png(width: int, height: int, pixels: bytes | None = None, extra: bytes = b"") -> bytes:
    head = raw_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = raw_chunk(b"IDAT", zlib.compress(pixels if pixels is not None else b"\x00" * 100))
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + raw_chunk(b"IEND", b"")


def bad_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    chance = random.Random(7)
    for picture_format, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("TIFF", "tif"), ("BMP", "bmp")):
        good = encoded(picture_format)
        step = max(10, len(good) // 40 // 10 * 10)
        for end in range(0, len(good) - 12, step):  # every tenth byte of the head, then evenly to the end
            files[f"cut-{end}.{suffix}"] = good[:end]
        for end in range(10, min(200, len(good)), 10):
            files[f"cut-{end}.{suffix}"] = good[:end]
        for number in range(30):
            flipped = bytearray(good)
            for _ in range(4):
                flipped[chance.randrange(min(64, len(good)))] ^= 1 << chance.randrange(8)
            files[f"flip-{number}.{suffix}"] = bytes(flipped)
    files |= {
        "text.png": b"hello",
        "shell.jpg": b"#!/bin/sh\necho hi\n",
        "zip.png": b"PK\x03\x04" + b"\x00" * 60,
        "eps.tif": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "one.png": encoded("PNG").replace(b"IHDR" + struct.pack(">II", 48, 48), b"IHDR" + struct.pack(">II", 1, 1)),
        "narrow.png": png(20000, 10),
        "bomb.png": png(60000, 60000),
        "bomb-idat.png": png(9000, 9000, b"\x00" * (27001 * 900)),
        "text-bomb.png": png(
            48, 48, extra=raw_chunk(b"zTXt", b"parameters\x00\x00" + zlib.compress(b"a" * (80 << 20)))
        ),
        "zero.png": png(0, 0),
        "nan.tif": encoded("TIFF"),
        "gif.png": b"GIF89a" + b"\x01" * 40,
        "long-chunk.png": b"\x89PNG\r\n\x1a\n\x7f\xff\xff\xffIHDR" + b"\x00" * 20,
    }
    return files


GOOD_NAMES = (
    "line\nbreak.png",
    "right\u202eto left.png",
    "tab\there.png",
    'quote\'s "double" <b>.png',
    "percent %s {stem} {0}.png",
    "-dash.png",
    "dots...png",
    "con.png",
    "é-ünï-猫.png",
    "x" * 246 + ".png",
    " leading and trailing .png",
)


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows cannot hold")
def test_hundreds_of_bad_inputs(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    files = bad_files()
    assert len(files) >= 300
    for name, data in files.items():
        (source / name).write_bytes(data)
    for number, name in enumerate(GOOD_NAMES):
        make_picture(source / name, f"picture {number}", number)
    (source / os.fsdecode(b"not-utf8-\xff.png")).write_bytes((source / "con.png").read_bytes())
    huge = Image.Exif()
    huge[0x8769] = {0x9286: b"UNICODE\x00" + infotext("huge", 1).encode("utf-16-be") + b"\x00 " * 30000}
    (source / "huge-exif.jpg").write_bytes(encoded("JPEG", exif=huge.tobytes()))
    (source / "wrong.png").write_bytes(encoded("JPEG"))
    (source / "wrong.jpg").write_bytes(encoded("PNG"))
    (source / "circle").mkdir()
    (source / "circle" / "again").symlink_to(source, target_is_directory=True)
    (source / "itself").symlink_to(source / "itself")
    (source / "itself.png").symlink_to(source / "itself.png")
    (source / "gone.png").symlink_to(source / "nowhere.png")
    (source / "folder.png").mkdir()
    os.mkfifo(source / "pipe.png")
    before = sorted(str(path) for path in source.iterdir())

    output = tmp_path / "out"
    events = []
    summary = run_job(options(source, output, recursive=True), Fast, run=RunRule(retries=0), on_event=events.append)

    assert sorted(str(path) for path in source.iterdir()) == before
    assert summary.stopped is None
    assert summary.pending == 0
    assert summary.exit_code == 1
    with Journal(output) as journal:
        items = {item.key: item for item in journal.items()}
    for item in items.values():
        assert item.state in ("done", "failed"), item
        if item.state == "failed":
            assert item.error
            assert "\n" not in item.error
            assert "Traceback" not in item.error
            assert len(item.error) < 300
    for name in GOOD_NAMES:
        assert items[name].state == "done", (name, items[name].error)
    for name in ("huge-exif.jpg", "wrong.png", "wrong.jpg", os.fsdecode(b"not-utf8-\xff.png")):
        assert items[name].state == "done", (name, items[name].error)
    assert items["huge-exif.jpg"].request.prompt == "huge"
    for name in ("one.png", "narrow.png", "bomb.png", "zero.png", "text.png", "eps.tif", "gone.png", "itself.png"):
        assert items[name].state == "failed", name
    assert "MP" in items["bomb.png"].error
    truncated = [item for key, item in items.items() if key.startswith("cut-")]
    assert len(truncated) > 150
    made_from_cut = [item.key for item in truncated if item.state == "done" and not item.key.endswith((".tif", ".bmp"))]
    assert made_from_cut == []
    made = outputs(output)
    assert len(made) == summary.done == sum(item.state == "done" for item in items.values())
    for name in made:
        folder, _, leaf = name.rpartition("/")
        assert folder == ""
        assert "\n" not in leaf
        assert "\u202e" not in leaf
        assert len(os.fsencode(leaf)) <= 255
        Image.open(output / name).load()
    assert strays(output) == []
    for report in ("report.csv", "report.json", "report.html"):
        (output / report).read_text(encoding="utf-8")


def test_a_folder_and_a_file_without_permission(tmp_path: Path, monkeypatch) -> None:
    source = tmp_path / "in"
    make_picture(source / "good.png", "x", 1)
    make_picture(source / "locked" / "a.png", "x", 2)
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root reads everything: the refusal is put in
    summary = run_job(options(source, tmp_path / "out", recursive=True), Fast)
    assert (summary.done, summary.failed) == (1, 1)
    with Journal(tmp_path / "out") as journal:
        failed = next(journal.items(state="failed"))
    assert failed.key == "locked/"
    assert "Permission denied" in failed.error
    monkeypatch.undo()
    again = run_job(options(source, tmp_path / "out", recursive=True), Fast)
    assert (again.done, again.failed) == (1, 0)


def test_a_plain_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("hello")
    summary = run_job(options(note, tmp_path / "out"), Fast)
    assert (summary.failed, summary.exit_code) == (1, 1)
    shutil.rmtree(tmp_path / "out")
