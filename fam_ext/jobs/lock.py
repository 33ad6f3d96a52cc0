"""Locks that the system frees when their process dies, also by SIGKILL."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


class FileLock:
    """An exclusive lock on a file; `acquire` never waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Return whether the lock is ours now."""
        file = open(self.path, "ab")  # noqa: SIM115  # held until release
        if not _try_lock(file):
            file.close()
            return False
        self._file = file
        return True

    def release(self, *, remove: bool = False) -> None:
        """Free the lock; `remove` deletes the file first."""
        if self._file is None:
            return
        if remove:
            try:
                os.unlink(self.path)
            except OSError:
                remove = False  # Windows keeps an open file; an empty lock file does no harm
        self._file.close()
        self._file = None


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock on `path`."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        if not lock.acquire():
            return True
    except OSError:
        return False
    lock.release()
    return False
