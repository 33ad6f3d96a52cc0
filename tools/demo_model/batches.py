"""What a step of unet.py sees: latents of pictures, encoded once and kept, and captions, drawn by seed and step."""

from __future__ import annotations

import argparse
import logging
import random
from typing import Any

import numpy as np
import torch
from data import Renders, Scenes
from torch import Tensor
from training import autocast, memmap

logger = logging.getLogger(__name__)

WIDEST = 2.5
"""The largest spread of a picture's scaled latents that a schedule for latents of spread 1 can be trained on."""


@torch.no_grad()
def encode(vae: Any, pictures: np.ndarray) -> Tensor:
    """Return (B, 4, H / 8, W / 8), on the device of `vae`, of uint8 (B, H, W, 3): the mean of its posterior, scaled."""
    values = torch.from_numpy(np.ascontiguousarray(pictures))
    if vae.device.type == "cuda":
        values = values.pin_memory()  # or the copy would wait until the GPU has done all before it
    images = values.to(vae.device, non_blocking=True).permute(0, 3, 1, 2).float() / 127.5 - 1
    with autocast(vae.device):
        return vae.encode(images).latent_dist.mode().float() * vae.config.scaling_factor


def check_spread(scaled: Tensor) -> None:
    """Raise `SystemExit` for latents that no schedule fits."""
    if (spread := scaled.float().std().item()) > WIDEST:
        raise SystemExit(f"the VAE's scaled latents have a spread of {spread:.1f}, not about 1; run align.py")


class Latents:
    """Scaled latents of the renders at one size, encoded when first drawn and kept."""

    def __init__(self, renders: Renders, vae: Any, *, tag: str) -> None:
        self.renders, self.vae = renders, vae
        side = renders.size // 8
        folder = renders.scenes.work / "latents"
        folder.mkdir(parents=True, exist_ok=True)
        count = len(renders.scenes)
        stem = f"{tag}-{renders.scenes.file_name(renders.size)}"
        self.values = memmap(folder / f"{stem}.npy", (count, 4, side, side), np.float16)
        self.done = memmap(folder / f"{stem}-done.npy", (count,), np.uint8)

    @torch.no_grad()
    def get(self, wanted: list[int]) -> Tensor:
        """Return (B, 4, side, side) of the pictures `wanted`; the mean of the VAE's posterior, scaled."""
        missing = [index for index in wanted if not self.done[index]]
        for start in range(0, len(missing), 4):
            part = missing[start : start + 4]
            check_spread(scaled := encode(self.vae, np.stack([self.renders[index] for index in part])))
            for index, latent in zip(part, scaled.cpu().half().numpy(), strict=True):
                self.values[index] = latent
                self.done[index] = 1
        return torch.from_numpy(np.stack([self.values[index] for index in wanted])).float()


def caption_or_none(scenes: Scenes, options: argparse.Namespace, rng: random.Random, index: int) -> str:
    """Return the caption of picture `index`, or, in a share of `--drop`, the empty one that guidance needs."""
    return "" if rng.random() < options.drop else scenes.scenes[index].caption


def draw_batch(
    scenes: Scenes, options: argparse.Namespace, step: int, *, pool: list[str]
) -> tuple[list[int], list[str]]:
    """Return pictures' numbers and captions of one step: the same for the same seed and step."""
    rng = random.Random(options.seed * 1_000_003 + step)
    indices = scenes.draw(rng, options.batch, names=pool)
    return indices, [caption_or_none(scenes, options, rng, index) for index in indices]


def draw_close(
    scenes: Scenes, options: argparse.Namespace, step: int, *, latents: Latents, count: int
) -> tuple[Tensor, list[str]]:
    """Return (count, 4, side / 2, side / 2) windows of latents at twice the size, and captions.

    Photographs show an edge at every scale and a model trained on them knows it in each; these pictures show it at one,
    and at 2x the network drew its own small ripples along the larger edges. Only pictures encoded by latents.py count.
    """
    rng = random.Random(options.seed * 1_000_003 + step + 250_000)
    ready = np.flatnonzero(latents.done).tolist()
    if not ready:
        raise SystemExit(
            f"--close {options.close:g} needs latents at {latents.renders.size} px and none are encoded: "
            f"run latents.py --size {latents.renders.size} --variants 1 --count 200 first"
        )
    indices = rng.choices(ready, k=count)
    window = latents.values.shape[-1] // 2
    windows: list[Tensor] = []
    captions: list[str] = []
    for whole, index in zip(latents.get(indices), indices, strict=True):
        top, left = rng.randint(0, window), rng.randint(0, window)
        windows.append(whole[:, top : top + window, left : left + window])
        captions.append(caption_or_none(scenes, options, rng, index))
    return torch.stack(windows), captions


def draw_lessons(
    scenes: Scenes, options: argparse.Namespace, step: int, *, pool: list[str]
) -> tuple[list[int], list[str]]:
    """Return pictures' numbers and captions as text.py words them, on which only the text encoder learns."""
    rng = random.Random(options.seed * 1_000_003 + step + 500_000)
    indices = scenes.draw(rng, options.lessons, names=pool)
    return indices, [scenes.loose_caption(rng, index) for index in indices]


def encoded(scenes: Scenes, latents: Latents, pool: list[str]) -> list[str]:
    """Return the names of `pool` all of whose pictures latents.py has encoded."""
    ready = [name for name in pool if all(latents.done[index] for index in scenes.variants[name])]
    if not ready:
        raise SystemExit(f"--encoded leaves nothing to train on at {latents.renders.size} px: run latents.py first")
    logger.info("%d of %d names are encoded", len(ready), len(pool))
    return ready


def holding(names: list[str], words: list[str]) -> list[str]:
    """Return those of `names` that hold one of `words`, once for each time it is given; exits naming a word that none
    holds."""
    for word in words:
        if not any(word in name.split() for name in names):
            raise SystemExit(f"--more {word}: no name that is drawn has that word; give a thing or a material")
    return [name for word in words for name in names if word in name.split()]
