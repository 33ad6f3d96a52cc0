"""The WebUI as a renderer: each picture goes through its own `process_images`, queue, scripts and settings."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import modules.scripts
from modules import call_queue, devices, errors, sd_samplers, sd_schedulers, shared
from modules.processing import Processed, StableDiffusionProcessingTxt2Img, process_images
from PIL import Image

from fam_ext.core.guide import GuideReport
from fam_ext.errors import (
    Cancelled,
    FamError,
    NonFiniteLatentError,
    OutOfMemoryError,
    RenderError,
    Skipped,
    UnsupportedSamplerError,
    UnsupportedScheduleError,
    is_out_of_memory,
)
from fam_ext.hosts.memory import peak_memory, watch_memory
from fam_ext.jobs.contract import Progress, Ran, Rendered
from fam_ext.metadata.infotext import parse, readable_fields
from fam_ext.methods.catalog import FAM, entry_for, reads
from fam_ext.options.job import Job
from fam_ext.options.parts import PictureRule
from fam_ext.options.request import HiresRequest
from fam_ext.options.table import VERSION_KEY
from fam_ext.webui.kept import own_random_state, reload_model, settings_kept
from fam_ext.webui.known import GIVES, check_known, check_model, checkpoint, schedules, upscalers
from fam_ext.webui.missing import has_vae
from fam_ext.webui.session import NOTES_ATTRIBUTE, PASSES_ATTRIBUTE, PROGRESS_ATTRIBUTE

TITLE = "fam hires"
DEFAULT_UPSCALER = "Lanczos"
RENDER_JOB = "fam-hires"
"""What the WebUI's state says while a folder job renders."""


class WebUIRenderer:
    """Renders in the running WebUI. The queue is held for one picture at a time, so the page stays usable."""

    name = "webui"
    can_give_up = ("am",)
    """The WebUI cuts up attention and VAE by its own settings, which a request does not reach."""

    def __init__(self, *, upscaler: str = DEFAULT_UPSCALER, loaded: Sequence[str] = ()) -> None:
        self.upscaler = upscaler
        self.loaded = loaded
        """See `Job.loaded`: another checkpoint or VAE that is chosen on the page meanwhile draws none of the job's."""

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        """Return the picture at `request.size`, made by the hires pass with FAM."""
        began = time.perf_counter()
        model, vae = self.loaded or ("", "")
        vae = vae if has_vae(vae) else None
        request = dataclasses.replace(request, model=request.model or model or None, vae=request.vae or vae)
        passes: list[tuple[GuideReport, int]] = []
        with call_queue.queue_lock:
            if progress.cancelled():
                raise Cancelled("stopped before the picture began")
            shared.state.begin(job=RENDER_JOB)
            watch_memory(shared.device)
            try:
                processed = hires_from_picture(
                    image, request, progress, upscaler=self.upscaler, save=False, passes=passes
                )
                if shared.state.interrupted or progress.cancelled():
                    raise Cancelled("the picture under way was dropped")
                if shared.state.skipped:
                    raise Skipped("skipped by you; the next run makes it")
            finally:
                shared.state.end()
                shared.state.skipped = shared.state.interrupted = False
        params = parse(processed.infotexts[0]).params
        if VERSION_KEY not in params and _wants_fam(request):
            raise RenderError("the WebUI made the picture without FAM; see its console")
        ran = dataclasses.replace(
            what_ran(params, passes),
            clip_skip=request.clip_skip if _has_clip_skip(shared.sd_model) else None,
            size=request.size,
            peak_memory=peak_memory(shared.device),
            seconds=time.perf_counter() - began,
            notes=tuple(line for line in processed.comments.splitlines() if line),
        )
        return Rendered(processed.images[0].convert("RGB"), ran)

    def close(self) -> None:
        """Leave the WebUI with the checkpoint and VAE of its settings; between pictures the last one's stay loaded."""
        with call_queue.queue_lock:
            reload_model()


def what_ran(params: Mapping[str, str], passes: Sequence[tuple[GuideReport, int]]) -> Ran:
    """Return the record of what the WebUI's own infotext and the hires passes say; the rest ran as the request says."""
    fm_calls = sum(report.fm_calls for report, _ in passes)
    am_calls = sum(sum(report.am_calls.values()) for report, _ in passes)
    return Ran(
        config=readable_fields(params)[0] if VERSION_KEY in params else None,
        upscaler=params.get("FAM upscaler"),
        model=params.get("Model"),
        vae=params.get("VAE"),
        model_hash=params.get("Model hash"),
        steps_taken=sum(steps for _, steps in passes),
        fm_calls=fm_calls,
        am_calls=am_calls,
    )


def _has_clip_skip(model: Any) -> bool:  # noqa: ANN401
    """Return whether "Clip skip" acts, which the WebUI writes for every model."""
    if getattr(model, "is_sdxl", False):
        return bool(shared.opts.sdxl_clip_l_skip)
    return not getattr(model, "is_sd2", False)


def _wants_fam(request: HiresRequest) -> bool:
    config = request.config
    return reads(request.method, "fm") and ((config.fm and config.cutoff > 0) or (config.am and config.attention > 0))


def hires_from_picture(
    image: Image.Image,
    request: HiresRequest,
    progress: Progress,
    *,
    upscaler: str,
    save: bool,
    user: str | None = None,
    passes: list[tuple[GuideReport, int]] | None = None,
) -> Processed:
    """Run the WebUI's hires pass with FAM on a finished picture; the caller holds the queue.

    `save` lets the WebUI save it by its own rules; `passes` takes up each hires pass's report and steps. Raises
    `FamError`s.
    """
    p = _processing(image, request, upscaler=upscaler)
    p.do_not_save_samples, p.do_not_save_grid = not save, True
    p.user = user
    setattr(p, PROGRESS_ATTRIBUTE, progress)
    setattr(p, PASSES_ATTRIBUTE, [] if passes is None else passes)
    with own_random_state(request.seed), settings_kept(p.override_settings), closing(p), _answerable():
        processed = process_images(p)
    if not processed.images and not (shared.state.interrupted or shared.state.skipped):
        raise RenderError("the WebUI returned no picture; see its console")
    if not processed.images:
        raise Cancelled("the picture under way was dropped")
    return processed


