"""Teach the text encoder what its captions look like, before the UNet has to learn it from noise.

`python tools/demo_model/text.py --start .work/grown --out .work/taught --minutes 18`

CLIP's text encoder is taught on pictures too, by contrast. Here the target is the picture itself, coarsely: every
token behind the caption's end is a padding token that sees the whole caption, and the token at position FIRST + k is
taught to hold, linearly, cell k of an 8x8 grid over the latent: 4x4 values of 4 channels, and what texture it has.
Cross-attention then only has to find the cell, which is learned once for all names, where a code for the whole picture
would have to be unfolded.
Needs the latents that latents.py makes. `unet.py --start` goes on from the folder; its cross-attention must be
learned anew, so `--out` gets fresh key and value projections.
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
from data import WORK, collection_of
from torch import Tensor
from torch.nn import functional
from training import autocast, cosine, pick_device, save_atomically, tag_of

logger = logging.getLogger(__name__)

FIRST = 13
"""The first token that holds a cell: 99 % of the captions end before it, the rest lose cells of the upper edge."""
GRID, PATCH = 8, 4
LAYERS, WIDE = 4, 1024
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


def fresh_text(start: Path, *, wide: int) -> Any:
    """Return an untrained CLIP text encoder for the tokenizer of `start`, as wide as its UNet's cross-attention, its
    MLPs having `wide` neurons."""
    from transformers import CLIPTextConfig, CLIPTextModel

    old = CLIPTextConfig.from_pretrained(start / "text_encoder")
    old.num_hidden_layers, old.intermediate_size = LAYERS, wide
    return CLIPTextModel(old).float()


def neurons(wanted: int | None, text: dict[str, Tensor] | None) -> int:
    """Return how many neurons an MLP gets: `wanted`, else those of the encoder `text`, else WIDE; exits when that
    would take some away."""
    if text is None:
        return wanted or WIDE
    held = next(len(value) for key, value in text.items() if key.endswith("fc1.bias"))
    if wanted is not None and wanted < held:
        raise SystemExit(
            f"--wide is {wanted}, but the encoder has {held} neurons; give {held} or more, or leave it out"
        )
    return wanted or held


def widened(text: dict[str, Tensor], fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder `text` with as many neurons in its MLPs as the untrained `fresh` has: the new ones read as
    they do in `fresh` and write nothing yet, so the encoder says what it said."""
    grown = {key: value.clone() for key, value in text.items()}
    for key, value in fresh.items():
        old = text[key]
        if old.shape == value.shape:
            continue
        grown[key] = value.clone()
        if key.endswith("fc2.weight"):
            grown[key].zero_()
        grown[key][tuple(slice(size) for size in old.shape)] = old
    return grown


