"""What both modes of the tab share: size, sampling, model, the folds they lie in; and the words of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from fam_ext.core.config import FamConfig
from fam_ext.options.field import PAGE, Option, options_of
from fam_ext.options.presets import BUILTIN, DEFAULT
from fam_ext.options.resolve import options_at
from fam_ext.ui.dials import read_dials
from fam_ext.ui.host import TAB_ID, TabHost
from fam_ext.ui.parts import build_part

LOADED_MODEL = "the one that is loaded"
COMMON = ("scale", "width", "height", "upscaler", "sampler", "schedule", "steps", "cfg_scale", "seed", "model")
"""The options that both modes use, at their own elem_ids; the other ones of a page are the folder's."""
FOLDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "size": (("width", "height"), ("upscaler",), ("max_side", "max_megapixels")),
    "sampling": (
        ("own_settings",),
        ("sampler", "schedule"),
        ("steps", "cfg_scale"),
        ("seed", "model"),
        ("own_model",),
    ),
    "files": (("pattern", "first"), ("recursive",)),
    "words": (("prompt_rule", "prompt"), ("negative_rule", "negative_prompt")),
    "output": (("output",), ("name", "format"), ("overwrite",)),
}
"""Where the options stand that are not in the first column. One that has no place stands in the fold "more"."""
PAGE_VALUES: Mapping[str, Any] = {**BUILTIN[DEFAULT].settings, "negative_rule": "take", "own_settings": True}
"""What the page shows first where the option has no default of its own."""
FOR_PICTURE, FOR_FOLDER = "fam-for-picture", "fam-for-folder"
"""Classes of what one mode alone has: style.css hides it in the other."""
_PLACEHOLDERS = {"output": "empty: beside the input folder", "pattern": "*.png, *.jpg"}
_KNOWN: Mapping[str, Option] = {spec.name: spec for spec in options_at(PAGE)}


def fold(name: str, title: str, *, mode: str = "") -> Any:  # noqa: ANN401
    """Return a closed fold to build into; its title is kept true by the tab's look."""
    return gr.Accordion(title, open=False, elem_id=f"{TAB_ID}_fold_{name}", elem_classes=["fam-fold", mode])


def option_row(host: TabHost, names: Sequence[str]) -> dict[str, Any]:
    """Build the parts of these options side by side and return them by name."""
    folder_only = not any(name in COMMON for name in names)
    with gr.Row(elem_classes=["fam-pair", FOR_FOLDER if folder_only else ""]):
        return {name: _option_part(host, name) for name in names}


def fold_rows(host: TabHost, name: str) -> dict[str, Any]:
    """Build a fold's parts and return them by their options' names."""
    parts: dict[str, Any] = {}
    for row in FOLDS[name]:
        parts |= option_row(host, row)
    return parts


def unplaced() -> list[str]:
    """Return the page's options that stand in no fold: those of a new table line."""
    placed = {"scale", "preset", "input", *(name for rows in FOLDS.values() for row in rows for name in row)}
    dials = {spec.name for spec in options_of(FamConfig)}
    return [name for name in _KNOWN if name not in placed and name not in dials]


def _option_part(host: TabHost, name: str) -> Any:  # noqa: ANN401
    spec = _KNOWN[name]
    if name not in COMMON:
        more: dict[str, Any] = {"visible": host.folders} if name in ("input", "output") else {}
        if name in _PLACEHOLDERS:
            more["placeholder"] = _PLACEHOLDERS[name]
        part = build_part(spec, f"{TAB_ID}_folder_{name}", PAGE_VALUES.get(name), **more)
        if name in ("input", "output", "prompt", "negative_prompt", "first"):
            part.do_not_save_to_config = True
        return part
    more = {"maximum": 4} if name == "scale" else {}
    wanted = PAGE_VALUES.get(name) or spec.default or spec.off
    choices = lists_of(host).get(name)
    if choices is not None:
        more["choices"] = choices
        wanted = wanted if wanted in choices else next(iter(choices), None)
    part = build_part(spec, f"{TAB_ID}_{name}", wanted, **more)
    if name == "model":
        part.do_not_save_to_config = True
    return part


def lists_of(host: TabHost) -> dict[str, list[str]]:
    """Return what the program around the tab has now, by the option that chooses from it."""
    return {
        "upscaler": host.upscalers(),
        "sampler": host.samplers(),
        "schedule": host.schedules(),
        "model": [LOADED_MODEL, *host.models()],
    }


def page_words(values: Mapping[str, Any], dials: Sequence[Any]) -> dict[str, Any]:
    """Return the words of a job that the page's parts say: by name, the dials by their places."""
    words = {**values, **read_dials(dials)}
    if words.get("model") == LOADED_MODEL:
        words["model"] = None
    return words


def choices_of(component: Any) -> list[Any] | None:  # noqa: ANN401
    """Return a dropdown's values: plain in gradio 3, (label, value) pairs since."""
    choices = getattr(component, "choices", None)
    if choices is None:
        return None
    return [entry[1] if isinstance(entry, tuple | list) else entry for entry in choices]
