"""Encode renders ahead of training: `python tools/demo_model/latents.py --size 512 --variants 2`. Stopped, it goes on.

`unet.py` encodes what it draws when it first draws it; this does it beforehand, in as many processes as there are
cores (`--part 0/2` and `--part 1/2`), and only the rounds that `unet.py --variants` will draw.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from pathlib import Path
from typing import Any

import torch
from batches import Latents
from data import WORK, Renders, Scenes
from training import pick_device, spare_workers, tag_of

logger = logging.getLogger(__name__)


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    return int(index), int(count)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--vae", type=Path, default=WORK / "vae")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--variants", type=int, default=4, help="rounds of every pair")
    parser.add_argument("--count", type=int, help="only so many pairs, drawn evenly (enough for unet.py --close)")
    parser.add_argument("--part", type=_part, default=(0, 1), metavar="I/N", help="every Nth picture from the Ith on")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    scenes = Scenes(options.work, variants=options.variants)
    vae: Any = AutoencoderKL.from_pretrained(options.vae).float().eval()
    vae = vae.to(pick_device(), memory_format=torch.channels_last)
    renders = Renders(scenes, options.size)
    latents = Latents(renders, vae, tag=tag_of(options.vae))
    names = scenes.names
    if options.count is not None:
        names = random.Random(0).sample(names, min(options.count, len(names)))
    # the first round of every pair before the second of any
    rounds = [[scenes.variants[name][turn] for name in names] for turn in range(options.variants)]
    index, count = options.part
    wanted = [picture for indices in rounds for picture in indices][index::count]
    if workers := spare_workers():
        renders.render_all(wanted, workers=workers)
    shown = time.monotonic()
    for number, picture in enumerate(wanted):
        latents.get([picture])
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            logger.info("%d px: %d of %d", options.size, number + 1, len(wanted))
    logger.info("%d px: %d done", options.size, len(wanted))


if __name__ == "__main__":
    main()
