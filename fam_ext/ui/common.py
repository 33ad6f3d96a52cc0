"""The parts that the tab's two modes share: size, sampling, model; and the words of a job that a page says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from fam_ext.options.field import PAGE
from fam_ext.options.presets import BUILTIN, DEFAULT
from fam_ext.options.resolve import options_at
from fam_ext.ui.dials import read_dials
from fam_ext.ui.host import TAB_ID, TabHost
from fam_ext.ui.parts import build_part

LOADED_MODEL = "the one that is loaded"
COMMON_ROWS: tuple[tuple[str, ...], ...] = (
    ("scale", "width", "height"),
    ("upscaler", "sampler", "schedule"),
    ("steps", "cfg_scale", "seed"),
    ("model",),
)
"""Where the options stand that both modes use; one that has no place stands below the folder's."""
PAGE_VALUES: Mapping[str, Any] = {**BUILTIN[DEFAULT].settings, "negative_rule": "take", "own_settings": True}
"""What the page shows first where the option has no default of its own."""


def common_inputs(host: TabHost) -> dict[str, Any]:
    """Build the parts and return them by their options' names."""
    parts: dict[str, Any] = {}

    def name(part: str) -> dict[str, Any]:
        return {"elem_id": f"{TAB_ID}_{part}"}

    known = {spec.name: spec for spec in options_at(PAGE)}
    lists = {
        "upscaler": host.upscalers(),
        "sampler": host.samplers(),
        "schedule": host.schedules(),
        "model": [LOADED_MODEL, *host.models()],
    }
    for row in COMMON_ROWS:
        with gr.Row():
            for part in row:
                wanted = PAGE_VALUES.get(part) or known[part].default or known[part].off
                more: dict[str, Any] = {"maximum": 4} if part == "scale" else {}
                if part in lists:
                    choices = lists[part]
                    wanted = wanted if wanted in choices else (choices[0] if choices else None)
                    more = {"choices": choices}
                parts[part] = build_part(known[part], value=wanted, **more, **name(part))
    parts["model"].do_not_save_to_config = True
    return parts


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
