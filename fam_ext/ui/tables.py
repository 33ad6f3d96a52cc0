"""Sentences, the status line and the tables of a page, as HTML. No gradio, no host."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fam_ext.errors import FamError
from fam_ext.escapes import shown
from fam_ext.jobs.preview import KEPT
from fam_ext.ui.thumbnails import Thumbnail

RUNNING = ("planning", "running", "paused", "stopping")


def table_html(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, element_id: str) -> str:
    """Return a table of escaped cells. javascript/fam_hires.js sorts it by the column that is pressed."""
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return _table(columns, body, element_id)


def _cell(value: Any) -> str:  # noqa: ANN401
    return f"<td>{html.escape('' if value is None else str(value))}</td>"


def _table(columns: Sequence[str], body: str, element_id: str) -> str:
    head = "".join(f'<th scope="col"><button type="button">{html.escape(column)}</button></th>' for column in columns)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<fam-files><div class="fam-table" id="{html.escape(element_id)}" tabindex="0">{table}</div></fam-files>'


def row_name(key: str) -> str:
    """Return what a page's buttons call a row: its key, or its bytes where those are no text, which begin no key."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return f"/{key.encode('utf-8', 'surrogatepass').hex()}"
    return key


def sentence_html(text: str, *, kind: str = "note") -> str:
    """Return one sentence for the page; `kind` is "note", "error" or "good". An error that names an option marks it."""
    if not text:
        return ""
    field = html.escape(text.split(" ")[0])
    said = f'<p class="fam-{kind}">{html.escape(text)}</p>'
    return f'<fam-said field="{field}" role="alert">{said}</fam-said>' if kind == "error" else said


def error_html(error: Exception) -> str:
    """Return an error's sentence; the system's own (a name too long, a share that is gone) with what to do."""
    known = isinstance(error, FamError)
    return sentence_html(
        str(error) if known else shown(f"the folders cannot be used ({error}); check input and output"), kind="error"
    )


def duration(seconds: float | None) -> str:
    """Return a time in people's words: 45 s, 3 min 20 s, 2 h 5 min."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def memory_words(memory: tuple[int, int] | None) -> str:
    """Return how much of the device's memory is in use, for (free, total) bytes; "" where that cannot be told."""
    if memory is None:
        return ""
    free, total = memory
    return f"video memory {(total - free) / 2**30:.1f} of {total / 2**30:.1f} GB"


def status_html(job: Mapping[str, Any], *, memory: tuple[int, int] | None = None) -> str:
    """Return a folder job's progress bar and its one line, from `Batch.to_json`."""
    total = job["total"]
    over = job["state"] not in RUNNING
    finished = job["done"] + job["done_before"] + job["kept"] + job["failed"] + job["skipped"]
    inner = job["step"] / job["steps"] if job["steps"] and job["state"] in ("running", "stopping") else 0.0
    share = min(1.0, (finished + inner) / total) if total else float(job["state"] == "done")
    words = [f"{job['state']}: {job['done']} done"]
    counted = (("done_before", "done before"), ("kept", KEPT), ("failed", "failed"), ("skipped", "skipped"))
    words += [f"{job[name]} {word}" for name, word in counted if job[name]]
    words.append(f"of {total}")
    if job["current"]:
        words.append(f"now {shown(job['current'])} step {job['step']} of {job['steps']}")
    words.append(f"{duration(job['elapsed_seconds'])}{'' if over else ' so far'}")
    if job["eta_seconds"] is not None:
        words.append(f"{duration(job['eta_seconds'])} left")
    if not over and memory is not None:
        words.append(memory_words(memory))
    percent = f"{100 * share:.0f}"
    bar = (
        f'<div class="fam-bar" role="progressbar" aria-label="Folder job" aria-valuenow="{percent}" aria-valuemin="0"'
        f' aria-valuemax="100"><div style="width: {percent}%"></div></div>'
    )
    error = sentence_html(job["error"], kind="error") if job["error"] else ""
    mark = (" data-kept" if job["kept"] else "") if over else " data-running"
    return f'<div{mark}>{bar}<p class="fam-status">{html.escape(", ".join(words))}</p>{error}</div>'


def files_html(
    last_rows: Sequence[Mapping[str, Any]], thumbnails: Callable[[Mapping[str, Any]], Sequence[Thumbnail | None]]
) -> str:
    """Return the table of a job's files, the newest first; `thumbnails` gives a row's native picture and its result."""
    rows = list(reversed(last_rows))
    if not rows:
        return ""
    counts = {state: sum(row["state"] == state for row in rows) for state in ("done", "failed", "skipped")}
    buttons = "".join(
        f'<button type="button" data-state="{state}">{state or "all"} {number}</button>'
        for state, number in {"": len(rows), **counts}.items()
        if number
    )
    body = "".join(_file_row(row, thumbnails(row)) for row in rows)
    table = _table(
        ("picture", "file", "program", "size (px)", "state", "time (s)", "message"), body, "fam_hires_status_table"
    )
    filters = f'<div class="fam-filter" role="group" aria-label="Show files">{buttons}</div>'
    return table.replace("<fam-files>", f"<fam-files>{filters}", 1)


def _file_row(row: Mapping[str, Any], thumbnails: Sequence[Thumbnail | None]) -> str:
    native, result = thumbnails
    pictures = "".join(f'<img alt="" src="{found.url}">' for found in (native, result) if found is not None)
    name = html.escape(shown(row["key"]))
    if row["state"] == "done":
        inside = pictures or "compare"
        pictures = (
            f'<button type="button" class="fam-pick" data-key="{html.escape(row_name(row["key"]))}"'
            f' aria-label="Compare {name}">{inside}</button>'
        )
    size = " to ".join(f"{found.size[0]} x {found.size[1]}" for found in (native, result) if found is not None)
    seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
    cells = (shown(row["key"]), shown(row["program"]), size, row["state"], seconds, shown(row["message"]))
    return f'<tr data-state="{html.escape(row["state"])}"><td>{pictures}</td>{"".join(map(_cell, cells))}</tr>'
