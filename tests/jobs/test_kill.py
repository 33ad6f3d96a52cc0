"""SIGKILL at seeded random instants: every resume ends with each output once, byte-identical, journal consistent."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fam_ext.jobs.events import Control, Event
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.store import POISON
from fam_ext.jobs.run import retry_failed, run_job
from tests.jobs.fakes import Fast, make_picture, options, outputs, strays
from tests.jobs.kill_target import Poison

ROOT = Path(__file__).parents[2]
FILES = 60


class Batches:
    """Starts the batch in processes that may be killed."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.kill_target"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *words: object) -> int:
        """Return the number of a process that runs the job."""
        assert self._process.stdin is not None
        print(*words, sep="\t", file=self._process.stdin, flush=True)
        return self._number()

    def wait(self) -> int:
        """Return how the process ended."""
        return self._number()

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def batches_of_jobs():
    batches = Batches()
    yield batches
    batches.close()


def check_in_flight(output: Path, whole: dict[str, bytes]) -> int:
    """Every picture that is in its place is whole, at any moment; return how many are done by the journal."""
    for name, data in outputs(output).items():
        assert data == whole[name], name
    path = output / ".fam-hires" / "journal.sqlite3"
    if not path.exists():
        return 0
    database = sqlite3.connect(path)
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        try:
            rows = database.execute("SELECT output FROM items WHERE state = 'done'").fetchall()
        except sqlite3.OperationalError:
            return 0  # killed before the tables were made
    finally:
        database.close()
    for (name,) in rows:
        assert (output / name).is_file(), f"{name} is journalled but not there"
    return len(rows)


def second_deaths(output: Path) -> set[str]:
    """Return the pictures that this killed process read or drew, and another one before it: the next run fails them."""
    path = output / ".fam-hires" / "journal.sqlite3"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as database, contextlib.suppress(sqlite3.OperationalError):
        rows = database.execute("SELECT key FROM items WHERE state = 'running' AND at_risk AND deaths >= 1").fetchall()
        return {key for (key,) in rows}
    return set()


def fault_run(jobs: Batches, tmp_path: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    source = tmp_path / "in"
    for number in range(FILES):
        make_picture(source / f"sub{number % 3}" / f"{number}.png", f"picture {number}", number)
    run_job(options(source, tmp_path / "whole", recursive=True), Fast)
    whole = outputs(tmp_path / "whole")
    assert len(whole) == FILES

    killed = batches = finished = 0
    while killed < kills:
        output = tmp_path / f"out{batches}"
        batches += 1
        before = 0
        poisoned: set[str] = set()
        while killed < kills:
            child = jobs.start(source, output)
            time.sleep(chance.uniform(0.0, 0.4))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            if jobs.wait() == 0:
                finished += 1
                break  # it was done before the signal: a new batch
            killed += 1
            done = check_in_flight(output, whole)
            assert done >= before  # nothing that was done is lost
            before = done
            poisoned |= second_deaths(output)
        summary = run_job(options(source, output, recursive=True), Fast)
        assert summary.done_before >= before
        with Journal(output) as journal:  # exactly those during which two of the kills fell
            assert {item.key: item.error for item in journal.items(state="failed")} == dict.fromkeys(poisoned, POISON)
        if poisoned:
            summary = retry_failed(str(output), Fast)
        assert summary.done + summary.done_before == FILES
        assert outputs(output) == whole
        assert strays(output) == []
        with Journal(output) as journal:
            assert journal.counts()["done"] == FILES
            assert len({item.output for item in journal.items()}) == FILES
    assert killed == kills


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_few_kills(batches_of_jobs: Batches, tmp_path: Path) -> None:
    fault_run(batches_of_jobs, tmp_path, kills=10, seed=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_hundred_kills(batches_of_jobs: Batches, tmp_path: Path) -> None:
    fault_run(batches_of_jobs, tmp_path, kills=100, seed=2)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_the_worst_instants(batches_of_jobs: Batches, tmp_path: Path) -> None:
    """Die right after each system call of a save: temporary file written, journalled, renamed."""
    source = tmp_path / "in"
    for number in range(3):
        make_picture(source / f"{number}.png", f"picture {number}", number)
    run_job(options(source, tmp_path / "whole", recursive=True), Fast)
    whole = outputs(tmp_path / "whole")
    for name in ("_write_synced", "saving", "replace"):
        output = tmp_path / name
        batches_of_jobs.start(source, output, name)
        assert batches_of_jobs.wait() == -signal.SIGKILL
        summary = run_job(options(source, output, recursive=True), Fast)
        assert summary.done + summary.done_before == 3
        assert outputs(output) == whole
        assert strays(output) == []
        if name != "_write_synced":
            # the picture was whole already: the rename is caught up, nothing is rendered twice
            assert summary.done_before >= 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("place", ["draw", "read"])
def test_a_poison_picture_fails_alone_after_two_deaths(batches_of_jobs: Batches, tmp_path: Path, place: str) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    for number in range(6):
        make_picture(source / f"{number}.png", "poison" if number == 2 else f"picture {number}", number)
    ends: list[int] = []
    for _ in range(3):
        batches_of_jobs.start(source, output, place)
        ends.append(batches_of_jobs.wait())
    assert ends == [-signal.SIGKILL, -signal.SIGKILL, 1]
    lines: list[tuple[str, str, str]] = []
    summary = run_job(  # it stays failed: the same command does not die a third time
        options(source, output, recursive=True),
        Poison,
        on_event=lambda event: lines.append((event.kind, event.key, event.message)),
    )
    assert (summary.done, summary.done_before, summary.failed, summary.exit_code) == (0, 5, 1, 1)
    assert [line for line in lines if line[0] == "failed"] == [("failed", "2.png", POISON)]
    assert strays(output) == []
    # one more try when it is asked for; the next death is the last again
    for _ in range(2):
        with Journal(output) as journal:
            journal.retry_failed()
        batches_of_jobs.start(source, output, place)
        assert batches_of_jobs.wait() == -signal.SIGKILL
        batches_of_jobs.start(source, output, place)
        assert batches_of_jobs.wait() == 1
    assert retry_failed(str(output), Fast).done == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_the_neighbours_of_two_poison_pictures_are_made(batches_of_jobs: Batches, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    for number in range(8):
        make_picture(source / f"{number}.png", "poison" if number in (3, 4) else f"picture {number}", number)
    ends: list[int] = []
    while not ends or (ends[-1] < 0 and len(ends) < 10):
        batches_of_jobs.start(source, output, "draw")
        ends.append(batches_of_jobs.wait())
    # the one that was read while the other was drawn may have been blamed once for it
    assert ends in ([-signal.SIGKILL] * 3 + [1], [-signal.SIGKILL] * 4 + [1])
    assert sorted(outputs(output)) == [f"{number}.png" for number in (0, 1, 2, 5, 6, 7)]


def test_a_cancel_and_a_release_are_no_deaths(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "0.png")
    for _ in range(3):
        control = Control()

        def stop(event: Event, control: Control = control) -> None:
            if event.kind == "started":
                control.cancel()

        assert run_job(options(tmp_path / "in", tmp_path / "out"), Fast, control=control, on_event=stop).cancelled
    with Journal(tmp_path / "out") as journal:
        (item,) = journal.items()
        assert (item.state, item.attempts, item.deaths) == ("pending", 0, 0)
        claimed = journal.claim()
        assert claimed is not None
    with Journal(tmp_path / "out") as journal:  # closed with a picture in hand
        assert [item.deaths for item in journal.items()] == [0]
    assert run_job(options(tmp_path / "in", tmp_path / "out"), Fast).done == 1
