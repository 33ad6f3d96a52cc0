"""One `process_images` call of the WebUI with FAM: what to do to its object p, and what ran."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from fastapi import HTTPException
from modules import images, sd_samplers, shared
from modules.hypernetworks import hypernetwork
from modules.processing import DecodedSamples, StableDiffusionProcessingTxt2Img
from PIL import Image
from torch import Tensor

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import HiresGuide, NativeRecord
from fam_ext.core.schedule import Size
from fam_ext.errors import (
    ConfigError,
    FamError,
    RenderError,
    UnsupportedModelError,
    UnsupportedSamplerError,
    UsageError,
)
from fam_ext.hosts.ldm import (
    Position,
    StateCalls,
    Traits,
    check_finite,
    function_name,
    guided_sampler,
    guided_unet,
    recorded_sampler,
    replaced,
    schedule_from,
    up_blocks,
)
from fam_ext.hosts.sites import select_sites
from fam_ext.jobs.contract import Progress
from fam_ext.metadata.infotext import to_fields
from fam_ext.webui.kept import with_own_random_state
from fam_ext.webui.reference import (
    LATENT_RESIZE,
    as_pictures,
    as_tensor,
    encode,
    host_upscaler,
    img2img_reference,
    own_upscaler,
    set_upscaler,
)

logger = logging.getLogger(__name__)

_ATTRIBUTE = "_fam_session"
PROGRESS_ATTRIBUTE = "_fam_progress"
"""A `jobs.contract.Progress` on p: told each step of the hires pass, asked whether to stop."""
_ID_VALUES = 3 * 2 * 256
"""SDXL's size conditioning at the end of y: original size, crop and target size, two numbers each."""


class Session:
    """What FAM does in one `process_images` call: set up before it samples, asked by the infotext what ran."""

    def __init__(self, p: Any, config: FamConfig) -> None:  # noqa: ANN401
        self.p = p
        self.config = config
        self.record = NativeRecord()
        self.native: Tensor | None = None
        self.native_pictures: list[Image.Image] = []
        self.reports: dict[int, Any] = {}
        """The guide's report by iteration (batch count)."""
        self.error: Exception | None = None
        self.undo = ExitStack()

    def ran_in(self, iteration: int) -> bool:
        """Return whether FM or AM changed anything in this iteration."""
        report = self.reports.get(iteration)
        return report is not None and bool(report.fm_calls or report.am_calls)


def session_of(p: Any) -> Session | None:  # noqa: ANN401
    """Return the session of p, None where FAM is off. A copy of p does not inherit one."""
    session = p.__dict__.get(_ATTRIBUTE)
    return session if session is not None and session.p is p else None


def close(p: Any) -> None:  # noqa: ANN401
    """Take everything of FAM off p; p may be used again, or be a copy of one that had a session."""
    if getattr(p.__dict__.get("sample"), "fam", False) and _ATTRIBUTE not in p.__dict__:
        del p.sample
    session = p.__dict__.pop(_ATTRIBUTE, None)
    if session is None:
        return
    if session.p is p:
        session.undo.close()
    else:  # a shallow copy shares the dict and the instance attributes
        for name in ("init", "sample", "sample_hr_pass"):
            p.__dict__.pop(name, None)
    p.extra_generation_params = {k: v for k, v in p.extra_generation_params.items() if not k.startswith("FAM ")}


