"""Nothing of the user's is replaced: sources with --overwrite, and reports that are not ours."""

import os
import sys
from pathlib import Path

import pytest

from fam_ext.jobs import make, report
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.enter import IS_OWN_SOURCE, IS_SOURCE
from fam_ext.jobs.run import retry_failed, run_job
from fam_ext.options.job import Job
from tests.jobs.fakes import Fast, make_picture, options


def run(plan: Job) -> tuple[object, list[tuple[str, str]]]:
    lines: list[tuple[str, str]] = []
    summary = run_job(
        plan,
        Fast,
        on_event=lambda event: lines.append((event.key, event.message)) if event.kind == "failed" else None,
    )
    return summary, lines


def test_a_picture_in_the_output_folder_is_not_replaced_by_its_own(tmp_path: Path) -> None:
    make_picture(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    for _ in range(2):
        summary, lines = run(options(tmp_path / "a.png", tmp_path, overwrite=True))
        assert (summary.failed, summary.exit_code, lines) == (1, 1, [("a.png", IS_OWN_SOURCE)])
    assert retry_failed(str(tmp_path), Fast).failed == 1
    assert (tmp_path / "a.png").read_bytes() == before


def test_another_source_is_not_replaced_through_a_pattern(tmp_path: Path) -> None:
    for name in ("x-7.png", "y.png"):
        make_picture(tmp_path / "here" / name, name, 7)
    before = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    plan = Job.of(
        (str(tmp_path / "here" / "y.png"), str(tmp_path / "here" / "x-7.png")),
        str(tmp_path / "here"),
        name="x-{seed}",
        overwrite=True,
    )
    summary, lines = run(plan)
    assert ("y.png", IS_SOURCE) in lines and summary.exit_code == 1
    for name, data in before.items():
        assert (tmp_path / "here" / name).read_bytes() == data


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize("kind", ["link", "hard link", "link beyond"])
def test_a_source_is_not_replaced_through_a_link(tmp_path: Path, kind: str) -> None:
    make_picture(tmp_path / "in" / "a.png", "a", 1)
    make_picture(tmp_path / "in" / "b.png", "b", 2)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "b.png"
    if kind == "hard link":
        os.link(tmp_path / "in" / "a.png", target)
    elif kind == "link":
        target.symlink_to(tmp_path / "in" / "a.png")
    else:  # the source is a link itself, and the output would take its place
        make_picture(tmp_path / "far.png", "far", 3)
        target.symlink_to(tmp_path / "far.png")
        (tmp_path / "in" / "a.png").unlink()
        (tmp_path / "in" / "a.png").symlink_to(target)
    before, kept = (tmp_path / "in" / "a.png").read_bytes(), os.lstat(target)
    sources = (str(tmp_path / "in" / "a.png"), str(tmp_path / "in" / "b.png"))
    summary, lines = run(Job.of(sources, str(tmp_path / "out"), overwrite=True))
    assert lines == [("b.png", IS_SOURCE)] and (summary.done, summary.failed) == (1, 1)
    assert (tmp_path / "in" / "a.png").read_bytes() == before
    assert (os.lstat(target).st_ino, os.path.islink(target)) == (kept.st_ino, kind != "hard link")


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_link_that_comes_after_the_plan_is_seen(tmp_path: Path, monkeypatch) -> None:
    make_picture(tmp_path / "in" / "a.png")
    plan = options(tmp_path / "in", tmp_path / "out", overwrite=True)
    real = make.pack

    def pack(*arguments):
        (tmp_path / "out" / "a.png").symlink_to(tmp_path / "in" / "a.png")
        return real(*arguments)

    monkeypatch.setattr(make, "pack", pack)
    _, lines = run(plan)
    assert lines == [("a.png", IS_SOURCE)]
    assert (tmp_path / "out" / "a.png").is_symlink()


def test_overwrite_still_replaces_what_we_made(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png")
    run(options(tmp_path / "in", tmp_path / "out"))
    summary, _ = run(options(tmp_path / "in", tmp_path / "out", overwrite=True, scale=3.0))
    assert (summary.done, summary.failed) == (1, 0)


def test_reports_that_are_not_ours_stay(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png")
    output = tmp_path / "out"
    output.mkdir()
    foreign = {"report.csv": "a,b\n1,2\n", "report.html": "<!doctype html><title>mine</title>", "fam-report.csv": "x"}
    for name, text in foreign.items():
        (output / name).write_text(text)
    (output / "report.json").mkdir()
    for _ in range(2):
        run(options(tmp_path / "in", output, overwrite=True))
        (output / "a.png").unlink()
    assert {name: (output / name).read_text() for name in foreign} == foreign
    places = [report.place(output, name).name for name in report.NAMES]
    assert places == ["fam-report-2.csv", "fam-report.json", "fam-report.html"]
    assert all(report.is_ours(output / name) for name in places) and report.exists(output)
    assert not (output / "fam-report-3.csv").exists()


def test_reports_of_ours_are_written_again(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png")
    run(options(tmp_path / "in", tmp_path / "out"))
    with Journal(tmp_path / "out") as journal:
        assert [path.name for path in report.write_all(journal)] == list(report.NAMES)
    assert sorted(path.name for path in (tmp_path / "out").glob("*report*")) == sorted(report.NAMES)


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_report_that_is_a_link_stays(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png")
    run(options(tmp_path / "in", tmp_path / "out"))
    (tmp_path / "out" / "report.csv").rename(tmp_path / "kept.csv")
    (tmp_path / "out" / "report.csv").symlink_to(tmp_path / "kept.csv")
    assert report.place(tmp_path / "out", "report.csv").name == "fam-report.csv"


def test_files_without_an_identity_are_not_taken_for_one_another(tmp_path: Path, monkeypatch) -> None:
    from types import SimpleNamespace

    from fam_ext.jobs.journal import disk

    with monkeypatch.context() as patch:
        for name in ("stat", "lstat"):
            patch.setattr(os, name, lambda path: SimpleNamespace(st_dev=7, st_ino=0))
        assert disk.identities(tmp_path) == set()
