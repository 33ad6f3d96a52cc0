"""A folder job before it runs, in words: the plan as a table, and what Start asks. No gradio, no host."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from fam_ext.escapes import shown
from fam_ext.jobs.preview import KEPT, MAX_LISTED, Row, Totals, previews, wordless
from fam_ext.options.job import Job
from fam_ext.ui.tables import duration, sentence_html, table_html

_COLUMNS = ("file", "native", "target", "output", "prompt", "program", "notes", "plan")


def question(options: Job) -> str:
    """Return what Start asks before a job with files that carry no prompt, "" when there is nothing to ask.

    Raises `UsageError` where the places cannot be used.
    """
    found = wordless(options)
    if not found[0]:
        return ""
    return f"{_wordless(*found)}: write one, or put .txt files beside them; press Start again to go on without"


def new_folder(output: str) -> str:
    """Return the name of a folder that is not there yet: the output folder's with the first free number."""
    path = Path(output)
    return next(str(one) for n in itertools.count(2) if not os.path.lexists(one := path.with_name(f"{path.name}-{n}")))


def plan_pages(options: Job) -> Iterator[str]:
    """Yield the dry run as HTML: at once the first files of a large folder, then the whole with its totals.

    Each file has its target size, prompt and outcome. Writes nothing. Raises `UsageError` where the places cannot be
    used.
    """
    for preview in previews(options):
        note, changed = f"the first {MAX_LISTED} files; the rest is being read", ""
        if preview.totals is not None:
            note, changed = _note(preview.totals), _changed(preview.totals)
        table = table_html(_COLUMNS, map(_cells, preview.rows), element_id="fam_hires_plan_table")
        yield f"<h3>What Start will do</h3>{sentence_html(note)}{changed}{table}"


def _note(totals: Totals) -> str:
    counted = (
        (totals.done, "done"),
        (totals.kept, KEPT),
        (totals.skipped, "skipped"),
        (totals.unreadable, "unreadable"),
    )
    parts = [
        f"{totals.files} files",
        f"{totals.waiting} to do",
        *(f"{number} {word}" for number, word in counted if number),
    ]
    if totals.wordless[0]:
        parts.append(_wordless(*totals.wordless))
    if totals.left_out is not None:
        parts.append(totals.left_out)
    parts.append(f"{totals.pixels / 1e6:.1f} megapixels to make")
    if totals.seconds is not None and totals.bytes is not None:
        parts.append(f"about {duration(totals.seconds)} and {totals.bytes / 1e6:.1f} MB")
    parts.append(f"planned in {totals.planned_in:.1f} s")
    more = f"; the first {MAX_LISTED} are listed" if totals.files > MAX_LISTED else ""
    return ", ".join(parts) + more


def _changed(totals: Totals) -> str:
    """Return what has changed since an earlier run, and what may be done about it."""
    if not totals.kept:
        return ""
    since = f"Changed since: {'; '.join(totals.changes)}. " if totals.changes else ""
    rest = f"Start makes the other {totals.waiting}" if totals.waiting else "Start would make nothing"
    said = f"{since}{rest}; All again makes every picture with these settings, in a new folder."
    return f"<div data-kept>{sentence_html(said)}</div>"


def _wordless(number: int, waiting: int) -> str:
    return f"{number} of {waiting} carry no prompt"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        shown(row.key),
        _size(row.native),
        _size(row.target),
        shown(row.output),
        row.prompt[:80],
        shown(row.program),
        shown("; ".join(row.notes)),
        shown(row.outcome),
    )


def _size(size: tuple[int, int] | None) -> str:
    return "" if size is None else f"{size[1]} x {size[0]}"
