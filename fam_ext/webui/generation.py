"""One generation of the WebUI with FAM: what is refused, and what is done to its object p before it samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from modules import images, sd_schedulers, shared
from modules.processing import StableDiffusionProcessingTxt2Img
from torch import Tensor

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import NativeRecord
from fam_ext.core.schedule import Size
from fam_ext.errors import ConfigError, RenderError, UsageError
from fam_ext.hosts.base import replace_once, replaced
from fam_ext.hosts.ldm.sampler import recorded_sampler
from fam_ext.metadata.infotext import to_fields
from fam_ext.methods.catalog import FAM, reads
from fam_ext.options.request import REQUEST
from fam_ext.recipe import GRID, Source, to_images
from fam_ext.webui.answers import answering
from fam_ext.webui.decoding import check_pictures, decoding_checked
from fam_ext.webui.kept import with_own_random_state
from fam_ext.webui.known import check_known, check_method, check_model, checkpoint, schedules, upscalers
from fam_ext.webui.missing import FALLBACK_UPSCALER, missing_networks, missing_vae, watched_upscaler
from fam_ext.webui.nested import not_for_copies
from fam_ext.webui.reference import LATENT_RESIZE, encode, host_upscaler, own_upscaler, set_upscaler
from fam_ext.webui.session import NOTES_ATTRIBUTE, Session, open_session, session_of
from fam_ext.webui.steered import steered

PRESET_KEY = "FAM preset"
METHOD_KEY = REQUEST["method"].key
NOTES_KEY = "FAM notes"
SAME_CHECKPOINT, SAME_SCHEDULE = "Use same checkpoint", "Use same scheduler"
"""What the page says where the hires pass has none of its own."""


def begin(p: Any, config: FamConfig, *, method: str = FAM, preset: str | None = None) -> Session:  # noqa: ANN401
    """Set FAM up on p, before its `init`. Raises `FamError` where it cannot run.

    `method` is a name of the catalog; `preset` names the preset that `config` is, for the infotext.
    """
    is_txt2img = isinstance(p, StableDiffusionProcessingTxt2Img)
    sampler = (p.hr_sampler_name if is_txt2img else None) or p.sampler_name
    entry = check_method(method, sampler, p.sd_model)
    if not reads(method, "am"):
        config = config.replace(fm=False, am=False)  # nothing of theirs is asked of the model, nor said
    maker = entry.load()(config)
    config = maker.config  # a method may fix a dial
    session = open_session(p, config, maker)
    check_model(p.sd_model, config)
    _check_steps("steps", p.steps, least=1)
    p.denoising_strength = session.method.stages((p.height, p.width), (p.height, p.width))[-1].start
    if is_txt2img:
        _check_larger(p)
        set_upscaler(p, config.upsample)
        _check_hires(p)
        session.undo.enter_context(replaced(p, "sample_hr_pass", _hires_pass(session)))
    else:
        _take_native_pictures(session)
        session.undo.enter_context(replaced(p, "sample", decoding_checked(session)))
        session.undo.enter_context(replaced(p, "init", with_own_random_state(lambda: p.all_seeds[0])))
        session.undo.enter_context(replaced(p, "init", _with_upscaler_watched(session, host_upscaler(p))))
    session.undo.enter_context(replaced(p, "sample", with_own_random_state(lambda: p.seeds[0])))
    session.undo.enter_context(replaced(p, "sample", _not_past_fam(session)))
    session.undo.enter_context(replaced(p, "sample", answering(p)))
    for name in ("init", "sample", "sample_hr_pass"):
        if name in p.__dict__:
            session.undo.enter_context(replaced(p, name, not_for_copies(p, name)))
    for key in to_fields(config.replace(fm=False, am=False)):  # every key that what acts may have, in order
        p.extra_generation_params[key] = _dial(session, key)
    if preset is not None:
        p.extra_generation_params[PRESET_KEY] = _said_if_ran(session, lambda: preset)
    if method != REQUEST["method"].default:
        p.extra_generation_params[METHOD_KEY] = _said_after_a_pass(session, method)
    if config.upsample == "auto":
        upscaler = host_upscaler(p)
        p.extra_generation_params["FAM upscaler"] = _said_if_ran(session, lambda: session.upscaler or upscaler)
    p.extra_generation_params[NOTES_KEY] = _said_if_ran(session, lambda: "; ".join(session.notes) or None)
    note(session, [*getattr(p, NOTES_ATTRIBUTE, ()), *missing_vae(), *config.idle()])
    return session


def note(session: Session, sentences: Iterable[str]) -> None:
    """Say what was missing or replaced: under the gallery, and in the file's infotext."""
    for sentence in sentences:
        session.p.comment(sentence)
        if sentence not in session.notes:
            session.notes.append(sentence)


