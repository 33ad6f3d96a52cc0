"""Give a VAE's latents zero mean: `python tools/demo_model/center.py MODEL OUT`.

At the schedule's last timestep a latent still shines through the noise by sqrt(alpha) = 0.068. Its mean over H * W
values stands out of noise whose mean is only 1 / sqrt(H * W) wide, and a network learns to read it there. Sampling
starts from noise without it: with latents of mean -1.4 every picture took on the colour of a latent of mean 0, which is
green. On a white ground nearly all of the mean is common to all pictures and goes into the biases of the VAE's two 1x1
convolutions. Its pictures stay what they were; latents.py's cache for the old VAE is carried over.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import WORK
from torch import Tensor
from training import tag_of

logger = logging.getLogger(__name__)


@torch.no_grad()
def shift(vae: Any, mean: Tensor) -> None:
    """Take `mean`, (4,) of scaled latents, from what `vae` encodes, and add it to what it decodes."""
    unscaled = mean / vae.config.scaling_factor
    vae.quant_conv.bias[: len(mean)] -= unscaled
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ unscaled


def center(options: argparse.Namespace) -> Tensor:
    """Write the model with its VAE centred and carry the cache over; return the mean that was taken away."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = options.work / "latents"
    old = tag_of(options.model / "vae")
    values = np.load(folder / f"{old}-{options.size}.npy", mmap_mode="r")
    done = np.load(folder / f"{old}-{options.size}-done.npy")
    known = np.flatnonzero(done[:, 0])
    if not len(known):
        raise SystemExit(f"{folder} holds no {options.size} px latents of this VAE; run latents.py first")
    mean = torch.from_numpy(np.mean([values[index, 0].mean(axis=(1, 2), dtype=np.float64) for index in known], axis=0))
    mean = mean.float()
    vae: Any = AutoencoderKL.from_pretrained(options.model / "vae").float()
    shift(vae, mean)
    partial = options.out.with_name(f"{options.out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(options.model, partial, ignore=shutil.ignore_patterns("vae"))
    vae.half().save_pretrained(partial / "vae")
    new = tag_of(partial / "vae")
    place = folder / f"{new}-{options.size}.npy"
    moved = np.lib.format.open_memmap(place, mode="w+", dtype=np.float16, shape=values.shape)
    for index, mirrored in np.argwhere(done):
        moved[index, mirrored] = values[index, mirrored].astype(np.float32) - mean.numpy()[:, None, None]
    moved.flush()
    np.save(folder / f"{new}-{options.size}-done.npy", done)
    shutil.rmtree(options.out, ignore_errors=True)
    partial.rename(options.out)
    logger.info("mean %s of %d latents taken away", [round(value, 3) for value in mean.tolist()], len(known))
    return mean


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="diffusers folder")
    parser.add_argument("out", type=Path, help="where the same model with a centred VAE is written")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--size", type=int, default=512, help="of the renders that latents.py encoded, px")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    center(parse())
