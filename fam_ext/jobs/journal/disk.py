"""What the journal asks of the disk, and the sentence for each way it can fail."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import mmap
import os
import sqlite3
import sys
import tempfile
from pathlib import Path, PurePath
from urllib.parse import quote

from fam_ext.errors import PictureError
from fam_ext.metadata.files import open_regular
from fam_ext.placing import replace

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def file_hash(path: Path) -> str | None:
    """Return the SHA-256 of a file, None when it cannot be read."""
    engine = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                engine.update(block)
    except (OSError, ValueError, PictureError):
        return None
    return engine.hexdigest()


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, so that a rename survives a loss of power; not every system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


LONGEST_PATH = 259
"""Characters that a path may have on Windows, where its long paths are not switched on."""


def is_too_long(path: str) -> bool:
    """Return whether the system refuses a path for its length, which Windows says as if a folder were not there."""
    return len(path) > LONGEST_PATH and not path.startswith("\\\\?\\") and not takes_long_paths()


@functools.cache
def takes_long_paths() -> bool:
    if sys.platform != "win32":
        return True
    import ctypes

    asked = getattr(ctypes.windll.ntdll, "RtlAreLongPathsEnabled", None)  # new in Windows 10
    return asked is not None and bool(asked() & 0xFF)  # the rest of its register is no part of the answer


def check_inside(output: Path, target: Path) -> None:
    """Raise `PictureError` when `target`, symlinks followed, would lie outside the output folder."""
    root = os.path.realpath(output)
    parent = os.path.realpath(target.parent)
    if parent != root and not parent.startswith(root.rstrip(os.sep) + os.sep):
        raise PictureError("a link in the output folder leads outside it; remove the link")


def same_file(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def identities(path: str | Path) -> set[tuple[int, int]]:
    """Return device and inode of what stands at a path and of what it leads to."""
    found: set[tuple[int, int]] = set()
    with contextlib.suppress(OSError, ValueError):
        for status in (os.lstat(path), os.stat(path)):
            if status.st_ino:  # some network disks give none
                found.add((status.st_dev, status.st_ino))
    return found


def unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        log.debug("%s could not be removed", path)


def output_sentence(place: Path, error: OSError) -> str:
    """Return why a place cannot be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {place} is full; free some space and run the same command again"
    reason = error.strerror or type(error).__name__
    return f"{place} cannot be written ({reason}); choose another output folder or change its permissions"


def stops_the_job(error: OSError, output: Path, temporary: Path) -> bool:
    """Return whether a write error will hit every further picture too: the disk is full or read-only, or a file that
    goes a picture's way, from `temporary` into the output folder, is forbidden as well. A single name may be forbidden
    by itself: a folder's rights, a file that a viewer holds open."""
    if not isinstance(error, PermissionError):
        return error.errno in _FULL
    probe = output / f".fam-{temporary.name}"
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)  # as `write` makes it
        temporary.touch()
        replace(temporary, probe)
    except OSError:
        return True
    finally:
        for path in (temporary, probe):
            unlink(path)
    return False


def can_map(folder: Path) -> bool:
    """Return whether processes can share memory by a file of this folder, which SQLite's WAL needs; they cannot on
    FUSE's, 9p's and some exFAT and NTFS mounts. Raises `OSError` where no file can be made there."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(mmap.PAGESIZE)
        try:
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
        except OSError:
            return False
    return True


def db_uri(path: PurePath, how: str = "mode=ro") -> str:
    """Return the URI by which SQLite opens a file, by default to read it alone. No server stands where `as_uri` puts a
    Windows share's: SQLite refuses one."""
    return f"file:///{quote(os.fsencode(path.as_posix().removeprefix('/')), safe='/:')}?{how}"


def db_sentence(path: Path, error: sqlite3.Error) -> str:
    text = str(error)
    if "full" in text:
        return f"the disk of {path.parent} is full; free some space and run the same command again"
    if "malformed" in text or "not a database" in text:
        return (
            f"the journal {path} is damaged ({text}); move it away, then existing outputs are kept and the rest is made"
        )
    return f"the journal {path} cannot be written ({text}); check the disk and run the same command again"
