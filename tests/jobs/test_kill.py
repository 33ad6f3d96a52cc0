"""SIGKILL at seeded random instants: every resume ends with each output once, byte-identical, journal consistent."""

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


def start(source: Path, output: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.jobs.kill_target", str(source), str(output), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


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


def fault_run(tmp_path: Path, kills: int, seed: int) -> None:
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
            process = start(source, output)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
            code = process.wait()
            process.stdout.close()
            if code == 0:
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
def test_a_few_kills(tmp_path: Path) -> None:
    fault_run(tmp_path, kills=4, seed=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_hundred_kills(tmp_path: Path) -> None:
    fault_run(tmp_path, kills=100, seed=2)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_the_worst_instants(tmp_path: Path) -> None:
    """Die right after each system call of a save: temporary file written, journalled, renamed."""
    source = tmp_path / "in"
    for number in range(3):
        make_picture(source / f"{number}.png", f"picture {number}", number)
    run_job(options(source, tmp_path / "whole", recursive=True), Fast)
    whole = outputs(tmp_path / "whole")
    for name in ("_write_synced", "saving", "replace"):
        output = tmp_path / name
        process = start(source, output, "die-after", name)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        summary = run_job(options(source, output, recursive=True), Fast)
        assert summary.done + summary.done_before == 3
        assert outputs(output) == whole
        assert strays(output) == []
        if name != "_write_synced":
            # the picture was whole already: the rename is caught up, nothing is rendered twice
            assert summary.done_before >= 1
