"""How a file comes to its place: whole, and as soon as Windows lets it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Generator
from pathlib import Path

HELD_SECONDS = 2.0
"""So long is what is forbidden tried again."""
_PAUSE_SECONDS = 0.05


def replace(source: Path, target: Path) -> None:
    """Move a file into its place."""
    _when_let(lambda: os.replace(source, target))


def put_new(temporary: Path, target: Path) -> None:
    """Give a file that is written its name. Raises `FileExistsError` where another has it, and what else an `OSError`
    says; then nothing is there that was not before."""
    try:
        os.link(temporary, target)  # unlike a rename it never replaces
    except FileExistsError:
        raise
    except OSError:
        # exFAT and some network shares have no links: the name is taken first, and what is replaced is ours
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        try:
            replace(temporary, target)
        except OSError:
            drop(target)
            raise


def drop(path: Path) -> None:
    """Remove a file, if it is there and the system lets us: what was done counts, not what is left behind."""
    with contextlib.suppress(OSError):
        _when_let(lambda: os.unlink(path))


def _when_let(act: Callable[[], None]) -> None:
    """Call `act`. On Windows a virus scanner or a cloud disk's client holds a fresh file for an instant, in which it is
    neither moved nor removed: that is tried again."""
    until = time.monotonic() + HELD_SECONDS
    while True:
        try:
            return act()
        except PermissionError:
            if time.monotonic() >= until:
                raise
        time.sleep(_PAUSE_SECONDS)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in the place of what it was: no half a file has its name. Raises `OSError`."""
    with _written(path, data) as temporary:
        replace(temporary, path)


def write_new(path: Path, data: bytes) -> Path:
    """Write a file whole under its name, or the first numbered form of it that no file has, and return that. Raises
    `OSError`."""
    with _written(path, data) as temporary:
        for number in range(1, 10_000):
            place = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            with contextlib.suppress(FileExistsError):
                put_new(temporary, place)
                return place
    raise FileExistsError(errno.EEXIST, "there are 9999 of its name")


@contextlib.contextmanager
def _written(path: Path, data: bytes) -> Generator[Path]:
    """Yield a file beside `path` that holds `data`, on the disk."""
    temporary = path.with_name(f".fam-{secrets.token_hex(8)}.part")  # tempfile's can be read by their maker alone
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        drop(temporary)
