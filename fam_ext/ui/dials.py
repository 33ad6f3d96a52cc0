"""FAM's dials as gradio components, drawn from the one field table. Windows become two sliders each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gradio as gr

from fam_ext.core.config import FamConfig
from fam_ext.options.field import Option
from fam_ext.options.presets import CUSTOM, Preset
from fam_ext.options.table import BY_NAME, CONFIG_FIELDS
from fam_ext.ui.parts import PART, build_part
from fam_ext.ui.titles import CUTOFF_UNITS, more_dials_title

MAIN = ("cutoff", "attention", "start")
"""Fields that stand at the top; the rest folds under "More dials"."""
_FIRST = (*MAIN, "fm", "am", "upsample")
ORDER: tuple[Option, ...] = (
    *(BY_NAME[name] for name in _FIRST),
    *(field for field in CONFIG_FIELDS if field.name not in _FIRST),
)
"""The order of components and of script arguments. New fields go to the end: `ui-config.json` and the API's positional
defaults follow it."""

PARTS: tuple[tuple[Option, int | None], ...] = tuple(
    (field, part) for field in ORDER for part in ((0, 1) if field.kind == "window" else (None,))
)
"""One entry a component: the field, and for a window which end (0 start, 1 end)."""
_ENDS = ("start", "end")


def dial_label(field: Option, part: int | None) -> str:
    """Return the label of one component: the table's for pages, and for windows the end."""
    label = field.page or field.label
    return label if part is None else f"{label}: {_ENDS[part]}"


def cutoff_label(reference: str) -> str:
    """Return the cut-off's label with its unit, which the cutoff reference decides."""
    return f"{BY_NAME['cutoff'].page} ({CUTOFF_UNITS[reference]})"


def dial_id(field: Option, part: int | None) -> str:
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


def build_dials(config: FamConfig, *, elem_id: Callable[[str], str]) -> tuple[list[Any], Any]:
    """Build the components with `config` as their values; return them in the order of PARTS, and the fold of those
    that most never touch."""
    values = dial_values(config)
    entries = list(zip(PARTS, values, strict=True))
    components = [_dial(*entry, value, elem_id=elem_id) for entry, value in entries[: len(MAIN)]]
    with gr.Accordion(more_dials_title(config), open=False, elem_id=elem_id("more"), elem_classes=["fam-fold"]) as more:
        rest = entries[len(MAIN) :]
        for first in range(0, len(rest), 2):
            with gr.Row(elem_classes=["fam-pair"]):
                for entry, value in rest[first : first + 2]:
                    components.append(_dial(*entry, value, elem_id=elem_id))
    by_id = {dial_id(*entry): component for entry, component in zip(PARTS, components, strict=True)}
    by_id["cutoff"].label = cutoff_label(config.cutoff_reference)
    by_id["cutoff_reference"].change(
        lambda reference: gr.update(label=cutoff_label(reference)),
        inputs=[by_id["cutoff_reference"]],
        outputs=[by_id["cutoff"]],
        show_progress=False,
        api_name=False,
    )
    return components, more


def preset_of(values: Sequence[Any], presets: Iterable[Preset]) -> str:
    """Return the name of the first preset whose dials have these values, "custom" where none has."""
    return next((preset.name for preset in presets if dial_values(preset.config) == list(values)), CUSTOM)


def preset_list(current: str, values: Sequence[Any], presets: Iterable[Preset]) -> Any:  # noqa: ANN401
    """Return the preset box anew: every preset there is, and the one that the dials' `values` are, of two equal ones
    the `current`."""
    known = list(presets)
    chosen = preset_of(values, sorted(known, key=lambda preset: preset.name != current))
    return gr.update(choices=[CUSTOM, *(preset.name for preset in known)], value=chosen)


def bind_preset_box(
    box: Any,  # noqa: ANN401
    dials: list[Any],
    presets: Callable[[], Iterable[Preset]],
    *,
    refresh: Any,  # noqa: ANN401
    taken: Iterable[Any] = (),
) -> None:
    """Keep the preset box true: it names the preset that the dials are, and its list is read anew by `refresh`.

    `taken` are events that set the dials from elsewhere.
    """

    def named(current: str, *values: Any) -> Any:  # noqa: ANN401
        return preset_list(current, values, presets())

    for dial in dials:  # a user's input alone: a preset's own values come one by one
        dial.input(named, inputs=[box, *dials], outputs=[box], show_progress=False, api_name=False)
    for event in taken:
        event.then(named, inputs=[box, *dials], outputs=[box], show_progress=False, api_name=False)
    refresh.click(named, inputs=[box, *dials], outputs=[box], show_progress=False, api_name=False)


def _dial(field: Option, part: int | None, value: Any, *, elem_id: Callable[[str], str]) -> Any:  # noqa: ANN401
    component = _component(field, part, value, elem_id=elem_id)
    # the WebUI's ui-config.json would win over the starting preset of its settings, and over later defaults
    component.do_not_save_to_config = True
    return component


def _component(field: Option, part: int | None, value: Any, *, elem_id: Callable[[str], str]) -> Any:  # noqa: ANN401
    common: dict[str, Any] = {"label": dial_label(field, part), "info": field.help, "interactive": True}
    common["elem_classes"] = [PART]
    name = elem_id(dial_id(field, part))
    if field.name == "cutoff":  # a share of 0 to 1, or up to hundreds of cycles: no slider serves both
        return gr.Number(value=value, elem_id=name, step=field.step, **common)
    if field.kind == "window":
        return gr.Slider(0, 1, value, step=field.step, elem_id=name, **common)
    if field.kind == "name":
        common["max_lines"] = 1
    return build_part(field, name, value, **common)