@contextmanager
def stopping(p: Any, *, sampling: bool = False) -> Generator[None, None, None]:  # noqa: ANN401
    """Keep an error raised in a callback, which the WebUI would swallow, and let it out where the WebUI samples.

    `sampling` says that it is sampling already.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, FamError):
            logger.exception("FAM Hires failed")
        fail(p, error, sampling=sampling)


def fail(p: Any, error: Exception, *, sampling: bool = False) -> None:  # noqa: ANN401
    """End p's generation before it samples: page and API show the sentence of `error`."""
    session = session_of(p)
    if session is not None and session.error is None:
        session.error = error

    def raising(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        raise answer_of(p, error)

    raising.fam = True  # pyright: ignore[reportFunctionMemberAccess]
    if getattr(p, "sampler", None) is not None:
        p.sampler.sample = p.sampler.sample_img2img = raising
    if sampling:  # in p.sample, which answers: see `answering`
        return
    if on_page(p, error):
        say_on_page(p, error)
    if session is None:  # also where something goes on after an interrupt
        p.sample = raising
    else:
        session.undo.enter_context(replaced(p, "sample", lambda previous: raising))


def on_page(p: Any, error: Exception) -> bool:  # noqa: ANN401
    """Return whether `error` is a user's to answer, in a generation of the page."""
    return isinstance(error, FamError) and not p.is_api and not hasattr(p, PROGRESS_ATTRIBUTE)


def say_on_page(p: Any, error: Exception) -> None:  # noqa: ANN401
    """End the generation as the WebUI's own Interrupt does, with one sentence under the gallery and in the log.

    An exception would be printed with a traceback and all arguments, and shown with its class.
    """
    logger.warning("%s", error)
    p.comment(str(error))
    shared.state.interrupted = True


def answer_of(p: Any, error: Exception) -> Exception:  # noqa: ANN401
    """Return what to raise out of p's sampling: for the API an error that it answers with 422, without a traceback."""
    is_users = isinstance(error, ConfigError | UsageError | UnsupportedModelError | UnsupportedSamplerError)
    if not is_users or not p.is_api or hasattr(p, PROGRESS_ATTRIBUTE):
        return error
    logger.warning("%s", error)
    return Unanswerable(422, detail=str(error))


class Unanswerable(HTTPException):
    """A request of the API that cannot be carried out."""

    def __str__(self) -> str:
        return str(self.detail)


def answering(p: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: ANN401
    """Return a wrapper of p.sample that answers a `FamError` where the page or the API asked."""

    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            try:
                return previous(*args, **kwargs)
            except FamError as error:
                session = session_of(p)
                if session is None or not on_page(p, error):
                    raise answer_of(p, error) from error
                session.error = session.error or error
                say_on_page(p, error)
                # the WebUI stacks what comes back before it asks again: `postprocess_batch_list` drops this
                return DecodedSamples([torch.zeros(3, 8, 8)])

        return sample

    return make


def begin(p: Any, config: FamConfig) -> Session:  # noqa: ANN401
    """Set FAM up on p, before its `init`. Raises `FamError` where it cannot run."""
    session = Session(p, config)
    setattr(p, _ATTRIBUTE, session)
    check_model(p.sd_model, config)
    is_txt2img = isinstance(p, StableDiffusionProcessingTxt2Img)
    name = (getattr(p, "hr_sampler_name", None) if is_txt2img else None) or p.sampler_name
    sampler = sd_samplers.create_sampler(name, p.sd_model)
    StateCalls(function_name(sampler), steps=1, label=name)
    p.denoising_strength = config.start
    if is_txt2img:
        _check_larger(p)
        set_upscaler(p, config.upsample)
        session.undo.enter_context(replaced(p, "sample_hr_pass", _hires_pass(session)))
    else:
        _take_native_pictures(session)
        session.undo.enter_context(replaced(p, "init", with_own_random_state(lambda: p.all_seeds[0])))
    session.undo.enter_context(replaced(p, "sample", with_own_random_state(lambda: p.seeds[0])))
    session.undo.enter_context(replaced(p, "sample", answering(p)))
    for key, value in to_fields(config).items():
        p.extra_generation_params[key] = _said_if_ran(session, value)
    if config.upsample == "auto":
        p.extra_generation_params["FAM upscaler"] = _said_if_ran(session, host_upscaler(p))
    return session


def _check_larger(p: Any) -> None:  # noqa: ANN401
    p.calculate_target_resolution()
    width, height = p.firstpass_image.size if p.firstpass_image is not None else (p.width, p.height)
    if p.hr_upscale_to_x * p.hr_upscale_to_y <= width * height:
        raise UsageError(
            f"Hires. fix asks for {p.hr_upscale_to_x} x {p.hr_upscale_to_y} from {width} x {height}; choose a larger "
            "size, for FAM makes pictures larger"
        )


def _said_if_ran(session: Session, value: str) -> Callable[..., str | None]:
    def say(iteration: int = 0, **locals_of_infotext: Any) -> str | None:  # noqa: ANN401
        return value if session.ran_in(iteration) else None

    return say


def check_model(model: Any, config: FamConfig) -> None:  # noqa: ANN401
    """Raise a `FamError` where FAM cannot steer the loaded model as `config` asks."""
    from modules import sd_unet

    name = getattr(getattr(model, "sd_checkpoint_info", None), "name_for_extra", type(model).__name__)
    if getattr(model, "is_sd3", False) or not hasattr(getattr(model, "model", None), "diffusion_model"):
        raise UnsupportedModelError(f"FAM cannot steer checkpoint {name}; choose an SD1.5, SD2.1 or SDXL checkpoint")
    if config.am and config.attention > 0 and sd_unet.current_unet is not None:
        raise UnsupportedModelError(
            "Attention Modulation cannot reach into the SD Unet that is active; set SD Unet to None, or untick it"
        )
    if config.am and config.attention > 0:
        select_sites(up_blocks(model.model.diffusion_model), config.am_sites)  # raises where nothing matches


# --- txt2img


def _hires_pass(session: Session) -> Callable[[Any], Any]:
    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample_hr_pass(samples: Any, decoded_samples: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            p = session.p
            if shared.state.interrupted:
                return previous(samples, decoded_samples, *args, **kwargs)
            if samples is None or (_model_changed(p) and decoded_samples is not None):
                session.record = NativeRecord()
                session.native = encode((decoded_samples + 1) / 2)
            else:
                session.native = samples.detach().clone()
            session.native_pictures = as_pictures(decoded_samples) if decoded_samples is not None else []
            with own_upscaler(p, session.config.upsample, session.native_pictures):
                result = previous(samples, decoded_samples, *args, **kwargs)
            if p.iteration not in session.reports and not shared.state.interrupted:
                raise RenderError("the WebUI ran the hires pass past FAM; disable the extension that replaces it")
            return result

        return sample_hr_pass

    return make


def _model_changed(p: Any) -> bool:  # noqa: ANN401
    return getattr(p, "hr_checkpoint_info", None) is not None


# --- img2img


def _take_native_pictures(session: Session) -> None:
    p = session.p
    if p.image_mask is not None and p.inpaint_full_res:
        raise UsageError("FAM cannot enlarge an area alone; set Inpaint area to Whole picture")
    target = (p.height, p.width)
    pictures = [images.flatten(picture, shared.opts.img2img_background_color) for picture in p.init_images]
    for picture in pictures:
        size = native_size((picture.height, picture.width), target, p.resize_mode)
        if size[0] * size[1] >= target[0] * target[1]:
            raise UsageError(
                f"the input picture is {picture.width} x {picture.height} and the requested size {p.width} x "
                f"{p.height}; choose a larger size, for FAM makes pictures larger"
            )
        mode = 0 if p.resize_mode == LATENT_RESIZE else p.resize_mode
        session.native_pictures.append(images.resize_image(mode, picture, size[1], size[0]))


def native_size(picture: Size, target: Size, resize_mode: int) -> Size:
    """Return the native (height, width) in pixels, multiples of 8, that maps onto `target` as the resize mode says.

    Stretched pictures keep their own size; where the WebUI crops or fills, the native picture has the target's shape.
    """
    scales = picture[0] / target[0], picture[1] / target[1]
    if resize_mode == 1:
        scales = (min(scales),) * 2
    elif resize_mode == 2:
        scales = (max(scales),) * 2
    height, width = (max(8, round(side * scale / 8) * 8) for side, scale in zip(target, scales, strict=True))
    return height, width


# --- both


def before_sampling(p: Any) -> None:  # noqa: ANN401
    """Hook p's sampler for the one call that follows."""
    session = session_of(p)
    if session is None:
        return
    if session.error is not None:
        raise session.error
    if isinstance(p, StableDiffusionProcessingTxt2Img) and not p.is_hr_pass:
        session.record = NativeRecord()
        _once(p.sampler, "sample", lambda previous: _recorded(session, previous))
    else:
        _once(p.sampler, "sample_img2img", lambda previous: _guided(session, previous))


def _once(sampler: Any, name: str, make: Callable[[Any], Any]) -> None:  # noqa: ANN401
    """Replace a method of the sampler for its next call only; it is put back before that call begins."""
    hook = ExitStack()

    def wrap(previous: Callable[..., Any]) -> Callable[..., Any]:
        guided = make(previous)

        def once(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            hook.close()
            return guided(*args, **kwargs)

        return once

    hook.enter_context(replaced(sampler, name, wrap))


def _recorded(session: Session, previous: Callable[..., Any]) -> Callable[..., Any]:
    def sample(p: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if not _wants_record(session.config) or not p.enable_hr:
            return previous(p, x, *args, **kwargs)
        with recorded_sampler(p.sampler, session.record):
            return previous(p, x, *args, **kwargs)

    return sample


def _wants_record(config: FamConfig) -> bool:
    return config.am and config.attention > 0 and config.am_source != "replay"


def _guided(session: Session, previous: Callable[..., Any]) -> Callable[..., Any]:
    def sample_img2img(
        p: Any,  # noqa: ANN401
        x: Tensor,
        noise: Tensor,
        conditioning: Any,  # noqa: ANN401
        unconditional_conditioning: Any,  # noqa: ANN401
        steps: int | None = None,
        image_conditioning: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        config, sampler = session.config, p.sampler
        check_model(p.sd_model, config)  # once more: the hires checkpoint may be another
        native = session.native if session.native is not None else _native_latent(session, like=x)
        target = x  # in txt2img the hires pass has upsampled as `set_upscaler` and `own_upscaler` say
        if not isinstance(p, StableDiffusionProcessingTxt2Img):
            pictures = session.native_pictures
            target = img2img_reference(x, config.upsample, native=native, native_pictures=pictures)
        schedule = schedule_from(sampler, p, steps=steps or p.steps, start=config.start)
        record = session.record if len(session.record) and _wants_record(config) else None
        guide = HiresGuide(
            config,
            native=native.to(target.device, torch.float32),
            target=target.float(),
            noise=noise.float(),
            steps=schedule.calls,
            record=record,
        )
        position, traits = Position(), _traits(p)
        session.reports[p.iteration] = guide.report
        with ExitStack() as stack:
            stack.enter_context(replaced(sampler, schedule.method, lambda _: schedule.give))
            network = stack.enter_context(ExitStack())

            def steer() -> None:
                network.close()
                unet = shared.sd_model.model.diffusion_model
                network.enter_context(guided_unet(unet, guide, position=position, traits=traits))

            steer()
            stack.enter_context(replaced(sampler.model_wrap_cfg, "update_inner_model", _then(steer)))
            stack.enter_context(guided_sampler(sampler, guide, position=position))
            if hasattr(p, PROGRESS_ATTRIBUTE):
                report = _reporting(getattr(p, PROGRESS_ATTRIBUTE), schedule.calls)
                stack.enter_context(replaced(sampler, "callback_state", report))
            samples = previous(
                p,
                target,
                noise,
                conditioning,
                unconditional_conditioning,
                steps=schedule.steps,
                image_conditioning=image_conditioning,
            )
        check_finite(samples)
        report = guide.report
        logger.info(
            "FAM %d x %d to %d x %d: %d steps, FM in %d calls, AM in %d calls of %d sites",
            *(8 * side for side in (*guide.native_size, *guide.target_size)),
            schedule.calls,
            report.fm_calls,
            sum(report.am_calls.values()),
            len(report.am_calls),
        )
        return samples

    return sample_img2img


def _then(action: Callable[[], None]) -> Callable[[Any], Any]:
    """Return a wrapper that runs `action` after the method: the refiner has changed the network by then."""

    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            result = previous(*args, **kwargs)
            action()
            return result

        return method

    return make


def _reporting(progress: Progress, steps: int) -> Callable[[Any], Any]:
    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def callback_state(info: dict[str, Any]) -> Any:  # noqa: ANN401
            progress.step(min(info["i"] + 1, steps), steps)
            if progress.cancelled():
                shared.state.interrupt()
            return previous(info)

        return callback_state

    return make


def _native_latent(session: Session, *, like: Tensor) -> Tensor:
    """Return the native latent of the input pictures, one for each row of `like`."""
    if not session.native_pictures:
        raise ConfigError("FAM has no native picture in this pass; use the hires pass of txt2img, or img2img")
    latents = torch.cat([encode(as_tensor([picture])) for picture in session.native_pictures])
    return latents.expand(like.shape[0], -1, -1, -1) if latents.shape[0] == 1 else latents


def _traits(p: Any) -> Traits:  # noqa: ANN401
    def hypernetworks(context: Tensor) -> tuple[Tensor, Tensor]:
        return hypernetwork.apply_hypernetworks(shared.loaded_hypernetworks, context)

    ids: dict[Any, Tensor | None] = {}

    def native_vector(vector: Tensor, size: Size) -> Tensor:
        key = size, vector.device, vector.dtype
        if key not in ids:
            ids[key] = _size_ids(vector, size)
        known = ids[key]
        if known is None:
            return vector
        return torch.cat([vector[:, :-_ID_VALUES], known.expand(vector.shape[0], -1)], dim=1)

    return Traits(hypernetworks, upcast=bool(shared.opts.upcast_attn), native_vector=native_vector)


def _size_ids(vector: Tensor, size: Size) -> Tensor | None:
    """Return the end of SDXL's y (1, n) for the native size; None where y has no such end."""
    model = shared.sd_model
    embedders = getattr(getattr(model, "conditioner", None), "embedders", None)
    if embedders is None or vector.shape[1] < _ID_VALUES:
        return None
    by_key = {getattr(embedder, "input_key", None): embedder for embedder in embedders}
    keys = ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
    if not all(key in by_key for key in keys):
        return None  # the refiner's: an aesthetic score in place of the target size
    pixels = [8.0 * size[0], 8.0 * size[1]]
    values: Mapping[str, list[float]] = dict(zip(keys, (pixels, [0.0, 0.0], pixels), strict=True))
    parts = [by_key[key](torch.tensor([values[key]], device=vector.device)) for key in keys]
    ids = torch.cat(parts, dim=1).to(vector.dtype)
    return ids if ids.shape[1] == _ID_VALUES else None
