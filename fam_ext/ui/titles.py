"""What a fold's title says: its theme, and what is in force in it. No gradio, no host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fam_ext.core.config import FamConfig
from fam_ext.options.presets import BUILTIN, DEFAULT, Preset
from fam_ext.options.request import REQUEST

CUTOFF_UNITS = {
    "native": "share of the native side",
    "target": "share of the target side",
    "cycles": "cycles per picture",
}
_SHOWN = 40
_TOP = ("cutoff", "cutoff_reference", "attention", "start")
"""Dials that are seen without opening a fold."""


def fold_titles(values: Mapping[str, Any], *, folder: bool, prompt: str = "", loaded_model: str = "") -> dict[str, str]:
    """Return the titles of the tab's folds by name, for the values of its parts by option."""
    return {
        "picture_words": f"Words: {quoted(prompt) or 'none yet; write a prompt'}",
        "words": f"Words: {_words(values)}",
        "size": f"Size and upscaler: {_size(values, folder=folder)}",
        "sampling": f"Sampler: {_sampling(values, folder=folder, loaded_model=loaded_model)}",
        "files": f"Files: {_files(values)}",
        "output": f"Output: {_output(values)}",
    }


def method_title(dials: Mapping[str, Any]) -> str:
    """Return the title of the fold with FAM's dials."""
    if not dials["fm"] and not dials["am"]:
        return "Method: FAM is off"
    parts: list[str] = []
    if dials["fm"]:
        unit = dials["cutoff_reference"]
        parts.append(
            f"structure to {_number(dials['cutoff'])} {'cycles' if unit == 'cycles' else f'of the {unit} side'}"
        )
    if dials["am"]:
        parts.append(f"texture {_number(dials['attention'])}")
    parts.append("the whole schedule" if dials["start"] == 1 else f"starts at {_number(dials['start'])}")
    return f"Method: {', '.join(parts)}"


def more_dials_title(config: FamConfig) -> str:
    """Return the title of the fold with the dials that most never touch: how many differ from the usual preset's."""
    usual = BUILTIN[DEFAULT].config
    changed = [name for name, value in config.to_dict().items() if name not in _TOP and value != getattr(usual, name)]
    return f"More dials: {f'{len(changed)} changed' if changed else 'as usual'}"


def preset_sentence(name: str, preset: Preset | None) -> str:
    """Return one sentence of what the preset is for."""
    if preset is None:
        return "Dials of your own; Save and share presets, below, keeps them under a name."
    usual = REQUEST["method"].default
    said = preset.description or f"Your preset {name}."
    method = preset.settings.get("method", usual)
    return said if method == usual else f"{said} Its method, {method}, is not the page's to choose: FAM runs."


def quoted(text: str, most: int = _SHOWN) -> str:
    """Return the beginning of a text in quotes, on one line, "" for none."""
    line = " ".join(text.split())
    if not line:
        return ""
    return f"“{line if len(line) <= most else line[: most - 1] + '…'}”"


def _words(values: Mapping[str, Any]) -> str:
    prompt = quoted(values["prompt"] or "")
    rule = values["prompt_rule"]
    own = "each picture's own"
    if rule == "override":
        return f"{prompt or 'none'} for all"
    if not prompt:
        return own
    return {
        "take": f"{own}, else {prompt}",
        "prefix": f"{prompt} before {own}",
        "suffix": f"{prompt} after {own}",
        "replace": f"{own}, with {prompt} replaced",
    }.get(rule, own)


def _size(values: Mapping[str, Any], *, folder: bool) -> str:
    box = f"within {_number(values['width'])} x {_number(values['height'])} px" if values["width"] else "by scale"
    parts = [box, str(values["upscaler"])]
    if folder and values["max_side"]:
        parts.append(f"at most {_number(values['max_side'])} px a side")
    if folder and values["max_megapixels"]:
        parts.append(f"at most {_number(values['max_megapixels'])} MP")
    return ", ".join(parts)


def _sampling(values: Mapping[str, Any], *, folder: bool, loaded_model: str) -> str:
    schedule = "" if values["schedule"] == "Automatic" else f" {values['schedule']}"
    said = f"{values['sampler']}{schedule}, {_number(values['steps'])} steps, CFG {_number(values['cfg_scale'])}"
    if folder and values["own_settings"]:
        said = f"each picture's own, else {said}"
    if values["model"] and values["model"] != loaded_model:
        said += f", {Path(str(values['model'])).stem}"
    return said


def _files(values: Mapping[str, Any]) -> str:
    said = values["pattern"] or "every picture"
    if values["recursive"]:
        said += ", folders inside too"
    if values["first"]:
        said += f", the first {_number(values['first'])}"
    return said


def _output(values: Mapping[str, Any]) -> str:
    parts = [values["output"] or "beside the input folder"]
    if values["format"] and values["format"] != "as input":
        parts.append(values["format"])
    if values["name"] and values["name"] != "{stem}":
        parts.append(values["name"])
    if values["overwrite"]:
        parts.append("replaces what differs")
    return ", ".join(parts)


def _number(value: Any) -> str:  # noqa: ANN401  # whatever a part holds
    return f"{value:g}" if isinstance(value, int | float) else str(value)
