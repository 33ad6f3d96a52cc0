"""The journal's own promises: what a row says, what an empty one counts, who waits for whom, and each fault's words."""

import errno
import json
import os
import sqlite3
import threading
import time
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

from fam_ext.errors import UsageError
from fam_ext.jobs.contract import Ran
from fam_ext.jobs.events import Control
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.disk import db_sentence, db_uri, output_sentence, stops_the_job, sync_folder
from fam_ext.jobs.journal.queue import STATES
from fam_ext.jobs.journal.rows import COLUMNS, Item, PlanCounts, item_of
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.run import retry_failed, run_job
from fam_ext.jobs.walk import walk
from fam_ext.metadata.pictures import read_header
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule
from fam_ext.options.request import HiresRequest
from tests.jobs.fakes import Fast, make_folder, make_picture, options, outputs

WHOLE = Item(
    id=1,
    key="a.png",
    source="/in/a.png",
    request=HiresRequest((64, 96), prompt="a cat"),
    native=(32, 48),
    format="PNG",
    output="a.png",
    taken=("seed",),
    origin="parameters",
    base_text="beside",
    content_hash="c0",
    attempts=2,
    state="done",
    error="no error",
    notes=("a note",),
    seconds=1.5,
    bytes=1000,
    finished=1.7e9,
    program="Forge",
    deaths=1,
    ran=Ran(steps=20),
)


def test_a_row_says_what_was_written_into_it() -> None:
    written = {
        **vars(WHOLE),
        "native_height": 32,
        "native_width": 48,
        "request": WHOLE.request.to_text(),
        "ran": json.dumps(WHOLE.ran.to_json()),
        "taken": '["seed"]',
        "notes": '["a note"]',
    }
    assert item_of([written[name] for name in COLUMNS.split(", ")]) == WHOLE


@pytest.mark.parametrize("nothing", [None, "much", b"\xff"])
def test_a_rows_numbers_that_are_none_are_nought(nothing: object) -> None:
    numbers = ("native_height", "native_width", "attempts", "seconds", "bytes", "finished")
    names = COLUMNS.split(", ")
    row = [1, "a", "a", *[None] * (len(names) - 3)]
    for name in (*numbers, "deaths"):
        row[names.index(name)] = nothing
    item = item_of(row)
    assert (item.native, item.attempts, item.deaths) == ((0, 0), 0, 0)
    assert (item.seconds, item.bytes, item.finished) == (None, None, None)
    assert (item.format, item.output, item.taken, item.notes) == ("", "", (), ())


def test_an_empty_journal_counts_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert journal.counts() == dict.fromkeys(STATES, 0)
        assert (journal.hopeless(), journal.wordless(), journal.pending_pixels()) == ((0, 0), (0, 0), 0)
        assert journal.history() is None and list(journal.items()) == [] and not journal.others_at_work()


def planned(journal: Journal, job: Job) -> PlanCounts:
    return journal.plan(walk(job.places), job, plan_file)


def claimed(journal: Journal, **more: bool) -> Item:
    item = journal.claim(**more)
    assert item is not None
    return item


def test_the_queue_counts_what_waits_and_what_was_made(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 3)
    make_picture(source / "wordless.png", "", 9)
    (source / "torn.png").write_bytes(b"\x89PNG")
    job = options(source, tmp_path / "out")
    with Journal(tmp_path / "out") as journal:
        counts = planned(journal, job)
        assert (counts.files, counts.new, counts.failed, counts.skipped) == (5, 4, 1, 0)
        assert (journal.wordless(), journal.hopeless()) == ((1, 4), (1, 0))
        assert journal.pending_pixels() == 4 * 64 * 96
        first = claimed(journal)
        journal.saving(first, output_hash="h", size=2000, content_hash="c", notes=(), ran=Ran(seconds=3.0))
        journal.done(first)
        assert journal.history() == pytest.approx((3.0 / 0.006144, 2000 / 0.006144))
        second = claimed(journal)
        for deaths in (1, 2):
            assert journal.died(second) == deaths
        journal.fail(second, "it ended twice")
        assert journal.hopeless() == (1, 1)
        assert [item.key for item in journal.items(limit=2)] == ["picture 0.png", "picture 1.png"]
        assert next(journal.items(state="failed")).error == "it ended twice"


