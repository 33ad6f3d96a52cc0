"""What a folder job would do, before it does it."""

from pathlib import Path

import pytest

from fam_ext.errors import UsageError
from fam_ext.jobs import preview
from fam_ext.jobs.preview import previews, wordless
from fam_ext.jobs.run import run_job
from tests.jobs.fakes import Fast, make_folder, make_picture, options


def test_a_preview_writes_nothing_and_tells_what_a_run_then_does(tmp_path: Path, monkeypatch) -> None:
    source = make_folder(tmp_path / "in", 3)
    (source / "torn.png").write_bytes(b"\x89PNG")
    job = options(source, tmp_path / "out")
    (before,) = previews(job)
    assert not (tmp_path / "out").exists()
    assert before.totals is not None and before.totals.seconds is None
    assert (before.totals.files, before.totals.waiting, before.totals.unreadable) == (4, 3, 1)
    row = before.rows[0]
    assert (row.key, row.prompt, row.output, row.outcome) == ("picture 0.png", "picture 0", "picture 0.png", "to do")
    assert row.native is not None and row.target == (row.native[0] * 2, row.native[1] * 2)
    assert before.totals.pixels == 3 * row.target[0] * row.target[1]
    assert (before.rows[3].native, before.rows[3].target, before.rows[3].prompt) == (None, None, "")
    assert "PNG" in before.rows[3].outcome and before.totals.left_out is None
    summary = run_job(job, Fast)
    assert (summary.done, summary.failed) == (3, 1)
    (after,) = previews(job)
    assert after.totals is not None and after.totals.seconds == 0.0  # nothing is left
    assert (after.totals.waiting, after.totals.done, after.totals.kept) == (0, 3, 0)
    made = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.png"))
    for number in range(6):
        make_picture(source / f"more {number}.png", "x", number)
    (more,) = previews(job)
    assert more.totals is not None and more.totals.pixels == 2 * before.totals.pixels
    assert more.totals.bytes == pytest.approx(2 * made)  # as much a pixel as those three
    assert more.totals.seconds is not None and 0 < more.totals.seconds < 30
    other = job.replace(scale=3.0)
    (kept,) = previews(other)
    assert kept.totals is not None and len(kept.totals.changes) == 1 and "(3 pictures)" in kept.totals.changes[0]
    (anew,) = previews(other.replace(overwrite=True))
    assert anew.totals is not None and anew.totals.seconds  # by the history of what it is to replace
    monkeypatch.setattr(preview, "MAX_COMPARED", 7)  # the six that are new come first
    (kept,) = previews(other)
    assert kept.totals is not None and "(1 picture)" in kept.totals.changes[0]


def test_a_large_folder_shows_its_first_files_at_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(preview, "MAX_LISTED", 2)
    found = previews(options(make_folder(tmp_path / "in", 4), tmp_path / "out"))
    first = next(found)
    assert first.totals is None and [row.key for row in first.rows] == ["picture 0.png", "picture 1.png"]
    (whole,) = found
    assert whole.totals is not None and whole.totals.files == 4 and len(whole.rows) == 2


def test_files_without_words_are_counted_unless_the_job_has_some(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "bare.png", None)
    make_picture(tmp_path / "in" / "said.png", "a lamp")
    assert wordless(options(tmp_path / "in", tmp_path / "out")) == (1, 2)
    assert wordless(options(tmp_path / "in", tmp_path / "out", settings={"prompt": "a table"})) == (0, 0)
    with pytest.raises(UsageError, match="does not exist"):
        wordless(options(tmp_path / "none", tmp_path / "out"))
