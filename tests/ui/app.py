"""The tab alone, in a gradio without any WebUI: python app.py PORT FOLDER. Pictures are enlarged by Pillow."""

import json
import sys
import time
from pathlib import Path

import gradio as gr
from PIL import Image

from fam_ext.errors import Cancelled, PictureError, UsageError
from fam_ext.jobs.batches import Batches
from fam_ext.jobs.contract import Ran, Rendered
from fam_ext.jobs.ran_text import fields
from fam_ext.metadata.infotext import Infotext, format_infotext
from fam_ext.options.presets import PresetStore
from fam_ext.options.table import FIELDS
from fam_ext.ui.accordion import build_accordion
from fam_ext.ui.host import TAB_ID, Made, TabHost
from fam_ext.ui.tab import build_tab

STYLE = Path(__file__).parents[2] / "style.css"
SCRIPT = Path(__file__).parents[2] / "javascript" / "fam_hires.js"


class PillowRenderer:
    """Enlarges with Lanczos; says step by step how far it is, and fails on a picture that is all black."""

    name = "pillow"

    def render(self, image, request, progress):
        for step in range(4):
            time.sleep(0.05)
            progress.step(step + 1, 4)
            if progress.cancelled():
                raise Cancelled("stopped")
        if not image.getbbox():
            raise PictureError("the picture is all black")
        height, width = request.size
        return Rendered(image.resize((width, height), Image.Resampling.LANCZOS), Ran(config=request.config))


def generate(image, request, upscaler):
    rendered = PillowRenderer().render(image, request, type("Quiet", (), {"step": print, "cancelled": lambda: False}))
    settings = {
        "Steps": str(request.steps),
        "Sampler": request.sampler,
        "Seed": str(request.seed),
        **fields(rendered.ran),
    }
    settings |= {"Asked": f"{request.model} {request.vae} {request.clip_skip}"}
    text = format_infotext(Infotext(request.prompt, request.negative_prompt, settings))
    return Made([rendered.image], text, "made by Pillow")


def gpu_call(function, extra_outputs):
    def call(*arguments):
        try:
            return function(*arguments)
        except UsageError as error:
            return (*extra_outputs, f"<div class='error'>UsageError: {error}</div>")

    return call


def app(folder):
    host = TabHost(
        store=PresetStore(Path(folder) / "presets"),
        batches=Batches(lambda options: PillowRenderer()),
        generate=generate,
        samplers=lambda: ["DPM++ 2M", "Euler", "DDIM"],
        schedules=lambda: ["Automatic", "Karras"],
        upscalers=lambda: ["Lanczos"],
        models=lambda: [],
        gpu_call=gpu_call,
    )
    with gr.Blocks(css=STYLE.read_text(), analytics_enabled=False) as blocks:
        build_tab(host)
        # the WebUI serves our javascript
        blocks.load(None, _js=f"() => {{ (0, eval)({json.dumps(SCRIPT.read_text())}); }}")
    return blocks


def accordion(folder, is_img2img):
    store = PresetStore(Path(folder) / "presets")
    with gr.Blocks(analytics_enabled=False) as blocks:
        enabled = gr.Checkbox(elem_id="fam_hires_accordion_enabled", label="FAM Hires")
        build_accordion(
            enabled,
            store.get("balanced").config,
            is_img2img=is_img2img,
            preset_names=store.names,
            get_preset=store.get,
            elem_id=lambda part: f"fam_hires_accordion_{part}",
        )
    return blocks


def labels_and_ids(root):
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


if __name__ == "__main__":
    if sys.argv[1] == "labels":
        print(labels_and_ids(app(sys.argv[2])))
        print(labels_and_ids(accordion(sys.argv[2], False)))
        print(json.dumps({field.name: [field.key, field.label] for field in FIELDS}, indent=1))
    else:
        app(sys.argv[2]).queue(16).launch(server_port=int(sys.argv[1]), show_error=True, quiet=True)
