"""Generations inside a generation, as other extensions make them; their pictures depend on nothing around them."""

import copy
import hashlib

import gradio as gr
import torch
from modules import script_callbacks, scripts
from modules.processing import StableDiffusionProcessingImg2Img, process_images
from PIL import Image

made = []


def _own(p):
    """An object of its own, as ADetailer makes one: the infotext's values are the outer picture's very dict."""
    return StableDiffusionProcessingImg2Img(
        init_images=[Image.radial_gradient("L").convert("RGB").resize((128, 128))],
        denoising_strength=0.5,
        mask=None,
        sd_model=p.sd_model,
        outpath_samples=p.outpath_samples,
        prompt="a face",
        seed=3,
        sampler_name="Euler",
        steps=3,
        cfg_scale=4,
        width=128,
        height=128,
        extra_generation_params=p.extra_generation_params,
        do_not_save_samples=True,
        do_not_save_grid=True,
    )


def adetailer(p):
    inner = _own(p)
    filtered = copy.copy(p.scripts)
    filtered.alwayson_scripts = [script for script in p.scripts.alwayson_scripts if script.title() == "Refiner"]
    inner.scripts, inner.script_args = filtered, copy.deepcopy(p.script_args)
    inner._ad_disabled = inner._ad_inner = True
    return inner


def every_script(p):
    inner = _own(p)
    inner.scripts, inner.script_args = p.scripts, p.script_args
    inner.seed = inner.subseed = 3  # the WebUI's own Seed script has just set the outer picture's
    return inner


def shallow(p):
    inner = copy.copy(p)
    inner.scripts, inner.script_args = None, ()
    inner.enable_hr, inner.batch_size, inner.n_iter = False, 1, 1
    inner.prompt, inner.seed, inner.subseed, inner.steps = "a face", 3, 3, 3
    inner.do_not_save_samples = inner.do_not_save_grid = True
    return inner


def shallow_with_scripts(p):
    inner = shallow(p)
    inner.scripts, inner.script_args = p.scripts, p.script_args
    return inner


KINDS = {"adetailer": adetailer, "scripts": every_script, "copy": shallow, "copy and scripts": shallow_with_scripts}


class Nested(scripts.Script):
    def title(self):
        return "Nested"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox("", visible=False)]

    def postprocess_image(self, p, pp, kind="", *given):
        if kind not in KINDS or getattr(p, "_nested", False):
            return
        inner = KINDS[kind](p)
        inner._nested = True
        torch.manual_seed(0)
        processed = process_images(inner)
        images = [hashlib.sha256(image.tobytes()).hexdigest() for image in processed.images]
        made[:] = [processed.infotexts[0], [image.size for image in processed.images], images]


script_callbacks.on_app_started(lambda demo, app: app.add_api_route("/probe/nested", lambda: made, methods=["GET"]))
