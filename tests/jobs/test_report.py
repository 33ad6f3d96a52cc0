"""The reports' own promises: which file is ours, what a line says, and what the page leaves out."""

import builtins
import csv
import errno
import json
import os
from pathlib import Path

import pytest

from fam_ext import placing
from fam_ext.cli.progress import summary_line
from fam_ext.errors import Cancelled, OutputError
from fam_ext.jobs import report
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.run import run_job
from fam_ext.options.parts import RunRule
from fam_ext.options.request import HiresRequest
from tests.jobs.fakes import Fast, Odd, make_folder, make_picture, options


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return an output folder with three done, one failed, one torn, and its reports."""
    source = make_folder(tmp_path / "in", 2)
    make_picture(source / "café.png", "café", 5)
    make_picture(source / "bad.png", "raise", 6)
    (source / "torn.png").write_bytes(b"\x89PNG")
    run_job(options(source, tmp_path / "out"), Odd, run=RunRule(retries=0))
    return tmp_path / "out"


def written(output: Path, **more) -> str:
    with Journal(output) as journal:
        report.write_all(journal, **more)
    return (output / "report.html").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_read_is_not_ours(made: Path, monkeypatch) -> None:
    assert report.is_ours(made / "report.csv") and not report.is_ours(made / "none.csv")

    def refuses(*arguments, **more):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refuses)
        assert not report.is_ours(made / "report.csv")


def test_the_tables_hold_every_file_in_words_one_can_read(made: Path) -> None:
    text = (made / "report.json").read_text(encoding="utf-8")
    files = {Path(file["source"]).name: file for file in json.loads(text)["files"]}
    assert len(files) == 5 and "café" in text
    with open(made / "report.csv", newline="", encoding="utf-8") as file:
        assert {Path(row["source"]).name for row in csv.DictReader(file)} == files.keys()
    done, failed, torn = files["café.png"], files["bad.png"], files["torn.png"]
    assert [done[name] for name in ("native_width", "native_height", "width", "height")] == [48, 32, 96, 64]
    assert (done["attempts"], done["error"], done["bytes"]) == (1, None, (made / "café.png").stat().st_size)
    assert done["finished"].endswith("Z") and done["seconds"] == round(done["seconds"], 3)
    assert (failed["state"], failed["width"], failed["prompt"]) == ("failed", 96, "raise")
    assert [torn[name] for name in ("native_width", "native_height", "width", "prompt", "seconds")] == [None] * 5


def test_the_page_shows_failures_first_and_few_thumbnails(made: Path, monkeypatch) -> None:
    page = written(made)
    assert page.count("data:image/jpeg;base64,") == 6
    assert page.index("bad.png") < page.index("picture 0.png")
    assert "<button data-state='' class='on'>all 5</button>" in page
    assert ">done 3</button>" in page and ">failed 2</button>" in page and ">skipped" not in page
    assert "48 x 32 &rarr; 96 x 64" in page and "None" not in page and "more files" not in page
    assert written(made, thumbnails=1).count("data:image/jpeg;base64,") == 2
    assert written(made, thumbnails=0).count("data:image/jpeg;base64,") == 0
    monkeypatch.setattr(report, "MAX_HTML_ROWS", 3)
    page = written(made)
    assert page.count("<tr data-state=") == 3 and "2 more files are in report.csv" in page


def test_a_report_that_is_cancelled_leaves_the_one_that_stood(made: Path) -> None:
    before = {name: (made / name).read_bytes() for name in report.NAMES}
    with Journal(made) as journal:
        with pytest.raises(Cancelled, match="fam-hires report writes it"):
            report.write_all(journal, cancelled=lambda: True)
        assert list(journal.temporary.iterdir()) == []
    assert {name: (made / name).read_bytes() for name in report.NAMES} == before


@pytest.mark.parametrize("held", ["report.csv", "report.html"])
def test_a_report_that_is_held_open_is_named_and_the_others_are_written(
    made: Path, tmp_path: Path, monkeypatch, held: str
) -> None:
    make_picture(tmp_path / "in" / "new.png", "new", 9)
    job, real = options(tmp_path / "in", made), os.replace

    def opened(first: str | Path, second: str | Path) -> None:
        if Path(second).name == held:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real(first, second)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", opened)
        patch.setattr(placing, "HELD_SECONDS", 0.1)
        summary = run_job(job, Odd, run=RunRule(retries=0))
        with Journal(made) as journal, pytest.raises(OutputError, match=held):
            report.write_all(journal)
    assert summary.unreported.startswith(f"{held} cannot be written (Permission denied); close what has it open")
    line = summary_line(summary, str(made))
    assert line.endswith(summary.unreported) and ("; report: " in line) == (held != "report.html")
    assert [name for name in report.NAMES if "new.png" not in (made / name).read_text(encoding="utf-8")] == [held]
    assert run_job(job, Odd).unreported == "" and "new.png" in (made / held).read_text(encoding="utf-8")


def test_a_finished_file_says_what_ran_and_another_what_was_asked() -> None:
    item = Item(1, "a.png", "a.png", HiresRequest((64, 96), steps=9), (32, 48), "PNG", "a.png", finished=0.0)
    row = report.row(item)
    assert (row["steps"], row["width"], row["height"]) == (9, 96, 64)
    assert row["finished"] == "1970-01-01T00:00:00Z" and row["fam"].startswith("FAM version")
    assert report.row(Item(1, "a", "a", HiresRequest((64, 96), method="direct"), (1, 1), "PNG", "a"))["fam"] == ""


def test_nothing_new_writes_no_report_and_a_missing_one_is_written(made: Path, tmp_path: Path) -> None:
    job = options(tmp_path / "in", made)
    for name in ("bad.png", "torn.png"):
        (tmp_path / "in" / name).unlink()
    run_job(job, Fast)
    before = (made / "report.json").stat().st_mtime_ns
    run_job(job, Fast)
    assert (made / "report.json").stat().st_mtime_ns == before
    (made / "report.csv").unlink()
    run_job(job, Fast)
    assert (made / "report.csv").exists() and (made / "report.json").stat().st_mtime_ns > before
    (made / "report.csv").unlink()
    run_job(job, Fast, run=RunRule(report=False))
    assert not (made / "report.csv").exists()
