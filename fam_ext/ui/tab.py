"""The "FAM Hires" tab: one picture, or a folder, with before and after."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fam_ext.ui.common import COMMON, FOR_FOLDER, FOR_PICTURE, fold, fold_rows, option_row, unplaced
from fam_ext.ui.compare import compare_script
from fam_ext.ui.dials import build_dials
from fam_ext.ui.folder import bind_folder, folder_inputs, start_buttons
from fam_ext.ui.host import TAB_ID, TabHost, TabParts
from fam_ext.ui.look import bind_look
from fam_ext.ui.outlook import EMPTY
from fam_ext.ui.pace import Pace
from fam_ext.ui.picture import bind_picture, paste_fields, picture_inputs, word_inputs
from fam_ext.ui.preset_box import bind_presets, preset_choice, preset_inputs
from fam_ext.ui.tables import sentence_html
from fam_ext.ui.trial import FIRST_PRESETS, bind_trial, trial_inputs, trial_title

_TITLES = {
    "files": "Files",
    "words": "Words",
    "size": "Size and upscaler",
    "sampling": "Sampler",
    "output": "Output",
}


def build_tab(host: TabHost) -> TabParts:
    """Build the tab inside the open Blocks: what to do, what comes of it, and everything else folded by theme."""
    with gr.Row(elem_id=f"{TAB_ID}_row", equal_height=False):
        with gr.Column(elem_id=f"{TAB_ID}_settings"):
            with gr.Tabs(elem_id=f"{TAB_ID}_mode"):
                with gr.TabItem("Picture", id="picture", elem_id=f"{TAB_ID}_mode_picture"):
                    picture = picture_inputs()
                with gr.TabItem("Batch folder", id="folder", elem_id=f"{TAB_ID}_mode_folder"):
                    options = folder_inputs(host)
            options |= option_row(host, ("scale",))
            size = gr.HTML(elem_id=f"{TAB_ID}_size")
            presets = preset_choice(host)
            with gr.Row(elem_classes=["fam-go", FOR_PICTURE]):
                picture["generate"] = gr.Button("Start", variant="primary", elem_id=f"{TAB_ID}_generate")
                picture["interrupt"] = gr.Button("Stop", variant="stop", elem_id=f"{TAB_ID}_interrupt")
            buttons = start_buttons()
        with gr.Column(elem_id=f"{TAB_ID}_results"):
            results = _results(host)
        with gr.Column(elem_id=f"{TAB_ID}_folds"):
            folds: dict[str, Any] = {}
            with fold("picture_words", "Words", mode=FOR_PICTURE) as folds["picture_words"]:
                picture |= word_inputs()
            with fold("trial", trial_title(FIRST_PRESETS), mode=FOR_FOLDER) as folds["trial"]:
                trial = trial_inputs(host)
            for name in ("files", "words", "size", "sampling", "output"):
                mode = "" if name in ("size", "sampling") else FOR_FOLDER
                with fold(name, _TITLES[name], mode=mode) as folds[name]:
                    options |= fold_rows(host, name)
                    if name == "sampling":
                        picture["own_model"] = gr.Checkbox(
                            label="Take the checkpoint and VAE from the infotext",
                            value=False,
                            elem_id=f"{TAB_ID}_own_model",
                            elem_classes=[FOR_PICTURE],
                        )
            with fold("method", "Method") as folds["method"]:
                dials, folds["more"] = build_dials(host.config, elem_id=lambda part: f"{TAB_ID}_{part}")
            if rest := unplaced():
                with fold("rest", "More options", mode=FOR_FOLDER):
                    for name in rest:
                        options |= option_row(host, (name,))
            with gr.Accordion(
                "Save and share presets", open=False, elem_id=f"{TAB_ID}_presets", elem_classes=["fam-fold"]
            ):
                presets |= preset_inputs()
    parts = TabParts(
        picture["image"],
        picture["infotext"],
        size=size,
        picture_names=("own_model", *COMMON),
        **{name: results[name] for name in _PARTS},
    )
    common = {name: options.pop(name) for name in COMMON}
    pace = Pace()
    native = bind_picture(
        host,
        picture,
        common,
        dials,
        parts,
        results["infotext"],
        results["compare"],
        results["log"],
        folds["picture_words"],
        pace,
    )
    folder = bind_folder(host, options, common, dials, buttons, parts)
    bind_trial(host, folder, trial, buttons["try"], presets)
    bind_presets(host, presets, dials, {**common, "own_settings": options["own_settings"]}, picture)
    values = {**options, **common, "infotext": picture["infotext"], "native": native, "preset": presets["preset"]}
    values["trial"] = trial["presets"]
    bind_look(host, values, dials, folds, parts, presets["about"], pace)
    host.paste_fields(picture["image"], paste_fields(picture, common, dials))
    return parts


_PARTS = ("gallery", "said", "compare", "outlook", "status", "files", "trial")


def _results(host: TabHost) -> dict[str, Any]:
    """Build what comes of it: before a run what will happen, during it line, table and picture, after it compare."""
    found: dict[str, Any] = {}
    found["outlook"] = gr.HTML(EMPTY, elem_id=f"{TAB_ID}_outlook", elem_classes=[FOR_PICTURE])
    found["log"] = gr.HTML(elem_id=f"html_log_{TAB_ID}", elem_classes=["html-log", FOR_PICTURE])
    found["status"] = gr.HTML(
        sentence_html("Give a folder: what will happen to each of its files is said here before you press Start."),
        elem_id=f"{TAB_ID}_status",
        elem_classes=[FOR_FOLDER],
    )
    found["trial"] = gr.HTML(elem_id=f"{TAB_ID}_trial", elem_classes=[FOR_FOLDER])
    gr.HTML(compare_script(), elem_id=f"{TAB_ID}_compare_script", elem_classes=["fam-hidden"])
    found["compare"] = gr.HTML(elem_id=f"{TAB_ID}_compare")
    with gr.Group(elem_id=f"{TAB_ID}_gallery_container"):
        found["gallery"] = gr.Gallery(
            label="Results", elem_id=f"{TAB_ID}_gallery", columns=6, preview=False, height="auto", object_fit="contain"
        )
    with gr.Row(elem_id=f"image_buttons_{TAB_ID}", elem_classes=["image-buttons"]):
        found["said"] = gr.Textbox(visible=False, elem_id=f"generation_info_{TAB_ID}")
        host.send_buttons(found["gallery"], found["said"])
    found["infotext"] = gr.HTML(elem_id=f"html_info_{TAB_ID}", elem_classes=["infotext", FOR_PICTURE])
    found["files"] = gr.HTML(elem_id=f"{TAB_ID}_files", elem_classes=[FOR_FOLDER])
    return found