def check_job(options: Job) -> None:
    """Raise a `FamError` where the job names a model, upscaler, sampler, schedule or site that this WebUI has not."""
    check_known("upscaler", options.renderer.upscaler, upscalers())
    entry_for(options.picture.fixed.get("method", FAM), GIVES, where="the WebUI")
    rules = options.picture.rules
    if (rule := rules.get("sampler")) is not None and rule.value is not None:
        check_known("sampler", rule.value, sd_samplers.all_samplers_map)
    if (rule := rules.get("schedule")) is not None and rule.value is not None:
        check_known("schedule", rule.value, schedules())
    model = rules["model"].value if "model" in rules else None
    if model is not None:
        checkpoint(model)
    elif steers_attention(options.picture):
        check_model(shared.sd_model, options.picture.config)


def steers_attention(picture: PictureRule) -> bool:
    """Return whether AM is asked for."""
    return reads(picture.fixed.get("method", FAM), "am") and picture.config.am and picture.config.attention > 0


def _processing(image: Image.Image, request: HiresRequest, *, upscaler: str) -> StableDiffusionProcessingTxt2Img:
    if not any(sampler.name == request.sampler for sampler in sd_samplers.all_samplers):
        raise UnsupportedSamplerError(
            f"sampler is {request.sampler!r}; choose one that this WebUI offers, such as DPM++ 2M"
        )
    if request.schedule not in sd_schedulers.schedulers_map:
        raise UnsupportedScheduleError(
            f"schedule is {request.schedule!r}; choose one that this WebUI offers, such as Karras"
        )
    height, width = request.size
    native = _whole_latents(image)
    # the WebUI crops unless both shapes agree exactly
    shape_agrees = native.width * height == native.height * width
    p = StableDiffusionProcessingTxt2Img(
        sd_model=shared.sd_model,
        outpath_samples=shared.opts.outdir_samples or shared.opts.outdir_txt2img_samples,
        outpath_grids=shared.opts.outdir_grids or shared.opts.outdir_txt2img_grids,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        sampler_name=request.sampler,
        scheduler=request.schedule,
        width=native.width if shape_agrees else width,
        height=native.height if shape_agrees else height,
        enable_hr=True,
        hr_upscaler=upscaler,
        hr_resize_x=width,
        hr_resize_y=height,
        override_settings=_overrides(request),
    )
    p.override_settings_restore_afterwards = False  # `settings_kept` does, and leaves what is chosen meanwhile
    p.is_api = True  # the WebUI's own scripts would put the txt2img page's sampler and seed in place of ours
    p.txt2img_upscale = True
    p.firstpass_image = native
    p.scripts = modules.scripts.scripts_txt2img
    notes: list[str] = []
    if request.timestep_spacing not in (None, "trailing" if request.schedule == "SGM Uniform" else None):
        notes.append(f"timestep spacing {request.timestep_spacing} is not the WebUI's to choose; use a schedule type")
    if request.vae is not None and not has_vae(request.vae):
        notes.append(f"VAE {request.vae} is not in this WebUI; that of its settings was used")
    setattr(p, NOTES_ATTRIBUTE, notes)
    p.script_args = tuple(script_arguments({"enabled": True, "method": request.method, **request.config.to_dict()}))
    return p


def _whole_latents(image: Image.Image) -> Image.Image:
    """Return the picture with sides that are multiples of 8 (by less than 4 px a side, else unchanged)."""
    width, height = (max(8, round(side / 8) * 8) for side in image.size)
    size = (width, height)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def _overrides(request: HiresRequest) -> dict[str, Any]:
    # with the old setting the WebUI would choose a native size of its own
    overrides: dict[str, Any] = {"save_images_before_highres_fix": False, "use_old_hires_fix_width_height": False}
    if request.model is not None:
        overrides["sd_model_checkpoint"] = checkpoint(request.model)
    # always, for the WebUI keeps the last picture's loaded where none is named
    overrides["sd_vae"] = request.vae if has_vae(request.vae) else shared.opts.sd_vae
    if request.clip_skip is not None:
        overrides["CLIP_stop_at_last_layers"] = request.clip_skip
    return overrides


def script_arguments(fam: dict[str, Any]) -> list[Any]:
    """Return txt2img's script arguments: every script at its page's first values, ours as the dict `fam`."""
    runner = modules.scripts.scripts_txt2img
    arguments: list[Any] = [0, *(getattr(control, "value", None) for control in runner.inputs[1:])]
    for script in runner.alwayson_scripts:
        if (script.title() or "").lower() == TITLE:
            arguments[script.args_from] = fam
            return arguments
    raise RenderError("the FAM Hires script is not loaded; look for its error in the console")


@contextmanager
def _answerable() -> Generator[None, None, None]:
    """Turn what the WebUI raises into errors that a user can answer."""
    try:
        yield
    except FamError:
        raise
    except devices.NansException as error:
        raise NonFiniteLatentError(str(error).split("\n")[0]) from error
    except Exception as error:
        if is_out_of_memory(error):
            devices.torch_gc()
            raise OutOfMemoryError(str(error).split("\n")[0]) from error
        errors.report("FAM Hires: the WebUI failed", exc_info=True)
        raise RenderError(f"{type(error).__name__}: {error}".split("\n")[0]) from error
