"""A file under a name that no other has."""

from __future__ import annotations

import os
from pathlib import Path


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
