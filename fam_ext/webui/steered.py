"""The hires pass itself: the WebUI's own sampler, from the level that `start` names, with the guide's hooks on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from modules import shared
from modules.hypernetworks import hypernetwork
from modules.processing import StableDiffusionProcessingTxt2Img
from torch import Tensor

from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import Size
from fam_ext.errors import ConfigError
from fam_ext.hosts.base import replaced
from fam_ext.hosts.ldm import Traits, check_finite, steered_sampler, steered_unet
from fam_ext.hosts.ldm_levels import schedule_from
from fam_ext.hosts.steering import Steering
from fam_ext.jobs.contract import Progress
from fam_ext.methods.base import Pictures
from fam_ext.methods.catalog import FAM, METHODS
from fam_ext.webui.known import check_model
from fam_ext.webui.reference import as_tensor, encode, img2img_reference
from fam_ext.webui.session import PASSES_ATTRIBUTE, PROGRESS_ATTRIBUTE, Session

logger = logging.getLogger(__name__)

_ID_VALUES = 3 * 2 * 256
"""SDXL's size conditioning at the end of y: original size, crop and target size, two numbers each."""


def steered(session: Session, previous: Callable[..., Any]) -> Callable[..., Any]:
    """Return `sample_img2img` under FM and AM."""

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
        record = session.record if len(session.record) and wants_record(config) else None
        method = METHODS[FAM].load()(config)
        (stage,) = method.stages((8 * target.shape[-2], 8 * target.shape[-1]))
        pictures = Pictures(
            native=native.to(target.device, torch.float32),
            target=target.float(),
            noise=noise.float(),
            native_noise=None,
            steps=schedule.calls,
            record=record,
        )
        one, steering, traits = method.begin(stage, pictures), Steering(), _traits(p)
        report = session.reports[p.iteration] = one.ran()
        getattr(p, PASSES_ATTRIBUTE, []).append((report, schedule.calls))
        with ExitStack() as stack:
            stack.enter_context(steering.running(one))
            stack.enter_context(replaced(sampler, schedule.method, lambda _: schedule.give))
            network = stack.enter_context(ExitStack())

            def steer() -> None:
                network.close()
                unet = shared.sd_model.model.diffusion_model
                network.enter_context(steered_unet(unet, steering, traits=traits))

            steer()
            stack.enter_context(replaced(sampler.model_wrap_cfg, "update_inner_model", _then(steer)))
            stack.enter_context(steered_sampler(sampler, steering))
            if hasattr(p, PROGRESS_ATTRIBUTE):
                telling = _reporting(getattr(p, PROGRESS_ATTRIBUTE), schedule.calls)
                stack.enter_context(replaced(sampler, "callback_state", telling))
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
        session.latents = samples
        logger.info(
            "FAM %d x %d to %d x %d: %d steps, FM in %d calls, AM in %d calls of %d sites",
            *(8 * side for side in (*native.shape[-2:], *target.shape[-2:])),
            schedule.calls,
            report.fm_calls,
            sum(report.am_calls.values()),
            len(report.am_calls),
        )
        return samples

    return sample_img2img


def wants_record(config: FamConfig) -> bool:
    """Return whether AM shall attend to the native run itself, where it was ours."""
    return config.am and config.attention > 0 and config.am_source != "replay"


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
