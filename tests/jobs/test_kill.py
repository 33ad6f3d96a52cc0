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

from fam_ext.jobs.journal import Journal
from fam_ext.jobs.run import run_job
from tests.jobs.fakes import Fast, make_picture, options, outputs, strays

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
        summary = run_job(options(source, output, recursive=True), Fast)
        assert summary.done + summary.done_before == FILES
        assert summary.done_before >= before
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
