"""A page's parts, drawn from the options' table: one component an option."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fam_ext.options.field import Option

PART = "fam-part"
"""The class of a part: style.css shows its help as a tooltip, javascript/fam_hires.js marks it where a value is bad."""


def build_part(spec: Option, elem_id: str, value: Any = None, **more: Any) -> Any:  # noqa: ANN401
    """Return the component of an option that shows `value`, else its default; `more` goes to the component."""
    shown = _shown(spec) if value is None else value
    common: dict[str, Any] = {"label": spec.page or spec.label, "info": spec.help, "value": shown, "elem_id": elem_id}
    common |= {"elem_classes": [PART], **more}
    if spec.kind == "bool":
        return gr.Checkbox(**common)
    if spec.kind == "choice" or "choices" in more:
        choices = [*([spec.off] if isinstance(spec.off, str) and spec.off else []), *spec.choices]
        return gr.Dropdown(**{"choices": choices, **common})
    if spec.kind in ("int", "float"):
        if spec.step is not None and spec.off is None and spec.high is not None and spec.high < 1000:
            return gr.Slider(**{"minimum": spec.low, "maximum": spec.high, "step": spec.step, **common})
        return gr.Number(**({"precision": 0} if spec.kind == "int" else {}), **common)
    return gr.Textbox(**common)


def _shown(spec: Option) -> Any:  # noqa: ANN401
    if spec.default is None:
        return spec.off
    return spec.default if spec.kind in ("bool", "choice", "int", "float") else spec.default or ""
