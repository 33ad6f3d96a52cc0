"""`fam-hires inspect FILE`: what a picture's metadata holds, where, and what would run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fam_ext import terminal
from fam_ext.errors import FamError, UsageError
from fam_ext.escapes import shown
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.walk import walk
from fam_ext.metadata import pictures
from fam_ext.options import presets as preset_store
from fam_ext.options import resolve
from fam_ext.options.renderer import STANDALONE, RendererChoice

_SHOWN = ("prompt", "negative", "seed", "steps", "sampler", "schedule", "cfg", "model", "vae", "clip_skip", "loras")
_RUNS = ("prompt", "negative_prompt", "seed", "steps", "sampler", "schedule", "cfg_scale", "method")


def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A picture.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    preset: Annotated[str, typer.Option(help="Named settings; see `fam-hires presets list`.")] = preset_store.DEFAULT,
) -> None:
    """Print what a picture's metadata holds, where it was found, and what `upscale` would run. Writes nothing.

    Exit code 1: the file is no picture.
    """
    path = Path(os.path.abspath(os.path.expanduser(file)))
    if not path.is_file():
        raise UsageError(f"{shown(file)} is not a file; name one picture")
    values = describe(path, preset)
    if as_json:
        terminal.say(terminal.as_json(values))
    else:
        _say(values)
    if values["format"] is None:
        raise typer.Exit(1)


def _say(values: dict[str, Any]) -> None:
    terminal.say(f"{values['file']}: {values['error'] or values['format']}")
    for text in values["texts"]:
        terminal.say(f"  {shown(text['place'])} {shown(text['key'])}: {text['characters']} characters")
    where = f" in {shown(values['where'])}" if values["where"] else ""
    terminal.say(f"found: {values['program'] or 'no settings'}{where}")
    for heading, rows in (("", values["found"]), ("would run:", values["runs"])):
        if heading:
            terminal.say(heading)
        for name, value in rows.items():
            terminal.say(f"  {name}: {shown(value)}")
    for note in values["notes"]:
        terminal.say(f"note: {shown(note)}")


def describe(path: Path, preset: str) -> dict[str, Any]:
    """Return what `inspect` prints, as plain values; a file that is no picture has its sentence in `error`."""
    values: dict[str, Any] = {"file": shown(path.name), "error": None, "format": None, "program": None, "where": None}
    values |= {"texts": [], "found": {}, "runs": {}, "notes": []}
    try:
        header = pictures.read_header(path)
    except FamError as error:
        return values | {"error": str(error)}
    reading = header.reading
    values["format"] = f"{header.format}, {header.size[1]} x {header.size[0]} px"
    values["texts"] = [{"place": text.place, "key": text.key, "characters": len(text.value)} for text in header.places]
    if reading is not None:
        found = {name: getattr(reading, name) for name in _SHOWN}
        values |= {"program": reading.program, "where": reading.place}
        values["found"] = {name: value for name, value in found.items() if value not in (None, "", ())}
    words = {"inputs": (str(path),), "output": str(path.parent / "out"), "preset": preset}
    options = resolve.job(words, preset_of=preset_store.PresetStore().get, renderer=RendererChoice(STANDALONE))
    planned = plan_file(next(iter(walk(options.places))), options)
    values |= {"notes": list(planned.notes), "error": planned.problem}
    if planned.origin == "sidecar":
        values["where"] = f"{path.stem}.txt"
    if planned.request is not None:
        values["runs"] = {name: getattr(planned.request, name) for name in _RUNS}
    return values
