"""A trial's grid as HTML: a row a file, a column a preset. No gradio, no host."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

from fam_ext.escapes import shown
from fam_ext.jobs.trial import Cell, Chosen, Column, Forecast, Trial, row_key
from fam_ext.ui.tables import duration, row_name
from fam_ext.ui.thumbnails import Thumbnail

SIDE = 320
"""Pixels a side of the grid's pictures."""


def trial_html(trial: Trial, thumbnail: Callable[[Path], Thumbnail | None], *, now: str = "") -> str:
    """Return the grid as it stands, "" before the files are chosen; `now` is the row that is being made.

    javascript/fam_hires.js gives its buttons life.
    """
    if not trial.columns:
        return ""
    cells = [trial.cells(column) for column in trial.columns]
    heads = "".join(_head(column, trial.forecast(column, of)) for column, of in zip(trial.columns, cells, strict=True))
    body = ""
    for number, chosen in enumerate(trial.files):
        native = thumbnail(Path(chosen.planned.candidate.path))
        row = "".join(
            _cell(row_key(column.preset, chosen.planned.candidate.key), of[number], thumbnail, now)
            for column, of in zip(trial.columns, cells, strict=True)
        )
        body += (
            f'<tbody><tr><th colspan="{len(trial.columns) + 1}" scope="rowgroup">{_file_words(chosen)}</th></tr>'
            f"<tr><td>{_image(native, 'the picture as it is')}</td>{row}</tr></tbody>"
        )
    return (
        '<fam-trial><div class="fam-trial" tabindex="0" role="region" aria-label="Trial">'
        f'<table><thead><tr><th scope="col">as it is</th>{heads}</tr></thead>{body}</table></div></fam-trial>'
    )


def _head(column: Column, forecast: Forecast) -> str:
    name = html.escape(column.preset)
    lines = "".join(f"<span>{html.escape(line)}</span>" for line in forecast_words(forecast))
    return f'<th scope="col"><button type="button" data-preset="{name}">Take {name}</button>{lines}</th>'


def forecast_words(forecast: Forecast) -> tuple[str, str]:
    """Return what the whole folder would take: the time, and the memory."""
    files = f"{forecast.files} file{'' if forecast.files == 1 else 's'}"
    time = "time not measured yet" if forecast.seconds is None else f"about {duration(forecast.seconds)} for {files}"
    memory = "memory: measured on a GPU only"
    if forecast.peak_memory is not None:
        memory = f"needs {forecast.peak_memory / 2**30:.1f} GB of video memory"
    return time, memory


def _file_words(chosen: Chosen) -> str:
    planned = chosen.planned
    native, target = planned.native, planned.request.size if planned.request is not None else (0, 0)
    sizes = f"{native[1]} x {native[0]} to {target[1]} x {target[0]} px"
    return html.escape(f"{chosen.why}: {shown(planned.candidate.key)}, {sizes}")


def _cell(key: str, cell: Cell, thumbnail: Callable[[Path], Thumbnail | None], now: str) -> str:
    waiting = "being made" if key == now else "waiting"
    words = [] if cell.state == "done" else [cell.state if cell.state in ("failed", "skipped") else waiting]
    if cell.seconds is not None:
        words.append(f"{cell.seconds:.1f} s")
    if cell.message:
        words.append(shown(cell.message))
    said = f"<span>{html.escape(', '.join(words))}</span>"
    if cell.state != "done":
        return f'<td data-state="{html.escape(cell.state)}">{said}</td>'
    image = _image(thumbnail(cell.output), "") or "compare"
    name = f'data-key="{html.escape(row_name(key))}" aria-label="Compare {html.escape(shown(key))}"'
    button = f'<button type="button" {name}>{image}</button>'
    return f"<td>{button}{said}</td>"


def _image(found: Thumbnail | None, words: str) -> str:
    return "" if found is None else f'<img alt="{html.escape(words)}" src="{found.url}">'
