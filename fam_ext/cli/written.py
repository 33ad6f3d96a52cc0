"""What a command writes: a new picture, and the folder for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fam_ext import placing
from fam_ext.errors import OutputError, UsageError
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
    try:
        return placing.write_new(folder / f"{stem}.png", pictures.encode(image, "PNG", infotext=infotext).data)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); free space or choose another") from None
