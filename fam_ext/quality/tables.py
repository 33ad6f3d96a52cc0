"""The tables as Markdown, LaTeX and CSV. No number without its n; no interval where pictures do not differ."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from fam_ext.quality.columns import Column
from fam_ext.quality.protocol import Row, size_words
from fam_ext.quality.results import Cell, Table, numbers
from fam_ext.quality.statistics import Estimate
from fam_ext.quality.store import Made

_ARROWS = {"more": " ↑", "less": " ↓", "": ""}
_TEX_ARROWS = {"more": r" $\uparrow$", "less": r" $\downarrow$", "": ""}
_TEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "%&_#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "<": r"\textless{}", ">": r"\textgreater{}"}
)
_MARKDOWN = str.maketrans({mark: f"\\{mark}" for mark in "\\|<`*_["})


def markdown(tables: Sequence[Table], head: str) -> str:
    """Return the tables in Markdown under a `head` that says what ran on what."""
    parts = [head.translate(_MARKDOWN), ""]
    for table in tables:
        parts += [f"## {size_words(table.size)}: {table.title} (n = {table.n}{_prompts(table)})", ""]
        for caption, rows in _shapes(table):
            parts += [caption, ""] if caption else []
            parts.append("| method | " + " | ".join(f"{c.title}{_ARROWS[c.better]}" for c in table.columns) + " |")
            parts.append("|---" * (len(table.columns) + 1) + "|")
            parts += [f"| {method.translate(_MARKDOWN)} | {' | '.join(cells)} |" for method, cells in rows]
            parts.append("")
    return "\n".join(parts)


def latex(tables: Sequence[Table], head: str) -> str:
    """Return the tables as LaTeX `table` environments that need no package."""
    parts = [f"% {line}" for line in head.splitlines()]
    for table in tables:
        for caption, rows in _shapes(table):
            titles = [c.title.translate(_TEX) + _TEX_ARROWS[c.better] for c in table.columns]
            words = f"{size_words(table.size)}: {table.title} ($n = {table.n}${_prompts(table)})"
            words = words.translate(_TEX).replace(r"\$", "$")
            note = f" {caption.translate(_TEX)}" if caption else ""
            parts += [r"\begin{table}", rf"\caption{{{words}.{note}}}", rf"\begin{{tabular}}{{l{'r' * len(titles)}}}"]
            parts += [r"\hline", " & ".join(["method", *titles]) + r" \\", r"\hline"]
            parts += [" & ".join([method.translate(_TEX), *(_tex_cell(c) for c in cells)]) + r" \\"
                      for method, cells in rows]  # fmt: skip
            parts += [r"\hline", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(parts)


def as_csv(made: Sequence[tuple[Row, Made]]) -> str:
    """Return a line a picture with all that was measured of it."""
    keys = list(dict.fromkeys(key for _, one in made for key in numbers(one)))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "size", "prompt", "seed", "picture", *keys, "machine", "libraries"])
    for row, one in made:
        values = numbers(one)
        cells = ["" if (value := values.get(key)) is None else f"{value:.6g}" for key in keys]
        case = row.case
        where = row.label, size_words(case.size), case.prompt, case.seed, row.file
        writer.writerow([*where, *cells, one.machine, one.libraries])
    return file.getvalue()


def _prompts(table: Table) -> str:
    """Return of how many prompts a table's pictures are, which its intervals draw; "" where they draw pictures."""
    return f", {table.prompts} prompts" if 1 < table.prompts < table.n else ""


def _shapes(table: Table) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Yield a table's values, then its differences to FAM where there are any, as texts."""
    yield "", [(method, [_text(cell.value, column, table.n) for cell, column in _paired(cells, table)])
               for method, cells in table.rows.items()]  # fmt: skip
    differing = {method: cells for method, cells in table.rows.items() if any(cell.less_fam for cell in cells)}
    if differing:
        yield (
            f"Less FAM's, picture by picture (n = {table.n}):",
            [(method, [_text(cell.less_fam, column, table.n, sign="+") for cell, column in _paired(cells, table)])
             for method, cells in differing.items()],
        )  # fmt: skip


def _paired(cells: Sequence[Cell], table: Table) -> list[tuple[Cell, Column]]:
    return list(zip(cells, table.columns, strict=True))


def _text(estimate: Estimate | None, column: Column, n: int, *, sign: str = "") -> str:
    """Return "24.1 (23.2 to 25.0)"; with its own n where some pictures had no value."""
    if estimate is None:
        return "-"
    form = f"{sign}.{column.digits}f"
    own = f"n {estimate.n}" if estimate.n != n else ""
    spread = "" if estimate.low is None else f"{estimate.low:{form}} to {estimate.high:{form}}"
    inside = ", ".join(part for part in (spread, own) if part)
    return f"{estimate.value:{form}}" + (f" ({inside})" if inside else "")


def _tex_cell(text: str) -> str:
    return text.translate(_TEX).replace("-", "$-$") if text != "-" else "--"
