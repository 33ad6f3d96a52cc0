"""Data from strangers: journals name no code, reports hold no markup, one file's oddity is that file's row."""

import csv
import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from fam_ext.errors import ConfigError, UsageError
from fam_ext.jobs import report
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.renderers import kept_renderer
from fam_ext.jobs.run import retry_failed, run_job
from fam_ext.options.parts import Rule, RunRule
from fam_ext.options.request import HiresRequest
from tests.jobs.fakes import Fast, Odd, make_picture, options

STORED = Path(__file__).parent / "stored"


def stored(tmp_path: Path, renderer: object) -> Path:
    """Return an output folder with a journal that version 2 wrote, naming `renderer`."""
    (tmp_path / "out" / ".fam-hires").mkdir(parents=True)
    path = tmp_path / "out" / ".fam-hires" / "journal.sqlite3"
    shutil.copy(STORED / "version-2.sqlite3", path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = ? WHERE name = 'renderer'", (json.dumps(renderer),))
    database.close()
    return tmp_path / "out"


def test_a_journal_runs_no_code(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    output = stored(tmp_path, {"target": "evil:run", "arguments": {}})
    with pytest.raises(UsageError, match=r"evil:run.*not one of ours"):
        retry_failed(str(output))
    assert not (tmp_path / "ran").exists()
    with Journal(output) as journal:
        assert journal.counts()["failed"] == 2  # nothing was touched


@pytest.mark.parametrize(
    "kept",
    [
        {"target": "os:system"},
        {"target": ["a"]},
        {"name": "os:system"},
        {"name": "standalone", "arguments": {"command": "x"}},
        {"name": "standalone", "arguments": [1]},
        {"name": {"a": 1}},
    ],
)
def test_only_our_renderers_are_built(kept: dict) -> None:
    with pytest.raises(UsageError, match="run the job's own command again"):
        kept_renderer(kept)


def test_an_older_journal_names_our_renderer_by_its_path() -> None:
    old = {"target": "fam_ext.standalone:load_renderer", "arguments": {"model": "m", "loras": []}}
    spec = kept_renderer(old)
    assert (spec.name, spec.arguments) == ("standalone", {"model": "m", "loras": []})


def test_a_report_holds_no_live_markup(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "<script>p</script>")
    make_picture(tmp_path / "in" / "b.png", "=cmd|' /C calc'!A0", 2)
    live = Rule("override", "<img src=x onerror=alert(1)>")
    run_job(options(tmp_path / "in", tmp_path / "out", rules={"sampler": live}), Fast)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<img src=x" not in page and "<script>p" not in page
    assert "&lt;img src=x" in page
    assert "Content-Security-Policy" in page and "default-src 'none'" in page
    with open(tmp_path / "out" / "report.csv", newline="") as file:
        assert [row["prompt"] for row in csv.DictReader(file)] == ["<script>p</script>", "'=cmd|' /C calc'!A0"]


def test_cells_are_no_formulas() -> None:
    for text in ("=1", "+1", "-1", "@a", "\t=1", " =1", "\n=1", "\uff1d1"):
        assert report.cell(text) == "'" + text
    assert report.cell("a=1") == "a=1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", -3),
        ("steps", 100000),
        ("steps", 10**400),
        ("steps", 2.5),
        ("steps", True),
        ("cfg_scale", -5),
        ("cfg_scale", float("nan")),
        ("cfg_scale", float("inf")),
        ("cfg_scale", 10**400),
        ("seed", 2**64),
        ("seed", -1),
        ("clip_skip", 99),
        ("tile", 10**9),
        ("method", "nonsense"),
        ("prompt", "a\ud800b"),
        ("prompt", 3),
        ("sampler", "Euler\x1b[31m"),
        ("size", (17, 24)),
        ("size", (0, 8)),
        ("size", (8, 10**400)),
        ("size", "ab"),
        ("low_memory", "yes"),
    ],
)
def test_a_request_checks_itself(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^(the )?{field} (is|holds) .*; (choose|write)") as error:
        HiresRequest(**{"size": (64, 64), field: value})
    assert len(str(error.value)) < 300 and str(error.value).isprintable()


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("cfg_scale", float("inf")), ("seed", 10**400)])
def test_bad_job_settings_are_refused_before_anything_is_written(tmp_path: Path, field: str, value: object) -> None:
    make_picture(tmp_path / "in" / "a.png")
    with pytest.raises(ConfigError, match=f"^{field} is"):
        options(tmp_path / "in", tmp_path / "out", settings={field: value})
    assert not (tmp_path / "out").exists()


class Picky(Fast):
    """Refuses as the standalone renderer does."""

    def render(self, image, request, progress):
        if request.sampler == "LCM" and request.steps > 50:
            raise UsageError("steps is 60; choose 1 to 50 with LCM")
        if min(request.size) < 64:
            raise UsageError(f"the target {request.size} is too small; choose at least 64 px a side")
        return super().render(image, request, progress)


