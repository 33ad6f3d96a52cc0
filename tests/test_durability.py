"""What is written is on the disk before it counts: the file whole and, for a job, the rename too."""

import os
import stat
from pathlib import Path

import pytest
from PIL import Image

from fam_ext.cli.written import write_new
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.run import run_job
from fam_ext.options.parts import RunRule
from fam_ext.options.presets import BUILTIN, write
from tests.jobs.fakes import Fast, make_picture, options


def mark(path: Path) -> tuple[int, int]:
    """Return the inode, and of a file the number of its bytes."""
    status = path.stat()
    return status.st_ino, 0 if stat.S_ISDIR(status.st_mode) else status.st_size


@pytest.fixture
def synced(monkeypatch) -> list[tuple[int, int]]:
    """Marks of what was synced, as they were then."""
    marks: list[tuple[int, int]] = []
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        marks.append(mark(Path(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return marks


linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads descriptors in /proc")


@linux
def test_a_jobs_picture_and_its_name_are_synced_before_the_journal_says_done(tmp_path, monkeypatch, synced) -> None:
    make_picture(tmp_path / "in" / "a.png", size=(16, 16))  # so small that a buffer could hold it whole
    done, before = Journal.done, []

    def counted(self: Journal, item) -> None:
        before.extend(synced)
        done(self, item)

    monkeypatch.setattr(Journal, "done", counted)
    run_job(options(tmp_path / "in", tmp_path / "out"), Fast, run=RunRule(report=False))
    assert before == [mark(tmp_path / "out" / "a.png"), mark(tmp_path / "out")]


@linux
def test_a_preset_and_a_generated_picture_are_synced_whole(tmp_path, synced) -> None:
    write(BUILTIN["paper"], tmp_path / "paper.json")
    path = write_new(tmp_path, "a", Image.new("RGB", (8, 8)), None)
    assert synced == [mark(tmp_path / "paper.json"), mark(path)]
