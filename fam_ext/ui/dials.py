"""FAM's dials as gradio components, drawn from the one field table. Windows become two sliders each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from fam_ext.core.config import FamConfig
from fam_ext.metadata.fields import BY_NAME, CONFIG_FIELDS, Field

MAIN = ("cutoff", "attention", "start", "fm", "am", "upsample")
"""Fields that stand at the top; the rest folds under "More dials"."""
ORDER: tuple[Field, ...] = (
    *(BY_NAME[name] for name in MAIN),
    *(field for field in CONFIG_FIELDS if field.name not in MAIN),
)
"""The order of components and of script arguments. New fields go to the end: `ui-config.json` and the API's positional
defaults follow it."""

PARTS: tuple[tuple[Field, int | None], ...] = tuple(
    (field, part) for field in ORDER for part in ((0, 1) if field.kind == "window" else (None,))
)
"""One entry a component: the field, and for a window which end (0 start, 1 end)."""
_ENDS = ("start", "end")


def dial_label(field: Field, part: int | None) -> str:
    """Return the label of one component: the table's, and for windows the end. Labels are an API."""
    return field.label if part is None else f"{field.label}: {_ENDS[part]}"


def dial_id(field: Field, part: int | None) -> str:
    """Return the last part of one component's elem_id."""
    return field.name if part is None else f"{field.name}_{_ENDS[part]}"


def dial_values(config: FamConfig) -> list[Any]:
    """Return the components' values that mean `config`, in the order of PARTS."""
    return [getattr(config, field.name) if part is None else getattr(config, field.name)[part] for field, part in PARTS]


def read_dials(values: Sequence[Any]) -> dict[str, Any]:
    """Return the named fields that the components' `values` mean; `FamConfig.from_dict` checks them."""
    fields: dict[str, Any] = {}
    for (field, part), value in zip(PARTS, values, strict=True):
        if part is None:
            fields[field.name] = value
        else:
            fields[field.name] = (*fields.get(field.name, ()), value)
    return fields


def build_dials(config: FamConfig, *, elem_id: Callable[[str], str]) -> list[Any]:
    """Build the components with `config` as their values and return them in the order of PARTS."""
    values = dial_values(config)
    components: list[Any] = []
    main = sum(1 for field, _ in PARTS if field.name in MAIN)
    with gr.Row():
        for entry, value in list(zip(PARTS, values, strict=True))[:3]:
            components.append(_dial(*entry, value, elem_id=elem_id))
    with gr.Row():
        for entry, value in list(zip(PARTS, values, strict=True))[3:main]:
            components.append(_dial(*entry, value, elem_id=elem_id))
    with gr.Accordion("More dials", open=False, elem_id=elem_id("more")):
        rest = list(zip(PARTS, values, strict=True))[main:]
        for first in range(0, len(rest), 2):
            with gr.Row():
                for entry, value in rest[first : first + 2]:
                    components.append(_dial(*entry, value, elem_id=elem_id))
    return components


def _dial(field: Field, part: int | None, value: Any, *, elem_id: Callable[[str], str]) -> Any:  # noqa: ANN401
    component = _component(field, part, value, elem_id=elem_id)
    # the WebUI's ui-config.json would win over the starting preset of its settings, and over later defaults
    component.do_not_save_to_config = True
    return component


def _component(field: Field, part: int | None, value: Any, *, elem_id: Callable[[str], str]) -> Any:  # noqa: ANN401
    common: dict[str, Any] = {
        "label": dial_label(field, part),
        "value": value,
        "info": field.help,
        "elem_id": elem_id(dial_id(field, part)),
        "interactive": True,
    }
    if field.kind == "bool":
        return gr.Checkbox(**common)
    if field.kind == "choice":
        return gr.Dropdown(choices=list(field.choices), **common)
    if field.kind == "text":
        return gr.Textbox(max_lines=1, **common)
    if field.name == "cutoff":  # a share of 0 to 1, or up to hundreds of cycles: no slider serves both
        return gr.Number(step=field.step, **common)  # FamConfig names the range, which depends on the reference
    return gr.Slider(minimum=field.low, maximum=field.high, step=field.step, **common)
