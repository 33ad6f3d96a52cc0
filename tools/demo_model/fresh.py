"""Pictures that no file holds, for unet.py on a machine with a GPU: drawn by the CPU's cores, encoded as they come.

A GPU looks at a thousand pictures a second and would see two rounds of renders hundreds of times; these have a ground,
a texture and, where they are windows of larger renders, a place of their own each.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
from typing import Any

import numpy as np
import torch
from batches import check_spread, encode
from data import Scenes
from torch import Tensor
from training import Ranks, ahead, spare_workers

logger = logging.getLogger(__name__)

MARGIN = 32
"""px around a window that are encoded with it and cut off: a window inside a picture has no border."""


class Fresh:
    """The latest `--fresh` pictures as latents on the VAE's device, of whole renders and of windows at twice the size;
    each process of `ranks` draws its own.
    """

    def __init__(
        self, scenes: Scenes, vae: Any, names: list[str], options: argparse.Namespace, *, size: int, ranks: Ranks
    ) -> None:
        workers = spare_workers()
        every = round(1 / options.close) if options.close else 0

        def make(number: int) -> tuple[np.ndarray, str, bool]:
            rng = random.Random(f"{options.seed} {ranks.place(number)}")
            close = every > 0 and number % every == 0
            whole = 2 * size if close else size
            side = size + 2 * MARGIN if close else size
            picture, caption = scenes.anew(rng, rng.choice(names), size=whole, side=side)
            return picture, "" if rng.random() < options.drop else caption, close

        things = sorted({scene.thing for scene in scenes.scenes})
        wanted = list(itertools.product(things, (size, 2 * size) if every else (size,)))
        # into files that all processes share, or each would rasterize all of them
        for _ in ahead(lambda number: scenes.drawing(*wanted[number]).size, range(len(wanted)), workers=workers):
            pass
        self.vae, self.held = vae, options.fresh
        self.stream = ahead(make, itertools.count(), workers=workers)
        self.pools: dict[bool, list[tuple[Tensor, str]]] = {False: [], True: []}
        self.step = max(options.batch // 8, 1)
        if every:
            self.step = -(-self.step // every) * every  # as many windows in each: shapes that repeat are fast
        logger.info("drawing %d pictures ahead", min(self.held, 16 * options.batch))
        while sum(map(len, self.pools.values())) < min(self.held, 16 * options.batch):
            self.grow(random.Random(options.seed))
        check_spread(self.pools[False][0][0])

    def grow(self, rng: random.Random) -> None:
        """Encode the next pictures; each takes the place of one at random when there are `--fresh`."""
        made = list(itertools.islice(self.stream, self.step))
        for close, pool in self.pools.items():
            part = [(picture, caption) for picture, caption, near in made if near == close]
            if not part:
                continue
            latents = encode(self.vae, np.stack([picture for picture, _ in part])).half()
            cut = MARGIN // 8
            latents = latents[..., cut:-cut, cut:-cut] if close else latents
            for latent, (_, caption) in zip(latents.unbind(), part, strict=True):
                if len(pool) < self.held:
                    pool.append((latent, caption))
                else:
                    pool[rng.randrange(len(pool))] = latent, caption

    def draw(self, rng: random.Random, count: int, *, close: int) -> tuple[Tensor, list[str]]:
        """Return (count, 4, side, side) latents and their captions, the last `close` of them windows."""
        drawn = rng.choices(self.pools[False], k=count - close)
        drawn += rng.choices(self.pools[True], k=close) if close else []
        return torch.stack([latent for latent, _ in drawn]).float(), [caption for _, caption in drawn]