def _with_upscaler_watched(session: Session, name: str) -> Callable[[Any], Any]:
    """Return a wrapper of a method in which the WebUI enlarges by its upscaler `name`."""

    def failed() -> None:
        session.upscaler = FALLBACK_UPSCALER
        if "Hires upscaler" in session.p.extra_generation_params:
            session.p.extra_generation_params["Hires upscaler"] = FALLBACK_UPSCALER
        words = f"upscaler {name} gave nothing (see the WebUI's console); {FALLBACK_UPSCALER} was used"
        note(session, [words])

    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with watched_upscaler(name, failed):
                return previous(*args, **kwargs)

        return method

    return make


def _not_past_fam(session: Session) -> Callable[[Any], Any]:
    """Return a wrapper of p.sample that raises where something sampled in FAM's place: an extension or script."""

    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            samples = previous(*args, **kwargs)
            if session.p.iteration not in session.reports and not shared.state.interrupted:
                raise RenderError(
                    "something sampled past FAM; switch off the script or extension that replaces the pass"
                )
            return samples

        return sample

    return make


def _check_larger(p: Any) -> None:  # noqa: ANN401
    p.calculate_target_resolution()
    width, height = p.firstpass_image.size if p.firstpass_image is not None else (p.width, p.height)
    if p.hr_upscale_to_x * p.hr_upscale_to_y <= width * height:
        raise UsageError(
            f"Hires. fix asks for {p.hr_upscale_to_x} x {p.hr_upscale_to_y} from {width} x {height}; choose a larger "
            "size, for FAM makes pictures larger"
        )


def _check_hires(p: Any) -> None:  # noqa: ANN401
    """Raise a `ConfigError` where the hires pass names what this WebUI has not."""
    if p.hr_upscaler is not None:
        check_known("hr_upscaler", p.hr_upscaler, upscalers())
    if p.hr_scheduler not in (None, SAME_SCHEDULE, *sd_schedulers.schedulers_map):
        check_known("hr_scheduler", p.hr_scheduler, schedules())
    if p.hr_checkpoint_name not in (None, "", SAME_CHECKPOINT):
        checkpoint(p.hr_checkpoint_name, label="hr_checkpoint_name")
    _check_steps("hr_second_pass_steps", p.hr_second_pass_steps, least=0)


def _check_steps(name: str, value: int, *, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} is {value}; choose at least {least}")


def _said(session: Session, value: Callable[[int], str | None]) -> Callable[..., str | None]:
    """Return a value of the infotext: `value` of the iteration whose picture it is written for, None for others' p."""

    def say(
        p: Any,  # noqa: ANN401
        iteration: int = 0,
        all_seeds: Any = None,  # noqa: ANN401
        use_main_prompt: bool = False,
        **locals_of_infotext: Any,  # noqa: ANN401
    ) -> str | None:
        if p is not session.p:  # a copy, which shares the values' dict
            return None
        # with a batch's own seeds the WebUI means that batch and says no iteration; a grid's are the first picture's
        is_batch = all_seeds is not None and all_seeds is p.seeds and not use_main_prompt
        return value(p.iteration if is_batch else iteration)

    return say


def _dial(session: Session, key: str) -> Callable[..., str | None]:
    def acted(iteration: int) -> str | None:
        config = session.acted_in(iteration)
        return None if config is None else to_fields(config).get(key)

    return _said(session, acted)


