"""The tab inside the WebUI: its choices, its queue, its "send to" buttons."""

from __future__ import annotations

import dataclasses
from typing import Any

import gradio as gr
from modules import call_queue, infotext_utils, sd_models, sd_samplers, sd_schedulers, sd_vae, shared
from modules.infotext_utils import ParamBinding, PasteField
from modules.ui_components import ToolButton
from PIL import Image

from fam_ext.hosts.memory import free_memory, peak_memory, watch_memory
from fam_ext.jobs.batches import Batches
from fam_ext.jobs.contract import Progress
from fam_ext.options.job import Job
from fam_ext.options.request import HiresRequest
from fam_ext.ui.accordion import TITLE
from fam_ext.ui.host import TAB_ID, Made, TabHost
from fam_ext.ui.tab import build_tab
from fam_ext.webui import foretell
from fam_ext.webui.kept import reload_model
from fam_ext.webui.known import loaded, upscalers
from fam_ext.webui.places import check_places, default_output, folders_note
from fam_ext.webui.renderer import RENDER_JOB, WebUIRenderer, check_job, hires_from_picture
from fam_ext.webui.script import default_config, store
from fam_ext.webui.sending import send_buttons

SEND_LABEL = "Send to FAM Hires"
SEND_SYMBOL = "\U0001f50e"
_GALLERIES = {"txt2img_send_to_extras": "txt2img", "img2img_send_to_extras": "img2img"}
_PNG_INFO_BUTTON = "extras_tab"


def _make_renderer(options: Job) -> WebUIRenderer:
    return WebUIRenderer(upscaler=options.renderer.upscaler, loaded=options.loaded)


batches = Batches(_make_renderer)
"""The folder jobs of this WebUI; they outlive a reload of the page."""


def check(options: Job) -> Job:
    """Return the job with its folders in full, and what is loaded. Raises a `FamError` where its folders are not
    allowed, or it names what this WebUI has not."""
    placed = check_places(options)
    check_job(placed)
    return dataclasses.replace(placed, loaded=loaded())


def _generate(image: Image.Image, request: HiresRequest, upscaler: str) -> Made:
    watch_memory(shared.device)
    try:
        processed = hires_from_picture(image, request, Progress(), upscaler=upscaler, save=shared.opts.samples_save)
    finally:
        reload_model()
    shared.total_tqdm.clear()
    return Made(list(processed.images), processed.infotexts[0], processed.comments.strip(), peak_memory(shared.device))


def _memory() -> tuple[int, int] | None:
    return free_memory(shared.device)


def _rescan() -> None:
    """Look for checkpoints and VAEs as the WebUI's own buttons do; it reads its upscalers when its page is reloaded."""
    sd_models.list_models()
    sd_vae.refresh_vae_list()


def _interrupt() -> str:
    """Stop the tab's picture, or return why not: it waits where a folder's file is under way, and that one goes on."""
    if shared.state.job == RENDER_JOB:
        return "your picture waits for a folder's file, which goes on; press Stop when yours has begun"
    shared.state.interrupt()
    return ""


def _skip() -> None:
    """Skip the file under way, and nobody else's generation."""
    if shared.state.job == RENDER_JOB:
        shared.state.skip()


def end_before_reload() -> None:
    """Let nothing of ours run while the WebUI loads its scripts anew; a paused job waits as it did.

    The picture under way was interrupted by the WebUI's own button. A checkpoint that loads when other extensions take
    their patches off torch is broken, and the WebUI then has none.
    """
    batch = batches.active()
    if batch is not None and not batch.control.paused:
        batch.control.stop_after_this()
        if shared.state.job == RENDER_JOB:
            shared.state.interrupt()
        if batch.thread is not None:
            batch.thread.join()
    with call_queue.queue_lock:
        pass


def on_ui_tabs() -> list[Any]:
    """Build the tab; called once by each build of the page."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        build_tab(
            TabHost(
                store=store(),
                batches=batches,
                generate=_generate,
                samplers=lambda: [sampler.name for sampler in sd_samplers.visible_samplers()],
                schedules=lambda: [schedule.label for schedule in sd_schedulers.schedulers],
                upscalers=upscalers,
                models=lambda: sd_models.checkpoint_tiles(use_short=False),
                rescan=_rescan,
                config=default_config(),
                check_places=check,
                folders=not shared.cmd_opts.hide_ui_dir_config,
                folders_note=folders_note(),
                default_output=default_output,
                memory=_memory,
                interrupt=_interrupt,
                skip=_skip,
                gpu_call=lambda function, extra: call_queue.wrap_gradio_gpu_call(function, extra_outputs=extra),
                send_buttons=lambda gallery, said: send_buttons(gallery, said, _seen.get("pnginfo_image")),
                paste_fields=_add_paste_fields,
            )
        )
    return [(blocks, TITLE, TAB_ID)]


def _add_paste_fields(image: Any, fields: list[Any]) -> None:  # noqa: ANN401
    infotext_utils.add_paste_fields(TAB_ID, image, [PasteField(*field) for field in fields])


# --- "Send to FAM Hires" in the galleries and in PNG Info

_seen: dict[str, Any] = {}


def on_after_component(component: Any, **kwargs: Any) -> None:  # noqa: ANN401
    """Add our button after the WebUI's own; called for every component of the page."""
    element_id = kwargs.get("elem_id")
    foretell.remember(element_id or "", component)
    if element_id in ("txt2img_gallery", "img2img_gallery", "pnginfo_image", "pnginfo_generation_info"):
        _seen[element_id] = component
    tab = _GALLERIES.get(element_id or "")
    if tab is not None and f"{tab}_gallery" in _seen:
        button = ToolButton(SEND_SYMBOL, elem_id=f"{tab}_send_to_{TAB_ID}", tooltip=f"{SEND_LABEL}.")
        infotext_utils.register_paste_params_button(
            ParamBinding(button, TAB_ID, source_image_component=_seen.pop(f"{tab}_gallery"))
        )
    elif element_id == _PNG_INFO_BUTTON and "pnginfo_generation_info" in _seen:
        button = gr.Button(SEND_LABEL, elem_id=f"pnginfo_send_to_{TAB_ID}")
        infotext_utils.register_paste_params_button(
            ParamBinding(
                button,
                TAB_ID,
                source_text_component=_seen.pop("pnginfo_generation_info"),
                source_image_component=_seen["pnginfo_image"],
            )
        )