def test_one_pictures_fault_is_that_pictures(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 60, Sampler: LCM, CFG scale: 2, Seed: 1")
    Image.new("RGB", (40, 40)).save(source / "1 lcm.png", pnginfo=info)
    make_picture(source / "2 icon.png", size=(23, 17))
    make_picture(source / "3 good.png", size=(40, 40))
    lines: list[tuple[str, str]] = []
    summary = run_job(
        options(source, tmp_path / "out"), Picky, on_event=lambda event: lines.append((event.kind, event.key))
    )
    assert (summary.done, summary.failed, summary.stopped, summary.exit_code) == (1, 2, None, 1)
    assert sorted(key for kind, key in lines if kind == "failed") == ["1 lcm.png", "2 icon.png"]


@pytest.mark.skipif(os.name == "nt", reason="FIFO")
def test_planning_survives_any_file(tmp_path: Path, monkeypatch) -> None:
    from fam_ext.metadata import pictures

    source = tmp_path / "in"
    for number in range(4):
        make_picture(source / f"{number}.png", f"p{number}", number)
    os.mkfifo(source / "1.txt")
    os.utime(source / "2.png", (1 << 40, 1 << 40))
    real = pictures.read_header

    def odd(path, **more):
        if str(path).endswith("0.png"):
            raise ValueError("half a \ud800 character\nand a \x1b escape")
        return real(path, **more)

    monkeypatch.setattr(pictures, "read_header", odd)
    lines: list[tuple[str, str]] = []
    summary = run_job(
        options(source, tmp_path / "out"), Fast, on_event=lambda event: lines.append((event.kind, event.message))
    )
    assert (summary.done, summary.failed) == (3, 1)
    (failed,) = [message for kind, message in lines if kind == "failed"]
    assert failed.startswith("its metadata cannot be used") and failed.isprintable()


def test_a_renderer_that_cannot_be_loaded_ends_the_job_once(tmp_path: Path) -> None:
    for number in range(3):
        make_picture(tmp_path / "in" / f"{number}.png", "x", number)

    class Unloadable(Odd):
        def load(self) -> None:
            raise MemoryError

    with pytest.raises(UsageError, match="cannot be loaded"):
        run_job(options(tmp_path / "in", tmp_path / "out"), Unloadable, run=RunRule(retries=3))
    with Journal(tmp_path / "out") as journal:
        assert journal.counts()["pending"] == 3


def test_the_folder_is_synced_between_rename_and_journal(tmp_path: Path, monkeypatch) -> None:
    from fam_ext.jobs import make

    make_picture(tmp_path / "in" / "a.png")
    seen: list[str] = []
    for place, name in ((make, "_write_synced"), (Journal, "saving"), (make, "sync_folder"), (Journal, "done")):
        function = getattr(place, name)

        def call(*arguments, _function=function, _name=name, **named):
            seen.append(_name)
            return _function(*arguments, **named)

        monkeypatch.setattr(place, name, call)
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *pair: (seen.append("replace"), rename(*pair)))
    run_job(options(tmp_path / "in", tmp_path / "out"), Fast, run=RunRule(report=False))
    assert seen == ["_write_synced", "saving", "replace", "sync_folder", "done"]


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"size": [8, 8], "steps": 500}', '{"size": null}'])
def test_a_row_that_cannot_be_read_fails_alone(tmp_path: Path, text: str) -> None:
    for number in range(2):
        make_picture(tmp_path / "in" / f"{number}.png", "x", number)

    class Gone(Fast):
        def load(self) -> None:
            raise MemoryError

    with pytest.raises(UsageError):
        run_job(options(tmp_path / "in", tmp_path / "out"), Gone)
    with sqlite3.connect(tmp_path / "out" / ".fam-hires" / "journal.sqlite3") as database:
        database.execute("UPDATE items SET request = ? WHERE key = '0.png'", (text,))
    database.close()
    summary = run_job(options(tmp_path / "in", tmp_path / "out"), Fast)
    assert (summary.done, summary.failed, summary.stopped) == (1, 1, None)
    with Journal(tmp_path / "out") as journal:
        assert "run the command again" in str(next(journal.items(state="failed")).error)


@pytest.mark.parametrize("renamed", [False, True])
def test_recovery_syncs_the_folder_before_the_journal(tmp_path: Path, monkeypatch, renamed: bool) -> None:
    import hashlib

    from fam_ext.jobs.journal import store

    make_picture(tmp_path / "in" / "a.png")
    run_job(options(tmp_path / "in", tmp_path / "out"), Fast, run=RunRule(report=False))
    picture = tmp_path / "out" / "a.png"
    state = tmp_path / "out" / ".fam-hires"
    if not renamed:
        (state / "tmp").mkdir()
        picture.rename(state / "tmp" / "1-dead-1")
    waiting = picture if renamed else state / "tmp" / "1-dead-1"
    with sqlite3.connect(state / "journal.sqlite3") as database:
        mark = hashlib.sha256(waiting.read_bytes()).hexdigest()
        database.execute("UPDATE items SET state = 'saving', owner = '1-dead', output_hash = ?", (mark,))
    database.close()
    seen: list[tuple[Path, str, bool]] = []

    def sync(folder: Path) -> None:
        with sqlite3.connect(state / "journal.sqlite3") as reader:
            (now,) = reader.execute("SELECT state FROM items").fetchone()
        reader.close()
        seen.append((folder, now, picture.is_file()))

    monkeypatch.setattr(store, "sync_folder", sync)
    with Journal(tmp_path / "out") as journal:
        assert journal.counts()["done"] == 1
    assert seen == [(tmp_path / "out", "saving", True)]


def test_a_webui_job_is_not_drawn_with_another_model(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "raise")
    run_job(options(tmp_path / "in", tmp_path / "out"), Odd, run=RunRule(retries=0))  # a renderer of this process
    with pytest.raises(UsageError, match=r"drawn in the WebUI.*start the same folders there again"):
        retry_failed(str(tmp_path / "out"))
    with sqlite3.connect(tmp_path / "out" / ".fam-hires" / "journal.sqlite3") as database:
        database.execute("DELETE FROM meta WHERE name = 'renderer'")  # as version 3 left it
    database.close()
    with pytest.raises(UsageError, match="names no renderer"):
        retry_failed(str(tmp_path / "out"))
    with Journal(tmp_path / "out") as journal:
        assert journal.counts()["failed"] == 1
    assert retry_failed(str(tmp_path / "out"), Fast).done == 1
