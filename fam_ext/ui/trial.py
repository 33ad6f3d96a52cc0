"""Try on 3: three files of the folder with up to three presets, in one grid; a column's head takes its preset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from fam_ext.errors import FamError, UsageError
from fam_ext.jobs.trial import MOST_PRESETS, Trial
from fam_ext.options.presets import CUSTOM
from fam_ext.ui.dials import dial_values
from fam_ext.ui.folder import Folder
from fam_ext.ui.host import TAB_ID, TabHost
from fam_ext.ui.preset_box import SETTING_NAMES, preset_settings
from fam_ext.ui.tables import error_html

FIRST_PRESETS = ("fast", "balanced", "paper")
_SET = ("own_settings", *SETTING_NAMES)
"""The parts that a preset sets beside the dials."""


def trial_inputs(host: TabHost) -> dict[str, Any]:
    """Build the choice of presets into the open fold, and return the parts by name."""
    parts: dict[str, Any] = {}
    parts["presets"] = gr.CheckboxGroup(
        label=f"Presets to try (up to {MOST_PRESETS}); custom: the dials as they are",
        choices=[CUSTOM, *host.store.names()],
        value=list(FIRST_PRESETS),
        elem_id=f"{TAB_ID}_try_presets",
    )
    parts["presets"].do_not_save_to_config = True
    parts["take"] = gr.Textbox(label="Preset to take", elem_id=f"{TAB_ID}_take", elem_classes="fam-hidden")
    parts["take"].do_not_save_to_config = True
    parts["take_go"] = gr.Button("Take", elem_id=f"{TAB_ID}_take_go", elem_classes="fam-hidden")
    return parts


def trial_title(presets: Sequence[str]) -> str:
    """Return the fold's title: which presets are tried."""
    return f"Try on 3: {', '.join(presets) or 'no preset is chosen'}"


def bind_trial(host: TabHost, folder: Folder, parts: dict[str, Any], button: Any, presets: dict[str, Any]) -> None:  # noqa: ANN401
    """Bind the button, the grid's heads and the list of presets; `presets` are the preset box's parts."""
    preset_box = presets["preset"]
    taken: dict[str, tuple[dict[str, Any], list[Any]]] = {}
    """What the page's parts say by the last trial's presets."""

    def page_with(preset: str, values: dict[str, Any], dials: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        if preset == CUSTOM:
            return values, dials
        chosen = host.store.get(preset)
        return {**values, **preset_settings(host, chosen)}, dial_values(chosen.config)

    def begin(presets: list[str], rest: tuple[Any, ...]) -> None:
        values = dict(zip(folder.names, rest[: len(folder.names)], strict=True))
        said, jobs = {}, {}
        for preset in presets:
            said[preset] = page_with(preset, values, list(rest[len(folder.names) :]))
            try:
                jobs[preset] = folder.options_of((*said[preset][0].values(), *said[preset][1]))
            except FamError as error:
                raise UsageError(f"preset {preset} cannot be tried: {error}") from None
        trial = Trial(jobs)
        host.batches.start(host.check_places(trial.options), trial)
        taken.clear()
        taken.update(said)

    def start(presets: list[str], *rest: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
        try:
            begin(presets, rest)
        except (FamError, OSError) as error:
            yield folder.watch.said(error_html(error))
            return
        yield from folder.watch("")

    components = dict(zip(folder.names, folder.inputs[: len(folder.names)], strict=True))

    def take(preset: str) -> list[Any]:
        if preset not in taken:
            return [gr.update() for _ in [preset_box, *_SET, *folder.dials]]
        values, dials = taken[preset]
        return [gr.update(value=value) for value in (preset, *(values[name] for name in _SET), *dials)]

    def listed(presets: list[str]) -> Any:  # noqa: ANN401
        names = [CUSTOM, *host.store.names()]
        return gr.update(choices=names, value=[name for name in presets if name in names])

    button.click(
        start,
        _js="fam_hires_quiet",
        inputs=[parts["presets"], *folder.inputs],
        outputs=folder.outputs,
        cancels=[folder.listing],
        show_progress=False,
        api_name=False,
    )
    parts["take_go"].click(
        take,
        inputs=[parts["take"]],
        outputs=[preset_box, *(components[name] for name in _SET), *folder.dials],
        show_progress=False,
        api_name=False,
    )
    for event in (presets["refresh"].click, preset_box.change):
        event(listed, inputs=[parts["presets"]], outputs=[parts["presets"]], show_progress=False, api_name=False)
