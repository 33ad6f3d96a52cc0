"""The report of a job, from its journal: report.csv, report.json, and one self-contained report.html."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import itertools
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from PIL import Image

from fam_ext import __version__
from fam_ext.errors import Cancelled, OutputError
from fam_ext.escapes import shown
from fam_ext.jobs import compare
from fam_ext.jobs.contract import Ran
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.ran_text import dials
from fam_ext.methods.catalog import reads
from fam_ext.options.field import options_of
from fam_ext.options.request import HiresRequest
from fam_ext.placing import drop, replace

_RAN = tuple(spec.name for spec in options_of(Ran))
_FIRST = (
    "source",
    "state",
    "output",
    "native_width",
    "native_height",
    "width",
    "height",
    "seconds",
    "bytes",
    "attempts",
    "error",
    "notes",
    "origin",
    "program",
    "prompt",
    "negative_prompt",
    "seed",
    "steps",
    "sampler",
    "schedule",
    "cfg_scale",
    "method",
    "fam",
    "finished",
)
COLUMNS = (*_FIRST, *(name for name in _RAN if name not in (*_FIRST, "size")))
"""The settings and all after `finished` say what ran where a file is done, else what was asked for."""
NAMES = ("report.csv", "report.json", "report.html")
_OURS = {
    ".csv": rb"source,state,output,native_width,native_height,",
    ".json": rb'\{\s*"version": "[^"]*",\s*"output": "',
    ".html": rb"""(?s)<!doctype html><html lang="en">.*<title>FAM Hires report</title>""",
}
MAX_HTML_ROWS = 2000
MAX_THUMBNAILS = 200
# spreadsheets skip white space before a formula; the full-width signs count too
_FORMULA = re.compile(r"\s*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_THUMBNAIL = 160
MAX_COMPARED = 24
"""Finished files whose pictures are large enough to be compared within the page."""
_COMPARED_SIDE = 640
_MAX_THUMBNAIL_PIXELS = 64_000_000


def exists(folder: Path) -> bool:
    """Return whether the folder holds all three reports."""
    return all(place(folder, name).is_file() for name in NAMES)


def place(folder: Path, name: str) -> Path:
    """Return where the report `name` stands or is to stand: under its name, else, where a file that is not ours has
    that name, as fam-report.csv, fam-report-2.csv and so on."""
    suffix = name.rpartition(".")[2]
    names = itertools.chain((name, f"fam-report.{suffix}"), (f"fam-report-{n}.{suffix}" for n in itertools.count(2)))
    return next(path for path in (folder / name for name in names) if not os.path.lexists(path) or is_ours(path))


def is_ours(path: Path) -> bool:
    """Return whether a file is a report that this tool wrote, going by its first bytes. A link is not."""
    try:
        if path.is_symlink() or not path.is_file():
            return False
        with open(path, "rb") as file:
            head = file.read(1000)
    except OSError:
        return False
    return re.match(_OURS[path.suffix], head) is not None


Items = Callable[..., Iterator[Item]]
"""`Journal.items`, or the same with a question between two files."""


def write_all(
    journal: Journal, *, thumbnails: int = MAX_THUMBNAILS, cancelled: Callable[[], bool] = lambda: False
) -> list[Path]:
    """Write the three reports into the output folder, each atomically, and return their paths.

    `cancelled` is asked before each file's line. Raises `Cancelled`: no report is half-written then, and those that
    stood there stay; and `OutputError` that names those which cannot be written, when the others are.
    """
    journal.check_there()

    def items(**which: Any) -> Iterator[Item]:  # noqa: ANN401  # as Journal.items
        for item in journal.items(**which):
            if cancelled():
                raise Cancelled("interrupted while the report was written; fam-hires report writes it")
            yield item

    writers: tuple[Callable[[IO[str]], None], ...] = (
        lambda file: write_csv(items, file),
        lambda file: write_json(journal, items, file),
        lambda file: write_html(journal, items, file, thumbnails),
    )
    paths = [place(journal.output, name) for name in NAMES]
    problems: list[str] = []
    for path, write in zip(paths, writers, strict=True):
        try:
            with _replacing(path, journal) as file:
                write(file)
        except OSError as error:
            problems.append(f"{path.name} cannot be written ({error.strerror or type(error).__name__})")
    if problems:
        what = "close what has it open, or check the disk; then fam-hires report writes it"
        raise OutputError(f"{', '.join(problems)}; {what}")
    return paths


@contextmanager
def _replacing(path: Path, journal: Journal) -> Generator[IO[str]]:
    journal.temporary.mkdir(parents=True, exist_ok=True)
    # its owner's name first, so that a process beside does not take it for a dead one's; tempfile's can be read by
    # their maker alone
    name = journal.temporary / f"{journal.token}-{secrets.token_hex(8)}"
    try:
        with open(name, "x", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
        replace(name, path)
    except BaseException:
        drop(name)
        raise


def row(item: Item) -> dict[str, Any]:
    """Return one file's line as plain values, by COLUMNS."""
    request = item.request
    said: Ran | HiresRequest | None = item.ran if item.state == "done" and item.ran is not None else request
    values = {name: getattr(said, name, None) for name in _RAN if name != "size"}
    size = (said and said.size) or (None, None)
    return {
        **values,
        "given_up": "; ".join(values["given_up"] or ()),
        "source": shown(item.source),
        "state": item.state,
        "output": shown(item.output),
        "native_width": item.native[1] or None,
        "native_height": item.native[0] or None,
        "width": size[1],
        "height": size[0],
        "seconds": None if item.seconds is None else round(item.seconds, 3),
        "bytes": item.bytes,
        "attempts": item.attempts,
        "error": item.error,
        "notes": "; ".join(item.notes),
        "origin": item.origin,
        "program": item.program,
        "prompt": request.prompt if request else None,
        "negative_prompt": request.negative_prompt if request else None,
        "fam": dials(said.config) if said is not None and reads(said.method, "fm") else "",
        "finished": _time(item.finished),
    }


