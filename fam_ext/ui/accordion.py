"""The "FAM Hires" accordion of txt2img and img2img. No host: the host's own accordion class is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from fam_ext.core.config import FamConfig
from fam_ext.errors import FamError
from fam_ext.options.presets import CUSTOM, Preset
from fam_ext.ui.dials import MAIN, bind_preset_box, build_dials, dial_values, preset_of, read_dials
from fam_ext.ui.foretell import BEFORE
from fam_ext.ui.parts import PART
from fam_ext.ui.tables import sentence_html
from fam_ext.ui.titles import more_dials_title, preset_sentence

TITLE = "FAM Hires"
NO_PRESET = CUSTOM


def build_accordion(
    enabled: Any,  # noqa: ANN401  # the host's InputAccordion, a class in some hosts and a function in others
    config: FamConfig,
    *,
    is_img2img: bool,
    preset_names: Callable[[], Sequence[str]],
    get_preset: Callable[[str], Preset],
    elem_id: Callable[[str], str],
) -> list[Any]:
    """Fill the open accordion `enabled`; return [enabled, preset, dials...] as the script's arguments."""
    gr.HTML(sentence_html(BEFORE[is_img2img]), elem_id=elem_id("hint"))
    gr.Button("Say", elem_id=elem_id("say"), elem_classes="fam-hidden")  # pressed by the page, for the hint

    def presets() -> list[Preset]:
        return [get_preset(name) for name in preset_names()]

    chosen = preset_of(dial_values(config), presets())

    def about(name: str) -> str:
        return sentence_html(preset_sentence(name, None if name == NO_PRESET else get_preset(name)))

    with gr.Row(elem_classes=["fam-beside"]):
        preset = gr.Dropdown(
            label="FAM preset",
            choices=[NO_PRESET, *preset_names()],
            value=chosen,
            info="Sets the dials below; sampler, steps and guidance stay as they are in the page.",
            elem_id=elem_id("preset"),
            elem_classes=[PART],
            interactive=True,
        )
        refresh = gr.Button("Refresh", elem_id=elem_id("preset_refresh"), size="sm")
    preset.do_not_save_to_config = True  # its choices are the user's own files
    said = gr.HTML(about(chosen), elem_id=elem_id("preset_about"))
    dials, more = build_dials(config, elem_id=elem_id)

    def set_dials(name: str) -> list[Any]:
        if name == NO_PRESET:
            return [gr.update() for _ in dials]
        return [gr.update(value=value) for value in dial_values(get_preset(name).config)]

    bind_preset_box(preset, dials, presets, refresh=refresh)
    preset.change(set_dials, inputs=[preset], outputs=dials, show_progress=False)
    preset.change(about, inputs=[preset], outputs=[said], show_progress=False, api_name=False)

    def titled(*values: Any) -> Any:  # noqa: ANN401
        try:
            return gr.update(label=more_dials_title(FamConfig.from_dict(read_dials(values))))
        except FamError:
            return gr.update()  # Generate says it

    for dial in dials[len(MAIN) :]:
        dial.change(titled, inputs=dials, outputs=[more], show_progress=False, api_name=False, queue=False)
    return [enabled, preset, *dials]
