"""A journal that something wrote into: every command works, or answers with one sentence."""

import random
import sqlite3
from pathlib import Path

import pytest

from fam_ext import cli
from fam_ext.errors import OutputError
from fam_ext.jobs import report
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.renderers import RendererSpec
from fam_ext.jobs.run import run_job
from tests.jobs.fakes import FakeSpec, Fast, make_folder, make_picture, options


@pytest.fixture
def job(tmp_path: Path, monkeypatch) -> tuple[Path, bytes]:
    build = FakeSpec("Odd").build
    monkeypatch.setattr(RendererSpec, "build", lambda self: build())
    source = make_folder(tmp_path / "in", 3)
    make_picture(source / "bad.png", "raise", 7)
    cli_run("upscale", source, "-o", tmp_path / "out", "--retries", 0, "--progress", "plain")
    path = tmp_path / "out" / ".fam-hires" / "journal.sqlite3"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    database.close()
    return path, path.read_bytes()


def cli_run(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return end.value.code


def test_a_journal_that_cannot_be_opened_is_not_kept_open(job: tuple[Path, bytes], monkeypatch) -> None:
    """The next process would wait a minute for its lock."""
    opened = []
    connect = sqlite3.connect

    def watched(*place, **options) -> sqlite3.Connection:
        opened.append(connect(*place, **options))
        return opened[-1]

    path, whole = job
    monkeypatch.setattr(sqlite3, "connect", watched)
    for start in (0, 40, 100, 4096):
        path.write_bytes(whole[:start] + b"\xff" * 64 + whole[start + 64 :])
        with pytest.raises(OutputError):
            Journal(path.parent.parent)
    assert len(opened) >= 4
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


@pytest.mark.slow
def test_bytes_that_were_flipped_are_a_sentence_or_nothing(job: tuple[Path, bytes], tmp_path: Path, capsys) -> None:
    path, whole = job
    stream, refused = random.Random(0), 0
    for number in range(40):
        damaged = bytearray(whole)
        for _ in range(stream.choice((1, 8, 64, 512))):
            damaged[stream.randrange(len(damaged))] = stream.randrange(256)
        for left in path.parent.glob("journal.sqlite3-*"):
            left.unlink()
        path.write_bytes(damaged)
        for words in (("report", tmp_path / "out"), ("retry-failed", tmp_path / "out", "--progress", "plain")):
            code = cli_run(*words)
            error = capsys.readouterr().err
            assert code in (0, 1, 2) and "Traceback" not in error, (number, words)
            refused += "damaged" in error
    assert refused > 5  # the damage was real


@pytest.mark.parametrize("column", ["taken", "notes"])
@pytest.mark.parametrize("text", ["{", "[1", "3", "null", "[" * 100_000, "[null, 3]"])
def test_lists_of_a_row_that_are_none(job: tuple[Path, bytes], tmp_path: Path, column: str, text: str) -> None:
    with sqlite3.connect(job[0]) as database:
        database.execute(f"UPDATE items SET {column} = ?", (text,))
    database.close()
    assert cli_run("report", tmp_path / "out") == 0


@pytest.mark.parametrize("column", ["seconds", "bytes", "finished", "attempts", "deaths", "native_height", "mtime_ns"])
def test_numbers_of_a_row_that_are_none(job: tuple[Path, bytes], tmp_path: Path, column: str) -> None:
    with sqlite3.connect(job[0]) as database:
        database.execute(f"UPDATE items SET {column} = 'much'")
    database.close()
    assert cli_run("report", tmp_path / "out") == 0
    words = ("--scale", 3, "--progress", "plain")
    assert cli_run("upscale", tmp_path / "in", "-o", tmp_path / "out", *words) in (0, 1)


def test_a_report_being_written_is_not_taken_for_a_dead_process_file(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 1)
    run_job(options(source, tmp_path / "out"), Fast)
    with Journal(tmp_path / "out") as journal, report._replacing(tmp_path / "out" / "report.csv", journal) as file:
        file.write("whole")
        journal.recover()
    assert (tmp_path / "out" / "report.csv").read_text() == "whole"