def _time(seconds: float | None) -> str | None:
    try:
        return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):  # a year that no system has
        return None


def write_csv(items: Items, file: IO[str]) -> None:
    """Write one line a file."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for item in items():
        values = row(item)
        writer.writerow([cell(values[name]) for name in COLUMNS])


def cell(value: Any) -> Any:  # noqa: ANN401
    """Return what a cell is to hold: a text that a spreadsheet would take for a formula gets a leading apostrophe."""
    return "'" + value if isinstance(value, str) and _FORMULA.match(value) else value


def write_json(journal: Journal, items: Items, file: IO[str]) -> None:
    """Write {"version", "counts", "files": [...]}, streamed: memory stays small whatever the folder's size."""
    head = {"version": __version__, "output": shown(journal.output), "counts": journal.counts(whole=True)}
    text = json.dumps(head, indent=1, ensure_ascii=False)
    file.write(text[: text.rindex("}")].rstrip() + ',\n "files": [')
    for number, item in enumerate(items()):
        file.write(("," if number else "") + "\n  " + json.dumps(row(item), ensure_ascii=False))
    file.write("\n ]\n}\n")


def write_html(journal: Journal, items: Items, file: IO[str], thumbnails: int) -> None:
    """Write one page that needs no other file: thumbnails before and after, settings, times, errors, a filter.

    Failures come first; beyond MAX_HTML_ROWS rows the page points to report.csv.
    """
    counts = journal.counts(whole=True)
    total = sum(counts.values())
    file.write(_HEAD.replace("{version}", html.escape(__version__)).replace("{script}", _script_hash()))
    file.write(f"<h1>FAM Hires report</h1><p>{html.escape(shown(journal.output))}</p><p class='tabs'>")
    file.write(f"<button data-state='' class='on'>all {total}</button>")
    for state, number in counts.items():
        if number:
            file.write(f"<button data-state='{state}'>{state} {number}</button>")
    file.write(
        "</p><table><thead><tr><th>before</th><th>after</th><th>file</th><th>state</th><th>size (px)</th>"
        "<th>s</th><th>settings</th></tr></thead><tbody>"
    )
    rows = compared = 0
    for state in ("failed", "pending", "running", "saving", "skipped", "done"):
        for item in items(state=state, limit=MAX_HTML_ROWS - rows):
            pictures = ("", "")
            if state == "done" and thumbnails > 0:
                thumbnails -= 1
                side = _COMPARED_SIDE if compared < MAX_COMPARED else _THUMBNAIL
                compared += 1
                pictures = (_thumbnail(Path(item.source), side), _thumbnail(journal.output / item.output, side))
                if side == _COMPARED_SIDE and all(pictures):
                    pictures = (pictures[0], pictures[1] + _compare_button(item))
            file.write(_html_row(item, *pictures))
            rows += 1
    file.write("</tbody></table>")
    if rows < total:
        file.write(f"<p>{total - rows} more files are in report.csv and report.json.</p>")
    file.write(f"{_DIALOG}<script>{_code()}</script></body></html>\n")