def test_a_first_claim_is_at_risk_and_an_attempt_that_a_release_takes_back(tmp_path: Path) -> None:
    job = options(make_folder(tmp_path / "in", 1), tmp_path / "out")

    def row() -> tuple:
        return journal._db.execute("SELECT state, attempts, at_risk, owner FROM items").fetchone()

    with Journal(tmp_path / "out") as journal:
        planned(journal, job)
        item = claimed(journal)
        assert row() == ("running", 1, 1, journal.token)
        assert journal.claim() is None and journal.claim(suspect=True) is None
        journal.release(item)
        assert row() == ("pending", 0, 0, None)
        assert journal.claim(suspect=True) is None
        journal.claim(at_risk=False)
        assert row() == ("running", 1, 0, journal.token)


def test_what_would_replace_a_source_is_no_new_file(tmp_path: Path) -> None:
    for name in ("x-7.png", "y.png"):
        make_picture(tmp_path / "in" / name, name, 7)
    job = Job.of((str(tmp_path / "in" / "y.png"), str(tmp_path / "in" / "x-7.png")), str(tmp_path / "out"))
    os.makedirs(tmp_path / "out")
    os.link(tmp_path / "in" / "x-7.png", tmp_path / "out" / "y.png")
    with Journal(tmp_path / "out") as journal:
        counts = planned(journal, job.replace(overwrite=True))
        assert (counts.files, counts.new, counts.failed) == (2, 1, 1)


def test_a_joiner_waits_for_the_plan_and_does_the_planners_job(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 2)
    summaries = []
    joiner = threading.Thread(
        target=lambda: summaries.append(
            run_job(options(source, tmp_path / "out", strip_metadata=True), Fast, run=RunRule(join=True))
        )
    )
    with Journal(tmp_path / "out") as journal:
        journal.set("planning", True)
        joiner.start()
        joiner.join(0.5)
        assert joiner.is_alive()  # nothing is planned yet, which is not the end
        planned(journal, options(source, tmp_path / "out", scale=3))
        joiner.join(20)
        assert [(item.state, item.request.size) for item in journal.items()] == [("done", (96, 144))] * 2
    assert summaries[0].done == 2
    assert read_header(tmp_path / "out" / "picture 0.png").infotext  # by the planner's options, not the joiner's
    assert not (tmp_path / "out" / "report.csv").exists()


def test_a_folder_without_a_journal_is_not_given_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no journal of a job"):
        retry_failed(str(tmp_path), Fast)
    assert list(tmp_path.iterdir()) == []
    with Journal(tmp_path):
        pass
    with pytest.raises(UsageError, match="no job that was planned to its end"):
        retry_failed(str(tmp_path), Fast)


def test_a_dead_process_gives_back_what_it_held(tmp_path: Path) -> None:
    job = options(make_folder(tmp_path / "in", 3), tmp_path / "out")
    with Journal(tmp_path / "out") as journal:
        planned(journal, job)
        for number, deaths in ((1, 0), (2, 1), (3, 0)):
            journal._db.execute(
                "UPDATE items SET state = 'running', owner = '1-dead', at_risk = ?, deaths = ? WHERE id = ?",
                (number < 3, deaths, number),
            )
        for name in ("1-dead-1", f"{journal.token}-9"):
            (journal.temporary / name).touch()
        (journal.folder / "owner-1-dead.lock").touch()
        assert journal.recover() == 3
        rows = journal._db.execute("SELECT state, deaths, at_risk, owner FROM items").fetchall()
        assert rows == [("pending", 1, 0, None), ("failed", 2, 0, None), ("pending", 0, 0, None)]
        assert [path.name for path in journal.temporary.iterdir()] == [f"{journal.token}-9"]
        assert not (journal.folder / "owner-1-dead.lock").exists()
        assert journal.recover() == 0
    assert not (tmp_path / "out" / ".fam-hires" / "tmp").exists()
    assert run_job(job, Fast).done == 2


def test_who_opens_a_journal_takes_back_what_the_dead_held(tmp_path: Path) -> None:
    job = options(make_folder(tmp_path / "in", 2), tmp_path / "out")
    with Journal(tmp_path / "out") as journal:
        planned(journal, job)
        journal._db.execute("UPDATE items SET state = 'running', owner = '1-dead', attempts = 1")
    with Journal(tmp_path / "out") as journal:
        assert [(item.state, item.attempts) for item in journal.items()] == [("pending", 1)] * 2


