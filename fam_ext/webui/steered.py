"""The hires pass itself: the recipe's passes on the WebUI's own sampler, with their hooks on it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from modules import shared
from modules.hypernetworks import hypernetwork
from modules.processing import StableDiffusionProcessingTxt2Img
from torch import Tensor

from fam_ext.core.guide import GuideReport
from fam_ext.core.schedule import Size
from fam_ext.errors import ConfigError
from fam_ext.hosts.base import replaced
from fam_ext.hosts.ldm.sampler import check_finite, steered_sampler
from fam_ext.hosts.ldm.schedule import NUM_TRAIN_TIMESTEPS, schedule_from
from fam_ext.hosts.ldm.unet import Traits, steered_unet
from fam_ext.hosts.steering import Steering
from fam_ext.jobs.contract import Progress
from fam_ext.methods.base import Pass, Stage
from fam_ext.recipe import GRID, enlarge, to_tensor
from fam_ext.webui.known import check_model
from fam_ext.webui.reference import decode, encode
from fam_ext.webui.session import PASSES_ATTRIBUTE, PROGRESS_ATTRIBUTE, Session

logger = logging.getLogger(__name__)

_ID_VALUES = 3 * 2 * 256
"""SDXL's size conditioning at the end of y: original size, crop and target size, two numbers each."""


def steered(session: Session, previous: Callable[..., Any]) -> Callable[..., Any]:
    """Return `sample_img2img` with the session's method around it."""

    def sample_img2img(
        p: Any,  # noqa: ANN401
        x: Tensor,
        noise: Tensor,
        conditioning: Any,  # noqa: ANN401
        unconditional_conditioning: Any,  # noqa: ANN401
        steps: int | None = None,
        image_conditioning: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        check_model(p.sd_model, session.config, sampling=True)  # once more: the hires checkpoint may be another
        source = session.source
        if source.latent is None and not source.images:
            raise ConfigError("FAM has no native picture in this pass; use the hires pass of txt2img, or img2img")
        if source.latent is None:  # one at a time, as the WebUI encodes
            latents = torch.cat([encode(to_tensor([picture])) for picture in source.images])
            source = dataclasses.replace(source, latent=latents)

        def sample(target: Tensor, *, steps: int) -> Tensor:
            words = (conditioning, unconditional_conditioning)
            return previous(p, target, noise, *words, steps=steps, image_conditioning=image_conditioning)

        studio = _Studio(p, x, noise, steps=steps or p.steps, sample=sample)
        size = (GRID * x.shape[-2], GRID * x.shape[-1])
        enlarged = enlarge(studio, session.method, source, size=size)
        # where the WebUI stops before the network is called, FM has changed a state that nothing was made of
        report = session.reports[p.iteration] = enlarged.report if p.sampler.model_wrap_cfg.step else GuideReport()
        getattr(p, PASSES_ATTRIBUTE, []).append((report, enlarged.steps))
        samples = enlarged.made.latent
        assert samples is not None and source.latent is not None, "no stage of pixels is offered here"
        check_finite(samples)
        session.latents = samples
        logger.info(
            "FAM %d x %d to %d x %d: %d steps, FM in %d calls, AM in %d calls of %d sites",
            *(GRID * side for side in source.latent.shape[-2:]),
            *size,
            enlarged.steps,
            report.fm_calls,
            sum(report.am_calls.values()),
            len(report.am_calls),
        )
        return samples

    return sample_img2img


class _Studio:
    """See `recipe.Studio`: one call of the WebUI's sampler, with what it was called with."""

    num_train_timesteps = NUM_TRAIN_TIMESTEPS
    low_memory = False
    upscales = False
    """`upscaled` gives the reference that the WebUI made."""

    def __init__(self, p: Any, x: Tensor, noise: Tensor, *, steps: int, sample: Callable[..., Tensor]) -> None:  # noqa: ANN401
        self.p = p
        self.prediction = "v_prediction" if getattr(p.sd_model, "parameterization", "eps") == "v" else "epsilon"
        self.is_sdxl: bool = getattr(p.sd_model, "is_sdxl", False)
        self.x = x
        """What the WebUI upscaled, clean."""
        self.steps = steps
        self.sample = sample
        self._noise = noise

    def encode(self, images: Tensor) -> Tensor:
        return encode(images).to(self.x)

    def decode(self, latents: Tensor) -> Tensor:
        return decode(latents)

    def noise(self, size: Size, stage: int) -> Tensor:
        return self._noise

    def native_noise(self, size: Size) -> None:
        return None

    def upscaled(self, stage: Stage) -> Tensor | None:
        # in txt2img the hires pass has upsampled as `set_upscaler` and `own_upscaler` say
        is_hosts = stage.upsample == "auto" or isinstance(self.p, StableDiffusionProcessingTxt2Img)
        return self.x if is_hosts else None

    def enlarge(self, image: Any, size: Size, /) -> Any:  # noqa: ANN401
        raise ConfigError("the WebUI gives no stage of pixels here; choose another method")

    def run(self, stage: Stage) -> _Run:
        return _Run(self, stage)


class _Run:
    """See `recipe.Run`: the WebUI's own sampler from the level that the stage names, hooked for this one call."""

    def __init__(self, studio: _Studio, stage: Stage) -> None:
        self.studio = studio
        self.schedule = schedule_from(studio.p.sampler, studio.p, steps=studio.steps, start=stage.start)
        self.steps = self.schedule.calls

    def sample(self, steered: Pass) -> Tensor:
        p, sampler, schedule = self.studio.p, self.studio.p.sampler, self.schedule
        steering, traits, target = Steering(), _traits(), steered.pictures.target
        with ExitStack() as stack:
            stack.enter_context(steering.running(steered))
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
            clean = torch.zeros_like(self.studio.x) if target is None else target.to(self.studio.x)
            return self.studio.sample(clean, steps=schedule.steps)


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


def _traits() -> Traits:
    def hypernetworks(context: Tensor) -> tuple[Tensor, Tensor]:
        return hypernetwork.apply_hypernetworks(shared.loaded_hypernetworks, context)

    ids: dict[Any, Tensor | None] = {}

    def native_vector(vector: Tensor, size: Size) -> Tensor:
        key = shared.sd_model, size, vector.device, vector.dtype  # the refiner's y ends otherwise
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
    crop = [float(shared.opts.sdxl_crop_top), float(shared.opts.sdxl_crop_left)]
    values: Mapping[str, list[float]] = dict(zip(keys, (pixels, crop, pixels), strict=True))
    parts = [by_key[key](torch.tensor([values[key]], device=vector.device)) for key in keys]
    ids = torch.cat(parts, dim=1).to(vector.dtype)
    return ids if ids.shape[1] == _ID_VALUES else None