def _html_row(item: Item, before: str, after: str) -> str:
    values = row(item)
    request = item.request
    settings = ""
    if request is not None:
        cfg_scale = "" if values["cfg_scale"] is None else f"{values['cfg_scale']:g}"
        line = f"{values['method']}, {values['sampler']} {values['steps']}, CFG {cfg_scale}, seed {values['seed']}"
        settings = (
            f"{html.escape(line)}<br><small>{html.escape(values['fam'])}</small>"
            f"<details><summary>prompt</summary>{html.escape(request.prompt)}"
            f"<br><i>{html.escape(request.negative_prompt)}</i></details>"
        )
    if item.program:
        settings += f"<br><small>from {html.escape(shown(item.program))}</small>"
    text = f"<b>{html.escape(shown(item.key))}</b>"
    if item.output != item.key:
        text += f"<br><small>{html.escape(values['output'])}</small>"
    for problem in (item.error, values["notes"]):
        if problem:
            text += f"<br><span class='problem'>{html.escape(str(problem))}</span>"
    size = f"{values['native_width']} x {values['native_height']}" if item.native[0] else ""
    if values["width"]:
        size += f" &rarr; {values['width']} x {values['height']}"
    state = html.escape(str(item.state))
    seconds = "" if values["seconds"] is None else f"{values['seconds']:.1f}"
    return (
        f"<tr data-state='{state}'><td>{before}</td><td>{after}</td><td>{text}</td><td>{state}</td>"
        f"<td>{size}</td><td>{seconds}</td><td>{settings}</td></tr>\n"
    )


def _compare_button(item: Item) -> str:
    """Return the button that opens the pictures of a row in the element of compare.js."""
    width, height = (item.request.size[1], item.request.size[0]) if item.request is not None else (1, 1)
    scale = min(1.0, _COMPARED_SIDE / max(width, height))
    return f"<button class='compare' data-scale='{scale:.4g}'>compare</button>"


def _thumbnail(path: Path, side: int) -> str:
    """Return a small picture as an <img>, or nothing when the file cannot be shown."""
    from fam_ext.errors import FamError
    from fam_ext.metadata.pictures import decode, read_file

    try:
        picture = decode(read_file(path), max_pixels=_MAX_THUMBNAIL_PIXELS).image
    except FamError:
        return ""
    picture.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"


_HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src '{script}'; base-uri 'none'; form-action 'none'"><title>FAM Hires report</title>
<meta name="generator" content="FAM Hires {version}"><meta name="viewport" content="width=device-width">
<style>
body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}
dialog{width:92vw;background:inherit;color:inherit;border:1px solid #888}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ddd;padding:.4rem;text-align:left;
vertical-align:top}td:nth-child(3),td:nth-child(7){overflow-wrap:anywhere}
td:nth-child(4),td:nth-child(5),td:nth-child(6){white-space:nowrap}img{max-width:160px;display:block}.problem{color:#a11}
button{border:1px solid #888;background:#fff;padding:.3rem .7rem;margin-right:.4rem;cursor:pointer}
button.on{background:#222;color:#fff}
@media (prefers-color-scheme:dark){body,button{background:#181818;color:#ddd}button.on{background:#ddd;color:#181818}
.problem{color:#f88}td,th{border-color:#444}}
</style></head><body>"""

_ROWS = """
document.querySelectorAll('.tabs button').forEach(function (button) {
  button.onclick = function () {
    document.querySelectorAll('.tabs button').forEach(function (other) {
      other.className = other === button ? 'on' : '';
    });
    document.querySelectorAll('tbody tr').forEach(function (line) {
      line.hidden = button.dataset.state !== '' && line.dataset.state !== button.dataset.state;
    });
  };
});
document.querySelectorAll('button.compare').forEach(function (button) {
  button.onclick = function () {
    var pictures = button.closest('tr').querySelectorAll('img');
    var element = document.createElement('fam-compare');
    element.dataset.scale = button.dataset.scale;
    ['before', 'after'].forEach(function (name, index) {
      var picture = new Image();
      picture.slot = name;
      picture.src = pictures[index].src;
      element.append(picture);
    });
    var dialog = document.querySelector('dialog');
    dialog.querySelector('div').replaceChildren(element);
    dialog.querySelector('.close').onclick = function () { dialog.close(); };
    dialog.showModal();
  };
});
"""
_DIALOG = "<dialog><p><button class='close'>close</button></p><div></div></dialog>"


def _code() -> str:
    return compare.script() + _ROWS


def _script_hash() -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(_code().encode()).digest()).decode()}"
