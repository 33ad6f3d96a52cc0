"""Locks: one holder, nothing left open, and no wait for somebody who holds."""

import os
from pathlib import Path

import pytest

from fam_ext.jobs import lock as module
from fam_ext.jobs.lock import FileLock, is_held

pytestmark = pytest.mark.skipif(os.name == "nt", reason="flock, /proc")


def test_a_lock_has_one_holder_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    second.release()  # what is not held can be released
    assert first.acquire() and not second.acquire() and is_held(tmp_path / "lock")
    assert not (tmp_path / "lock").stat().st_mode & 0o111  # no program
    second.release(remove=True)
    assert (tmp_path / "lock").exists() and is_held(tmp_path / "lock")
    first.release()
    assert not is_held(tmp_path / "lock") and second.acquire()
    second.release(remove=True)
    assert not (tmp_path / "lock").exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lock_whose_file_is_gone_is_freed_all_the_same(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    (tmp_path / "lock").unlink()
    lock.release(remove=True)
    assert lock.acquire()
    lock.release()


@pytest.mark.parametrize("again", [False, True])
def test_a_file_that_is_deleted_before_it_is_locked_is_no_lock(tmp_path: Path, monkeypatch, again: bool) -> None:
    """Who tidies up takes a lock that is made but not held yet for a dead one's."""
    path, real = tmp_path / "lock", module._try_lock
    late, other = FileLock(path), FileLock(path)

    def tidied(file) -> bool:
        monkeypatch.setattr(module, "_try_lock", real)
        path.unlink()
        assert not again or other.acquire()
        return real(file)

    monkeypatch.setattr(module, "_try_lock", tidied)
    assert late.acquire() is not again and is_held(path)
    assert not FileLock(path).acquire()
    late.release()
    other.release()
