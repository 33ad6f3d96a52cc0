"""The before/after slider and the tables, as HTML. No gradio, no host."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image, ImageOps

MAX_SIDE = 1600
"""Longest side in pixels of the two pictures behind the slider; the gallery has the full ones."""
KEPT = "kept: made with other settings (tick Replace outputs, or choose another output folder)"
_STATE_LABELS = {"done": "done", "failed": "failed", "skipped": "skipped", "running": "running", "waiting": "waiting"}


def compare_html(before: Image.Image, after: Image.Image) -> str:
    """Return a slider that uncovers `after` over `before`; both are shown at the size of `after`."""
    after = upright(after)
    scale = min(1.0, MAX_SIDE / max(after.size))
    size = max(1, round(after.width * scale)), max(1, round(after.height * scale))
    first, second = (_data_url(upright(picture).resize(size)) for picture in (before, after))
    return (
        '<div class="fam-compare" style="--fam-split: 50%">'
        f'<img class="fam-after" src="{second}" alt="after"><img class="fam-before" src="{first}" alt="before">'
        '<span class="fam-label fam-label-before">before</span><span class="fam-label fam-label-after">after</span>'
        '<input type="range" min="0" max="100" value="50" step="0.1" aria-label="Before and after"'
        " oninput=\"this.parentElement.style.setProperty('--fam-split', this.value + '%')\"></div>"
    )


def upright(picture: Image.Image) -> Image.Image:
    """Return the picture as people see it: turned as its EXIF says, transparency on white, RGB."""
    turned = ImageOps.exif_transpose(picture)
    if turned.mode not in ("RGBA", "LA", "PA") and "transparency" not in turned.info:
        return turned.convert("RGB")
    whole = turned.convert("RGBA")
    ground = Image.new("RGB", whole.size, (255, 255, 255))
    ground.paste(whole, mask=whole.getchannel("A"))
    return ground


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def table_html(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, element_id: str, note: str = "") -> str:
    """Return a table; cells are escaped. A row's class is its last cell where that is a job's state."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(_row(row) for row in rows)
    after = f'<p class="fam-note">{html.escape(note)}</p>' if note else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="fam-table" id="{html.escape(element_id)}">{table}</div>{after}'


def _row(row: Sequence[Any]) -> str:
    cells = "".join(f"<td>{html.escape('' if cell is None else str(cell))}</td>" for cell in row)
    return f"<tr>{cells}</tr>"


def sentence_html(text: str, *, kind: str = "note") -> str:
    """Return one sentence for the page; `kind` is "note", "error" or "good"."""
    return f'<p class="fam-{kind}">{html.escape(text)}</p>' if text else ""


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


def status_html(job: Mapping[str, Any]) -> str:
    """Return a folder job's progress bar, sentence and table from `Batch.to_json`."""
    total = job["total"]
    finished = job["done"] + job["done_before"] + job["kept"] + job["failed"] + job["skipped"]
    inner = job["step"] / job["steps"] if job["steps"] and job["state"] in ("running", "stopping") else 0.0
    share = min(1.0, (finished + inner) / total) if total else float(job["state"] == "done")
    words = [f"{job['state']}: {job['done']} done"]
    if job["done_before"]:
        words.append(f"{job['done_before']} done before")
    if job["kept"]:
        words.append(f"{job['kept']} {KEPT}")
    if job["failed"]:
        words.append(f"{job['failed']} failed")
    if job["skipped"]:
        words.append(f"{job['skipped']} skipped")
    words.append(f"of {total}")
    if job["current"]:
        words.append(f"now {job['current']} step {job['step']} of {job['steps']}")
    over = job["state"] in ("done", "stopped", "cancelled", "failed")
    words.append(f"{duration(job['elapsed_seconds'])}{'' if over else ' so far'}")
    if job["eta_seconds"] is not None:
        words.append(f"{duration(job['eta_seconds'])} left")
    bar = f'<div class="fam-bar"><div style="width: {100 * share:.1f}%"></div></div>'
    rows = [
        (
            row["key"],
            row["program"],
            _STATE_LABELS.get(row["state"], row["state"]),
            _seconds(row["seconds"]),
            row["message"],
        )
        for row in reversed(job["rows"])
    ]
    table = table_html(("file", "program", "state", "time", "message"), rows, element_id="fam_hires_status_table")
    error = sentence_html(job["error"], kind="error") if job["error"] else ""
    return f'{bar}<p class="fam-status">{html.escape(", ".join(words))}</p>{error}{table}'


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"
