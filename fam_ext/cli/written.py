"""What a command writes: a new picture, and the folder for it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from fam_ext.errors import OutputError, UsageError
from fam_ext.jobs.new_file import put_new
from fam_ext.metadata import pictures

if TYPE_CHECKING:
    from PIL import Image


def check_output(path: str) -> None:
    """Raise `UsageError` for an empty --output, which would be the current folder."""
    if not path.strip():
        raise UsageError("--output is empty; name a folder, . for this one")


def folder_at(path: str) -> Path:
    check_output(path)
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}); choose another folder") from None
    return folder


def write_new(folder: Path, stem: str, image: Image.Image, infotext: str | None) -> Path:
    """Write a PNG whole under a name that no file has yet, and return its path."""
    data = pictures.encode(image, "PNG", infotext=infotext).data
    try:
        temporary = folder / f".fam-{secrets.token_hex(8)}.part"  # tempfile's can be read by their maker alone
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            for number in range(1, 10_000):
                path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
                try:
                    put_new(temporary, path)
                    return path
                except FileExistsError:
                    continue
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); free space or choose another") from None
    raise OutputError(f"{folder} has 9999 pictures named {stem}; choose another folder")