def _said_if_ran(session: Session, value: Callable[[], str | None]) -> Callable[..., str | None]:
    return _said(session, lambda iteration: value() if session.ran_in(iteration) else None)


def _said_after_a_pass(session: Session, value: str) -> Callable[..., str | None]:
    return _said(session, lambda iteration: value if iteration in session.reports else None)


# --- txt2img


def _hires_pass(session: Session) -> Callable[[Any], Any]:
    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample_hr_pass(samples: Any, decoded_samples: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            p = session.p
            if shared.state.interrupted:
                return previous(samples, decoded_samples, *args, **kwargs)
            pictures = [] if decoded_samples is None else to_images((decoded_samples.float() + 1) / 2)
            if decoded_samples is not None and (samples is None or _model_changed(p)):
                latent, record = encode((decoded_samples + 1) / 2), None
            else:
                latent, record = samples.detach().clone(), session.record
            session.source = _under_target(p, Source(pictures, latent, record))
            with own_upscaler(p, session.config.upsample, pictures):
                result = _with_upscaler_watched(session, host_upscaler(p))(previous)(
                    samples, decoded_samples, *args, **kwargs
                )
            if not shared.state.interrupted:
                check_pictures(result, session.latents)
            return result

        return sample_hr_pass

    return make


def _under_target(p: Any, whole: Source) -> Source:  # noqa: ANN401
    """Return the part of the native run that lies under the target: the WebUI crops what it has enlarged where Hires.
    fix asks for another shape."""
    latent, record = whole.latent, whole.record
    if latent is None or not (p.truncate_x or p.truncate_y):
        return whole
    height, width = latent.shape[-2:]
    rows, columns = _kept(height, p.hr_upscale_to_y, p.truncate_y), _kept(width, p.hr_upscale_to_x, p.truncate_x)
    if record is not None:
        steps, record = record.steps(), NativeRecord()
        for level, state in steps:
            record.add(state[..., rows, columns], level)
    right, bottom = GRID * (width - columns.stop), GRID * (height - rows.stop)
    pictures = [
        picture.crop((GRID * columns.start, GRID * rows.start, picture.width - right, picture.height - bottom))
        for picture in whole.images
    ]
    return Source(pictures, latent[..., rows, columns], record)


def _kept(native: int, enlarged: int, truncated: int) -> slice:
    """Return what is left of a native side of latent pixels, to the nearest one, where the WebUI cuts off `truncated`
    of those of its side of `enlarged` px."""
    share = native / (enlarged // GRID)
    start, stop = round(truncated // 2 * share), native - round((truncated + 1) // 2 * share)
    return slice(start, max(start + 1, stop))


def _model_changed(p: Any) -> bool:  # noqa: ANN401
    return getattr(p, "hr_checkpoint_info", None) is not None


# --- img2img


def _take_native_pictures(session: Session) -> None:
    p, native = session.p, []
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
        native.append(images.resize_image(mode, picture, size[1], size[0], upscaler_name="None"))
    sizes = {picture.size for picture in native}
    if len(sizes) > 1:
        listed = " and ".join(f"{width} x {height}" for width, height in sorted(sizes))
        raise UsageError(f"the input pictures of one batch are {listed}; give pictures of one size, or one at a time")
    session.source = Source(native)


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
    if not p.disable_extra_networks:
        note(session, missing_networks((p.hr_extra_network_data if p.is_hr_pass else p.extra_network_data) or {}))
    if isinstance(p, StableDiffusionProcessingTxt2Img) and not p.is_hr_pass:
        session.record = NativeRecord()
        replace_once(p.sampler, "sample", lambda previous: _recorded(session, previous))
    else:
        replace_once(p.sampler, "sample_img2img", lambda previous: steered(session, previous))


def _recorded(session: Session, previous: Callable[..., Any]) -> Callable[..., Any]:
    def sample(p: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if not session.method.wants_record or not p.enable_hr:
            return previous(p, x, *args, **kwargs)
        with recorded_sampler(p.sampler, session.record):
            return previous(p, x, *args, **kwargs)

    return sample
