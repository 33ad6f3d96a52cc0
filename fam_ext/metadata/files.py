"""A stranger's file is opened without waiting for it, and read whole within a limit."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from fam_ext.errors import PictureError

MAX_FILE_BYTES = 2 << 30
_JUNCTION = 0xA0000003
"""Windows' IO_REPARSE_TAG_MOUNT_POINT."""


def is_link(path: str | Path) -> bool:
    """Return whether a path is a link, or on Windows a junction (`os.path.isjunction` is new in Python 3.12)."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == _JUNCTION


def at_once(path: str, flags: int) -> int:
    """An `opener`: a FIFO that stands at the path would else be waited for, for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


@contextlib.contextmanager
def open_regular(path: str | Path) -> Generator[BinaryIO]:
    """Open a file to read. Raises `PictureError` for a device, FIFO or the like, and `OSError`."""
    with open(path, "rb", buffering=32768, opener=at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PictureError("it is not a regular file; choose a picture file")
        yield file


def read_file(path: str | Path) -> bytes:
    """Return a file's bytes. Raises `PictureError`, one sentence."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise PictureError("the file has more than 2 GB; choose a smaller one")
            return file.read(size)
    except (OSError, ValueError) as error:  # ValueError: a name that no system takes
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise PictureError(f"the file cannot be read ({reason}); check the file and its disk") from None