def test_an_open_journal_leaves_the_living_alone(tmp_path: Path) -> None:
    job = options(make_folder(tmp_path / "in", 1), tmp_path / "out")
    with Journal(tmp_path / "out") as first, Journal(tmp_path / "out", join=True) as second:
        planned(first, job)
        item = claimed(first)
        (first.temporary / f"{first.token}-{item.id}").touch()
        assert second.joined and not first.joined
        assert second.recover() == 0 and second.others_at_work() and not first.others_at_work()
        assert len(list(first.temporary.iterdir())) == 1
        first.release(item)
        assert not second.others_at_work()
    assert outputs(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/my out/é#?%20.sqlite3"), "file:///my%20out/%C3%A9%23%3F%2520.sqlite3?mode=ro"),
        (PureWindowsPath(r"C:\my out\j.sqlite3"), "file:///C:/my%20out/j.sqlite3?mode=ro"),
        (PureWindowsPath(r"\\nas\share\out\j.sqlite3"), "file:////nas/share/out/j.sqlite3?mode=ro"),
    ],
)
def test_sqlite_opens_a_network_path_without_a_server(path: PurePath, uri: str) -> None:
    assert db_uri(path) == uri
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):  # and not: invalid uri authority
        sqlite3.connect(uri, uri=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no such name")
def test_a_journal_is_read_whatever_its_folder_is_called(tmp_path: Path) -> None:
    output = tmp_path / "a #?%20é"
    with Journal(output) as journal:
        journal.set("here", 1)
    with Journal(output, memory=True) as journal:
        assert journal.get("here") == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")
def test_a_folder_that_is_synced_is_closed_again(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        sync_folder(tmp_path)
    sync_folder(tmp_path / "none")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("database or disk is full", "the disk of out is full; free some space"),
        ("database disk image is malformed", "the journal out/j is damaged ("),
        ("file is not a database", "the journal out/j is damaged ("),
        ("disk I/O error", "the journal out/j cannot be written (disk I/O error); check the disk"),
    ],
)
def test_each_fault_of_the_database_has_its_words(text: str, says: str) -> None:
    assert db_sentence(Path("out/j"), sqlite3.OperationalError(text)).startswith(says)


@pytest.mark.parametrize(
    ("code", "says", "stops"),
    [
        (errno.ENOSPC, "the disk of out is full; ", True),
        (errno.EDQUOT, "the disk of out is full; ", True),
        (errno.EROFS, "out cannot be written (Read-only file system); choose", True),
        (errno.EACCES, "out cannot be written (Permission denied); choose", False),
        (errno.EPERM, "out cannot be written (Operation not permitted); choose", False),
        (errno.EIO, "out cannot be written (Input/output error); choose", False),
        (None, "out cannot be written (OSError); choose", False),
    ],
)
def test_each_fault_of_the_disk_has_its_words(tmp_path: Path, code: int | None, says: str, stops: bool) -> None:
    error = OSError() if code is None else OSError(code, os.strerror(code))
    assert output_sentence(Path("out"), error).startswith(says)
    assert stops_the_job(error, tmp_path, tmp_path / "temporary") == stops
    assert list(tmp_path.iterdir()) == []


def test_a_large_plan_is_told_in_parts_and_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    job = options(make_folder(tmp_path / "in", 3), tmp_path / "out")
    told: list[int] = []

    def slow(*arguments, **more):
        time.sleep(0.3)
        return plan_file(*arguments, **more)

    with Journal(tmp_path / "out") as journal:
        counts = journal.plan(
            walk(job.places),
            job,
            slow,
            on_count=lambda counts: told.append(counts.files),
            cancelled=lambda: len(told) == 1,
        )
        assert (told, counts.files, counts.new, counts.cut_short) == ([2], 2, 2, True)  # half a second at a time


def test_a_plan_that_was_interrupted_says_that_it_is_not_all(tmp_path: Path) -> None:
    control = Control()
    job = options(make_folder(tmp_path / "in", 2), tmp_path / "out")
    summary = run_job(job, Fast, control=control, on_event=lambda event: event.total and control.cancel())
    assert "planning was interrupted" in summary.left_out
    assert run_job(job, Fast).left_out == ""


def test_a_count_of_deaths_that_is_none_holds_no_run(tmp_path: Path) -> None:
    job = options(make_folder(tmp_path / "in", 2), tmp_path / "out", first=1)
    run_job(job, Fast)
    with Journal(tmp_path / "out") as journal:
        planned(journal, job.replace(first=None))
        with journal._transaction() as db:
            db.execute("UPDATE items SET deaths = -1")
    assert run_job(job.replace(first=None), Fast).done == 1


def test_what_was_begun_in_vain_is_taken_back(tmp_path: Path) -> None:
    with Journal(tmp_path / "out") as journal:
        journal.set("kept", 1)
        with pytest.raises(TypeError):
            journal.set("no", {1, 2})  # fails inside the transaction
        with pytest.raises(KeyboardInterrupt), journal._transaction():
            journal.set("kept", 2)
            raise KeyboardInterrupt
        assert journal.get("kept") == 1
        journal.set("after", 3)
    with Journal(tmp_path / "out") as journal:
        assert (journal.get("kept"), journal.get("after")) == (1, 3)
