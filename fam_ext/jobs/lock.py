"""Locks that the system frees when their process dies, also by SIGKILL."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fam_ext.errors import BusyError, OutputError
from fam_ext.escapes import shown
from fam_ext.metadata.files import at_once

log = logging.getLogger(__name__)

_TRIES = 5
_PAUSE_SECONDS = 0.02
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes], shared: bool) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[bytes], shared: bool) -> None:
        fcntl.flock(file.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


class NoLocksError(OSError):
    """The file system has no locks (ENOLCK and its like)."""


def _try_lock(file: IO[bytes], *, shared: bool = False) -> bool:
    """Return whether the lock was free. Raises `NoLocksError`."""
    try:
        _lock(file, shared)
    except OSError as error:
        if error.errno in _TAKEN or sys.platform == "win32":
            return False
        raise NoLocksError(error.errno, error.strerror) from None
    return True


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Return whether an open file still has its name: the lock of one that was deleted meanwhile is nobody's."""
    if sys.platform == "win32":
        return True  # where an open file keeps it
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


class FileLock:
    """An exclusive lock on a file; `acquire` never waits for a holder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Return whether the lock is ours now. Raises `NoLocksError` where there are none."""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_SECONDS)  # somebody may have been looking whether it is held
            file = open(self.path, "ab", opener=at_once)  # noqa: SIM115  # held until release
            try:
                if _try_lock(file) and _is_at(file, self.path):
                    self._file = file
                    return True
            finally:
                if self._file is None:
                    file.close()
        return False

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
    """Return whether a living process holds the lock on `path`. Two that ask at once do not see each other."""
    try:
        with open(path, "r+b" if sys.platform == "win32" else "rb", opener=at_once) as file:
            return not _try_lock(file, shared=True)
    except OSError:
        return False  # no such file, or no locks: one process at a time


@contextmanager
def alone_in(folder: Path, name: str) -> Generator[None]:
    """Let no other run fill `folder`, a command's --out, meanwhile: the lock is its file `name`. Raises `BusyError` and
    `OutputError`."""
    lock = FileLock(folder / name)
    try:
        ours = lock.acquire()
    except NoLocksError:
        ours = True  # a file system without locks: one run at a time
    except OSError as error:
        raise OutputError(f"{shown(folder)} cannot be written ({error.strerror}); choose another --out") from None
    if not ours:
        raise BusyError(f"{shown(folder)} is being filled by another run; wait for it, or choose another --out")
    try:
        yield
    finally:
        lock.release(remove=True)
