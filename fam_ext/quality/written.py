"""The files that a run leaves beside its pictures."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from fam_ext.quality.plot import pareto
from fam_ext.quality.protocol import Row
from fam_ext.quality.results import Table
from fam_ext.quality.store import Made
from fam_ext.quality.tables import as_csv, latex, markdown


def write_results(folder: Path, tables: Sequence[Table], made: Sequence[tuple[Row, Made]], head: str) -> list[Path]:
    """Write table.md, table.tex, results.csv and pareto.svg into `folder`, and return their paths."""
    texts = {
        "table.md": markdown(tables, head),
        "table.tex": latex(tables, head),
        "results.csv": as_csv(made),
        "pareto.svg": pareto(tables),
    }
    for name, text in texts.items():
        partial = folder / f".{secrets.token_hex(8)}.part"  # another run may write its own beside it
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, folder / name)
        finally:
            partial.unlink(missing_ok=True)
    return [folder / name for name in texts]
