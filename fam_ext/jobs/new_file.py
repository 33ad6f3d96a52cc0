"""A file written whole: in the place of what it was, or under a name that no other has."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in the place of what it was. Raises `OSError`; then that stays."""
    with _written(path.parent, data) as temporary:
        os.replace(temporary, path)


def write_new(path: Path, data: bytes) -> Path | None:
    """Write a file under the first numbered form of its name that no file has (a, a-2, a-3), and return its path; None
    where 9999 are taken. Raises `OSError`."""
    with _written(path.parent, data) as temporary:
        for number in range(1, 10_000):
            target = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            with contextlib.suppress(FileExistsError):
                put_new(temporary, target)
                return target
    return None


@contextlib.contextmanager
def _written(folder: Path, data: bytes) -> Generator[Path]:
    """While open, `data` is in a file of another name in `folder`, and on the disk."""
    temporary = folder / f".fam-{secrets.token_hex(8)}.part"  # tempfile's can be read by their maker alone
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


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
            os.replace(temporary, target)
        except OSError:
            target.unlink(missing_ok=True)
            raise
