"""Disks that are full or broken, files that cannot be read: the job ends cleanly or the file fails alone."""

import errno
import mmap
import os
import shutil
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from fam_ext import placing
from fam_ext.errors import OutputError, UsageError
from fam_ext.jobs import make, report
from fam_ext.jobs.executors import base
from fam_ext.jobs.journal import Journal, disk
from fam_ext.jobs.run import run_job
from tests.jobs.fakes import Fast, make_folder, make_picture, options, outputs, strays


def errors(output: Path) -> dict[str, str | None]:
    with Journal(output) as journal:
        return {item.key: item.error for item in journal.items(state="failed")}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk_stops_before_the_next_picture(tmp_path: Path, monkeypatch, code: int) -> None:
    source = make_folder(tmp_path / "in", 30)
    written = []

    def full(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) > 2:
            path.write_bytes(data[:10])
            raise OSError(code, os.strerror(code))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(make, "_write_synced", full)
    renderer = Fast(seconds=0.02)
    summary = run_job(options(source, tmp_path / "out"), lambda: renderer)
    assert summary.done == 2
    assert summary.failed == 0
    assert summary.pending == 28
    assert len(renderer.seen) < 15
    assert ("is full" in summary.stopped) == (code != errno.EROFS)
    assert summary.exit_code == 1
    assert strays(tmp_path / "out") == []
    assert len(outputs(tmp_path / "out")) == 2
    monkeypatch.undo()
    assert run_job(options(source, tmp_path / "out"), Fast).done == 28


def test_an_output_that_may_not_be_written_fails_alone(tmp_path: Path, monkeypatch) -> None:
    source = make_folder(tmp_path / "in", 4)
    real = os.replace

    def held(first: str | Path, second: str | Path) -> None:
        if str(second).endswith("picture 1.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real(first, second)

    with monkeypatch.context() as patch:
        patch.setattr(placing, "HELD_SECONDS", 0.1)
        patch.setattr(os, "replace", held)
        for done in (3, 0):
            summary = run_job(options(source, tmp_path / "out"), Fast)
            assert (summary.done, summary.failed, summary.pending, summary.stopped) == (done, 1, 0, None)
    assert "(Permission denied); close what has it open" in str(errors(tmp_path / "out")["picture 1.png"])
    assert strays(tmp_path / "out") == [] and len(outputs(tmp_path / "out")) == 3
    assert run_job(options(source, tmp_path / "out"), Fast).done == 1


def test_a_fresh_file_that_a_scanner_holds_for_an_instant_costs_no_picture(tmp_path: Path, monkeypatch) -> None:
    source, held = make_folder(tmp_path / "in", 2), Counter[str]()
    real = os.replace

    def scanned(first: str | Path, second: str | Path) -> None:
        held[str(second)] += 1
        if held[str(second)] < 4:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real(first, second)

    monkeypatch.setattr(os, "replace", scanned)
    summary = run_job(options(source, tmp_path / "out"), Fast)
    assert (summary.done, summary.failed, summary.stopped) == (2, 0, None)
    assert {held[str(tmp_path / "out" / name)] for name in outputs(tmp_path / "out")} == {4}


def test_a_path_that_windows_refuses_fails_before_it_is_drawn(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    longest = disk.LONGEST_PATH - len(str(out)) - 1
    for name in ("x" * (longest - 4), "y" * (longest - 3)):
        make_picture(tmp_path / "in" / f"{name}.png", "a")
    renderer = Fast()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "takes_long_paths", lambda: False)
        summary = run_job(options(tmp_path / "in", out), lambda: renderer)
    assert (summary.done, summary.failed, len(renderer.seen)) == (1, 1, 1)
    with Journal(out, memory=True) as journal:
        (item,) = journal.items(state="failed")
    assert item.key.startswith("y") and "has 260 characters, and Windows takes 259" in item.error
    assert run_job(options(tmp_path / "in", out), Fast).done == 1


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_an_output_folder_that_may_not_be_written_ends_the_job_once(tmp_path: Path, monkeypatch, code: int) -> None:
    source = make_folder(tmp_path / "in", 20)
    real = os.replace

    def forbidden(first: str | Path, second: str | Path) -> None:
        if Path(second).suffix == ".png" or Path(second).name.startswith(".fam-"):
            raise OSError(code, os.strerror(code))
        real(first, second)

    monkeypatch.setattr(placing, "HELD_SECONDS", 0.1)
    monkeypatch.setattr(os, "replace", forbidden)
    renderer = Fast(seconds=0.02)
    summary = run_job(options(source, tmp_path / "out"), lambda: renderer)
    assert (summary.done, summary.failed, summary.pending) == (0, 0, 20) and len(renderer.seen) < 15
    assert "out cannot be written (" in str(summary.stopped)
    assert strays(tmp_path / "out") == [] and outputs(tmp_path / "out") == {}


def test_a_picture_whose_times_cannot_be_kept_is_made(tmp_path: Path, monkeypatch) -> None:
    source = make_folder(tmp_path / "in", 2)
    real = os.utime

    def forbidden(path: Path, **times: tuple[int, int]) -> None:
        (source / "picture 1.png").unlink(missing_ok=True)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "utime", forbidden)
    summary = run_job(options(source, tmp_path / "out", keep_times=True), Fast)
    monkeypatch.setattr(os, "utime", real)
    assert (summary.done, summary.failed) == (2, 0)
    with Journal(tmp_path / "out") as journal:
        notes = [note for item in journal.items() for note in item.notes]
    assert "the times were not kept (Operation not permitted)" in notes and len(notes) == 2


