"""The files that a run leaves beside its pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fam_ext import placing
from fam_ext.errors import OutputError
from fam_ext.quality.plot import pareto
from fam_ext.quality.protocol import Row
from fam_ext.quality.results import Table
from fam_ext.quality.store import Made
from fam_ext.quality.tables import as_csv, latex, markdown

NAMES = ("table.md", "table.tex", "results.csv", "pareto.svg")
PICTURES = "pictures"


def check_places(folder: Path) -> None:
    """Make the folder of pictures in `folder`. Raises `OutputError` where something could not be written at the end."""
    try:
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        for place in (folder, folder / PICTURES):
            tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise OutputError(f"{folder / PICTURES} cannot be written ({error.strerror}); choose another --out") from None
    for name in NAMES:
        if (folder / name).is_dir():
            raise OutputError(f"{folder / name} is a folder; move it away, or choose another --out")


def write_results(folder: Path, tables: Sequence[Table], made: Sequence[tuple[Row, Made]], head: str) -> list[Path]:
    """Write NAMES into `folder`, and return their paths. Raises `OutputError`."""
    texts = (markdown(tables, head), latex(tables, head), as_csv(made), pareto(tables))
    for name, text in zip(NAMES, texts, strict=True):
        write_whole(folder / name, text.encode())
    return [folder / name for name in NAMES]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it: no half a file under its own. Raises `OutputError`."""
    try:
        placing.write_whole(path, data)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); free space, then the same command goes on"
        ) from None
