"""`fam-hires try`: three files of a folder with several presets, before the whole of it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from fam_ext.cli.options import takes
from fam_ext.cli.progress import View, clock, watched
from fam_ext.cli.upscale import job_of
from fam_ext.errors import FamError
from fam_ext.jobs.renderers import RendererSpec
from fam_ext.jobs.trial import Forecast, Trial
from fam_ext.metadata import pictures
from fam_ext.options import resolve
from fam_ext.options.field import CLI
from fam_ext.options.resolve import options_at
from fam_ext.terminal import say

_SIDE = 384
_NOTHING = Image.new("RGB", (_SIDE, _SIDE), "#dddddd")


@takes(spec for spec in options_at(CLI) if spec.name not in ("preset", "overwrite"))
def try_presets(
    inputs: Annotated[list[str], typer.Argument(help="Pictures and folders.", metavar="PATH...", show_default=False)],
    output: Annotated[
        str, typer.Option("--output", "-o", help="The real run's output folder; the trial goes to OUT-try, beside it.")
    ],
    presets: Annotated[str, typer.Option(help="Comma-separated, up to three.")] = "fast,balanced,paper",
    progress: Annotated[View, typer.Option(help="auto: live in a terminal, else plain lines.")] = View.auto,
    *,
    said: dict[str, Any],
) -> None:
    """Make the smallest, the largest and the busiest of a folder's pictures with several presets, side by side, and say
    what the whole folder would take with each."""
    names = [name.strip() for name in presets.split(",") if name.strip()]
    jobs = {name: job_of(inputs, output, {**said, "preset": name}, rules={}, dials={})[0] for name in names}
    resolve.refuse_unread(said, map(resolve.method_of, jobs.values()))
    trial = Trial(jobs)
    with watched(progress) as (control, listen, finish):
        spec = RendererSpec(arguments=trial.options.renderer.arguments)
        summary = trial.run(spec, control=control, on_event=listen)
        finish(summary, trial.options.places.output)
    if trial.columns:
        say(f"sheet: {_write_sheet(trial)}")
    raise typer.Exit(summary.exit_code)


def _write_sheet(trial: Trial) -> Path:
    """Write the grid as a picture into the trial's folder, say each preset's forecast, and return the sheet's path."""
    from fam_ext.compare import Cell, contact_sheet

    rows = [[Cell(_picture(Path(one.planned.candidate.path)), one.why)] for one in trial.files]
    header = ["as it is"]
    for column in trial.columns:
        cells = trial.cells(column)
        header.append(column.preset)
        say(f"{column.preset}: {_forecast_words(trial.forecast(column, cells))}")
        for row, cell in zip(rows, cells, strict=True):
            made = _picture(cell.output) if cell.state == "done" else _NOTHING
            row.append(Cell(made, cell.message or ("" if cell.seconds is None else f"{cell.seconds:.1f} s")))
    path = Path(trial.options.places.output) / "trial.png"
    path.write_bytes(pictures.encode(contact_sheet(rows, header=header, side=_SIDE), "PNG").data)
    return path


def _forecast_words(forecast: Forecast) -> str:
    words = "no picture was made" if forecast.seconds is None else f"about {clock(forecast.seconds)}"
    memory = "" if forecast.peak_memory is None else f", {forecast.peak_memory / 2**30:.1f} GB of video memory"
    return f"{words} for all {forecast.files}{memory}"


def _picture(path: Path) -> Image.Image:
    try:
        return pictures.decode(pictures.read_file(path)).image
    except FamError:
        return _NOTHING
