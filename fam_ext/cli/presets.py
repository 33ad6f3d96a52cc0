"""`fam-hires presets`: list, show, import, export, from-image, delete."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fam_ext.metadata import pictures
from fam_ext.metadata.infotext import to_preset
from fam_ext.options import presets as preset_store
from fam_ext.terminal import as_json, say

presets_app = typer.Typer(help="Named settings: list, show, import, export, from-image, delete.", no_args_is_help=True)


@presets_app.command("list")
def presets_list() -> None:
    """List all presets, those that ship first."""
    store = preset_store.PresetStore()
    for name in store.names():
        say(f"{name:16} {store.get(name).description}")


@presets_app.command("show")
def presets_show(name: str) -> None:
    """Print a preset as JSON."""
    say(as_json(preset_store.PresetStore().get(name).to_json(), indent=2))


@presets_app.command("export")
def presets_export(
    name: str,
    file: Path,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the file where it exists.")] = False,
) -> None:
    """Write a preset to a JSON file."""
    preset_store.write(preset_store.PresetStore().get(name), file, replace=replace)
    say(str(file))


@presets_app.command("import")
def presets_import(
    file: Path,
    name: Annotated[str | None, typer.Option(help="Another name for it.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a preset of that name.")] = False,
) -> None:
    """Add a preset from a JSON file."""
    found = preset_store.read(file)
    if name is not None:
        found = dataclasses.replace(found, name=name)
    say(str(preset_store.PresetStore().save(found, replace=replace)))


@presets_app.command("from-image")
def presets_from_image(
    picture: Path,
    name: str,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a preset of that name.")] = False,
) -> None:
    """Make a preset from a picture that FAM made."""
    text = pictures.read_header(picture).infotext or ""
    say(str(preset_store.PresetStore().save(to_preset(text, name), replace=replace)))


@presets_app.command("delete")
def presets_delete(name: str) -> None:
    """Delete one of your own presets."""
    preset_store.PresetStore().delete(name)
    say(f"{name} deleted")
