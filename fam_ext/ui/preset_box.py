"""The tab's presets: use, save, share, import, delete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from fam_ext.core.config import FamConfig
from fam_ext.errors import FamError, UsageError
from fam_ext.metadata.infotext import to_preset
from fam_ext.options.presets import CUSTOM, Preset, PresetStore, read, write
from fam_ext.ui.common import lists_of
from fam_ext.ui.dials import bind_preset_box, dial_values, preset_list, preset_of, read_dials
from fam_ext.ui.host import TAB_ID, TabHost
from fam_ext.ui.tables import sentence_html
from fam_ext.ui.titles import preset_sentence

NO_PRESET = CUSTOM
SETTING_NAMES = ("sampler", "schedule", "steps", "cfg_scale")


def preset_choice(host: TabHost) -> dict[str, Any]:
    """Build the box with its sentence and return the parts by name."""
    parts: dict[str, Any] = {}
    chosen = preset_of(dial_values(host.config), _presets(host))
    with gr.Row(elem_id=f"{TAB_ID}_preset_row", elem_classes=["fam-beside"]):
        parts["preset"] = gr.Dropdown(
            label="Preset", choices=[NO_PRESET, *host.store.names()], value=chosen, elem_id=f"{TAB_ID}_preset"
        )
        parts["preset"].do_not_save_to_config = True
        parts["refresh"] = gr.Button("Refresh", elem_id=f"{TAB_ID}_preset_refresh", size="sm")
    about = about_preset(host.store, chosen)
    parts["about"] = gr.HTML(sentence_html(about), elem_id=f"{TAB_ID}_preset_about")
    return parts


def about_preset(store: PresetStore, name: str) -> str:
    """Return one sentence of what the preset is for. Raises `FamError` where there is none of that name."""
    return preset_sentence(name, None if name == NO_PRESET else store.get(name))


def preset_settings(host: TabHost, preset: Preset) -> dict[str, Any]:
    """Return what a preset says of the page's parts beside the dials, by name: what the program around has."""
    lists = lists_of(host)
    found: dict[str, Any] = {"own_settings": not preset.overrides}  # as at every door
    for name in SETTING_NAMES:
        value = preset.settings.get(name)
        if value and (name not in lists or value in lists[name]):
            found[name] = value
    return found


def preset_inputs() -> dict[str, Any]:
    """Build the parts that save and share, into the open fold, and return them by name."""
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes=["fam-beside"]):
        parts["name"] = gr.Textbox(label="Preset name", elem_id=f"{TAB_ID}_preset_name")
        parts["name"].do_not_save_to_config = True
        parts["save"] = gr.Button("Save these dials", elem_id=f"{TAB_ID}_preset_save", size="sm")
    with gr.Row(elem_classes=["fam-buttons"]):
        parts["from_image"] = gr.Button(
            "Save from the picture's infotext", elem_id=f"{TAB_ID}_preset_from_image", size="sm"
        )
        parts["load"] = gr.Button("Use", elem_id=f"{TAB_ID}_preset_load", size="sm")
        parts["export"] = gr.Button("Export", elem_id=f"{TAB_ID}_preset_export", size="sm")
        parts["import"] = gr.UploadButton(
            "Import", file_types=[".json"], elem_id=f"{TAB_ID}_preset_import", type="file", size="sm"
        )
        parts["delete"] = gr.Button("Delete", elem_id=f"{TAB_ID}_preset_delete", size="sm")
    parts["file"] = gr.File(label="Exported preset", visible=False, elem_id=f"{TAB_ID}_preset_file")
    parts["note"] = gr.HTML(elem_id=f"{TAB_ID}_preset_note")
    return parts


