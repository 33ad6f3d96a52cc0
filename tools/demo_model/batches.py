"""What a step of unet.py sees: latents of pictures, encoded once and kept, and captions, drawn by seed and step."""

from __future__ import annotations

import argparse
import logging
import random
from typing import Any

import numpy as np
import torch
from data import Collection, Renders, Scenes
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
    """Scaled latents of the renders at one size, encoded when first drawn and kept; mirrored ones are encoded too."""

    def __init__(self, renders: Renders, vae: Any, *, tag: str) -> None:
        self.renders, self.vae = renders, vae
        side = renders.size // 8
        folder = renders.collection.work / "latents"
        folder.mkdir(parents=True, exist_ok=True)
        count = len(renders.collection)
        stem = f"{tag}-{renders.collection.file_name(renders.size)}"
        self.values = memmap(folder / f"{stem}.npy", (count, 2, 4, side, side), np.float16)
        self.done = memmap(folder / f"{stem}-done.npy", (count, 2), np.uint8)

    @torch.no_grad()
    def get(self, wanted: list[tuple[int, bool]]) -> Tensor:
        """Return (B, 4, side, side) of (index, mirrored) pairs; the mean of the VAE's posterior, scaled."""
        missing = [(index, mirrored) for index, mirrored in wanted if not self.done[index, int(mirrored)]]
        for start in range(0, len(missing), 4):
            part = missing[start : start + 4]
            pictures = np.stack(
                [self.renders[index][:, ::-1] if mirrored else self.renders[index] for index, mirrored in part]
            )
            check_spread(scaled := encode(self.vae, pictures))
            for (index, mirrored), latent in zip(part, scaled.cpu().half().numpy(), strict=True):
                self.values[index, int(mirrored)] = latent
                self.done[index, int(mirrored)] = 1
        return torch.from_numpy(np.stack([self.values[index, int(mirrored)] for index, mirrored in wanted])).float()


def caption_or_none(
    collection: Collection | Scenes, options: argparse.Namespace, rng: random.Random, index: int
) -> str:
    """Return a caption of picture `index`, or, in a share of `--drop`, the empty one that guidance needs."""
    text = collection.draw_caption(rng, index, synonym_share=options.synonyms)
    return "" if rng.random() < options.drop else text


def draw_batch(
    collection: Collection | Scenes, options: argparse.Namespace, step: int, *, pool: list[str]
) -> tuple[list[tuple[int, bool]], list[str]]:
    """Return (index, mirrored) pairs and captions of one step: the same for the same seed and step."""
    rng = random.Random(options.seed * 1_000_003 + step)
    pairs: list[tuple[int, bool]] = []
    captions: list[str] = []
    for index in collection.draw(rng, options.batch, names=pool):
        mirrorable = collection.mirrorable(index)
        pairs.append((index, mirrorable and rng.random() < options.mirror))
        captions.append(caption_or_none(collection, options, rng, index))
    return pairs, captions


def draw_close(
    collection: Collection | Scenes, options: argparse.Namespace, step: int, *, latents: Latents, count: int
) -> tuple[Tensor, list[str]]:
    """Return (count, 4, side / 2, side / 2) windows of latents at twice the size, and captions.

    Photographs show an edge at every scale and a model trained on them knows it in each; these pictures show it at one,
    and at 2x the network drew its own small ripples along the larger edges. Only pictures encoded by latents.py count.
    """
    rng = random.Random(options.seed * 1_000_003 + step + 250_000)
    ready = np.flatnonzero(latents.done[:, 0]).tolist()
    if not ready:
        raise SystemExit(
            f"--close {options.close:g} needs latents at {latents.renders.size} px and none are encoded: "
            f"run latents.py --size {latents.renders.size} --variants 1 --count 200 first"
        )
    indices = rng.choices(ready, k=count)
    window = latents.values.shape[-1] // 2
    windows: list[Tensor] = []
    captions: list[str] = []
    for whole, index in zip(latents.get([(index, False) for index in indices]), indices, strict=True):
        top, left = rng.randint(0, window), rng.randint(0, window)
        windows.append(whole[:, top : top + window, left : left + window])
        captions.append(caption_or_none(collection, options, rng, index))
    return torch.stack(windows), captions


def draw_lessons(
    collection: Collection | Scenes, options: argparse.Namespace, step: int, *, pool: list[str]
) -> tuple[list[tuple[int, bool]], list[str]]:
    """Return (index, not mirrored) pairs and captions as text.py words them, on which only the text encoder learns."""
    rng = random.Random(options.seed * 1_000_003 + step + 500_000)
    indices = collection.draw(rng, options.lessons, names=pool)
    captions = [collection.loose_caption(rng, index, synonyms=options.synonyms) for index in indices]
    return [(index, False) for index in indices], captions


def encoded(collection: Collection | Scenes, latents: Latents, pool: list[str]) -> list[str]:
    """Return the names of `pool` all of whose pictures latents.py has encoded."""
    ready = [name for name in pool if all(latents.done[index, 0] for index in collection.variants[name])]
    if not ready:
        raise SystemExit(f"--encoded leaves nothing to train on at {latents.renders.size} px: run latents.py first")
    logger.info("%d of %d names are encoded", len(ready), len(pool))
    return ready


def holding(names: list[str], words: list[str]) -> list[str]:
    """Return those of `names` that hold one of `words`; exits naming a word that none holds."""
    for word in words:
        if not any(word in name.split() for name in names):
            raise SystemExit(f"--more {word}: no name that is drawn has that word; give a thing or a material")
    return [name for name in names if not set(words).isdisjoint(name.split())]
