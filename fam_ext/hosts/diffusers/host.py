"""A diffusers pipeline (SD1.5, SD2.1, SDXL) as a Host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import UnsupportedSamplerError
from fam_ext.hosts.base import Model, Prompt
from fam_ext.hosts.diffusers.prompts import count_chunks, cut_note, encode_prompt, is_open_clip
from fam_ext.hosts.diffusers.tiles import in_tiles
from fam_ext.hosts.diffusers.unet import UNetHooks
from fam_ext.hosts.diffusers.words import PromptWords
from fam_ext.methods.base import OFF, TARGET, Condition, Pass
from fam_ext.methods.capabilities import STANDALONE
from fam_ext.samplers.names import OFFERED
from fam_ext.samplers.run import SamplerRun
from fam_ext.samplers.trained import Trained

TILE_FROM_SIDE = 1536
DEFAULT_TILE = 1024
LEAST_TILE = 4
"""Latent pixels: the least that overlaps by a quarter."""
HALVED = 0.5**0.5
OFFLOADS = ("none", "model", "sequential")


class DiffusersHost:
    """See `hosts.base.Host`. `pipe` is a StableDiffusion(XL)Pipeline, the host's own from now on: a float16 VAE whose
    config says `force_upcast` (SDXL's overflows) is held in float32, and hooks stay in the UNet, asleep between passes.
    With `offload` "model" or "sequential" the pipeline comes in main memory, and accelerate brings a network or a layer
    to `device` in turn.
    """

    gives: frozenset[str] = STANDALONE

    def __init__(
        self,
        pipe: Any,  # noqa: ANN401
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        offload: str = "none",
        clip_l_skip: bool = False,
        weights_hash: Callable[[], str] = lambda: "",
        loras: Sequence[tuple[str, float]] = (),
    ) -> None:
        self.pipe = pipe
        self.loras = loras
        """Names and weights of those that are in the weights."""
        self.clip_l_skip = clip_l_skip
        """The WebUI's setting "Clip skip SDXL": on SDXL "Clip skip" acts on CLIP-L alone; without it on nothing."""
        self.weights_hash = weights_hash
        """Gives the SHA-256 of the model's weights, 64 hexadecimal digits; read when it is asked for."""
        if pipe.vae.dtype == torch.float16 and getattr(pipe.vae.config, "force_upcast", False):
            pipe.vae.to(torch.float32)
        pipe.vae.use_tiling = False  # `in_tiles` does it
        _offload(pipe, device, offload)
        self.name = name
        self.device = device
        self.dtype = dtype
        self.is_sdxl = getattr(pipe, "text_encoder_2", None) is not None
        self.latent_channels: int = pipe.unet.config.in_channels
        self.num_train_timesteps: int = pipe.scheduler.config.num_train_timesteps
        self.prediction: str = pipe.scheduler.config.get("prediction_type", "epsilon")
        self.downscale: int = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        self.native_side: int = pipe.unet.config.sample_size * self.downscale
        self.samplers = tuple(OFFERED)
        self._hooks = UNetHooks(pipe.unet)

    @property
    def has_clip_skip(self) -> bool:
        """Whether "Clip skip" acts: as in the WebUI, it means nothing for OpenCLIP, nor for SDXL unless asked."""
        return self.clip_l_skip if self.is_sdxl else not is_open_clip(self.pipe.text_encoder)

    def cut_note(self, prompt: str) -> str | None:
        """Return the sentence about what of `prompt` the text encoder is not shown; None where it is shown all."""
        return cut_note(prompt, self.pipe.tokenizer)

    # --- pictures

    @torch.inference_mode()
    def encode(self, images: Tensor, *, tile: int | None = None) -> Tensor:
        """Return the latents (B, C, H / 8, W / 8) of `images` (B, 3, H, W) in [0, 1]: the distribution's mode."""
        vae, tile = self.pipe.vae, self._latent_tile(images.shape[-2:], tile)
        pixels = (images.to(self.device) * 2 - 1).to(vae.dtype)
        encoded = functools.partial(in_tiles, lambda part: vae.encode(part).latent_dist.mode(), taken=self.downscale)
        latents = torch.cat([encoded(picture[None], tile) for picture in pixels])
        return (latents.float() - self._shift) * self.pipe.vae.config.scaling_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor, *, tile: int | None = None) -> Tensor:
        """Return the images (B, 3, H, W) in [0, 1] of `latents`, one at a time; NaN where the VAE overflowed."""
        size = latents.shape[-2] * self.downscale, latents.shape[-1] * self.downscale
        vae, tile = self.pipe.vae, self._latent_tile(size, tile)
        plain = (latents.to(self.device) / vae.config.scaling_factor + self._shift).to(vae.dtype)
        decoded = functools.partial(in_tiles, lambda part: vae.decode(part).sample, made=self.downscale)
        pictures = torch.cat([decoded(latent[None], tile) for latent in plain])
        pixels = pictures.float() / 2 + 0.5
        return pixels.clamp(0, 1).masked_fill(~pixels.isfinite(), torch.nan)  # a clamped infinity would pass as white

    @property
    def _shift(self) -> float:
        return getattr(self.pipe.vae.config, "shift_factor", None) or 0.0

    def _latent_tile(self, size: Sequence[int], tile: int | None) -> int:
        """Return the most that the VAE is given of a picture of `size`, latent pixels a side; 0: all of it."""
        if tile is None:
            # float32 in a half-precision run takes twice the room: tiles, and what is tiled, of half the area
            narrow = HALVED if self.pipe.vae.dtype == torch.float32 and self.dtype != torch.float32 else 1.0
            tile = round(DEFAULT_TILE * narrow / 64) * 64 if max(size) > TILE_FROM_SIDE * narrow else 0
        return max(LEAST_TILE, tile // self.downscale) if tile else 0

    # --- sampling

    def sampler(
        self,
        name: str,
        schedule: str,
        steps: int,
        *,
        seeds: list[int],
        start: float = 1.0,
        spacing: str | None = None,
    ) -> SamplerRun:
        """Return a sampler by its usual name; raises `UnsupportedSamplerError`. `spacing` None is the model's own."""
        trained = Trained.of(self.pipe.scheduler.config, is_sdxl=self.is_sdxl)
        run = SamplerRun(trained, name, schedule, steps=steps, seeds=seeds, start=start, spacing=spacing)
        if run.wants_both and self._is_distilled:
            raise UnsupportedSamplerError(
                f"sampler {run.name} needs the network's output without guidance, and {self.name} has guidance built in"
                " (LCM); choose LCM or DDIM"
            )
        return run

    @contextmanager
    def model(
        self,
        prompts: list[Prompt],
        *,
        size: Size,
        cfg_scale: float,
        steered: Pass | None = None,
        both: bool = False,
        low_memory: bool = False,
    ) -> Generator[Model, None, None]:
        """See `hosts.base.Host.model`. Rows are [uncond, cond], each in `prompts`' order; cond alone at cfg_scale 1,
        and with a guidance-distilled network (LCM), which is told the scale."""
        hooks = self._hooked()
        guidance = self._guidance_embedding(cfg_scale)
        use_uncond = guidance is None and (both or cfg_scale != 1)
        with torch.inference_mode():
            pictures = torch.arange(len(prompts), device=self.device).repeat(2 if use_uncond else 1)
            negative = torch.arange(len(pictures), device=self.device) < len(pictures) - len(prompts)
            encoded = {tuple(prompts): self._contexts(prompts, use_uncond=use_uncond)}
        sizes: dict[Size, Tensor] = {}

        def condition_of(rows: slice, shown: tuple[Prompt, ...]) -> Condition:
            if shown not in encoded:
                encoded[shown] = self._contexts(list(shown), use_uncond=use_uncond)
            given = rows, *encoded[shown]
            is_all_negative = rows.stop < len(pictures)
            words = PromptWords(shown, self.pipe.tokenizer, functools.partial(condition_of, rows))
            return Condition(
                lambda: pictures[rows], given, lambda: negative[rows], words=None if is_all_negative else words
            )

        def added(rows: slice, pooled: Tensor | None, latent: Tensor) -> dict[str, Any]:
            if pooled is None:
                return {}
            size = latent.shape[-2] * self.downscale, latent.shape[-1] * self.downscale
            if size not in sizes:
                sizes[size] = self._size_ids(size, pooled)
            return {"added_cond_kwargs": {"text_embeds": pooled[rows], "time_ids": sizes[size][rows]}}

        def call(latent: Tensor, level: NoiseLevel, condition: Condition, *, phase: str = TARGET) -> Tensor:
            rows, states, pooled = condition.given
            with hooks.steering.during(phase):
                return hooks.unet(
                    latent.to(self.device, self.dtype),
                    torch.full((), level.timestep, device=self.device),  # filled there, where a tensor would be copied
                    encoder_hidden_states=states[rows],
                    timestep_cond=guidance,
                    return_dict=False,
                    **added(rows, pooled, latent),
                )[0].float()

        def predict(latent: Tensor, level: NoiseLevel, rows: slice) -> Tensor:
            condition = condition_of(rows, tuple(prompts))
            if steered is None:
                return call(latent, level, condition, phase=OFF)
            return steered.around_model(call, latent, level, condition)

        def model(latent: Tensor, level: NoiseLevel) -> Tensor:
            count = len(prompts)
            with torch.inference_mode():
                if not use_uncond:
                    return predict(latent, level, slice(0, count))
                if low_memory:
                    halves = slice(0, count), slice(count, 2 * count)
                    uncond, cond = (predict(latent, level, rows) for rows in halves)
                else:
                    uncond, cond = predict(torch.cat([latent, latent]), level, slice(0, 2 * count)).chunk(2)
                guided = uncond + cfg_scale * (cond - uncond)
                return torch.cat([guided, uncond]) if both else guided

        with hooks.running(steered) if steered else nullcontext():
            yield model

    def _hooked(self) -> UNetHooks:
        """Return the hooks of the pipeline's network, which may have been replaced (`torch.compile`) since."""
        if self._hooks.unet is not self.pipe.unet:
            self._hooks.close()
            self._hooks = UNetHooks(self.pipe.unet)
        return self._hooks

    @property
    def _is_distilled(self) -> bool:
        return self.pipe.unet.config.time_cond_proj_dim is not None

    def _guidance_embedding(self, cfg_scale: float) -> Tensor | None:
        """Return what a guidance-distilled network takes in the place of a second row, (1, width); None for others.

        As diffusers' LCM pipelines: Imagen's scale less 1, where 0 is no guidance.
        """
        if not self._is_distilled:
            return None
        width = self.pipe.unet.config.time_cond_proj_dim
        return self.pipe.get_guidance_scale_embedding(torch.tensor([cfg_scale - 1]), embedding_dim=width).to(
            self.device, self.dtype
        )

    def _contexts(self, prompts: list[Prompt], *, use_uncond: bool) -> tuple[Tensor, Tensor | None]:
        """Return the token states (rows, 77 n, width) and SDXL's pooled states (rows, width), uncond first."""
        chunks = max(count_chunks(text, self.pipe.tokenizer) for p in prompts for text in (p.positive, p.negative))
        skips = self.has_clip_skip
        texts = [(p.negative, p.clip_skip if skips else None) for p in prompts] if use_uncond else []
        negatives = len(texts)
        texts += [(p.positive, p.clip_skip if skips else None) for p in prompts]
        encode = functools.partial(encode_prompt, chunks=chunks, device=self.device)
        if not self.is_sdxl:
            states = [
                encode(text, self.pipe.tokenizer, self.pipe.text_encoder, clip_skip=skip)[0] for text, skip in texts
            ]
            return torch.cat(states).to(self.dtype), None
        rows: list[Tensor] = []
        pooled: list[Tensor] = []
        force_zeros = bool(self.pipe.config.get("force_zeros_for_empty_prompt"))
        for index, (text, skip) in enumerate(texts):
            if self.clip_l_skip and skip is None:
                skip = 1  # what the WebUI's setting takes without a word: CLIP-L's last layer
            first, _ = encode(text, self.pipe.tokenizer, self.pipe.text_encoder, clip_skip=skip, penultimate=True)
            second, pool = encode(text, self.pipe.tokenizer_2, self.pipe.text_encoder_2, penultimate=True)
            keep = 0 if force_zeros and index < negatives and not text else 1
            rows.append(torch.cat([first, second], dim=-1) * keep)
            pooled.append(pool * keep)
        return torch.cat(rows).to(self.dtype), torch.cat(pooled).to(self.dtype)

    def _size_ids(self, size: Size, pooled: Tensor) -> Tensor:
        """Return SDXL's size conditioning (rows, 6): original and target size are this pass's (the paper is silent)."""
        return torch.tensor([[*size, 0, 0, *size]], device=self.device, dtype=pooled.dtype).repeat(pooled.shape[0], 1)


def _offload(pipe: Any, device: torch.device, offload: str) -> None:  # noqa: ANN401
    if offload == "none":
        return
    import accelerate

    if device == torch.device("cuda"):
        # accelerate compares it with the weights' own, which has a number, and else moves them all before each call
        device = torch.device("cuda", torch.cuda.current_device())
    # in the order in which they run: text encoders, UNet, VAE
    parts = [getattr(pipe, name, None) for name in pipe.model_cpu_offload_seq.split("->")]
    networks = [part for part in parts if part is not None]
    if offload == "sequential":
        for network in networks:
            accelerate.cpu_offload(network, device, offload_buffers=True)
    elif offload == "model":
        hooks: list[Any] = []
        for network in networks:
            before = hooks[-1] if hooks else None
            hooks.append(accelerate.cpu_offload_with_hook(network, device, prev_module_hook=before)[1])
        hooks[0].hook.prev_module_hook = hooks[-1]  # the VAE of one picture makes room for the next one's words
