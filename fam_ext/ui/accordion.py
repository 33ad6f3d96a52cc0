"""The "FAM Hires" accordion of txt2img and img2img. No host: the host's own accordion class is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from fam_ext.core.config import FamConfig
from fam_ext.options.presets import CUSTOM, Preset
from fam_ext.ui.dials import bind_preset_box, build_dials, dial_values, preset_of

TITLE = "FAM Hires"
NO_PRESET = CUSTOM
_HINTS = {
    False: "Takes over the pass of Hires. fix: tick that too, and choose its size, upscaler and steps there. "
    "The denoising strength is replaced by Start (rho).",
    True: "The input picture is the native one, the requested size the target: choose a larger size. "
    "The denoising strength is replaced by Start (rho).",
}


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
    gr.HTML(f'<p class="fam-hint">{_HINTS[is_img2img]}</p>', elem_id=elem_id("hint"))

    def presets() -> list[Preset]:
        return [get_preset(name) for name in preset_names()]

    with gr.Row():
        preset = gr.Dropdown(
            label="FAM preset",
            choices=[NO_PRESET, *preset_names()],
            value=preset_of(dial_values(config), presets()),
            info="Sets the dials below; sampler, steps and guidance stay as they are in the page.",
            elem_id=elem_id("preset"),
            interactive=True,
        )
        refresh = gr.Button("Refresh presets", elem_id=elem_id("preset_refresh"), size="sm")
    preset.do_not_save_to_config = True  # its choices are the user's own files
    dials = build_dials(config, elem_id=elem_id)

    def set_dials(name: str) -> list[Any]:
        if name == NO_PRESET:
            return [gr.update() for _ in dials]
        return [gr.update(value=value) for value in dial_values(get_preset(name).config)]

    bind_preset_box(preset, dials, presets, refresh=refresh)
    preset.change(set_dials, inputs=[preset], outputs=dials, show_progress=False)
    return [enabled, preset, *dials]