def bind_presets(
    host: TabHost, presets: dict[str, Any], dials: list[Any], common: dict[str, Any], picture: dict[str, Any]
) -> None:
    note, listing = presets["note"], presets["preset"]
    own_settings = common["own_settings"]

    def answered(action: Callable[[], tuple[str, str]], values: Sequence[Any]) -> list[Any]:
        """Return the list anew with the sentence of what was done, to the preset that is named; `values` are the
        dials'."""
        try:
            name, text = action()
        except FamError as error:
            return [gr.update(), sentence_html(str(error), kind="error")]
        return [preset_list(name, values, _presets(host)), sentence_html(text, kind="good")]

    def use(name: str) -> list[Any]:
        targets = [*dials, *(common[key] for key in SETTING_NAMES)]
        if name == NO_PRESET:
            return [gr.update() for _ in [0, own_settings, *targets]]
        try:
            preset = host.store.get(name)
        except FamError as error:
            return [sentence_html(str(error), kind="error"), *(gr.update() for _ in [own_settings, *targets])]
        said = preset_settings(host, preset)
        updates = [gr.update(value=value) for value in dial_values(preset.config)]
        updates += [gr.update(value=said[key]) if key in said else gr.update() for key in SETTING_NAMES]
        about = sentence_html(about_preset(host.store, name))
        return [about, gr.update(value=said["own_settings"]), *updates]

    def settings(values: tuple[Any, ...]) -> dict[str, Any]:
        found: dict[str, Any] = dict(zip(SETTING_NAMES, values, strict=True))
        found["steps"] = int(found["steps"])
        return found

    def stored(make: Callable[[], Preset], asked: str, values: Sequence[Any], said: str = "saved {}") -> list[Any]:
        """Save the preset; return the answer and the name that is asked about: over one that exists only when asked."""
        waiting = ""

        def action() -> tuple[str, str]:
            nonlocal waiting
            preset = make()
            if preset.name != asked and host.store.taken(preset.name) == preset.name:
                waiting = preset.name
                raise UsageError(f"there is a preset {preset.name} already; press once more to replace it")
            host.store.save(preset, replace=True)
            return preset.name, said.format(preset.name)

        return [*answered(action, values), waiting]

    def save(asked: str, name: str, *values: Any) -> list[Any]:  # noqa: ANN401
        def make() -> Preset:
            config = FamConfig.from_dict(read_dials(values[: len(dials)]))
            return Preset(name.strip(), "", config, settings(values[len(dials) :]))

        return stored(make, asked, values[: len(dials)])

    def delete(name: str, *values: Any) -> list[Any]:  # noqa: ANN401
        def action() -> tuple[str, str]:
            host.store.delete(name)
            return NO_PRESET, f"deleted {name}"

        return answered(action, values)

    def from_image(asked: str, name: str, infotext: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return stored(lambda: to_preset(infotext, name.strip() or "from picture"), asked, values)

    def export(name: str) -> list[Any]:
        try:
            preset = host.store.get(name)  # only what is in the list: the name is never a path
            path = Path(tempfile.mkdtemp(prefix="fam-preset-")) / f"{preset.name}.json"
            write(preset, path)
        except FamError as error:
            return [gr.update(), sentence_html(str(error), kind="error")]
        return [gr.update(value=str(path), visible=True), sentence_html(f"{name}.json is ready below")]

    def take_file(asked: str, file: Any, *values: Any) -> list[Any]:  # noqa: ANN401
        return stored(lambda: read(_uploaded(file)), asked, values, "imported {}; choose it in the list to use it")

    values = [*dials, *(common[key] for key in SETTING_NAMES)]
    asked = gr.State("")  # the preset that a second press replaces
    bind_preset_box(listing, dials, lambda: _presets(host), refresh=presets["refresh"], taken=picture["taken"])
    listed = ("upscaler", "sampler", "schedule", "model")

    def anew() -> list[Any]:
        host.rescan()
        lists = lists_of(host)
        return [gr.update(choices=lists[name]) for name in listed]

    presets["refresh"].click(
        anew, inputs=[], outputs=[common[name] for name in listed], show_progress=False, api_name=False
    )
    listing.input(
        use, inputs=[listing], outputs=[presets["about"], own_settings, *values], show_progress=False, api_name=False
    )
    presets["load"].click(
        use, inputs=[listing], outputs=[presets["about"], own_settings, *values], show_progress=False, api_name=False
    )
    for event, act, inputs, outputs in (
        (presets["save"].click, save, [asked, presets["name"], *values], [listing, note, asked]),
        (presets["delete"].click, delete, [listing, *dials], [listing, note]),
        (
            presets["from_image"].click,
            from_image,
            [asked, presets["name"], picture["infotext"], *dials],
            [listing, note, asked],
        ),
        (presets["import"].upload, take_file, [asked, presets["import"], *dials], [listing, note, asked]),
    ):
        done = event(act, inputs=inputs, outputs=outputs, show_progress=False, api_name=False)
        done.then(None, _js="fam_hires_presets_anew", inputs=[], outputs=[])
    presets["export"].click(
        export, inputs=[listing], outputs=[presets["file"], note], show_progress=False, api_name=False
    )


def _uploaded(file: Any) -> Path:  # noqa: ANN401
    """Return an uploaded file's path. Raises `UsageError` where a client names any other file of the server."""
    path = Path(getattr(file, "name", file)).resolve()
    uploads = (Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")).resolve()
    if uploads not in path.parents:
        raise UsageError("the file was not uploaded; choose one with the Import button")
    return path


def _presets(host: TabHost) -> list[Preset]:
    return [host.store.get(name) for name in host.store.names()]
