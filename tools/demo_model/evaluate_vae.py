"""Measure what a VAE keeps of true pictures: `python tools/demo_model/evaluate_vae.py tools/demo_model/next/vae`.

For each material the PSNR, and over the true picture's the texture's period and the contrast of neighbours, which falls
where the finest of a texture is lost. Over all pictures how far the means over 32x32 px are off, in levels of 255.
Grounds and pairs are drawn evenly, those never trained on too.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import WORK, Scenes, compose
from evaluate_materials import as_picture, as_values, with_interval
from norms import free, has_freed, read_freed
from things import MATERIALS, THINGS, Scene, draw_ground
from torch import Tensor
from training import autocast, pick_device

from fam_ext.quality.detail import glcm_contrast, texture_period
from fam_ext.quality.structure import coarse_colour, psnr

Coder = Callable[[Tensor], Tensor]
"""A picture (3, H, W) in [0, 1] to what a VAE makes of it."""


def coder_of(folder: Path) -> Coder:
    """Return what the VAE in `folder` makes of pictures; of a freed one's weights where they lie there."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    if has_freed(folder):
        vae = free(kind.from_config(kind.load_config(folder)))
        read_freed(vae, folder)
    else:
        vae = kind.from_pretrained(folder).float()
    device = pick_device()
    vae = vae.to(device, memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def code(picture: Tensor) -> Tensor:
        with autocast(device):
            latent = vae.encode(2 * picture[None].to(device) - 1).latent_dist.mode()
            decoded = vae.decode(latent).sample
        return ((decoded[0].float().cpu() + 1) / 2).clamp(0, 1)

    return code


def rows_of(code: Coder, scenes: Scenes, *, size: int, count: int, seed: int) -> list[str]:
    """Return lines of a Markdown table: `count` true pictures at `size` px of each material, and of plain things."""
    rng = random.Random(f"{seed} {size}")
    rows: list[str] = []
    boxes: list[np.ndarray] = []
    for material in (None, *MATERIALS):
        strength: list[float] = []
        periods: list[float] = []
        contrasts: list[float] = []
        for _ in range(count):
            scene = Scene(rng.choice(list(THINGS)), material, draw_ground(rng))
            truth = compose(scenes.drawing(scene.thing, size), scene, rng.getrandbits(31))
            decoded = as_picture(code(as_values(truth)))
            strength.append(psnr(decoded, truth))
            contrasts.append(glcm_contrast(decoded) / glcm_contrast(truth))
            boxes.append(coarse_colour(decoded, truth))
            wanted, found = texture_period(truth), texture_period(decoded)
            if material is not None and wanted and found:
                periods.append(found / wanted)
        period = with_interval(periods, digits=3) if material is not None else ""
        values = (with_interval(strength, " dB", digits=1), period, with_interval(contrasts))
        rows.append(f"| {size} px, {material or 'plain'} | {' | '.join(values)} |")
    every = np.concatenate(boxes)
    colours = f"mean {every.mean():.2f}, 99th percentile {np.quantile(every, 0.99):.1f} levels (n {len(boxes)})"
    return [*rows, f"| {size} px, coarse colours off | {colours} | | |"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", type=Path, help="folder")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="sides of the true pictures in px")
    parser.add_argument("--count", type=int, default=2, help="pictures of each material")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    code, scenes = coder_of(options.vae), Scenes(options.work, variants=1)
    print("| pictures | PSNR | period / true period | contrast / true contrast |\n|---|---|---|---|")
    for size in options.sizes:
        print("\n".join(rows_of(code, scenes, size=size, count=options.count, seed=options.seed)), flush=True)


if __name__ == "__main__":
    main()
