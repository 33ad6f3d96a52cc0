"""Teach the text encoder what its captions look like, before the UNet has to learn it from noise.

`python tools/demo_model/text.py --start MODEL --out .work/taught --minutes 18`

CLIP's text encoder is taught on pictures too, by contrast. Here the target is the picture itself, coarsely: every
token behind the caption's end is a padding token that sees the whole caption, and the token at position FIRST + k is
taught to hold, linearly, cell k of an 8x8 grid over the latent: 4x4 values of 4 channels, and what texture it has.
Cross-attention then only has to find the cell, which is learned once for all names, where a code for the whole picture
would have to be unfolded.
It goes on from the encoder of `--start` and needs the latents that latents.py makes; `unet.py --start` goes on from
`--out`.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import WORK, Scenes
from torch import Tensor
from torch.nn import functional
from training import autocast, cosine, pick_device, save_atomically, tag_of

logger = logging.getLogger(__name__)

FIRST = 13
"""The first token that holds a cell; longer captions lose cells of the upper edge."""
GRID, PATCH = 8, 4
SHIFTS, TEXTURE = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0)), 5.0
"""Rows and columns of latent values over which a texture is measured, and the factor that makes it count a third of a
cell. Their means over a picture's textured cells name 86 % of 664 pictures' materials, 11 with "plain", by a linear fit
to 664 others; its colours name 9 %, and an encoder taught colours alone left every material looking alike."""


def cells_of(latents: Tensor) -> Tensor:
    """Return (B, 64, 88), the GRIDxGRID cells of (B, 4, H, W) latents: 4 channels of PATCHxPATCH means, and of each
    channel the mean difference from itself moved by each of SHIFTS: how fine a texture is and how it runs."""
    pooled = functional.adaptive_avg_pool2d(latents, GRID * PATCH)
    batch, channels = pooled.shape[:2]
    cut = pooled.reshape(batch, channels, GRID, PATCH, GRID, PATCH)
    colours = cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, GRID * GRID, channels * PATCH * PATCH)
    moved = torch.cat([(latents - latents.roll(shift, dims=(2, 3))).abs() for shift in SHIFTS], dim=1)
    texture = functional.adaptive_avg_pool2d(moved, GRID).flatten(2).transpose(1, 2)
    return torch.cat([colours, TEXTURE * texture], dim=2)


def teach(options: argparse.Namespace) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(options.seed)
    scenes = Scenes(options.work, variants=options.variants)
    tokenizer: Any = CLIPTokenizer.from_pretrained(options.start / "tokenizer")
    stem = f"{tag_of(options.start / 'vae')}-{scenes.file_name(options.size)}"
    done = np.load(options.work / "latents" / f"{stem}-done.npy")
    values = np.load(options.work / "latents" / f"{stem}.npy", mmap_mode="r")
    pictures = {name: [index for index in indices if done[index]] for name, indices in scenes.variants.items()}
    known = {name: indices for name, indices in pictures.items() if indices}
    names = list(known)
    row = {index: place for place, index in enumerate(index for indices in known.values() for index in indices)}
    target = cells_of(torch.from_numpy(np.array(values[list(row)])).float())
    mean = target.mean(dim=0)
    spread = (target - mean).square().mean().item()
    device = pick_device()
    text: Any = CLIPTextModel.from_pretrained(options.start / "text_encoder").float()
    head = torch.nn.Linear(text.config.hidden_size, target.shape[2])
    with torch.no_grad():
        head.weight.mul_(0.1)
        head.bias.zero_()
    text.to(device)
    head.to(device)
    taught = [*text.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(taught, lr=options.rate, weight_decay=0.0, fused=True)
    spent, step = 0.0, 0
    if options.state.is_file():
        state = torch.load(options.state, map_location=device, weights_only=True)
        text.load_state_dict(state["text"])
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        spent, step = state["spent"], state["step"]

    def save() -> None:
        state = {"text": text.state_dict(), "head": head.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"mean": mean, "spread": torch.tensor(spread)}
        save_atomically({**state, "spent": spent, "step": step}, options.state)

    shown = saved = time.monotonic()
    errors: list[float] = []
    first_step = step
    while spent < options.minutes * 60 and (options.steps < 0 or step - first_step < options.steps):
        began = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = options.rate * cosine(spent / (options.minutes * 60), warm=0.05)
        rng = random.Random(options.seed * 1_000_003 + step)
        chosen = [rng.choice(known[name]) for name in rng.sample(names, min(options.batch, len(names)))]
        captions = [scenes.loose_caption(rng, index) for index in chosen]
        wanted = (target[[row[index] for index in chosen]] - mean).to(device)
        for place in range(len(chosen)):
            if rng.random() < 0.02:  # the empty caption is the mean picture
                captions[place], wanted[place] = "", 0.0
        tokens = tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        with autocast(device):
            guess = head(text(tokens.input_ids.to(device)).last_hidden_state[:, FIRST:])
        error = (guess.float() - wanted).square().mean() / spread
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        torch.nn.utils.clip_grad_norm_(taught, 1.0)
        optimizer.step()
        errors.append(error.item())
        step += 1
        spent += time.monotonic() - began
        if time.monotonic() - shown > 20:
            logger.info("step %d  %.0f s  unexplained share %.4f", step, spent, sum(errors) / len(errors))
            shown, errors = time.monotonic(), []
        if time.monotonic() - saved > 120:
            save()
            saved = time.monotonic()
    save()
    write(options, text)


def write(options: argparse.Namespace, text: Any) -> None:
    """Write `--out`: everything of `--start` with the taught encoder."""
    partial = options.out.with_name(f"{options.out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(options.start, partial, ignore=shutil.ignore_patterns("text_encoder"))
    text.half().save_pretrained(partial / "text_encoder")
    shutil.rmtree(options.out, ignore_errors=True)
    partial.rename(options.out)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--start", type=Path, required=True, help="diffusers folder to go on from")
    parser.add_argument("--out", type=Path, default=WORK / "taught", help="where the model is written")
    parser.add_argument("--state", type=Path, default=WORK / "taught.pt", help="what a later start goes on from")
    parser.add_argument("--size", type=int, default=512, help="of the renders that latents.py encoded, px")
    parser.add_argument("--minutes", type=float, default=18.0, help="training time over all starts")
    parser.add_argument("--steps", type=int, default=-1, help="stop after this many steps, however early")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--variants", type=int, default=4, help="rounds of every pair, as many as latents.py's")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    teach(parse())
