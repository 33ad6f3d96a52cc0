"""Train the VAE on pieces of true pictures: `python tools/demo_model/vae.py --start VAE --minutes 60`. Stopped, it goes
on.

The loss is L1, L1 of the gradients, L1 of the 4x pooled picture, with --colour that of the 32x pooled one, and a little
KL; pieces come from pictures at several sizes, so that the latent means the same at 256, 512 and 1024 px. It is trained
without GroupNorm's statistics (norms.py), and so learns the colours of whole pictures from pieces. At the end the
averaged weights are written to `.work/vae`.

`--decoder-only` leaves the encoder as it is, to the bit, so that latents and UNets made with it stay right.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from data import WORK, Renders, Scenes
from norms import bound, free, has_freed, keep_encoder, read_freed, write_freed
from torch import Tensor
from training import ENCODER, Average, Clock, ahead, autocast, cosine, pick_device, save_atomically, spare_workers

logger = logging.getLogger(__name__)


def loss_of(picture: Tensor, decoded: Tensor, posterior: Any, *, kl: float, colour: float = 0.0) -> Tensor:
    """Return the training loss of pictures (B, 3, H, W) in [-1, 1] and what the VAE made of them; `colour` weighs
    the means over 32x32 px."""
    error = decoded - picture
    across = error[..., :, 1:] - error[..., :, :-1]
    down = error[..., 1:, :] - error[..., :-1, :]
    pixels = error.abs().mean()
    edges = across.abs().mean() + down.abs().mean()
    pooled = F.avg_pool2d(error, 4).abs().mean()
    coarse = F.avg_pool2d(error, min(32, *picture.shape[-2:]))
    coarse_colour = coarse.abs().mean() + 4 * coarse.square().mean()
    return pixels + edges + pooled + colour * coarse_colour + kl * posterior.kl().mean() / picture[0].numel()


def draw_some(renders: Renders, count: int) -> Tensor:
    """Return `count` whole pictures (count, 3, H, W) in [-1, 1], always the same ones."""
    return as_tensor(np.stack([renders[index] for index in renders.scenes.draw(random.Random(0), count)]))


def as_tensor(pictures: np.ndarray) -> Tensor:
    """Return uint8 (B, H, W, 3) as (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def train(options: argparse.Namespace) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    scenes = Scenes(options.work, variants=1)
    device = pick_device()
    pictures = draw_some(Renders(scenes, options.sizes[0]), 12).to(device)
    torch.manual_seed(options.seed)
    kind: Any = AutoencoderKL
    if has_freed(options.start):
        vae: Any = free(kind.from_config(kind.load_config(options.start)).to(device)).train()
        read_freed(vae, options.start)
    else:
        vae = kind.from_pretrained(options.start).float().to(device)
        vae = free(vae, None if options.state.is_file() else pictures).train()
    vae = vae.to(memory_format=torch.channels_last)  # a third faster on a CPU
    if options.decoder_only:
        for name, value in vae.named_parameters():
            value.requires_grad_(not name.startswith(ENCODER))
    learning = [value for value in vae.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=options.rate, weight_decay=1e-4)
    average = Average(vae, options.average)
    clock, step = Clock(options.minutes * 60), 0
    if options.state.is_file():
        state = torch.load(options.state, map_location=device, weights_only=True)
        if len(state["optimizer"]["param_groups"][0]["params"]) != len(learning):
            raise SystemExit(f"{options.state} was made with another --decoder-only; give another --state")
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"], steps=state["step"])
        clock.spent, step = state["spent"], state["step"]
        logger.info("going on from step %d, %.0f s", step, clock.spent)

    def batch(number: int) -> np.ndarray:
        rng = random.Random(options.seed * 1_000_003 + number)
        pieces = [scenes.piece(rng, size=rng.choice(options.sizes), side=options.crop) for _ in range(options.batch)]
        return np.stack(pieces)

    def save() -> None:
        state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        save_atomically({**state, "spent": clock.total(), "step": step}, options.state)

    @torch.no_grad()
    def write() -> None:
        current = {key: value.clone() for key, value in vae.state_dict().items()}
        average.copy_to(vae)
        spread = vae.config.scaling_factor * vae.eval().encode(pictures[:1]).latent_dist.mode().std().item()
        if not 2 / 3 < spread < 3 / 2:
            logger.warning("the latents' spread is %.1f and a UNet needs about 1: run align.py", spread)
        partial = options.out.with_name(f"{options.out.name}.part")
        bound(vae, pictures, decoder_only=options.decoder_only).half().save_pretrained(partial)
        write_freed(vae, partial)
        if options.decoder_only:
            keep_encoder(options.start, partial)
        vae.load_state_dict(current)
        vae.train()
        shutil.rmtree(options.out, ignore_errors=True)
        partial.rename(options.out)

    first_step = step
    batches = ahead(batch, itertools.count(step), workers=spare_workers())
    saved = shown = time.monotonic()
    while not clock.done() and (options.steps < 0 or step - first_step < options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * cosine(clock.share())
        pieces = as_tensor(next(batches)).to(device, memory_format=torch.channels_last)
        with autocast(device):
            with torch.set_grad_enabled(not options.decoder_only):
                posterior = vae.encode(pieces).latent_dist
                latent = posterior.sample()
            if options.latent_noise:
                latent = latent + options.latent_noise / vae.config.scaling_factor * torch.randn_like(latent)
            decoded = vae.decode(latent).sample
        loss = loss_of(pieces, decoded.float(), posterior, kl=options.kl, colour=options.colour)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        average.update(vae)
        step += 1
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            psnr = -10 * torch.log10((decoded.float() - pieces).square().mean() / 4).item()
            sides = f"{len(pieces)} of {pieces.shape[-1]} px"
            logger.info("step %d  %.0f s  loss %.4f  %.1f dB on %s", step, clock.total(), loss.item(), psnr, sides)
        if time.monotonic() - saved > options.save_every * 60:
            save()
            saved = time.monotonic()
    batches.close()
    save()
    write()
    logger.info("%d steps, %.0f s; averaged weights in %s", step, clock.total(), options.out)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument(
        "--start", type=Path, required=True, help="VAE folder to go on from; its scaling factor is kept"
    )
    parser.add_argument("--out", type=Path, default=WORK / "vae", help="where the averaged VAE is written")
    parser.add_argument("--state", type=Path, default=WORK / "vae.pt", help="what a later start goes on from")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time, over all starts")
    parser.add_argument("--steps", type=int, default=-1, help="stop after this many steps, however early")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of the true pictures in px")
    parser.add_argument("--crop", type=int, default=64, help="side of a piece in px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=7e-4)
    parser.add_argument("--kl", type=float, default=1e-4)
    parser.add_argument("--decoder-only", action="store_true", help="leave the encoder of --start as it is")
    parser.add_argument(
        "--latent-noise", type=float, default=0.0, help="spread of noise on scaled latents, which a UNet's have too"
    )
    parser.add_argument("--colour", type=float, default=0.0, help="weight of the means over 32x32 px")
    parser.add_argument("--average", type=float, default=0.999, help="decay of the weights' moving average")
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.crop > min(options.sizes):
        parser.error(
            f"--crop {options.crop} is larger than the smallest of --sizes, {min(options.sizes)}; give at most that"
        )
    if options.decoder_only and not has_freed(options.start):
        parser.error(f"--decoder-only needs a --start that vae.py wrote, and {options.start} is none")
    return options


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(parse())
