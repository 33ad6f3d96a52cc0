"""The "FAM Hires" tab: one picture, or a folder, with before and after."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from fam_ext.ui.common import common_inputs
from fam_ext.ui.dials import build_dials
from fam_ext.ui.folder import bind_folder, folder_inputs
from fam_ext.ui.host import TAB_ID, TabHost, TabParts
from fam_ext.ui.picture import bind_picture, paste_fields, picture_inputs
from fam_ext.ui.preset_box import bind_presets, preset_inputs


def build_tab(host: TabHost) -> TabParts:
    """Build the tab inside the open Blocks."""
    with gr.Row(elem_id=f"{TAB_ID}_row", equal_height=False):
        with gr.Column(scale=5, variant="panel", elem_id=f"{TAB_ID}_settings"):
            with gr.Tabs(elem_id=f"{TAB_ID}_mode"):
                with gr.TabItem("Picture", id="picture", elem_id=f"{TAB_ID}_mode_picture"):
                    picture = picture_inputs()
                with gr.TabItem("Batch folder", id="folder", elem_id=f"{TAB_ID}_mode_folder"):
                    folder = folder_inputs(host)
            common = common_inputs(host)
            presets = preset_inputs(host)
            with gr.Group(elem_id=f"{TAB_ID}_dials"):
                dials = build_dials(host.config, elem_id=lambda part: f"{TAB_ID}_{part}")
        with gr.Column(scale=6, variant="panel", elem_id=f"{TAB_ID}_results"):
            with gr.Group(elem_id=f"{TAB_ID}_gallery_container"):
                gallery = gr.Gallery(label="Results", elem_id=f"{TAB_ID}_gallery", columns=4, preview=True, height=400)
            log = gr.HTML(elem_id=f"html_log_{TAB_ID}", elem_classes="html-log")
            with gr.Row(elem_id=f"image_buttons_{TAB_ID}", elem_classes="image-buttons"):
                result_infotext = gr.Textbox(visible=False, elem_id=f"generation_info_{TAB_ID}")
                host.send_buttons(gallery, result_infotext, picture["image"])
            shown_infotext = gr.HTML(elem_id=f"html_info_{TAB_ID}", elem_classes="infotext")
            compare = gr.HTML(elem_id=f"{TAB_ID}_compare")
            status = gr.HTML(elem_id=f"{TAB_ID}_status")
            texts = gr.State([])
    parts = TabParts(picture["image"], picture["infotext"], gallery, texts, result_infotext)
    gallery.select(_selected_text, inputs=[texts], outputs=[result_infotext], show_progress=False, api_name=False)
    bind_picture(host, picture, common, dials, parts, shown_infotext, compare, log)
    bind_folder(host, folder, common, dials, parts, compare, status)
    bind_presets(host, presets, dials, {**common, "own_settings": folder["own_settings"]}, picture)
    host.paste_fields(picture["image"], paste_fields(picture, common, dials))
    return parts


def _selected_text(texts: list[str], event: gr.SelectData) -> str:
    """Return the infotext of the picture that was chosen in the gallery."""
    return texts[event.index] if isinstance(event.index, int) and event.index < len(texts) else ""


def labels_and_ids(root: Any) -> str:  # noqa: ANN401
    """Return all labels and elem_ids of the built components as JSON, for the snapshot test."""
    found = []
    for block in root.blocks.values():
        element_id, label = (
            getattr(block, "elem_id", None),
            getattr(block, "label", None) or getattr(block, "value", None),
        )
        if element_id and element_id.startswith(TAB_ID):
            found.append([element_id, label if isinstance(label, str) and len(label) < 120 else None])
    return json.dumps(sorted(found), indent=1)