def teach(options: argparse.Namespace) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(options.seed)
    collection = collection_of(options)
    tokenizer: Any = CLIPTokenizer.from_pretrained(options.start / "tokenizer")
    stem = f"{tag_of(options.start / 'vae')}-{collection.file_name(options.size)}"
    done = np.load(options.work / "latents" / f"{stem}-done.npy")[:, 0]
    values = np.load(options.work / "latents" / f"{stem}.npy", mmap_mode="r")
    indices = [index for name in collection.training_names() for index in collection.variants[name] if done[index]]
    target = cells_of(torch.from_numpy(np.array(values[indices, 0])).float())
    mean = target.mean(dim=0)
    spread = (target - mean).square().mean().item()
    row = {index: place for place, index in enumerate(indices)}
    known = {
        name: found
        for name in collection.training_names()
        if (found := [index for index in collection.variants[name] if index in row])
    }
    names = [name for name in collection.training_pool(options.first, options.first_share) if name in known]
    device = pick_device()
    held = options.state.is_file()
    state: dict[str, Any] | None = torch.load(options.state, map_location=device, weights_only=True) if held else None
    parts = state or (carried(options.carry) if options.carry is not None else None)
    if options.keep:
        text: Any = CLIPTextModel.from_pretrained(options.start / "text_encoder").float()
    else:
        text = fresh_text(options.start, wide=neurons(options.wide, parts["text"] if parts else None))
    head = torch.nn.Linear(text.config.hidden_size, target.shape[2])
    with torch.no_grad():
        head.weight.mul_(0.1)
        head.bias.zero_()
    text.to(device)
    head.to(device)
    taught = [*text.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(taught, lr=options.rate, weight_decay=0.0, fused=True)
    spent, step = 0.0, 0
    if parts is not None:
        text.load_state_dict(widened(parts["text"], text.state_dict()))
        head.load_state_dict(parts["head"])
    if state is not None:
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
        captions = [collection.loose_caption(rng, index, synonyms=options.synonyms) for index in chosen]
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
    if options.carry is not None and options.wide is None:
        put_back(options.carry, {"text": text.state_dict(), "head": head.state_dict()})
    else:
        write(options, text)


def carried(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return the averaged text encoder and its head in unet.py's state at `path`; exits when it has no head."""
    average = torch.load(path, map_location="cpu", weights_only=True)["average"]
    parts = {
        part: {key.removeprefix(f"{part}."): value for key, value in average.items() if key.startswith(f"{part}.")}
        for part in ("text", "head")
    }
    if not parts["head"]:
        raise SystemExit(f"{path} was made without --cells, so its text encoder holds none; leave --carry out")
    return parts


def put_back(path: Path, parts: dict[str, dict[str, Tensor]]) -> None:
    """Put `parts` into unet.py's state at `path`, whose weights become their average."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    for part, values in parts.items():
        state["average"] |= {f"{part}.{key}": value.clone() for key, value in values.items()}
    state["model"] = {key: value.clone() for key, value in state["average"].items()}
    save_atomically(state, path)


def write(options: argparse.Namespace, text: Any) -> None:
    """Write `--out`: everything of `--start` with the taught encoder, and untaught key and value projections where
    the encoder was taught from nothing."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    partial = options.out.with_name(f"{options.out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(options.start, partial, ignore=shutil.ignore_patterns("unet", "text_encoder"))
    unet: Any = UNet2DConditionModel.from_pretrained(options.start / "unet").float()
    for name, module in unet.named_modules():
        if options.carry is None and not options.keep and name.endswith(("attn2.to_k", "attn2.to_v")):
            module.reset_parameters()
    unet.half().save_pretrained(partial / "unet")
    text.half().save_pretrained(partial / "text_encoder")
    shutil.rmtree(options.out, ignore_errors=True)
    partial.rename(options.out)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--scenes", action="store_true", help="things made of materials instead of all emoji")
    parser.add_argument("--start", type=Path, required=True, help="diffusers folder that gives all but the encoder")
    parser.add_argument("--out", type=Path, default=WORK / "taught", help="where the model is written")
    parser.add_argument("--state", type=Path, default=WORK / "taught.pt", help="what a later start goes on from")
    parser.add_argument(
        "--carry", type=Path, help="unet.py's state: its encoder is taught further and put back, and no --out written"
    )
    parser.add_argument(
        "--keep", action="store_true", help="go on from the encoder of --start, and keep its cross-attention"
    )
    parser.add_argument(
        "--wide",
        type=int,
        help=f"neurons of the MLPs, {WIDE} unless told; with --carry they grow, and --out is written",
    )
    parser.add_argument("--size", type=int, default=512, help="of the renders that latents.py encoded, px")
    parser.add_argument("--minutes", type=float, default=18.0, help="training time over all starts")
    parser.add_argument("--steps", type=int, default=-1, help="stop after this many steps, however early")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--synonyms", type=float, default=0.15, help="share of captions by another name")
    parser.add_argument("--variants", type=int, default=2, help="at most so many skin tones a base name")
    parser.add_argument("--first", type=Path, help="file of base names, drawn more often than the others")
    parser.add_argument("--first-share", type=float, default=0.85, help="share of the draws that --first gets")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    teach(parse())