def test_an_error_on_rename_fails_that_file_alone(tmp_path: Path, monkeypatch) -> None:
    source = make_folder(tmp_path / "in", 3)
    real = os.replace

    def broken(first: str, second: str) -> None:
        if str(second).endswith("picture 1.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(first, second)

    monkeypatch.setattr(os, "replace", broken)
    summary = run_job(options(source, tmp_path / "out"), Fast)
    assert (summary.done, summary.failed) == (2, 1)
    assert "Input/output error" in errors(tmp_path / "out")["picture 1.png"]
    assert strays(tmp_path / "out") == []
    monkeypatch.undo()
    assert run_job(options(source, tmp_path / "out"), Fast).done == 1


def test_an_error_on_read_fails_that_file_alone(tmp_path: Path, monkeypatch) -> None:
    source = make_folder(tmp_path / "in", 3)
    real = os.fstat

    def broken(descriptor: int) -> os.stat_result:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.endswith("picture 1.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor)

    monkeypatch.setattr(make.os, "fstat", broken)
    summary = run_job(options(source, tmp_path / "out"), Fast)
    monkeypatch.undo()
    assert (summary.done, summary.failed) == (2, 1)
    assert "Input/output error" in errors(tmp_path / "out")["picture 1.png"]


def test_a_full_disk_under_the_journal_stops_cleanly(tmp_path: Path, monkeypatch) -> None:
    source = make_folder(tmp_path / "in", 5)
    real = Journal.done
    calls = []

    def full(self: Journal, item) -> None:
        calls.append(item)
        if len(calls) == 2:
            raise OutputError("the disk of the journal is full; free some space")
        real(self, item)

    monkeypatch.setattr(Journal, "done", full)
    summary = run_job(options(source, tmp_path / "out"), Fast)
    assert "full" in summary.stopped
    monkeypatch.undo()
    summary = run_job(options(source, tmp_path / "out"), Fast)
    assert summary.done + summary.done_before == 5
    assert strays(tmp_path / "out") == []


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved")
@pytest.mark.parametrize("instant", ["check_inside", "_write_synced"])
def test_an_output_folder_that_is_moved_away_ends_the_job(tmp_path: Path, monkeypatch, instant: str) -> None:
    """The open journal goes on where it was moved to: what it called done would lie in a new folder."""
    source, output, moved = tmp_path / "in", tmp_path / "out", tmp_path / "moved"
    for number in range(4):
        make_folder(source / str(number), 1)
    real = getattr(make, instant)

    def move(*arguments: object) -> None:
        real(*arguments)
        if len(list(output.rglob("*.png"))) == 2:
            output.rename(moved)

    monkeypatch.setattr(base, "_SAVERS", 1)
    monkeypatch.setattr(make, instant, move)
    job = options(source, output, recursive=True)
    summary = run_job(job, Fast)
    assert "was moved or deleted" in str(summary.stopped) and "was moved" in summary.unreported
    assert (summary.done, summary.failed, summary.pending, summary.exit_code) == (2, 0, 2, 1)
    assert len(outputs(moved)) == 2 and not outputs(output)
    monkeypatch.undo()
    shutil.rmtree(output, ignore_errors=True)
    moved.rename(output)
    assert run_job(job, Fast).done_before >= 2 and len(outputs(output)) == 4


def test_a_journal_whose_disk_is_gone_is_not_called_damaged(tmp_path: Path, monkeypatch) -> None:
    def gone(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    def stop(event) -> None:
        if event.kind == "step":
            monkeypatch.setattr(Journal, "counts", gone)

    with pytest.raises(OutputError, match=r"I/O error.*; check the disk and run"):
        run_job(options(make_folder(tmp_path / "in", 1), tmp_path / "out"), Fast, on_event=stop)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 2)
    folder = tmp_path / "out" / ".fam-hires"
    folder.mkdir(parents=True)
    (folder / "journal.sqlite3").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(OutputError, match="damaged"):
        run_job(options(source, tmp_path / "out"), Fast)


def test_an_earlier_journal_is_migrated_and_a_later_one_refused(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 2)
    run_job(options(source, tmp_path / "out"), Fast)
    path = tmp_path / "out" / ".fam-hires" / "journal.sqlite3"
    database = sqlite3.connect(path)
    for index in ("items_queue", "items_source"):
        database.execute(f"DROP INDEX {index}")
    for column in ("base_text", "program", "at_risk", "deaths", "ran", "plan", "weights"):
        database.execute(f"ALTER TABLE items DROP COLUMN {column}")
    database.execute("UPDATE meta SET value = '1' WHERE name = 'schema_version'")
    database.commit()
    database.close()
    assert run_job(options(source, tmp_path / "out"), Fast).done_before == 2
    database = sqlite3.connect(path)
    assert database.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone() == ("7",)
    database.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    database.commit()
    database.close()
    with pytest.raises(OutputError, match="version 99"):
        run_job(options(source, tmp_path / "out"), Fast)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_a_stored_journal_is_migrated(tmp_path: Path, version: int) -> None:
    state = tmp_path / ".fam-hires"
    state.mkdir()
    stored = f"version-{max(2, version)}.sqlite3"
    shutil.copy(Path(__file__).parent / "stored" / stored, state / "journal.sqlite3")
    if version == 1:
        database = sqlite3.connect(state / "journal.sqlite3")
        database.execute("ALTER TABLE items DROP COLUMN base_text")
        database.execute("UPDATE meta SET value = '1' WHERE name = 'schema_version'")
        database.commit()
        database.close()
    with Journal(tmp_path) as journal:
        assert journal.get("schema_version") == 7
        assert journal.counts() == {"pending": 0, "running": 0, "saving": 0, "done": 3, "failed": 2, "skipped": 0}
        assert [item.deaths for item in journal.items()] == [0] * 5
        done = [report.row(item) for item in journal.items(state="done")]
        # it did not say what ran, so what was asked for stands
        assert [(row["method"], row["steps"], row["fm_calls"]) for row in done] == [("fam", 20, None)] * 3
        assert journal.retry_failed() == 1
        item = journal.claim()
        assert item is not None and (item.key, item.attempts) == ("bad.png", 1)
        plan = journal._db.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM items WHERE state = 'pending' AND plan = 0 AND deaths = 0 "
            "ORDER BY deaths, model_rank, size_rank, id LIMIT 1"
        ).fetchone()
        assert "items_queue" in plan[3]  # no sort of a hundred thousand rows a picture


def test_memory_that_ends_while_reading_fails_that_picture(tmp_path: Path, monkeypatch) -> None:
    source = make_folder(tmp_path / "in", 3)
    real = make.pictures.read_file

    def read(path) -> bytes:
        if str(path).endswith("in/picture 1.png"):
            raise MemoryError
        return real(path)

    monkeypatch.setattr(make.pictures, "read_file", read)
    summary = run_job(options(source, tmp_path / "out"), Fast)
    assert (summary.done, summary.failed, summary.stopped) == (2, 1, None)
    assert "too large for this machine's memory" in str(errors(tmp_path / "out")["picture 1.png"])


def test_a_decoder_that_falls_over_fails_that_picture(tmp_path: Path, monkeypatch) -> None:
    source = make_folder(tmp_path / "in", 3)
    real = make.load

    def load(item, *more):
        if item.key == "picture 1.png":
            raise ZeroDivisionError("decoder")
        return real(item, *more)

    monkeypatch.setattr(make, "load", load)
    summary = run_job(options(source, tmp_path / "out"), Fast)
    assert (summary.done, summary.failed, summary.stopped) == (2, 1, None)


@pytest.mark.parametrize("place", ["in", "in/out"])
def test_an_output_inside_the_input_is_refused(tmp_path: Path, place: str) -> None:
    source = make_folder(tmp_path / "in", 1)
    with pytest.raises(UsageError, match="inside the input"):
        run_job(options(source, tmp_path / place), Fast)
    assert sorted(path.name for path in source.iterdir()) == ["picture 0.png"]


def test_a_missing_input_and_a_file_as_output_are_refused(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 1)
    with pytest.raises(UsageError, match="does not exist"):
        run_job(options(tmp_path / "nothing", tmp_path / "out"), Fast)
    with pytest.raises(UsageError, match="is a file"):
        run_job(options(source, source / "picture 0.png"), Fast)
    assert not (tmp_path / "out").exists()


def test_a_picture_never_replaces_its_own_source(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 1)
    before = (source / "picture 0.png").read_bytes()
    summary = run_job(options(source / "picture 0.png", source, overwrite=True), Fast)
    assert (summary.done, summary.failed) == (0, 1)
    assert "own source" in errors(source)["picture 0.png"]
    assert (source / "picture 0.png").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_link_in_the_output_that_leads_outside_is_not_followed(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in" / "sub", 1).parent
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(outside)
    summary = run_job(options(source, tmp_path / "out", recursive=True), Fast)
    assert (summary.done, summary.failed) == (0, 1)
    assert list(outside.iterdir()) == []
    assert "outside" in errors(tmp_path / "out")["sub/picture 0.png"]


def test_a_source_that_changes_or_goes_after_planning_fails_alone(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 3)

    def listen(event) -> None:
        if event.kind == "planned":
            (source / "picture 2.png").unlink()

    summary = run_job(options(source, tmp_path / "out"), Fast, on_event=listen)
    assert (summary.done, summary.failed) == (2, 1)
    assert "No such file" in errors(tmp_path / "out")["picture 2.png"]


@pytest.mark.skipif(os.name == "nt", reason="flock")
def test_a_file_system_without_shared_memory_holds_a_journal(tmp_path: Path, monkeypatch) -> None:
    """As FUSE's, 9p's and some exFAT's do not: SQLite's WAL ends in a disk I/O error there."""
    source, state = make_folder(tmp_path / "in", 2), tmp_path / "out" / ".fam-hires"

    def mode() -> str:
        with closing(sqlite3.connect(state / "journal.sqlite3")) as database:
            return database.execute("PRAGMA journal_mode").fetchone()[0]

    def refuse(*_: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    run_job(options(source, tmp_path / "out"), Fast)
    assert mode() == "wal"
    (state / "journal.sqlite3-shm").mkdir()  # as it cannot be made on a disk that is read-only
    with Journal(tmp_path / "out", memory=True) as journal:
        assert journal.counts()["done"] == 2
    (state / "journal.sqlite3-shm").rmdir()
    monkeypatch.setattr(mmap, "mmap", refuse)
    make_folder(source, 3)
    assert run_job(options(source, tmp_path / "out"), Fast).done == 1  # the journal came from another disk
    assert mode() == "delete"
    assert strays(tmp_path / "out") == []


def test_a_file_system_without_locks_is_said_once(tmp_path: Path, monkeypatch, caplog) -> None:
    import fcntl

    source = make_folder(tmp_path / "in", 2)

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    assert run_job(options(source, tmp_path / "out"), Fast).done == 2
    assert caplog.text.count("has no locks") == 1
    with closing(sqlite3.connect(tmp_path / "out" / ".fam-hires" / "journal.sqlite3")) as other:
        other.execute("BEGIN EXCLUSIVE")  # SQLite's own locks are not asked for, either
        assert run_job(options(source, tmp_path / "out"), Fast).done_before == 2
    assert strays(tmp_path / "out") == []
    with pytest.raises(UsageError, match="no locks, so --join"):
        Journal(tmp_path / "out", join=True)


@pytest.mark.skipif(os.name == "nt", reason="flock")
def test_looking_at_a_lock_does_not_take_it(tmp_path: Path, monkeypatch) -> None:
    import fcntl

    from fam_ext.jobs.lock import FileLock, is_held

    path = tmp_path / "lock"
    assert not is_held(path) and not path.exists()  # looking makes no file
    path.touch()
    with open(path, "rb") as other:  # somebody else is looking
        fcntl.flock(other.fileno(), fcntl.LOCK_SH)
        assert not is_held(path)
        lock = FileLock(path)
        monkeypatch.setattr("fam_ext.jobs.lock.time.sleep", lambda seconds: fcntl.flock(other.fileno(), fcntl.LOCK_UN))
        assert lock.acquire()  # although it was being looked at
    assert is_held(path)
    lock.release()
    assert not is_held(path)


def test_an_owner_lock_that_is_refused_is_heeded(tmp_path: Path, monkeypatch) -> None:
    from fam_ext.jobs import lock

    monkeypatch.setattr(lock.FileLock, "acquire", lambda self: "owner" not in self.path.name)
    with pytest.raises(UsageError, match="is taken"):
        Journal(tmp_path / "out")
