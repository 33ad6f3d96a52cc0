"""Train the VAE on crops of the renders: `python tools/demo_model/vae.py --minutes 60`. Stopped, it goes on.

The loss is L1, L1 of the gradients, L1 of the 4x pooled picture, with --colour that of the 32x pooled one, and a little
KL; crops come from renders at several sizes, so that the latent means the same at 256, 512 and 1024 px. GroupNorm's
statistics are those of all that is shown at once, so a VAE that has seen only crops gets the colours of whole pictures
wrong: every `--whole`th step shows one whole picture. At the end the averaged weights are written to `.work/vae`.

`--decoder-only` leaves the encoder as it is, to the bit, so that latents and UNets made with it stay right.
"""

from __future__ import annotations

import argparse
import copy
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
from data import WORK, Collection, Renders, Scenes, collection_of
from norms import bound, free, has_freed, keep_encoder, read_freed, write_freed
from torch import Tensor
from training import ENCODER, Average, Clock, ahead, autocast, cosine, pick_device, save_atomically, spare_workers

logger = logging.getLogger(__name__)

VAE: dict[str, Any] = {
    "block_out_channels": [64, 64, 128, 128],  # 32 groups are what the WebUI's code fixes: 2 and 4 channels each
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "mid_block_add_attention": False,
    "sample_size": 512,
}


def crop(picture: np.ndarray, side: int, rng: random.Random) -> np.ndarray:
    """Return a random (side, side, 3) piece, of the whole ones the one with the most drawing out of three."""
    room = len(picture) - side
    best, most = picture[:side, :side], -1.0
    for _ in range(3):
        top, left = rng.randint(0, room), rng.randint(0, room)
        piece = picture[top : top + side, left : left + side]
        drawn = float(np.abs(piece[::4, ::4].astype(np.int16) - 255).mean())
        if drawn > most:
            best, most = piece, drawn
    return best[:, ::-1] if rng.random() < 0.5 else best


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


def draw_some(collection: Collection | Scenes, renders: Renders, count: int) -> Tensor:
    """Return `count` whole pictures (count, 3, H, W) in [-1, 1], always the same ones."""
    return as_tensor(np.stack([renders[index] for index in collection.draw(random.Random(0), count)]))


def as_tensor(pictures: np.ndarray) -> Tensor:
    """Return uint8 (B, H, W, 3) as (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def scaling_factor(vae: Any, pictures: Tensor) -> float:
    """Return 1 / (standard deviation of the latents of `pictures`), so that scaled latents have unit variance."""
    latents = torch.cat([vae.encode(picture[None]).latent_dist.mode() for picture in pictures])
    return 1 / latents.std().item()


def train(options: argparse.Namespace, config: dict[str, Any] | None = None) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    collection = collection_of(options)
    renders = [Renders(collection, size) for size in options.sizes]
    device = pick_device()
    torch.manual_seed(options.seed)
    kind: Any = AutoencoderKL
    if options.start is not None and has_freed(options.start):
        vae: Any = kind.from_config(kind.load_config(options.start)).to(device).train()  # the weights come below
    elif options.start is not None:
        vae = kind.from_pretrained(options.start).float().to(device).train()
    else:
        vae = kind.from_config({**VAE, **(config or {})}).to(device).train()
    scale = vae.config.scaling_factor if options.start is not None else None
    if options.start is not None and has_freed(options.start) and not options.free:
        raise SystemExit(f"{options.start} holds a VAE that was trained without GroupNorm's statistics; add --free")
    if options.free:
        begins = options.start is not None and not (has_freed(options.start) or options.state.is_file())
        vae = free(vae, draw_some(collection, renders[0], 12).to(device) if begins else None).train()
        if options.start is not None and has_freed(options.start):
            read_freed(vae, options.start)
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

    def draw(rng: random.Random, count: int, side: int) -> np.ndarray:
        pieces: list[np.ndarray] = []
        if isinstance(collection, Scenes):
            pieces = [collection.piece(rng, size=rng.choice(options.sizes), side=side) for _ in range(count)]
        else:
            for index in collection.draw(rng, count, names=collection.training_names()):
                pieces.append(crop(rng.choice(renders)[index], side, rng))
        return np.stack(pieces)

    def draw_whole(rng: random.Random) -> np.ndarray:
        if isinstance(collection, Scenes):
            return collection.piece(rng, size=options.sizes[-1], side=options.sizes[-1])[None]
        return renders[-1][collection.draw(rng, 1, names=collection.training_names())[0]][None]

    def batch(number: int) -> np.ndarray:
        rng = random.Random(options.seed * 1_000_003 + number)
        whole = options.whole > 0 and number % options.whole == 0
        return draw_whole(rng) if whole else draw(rng, options.batch, options.crop)

    def save() -> None:
        state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        save_atomically({**state, "spent": clock.total(), "step": step}, options.state)

    def write() -> None:
        current = {key: value.clone() for key, value in vae.state_dict().items()}
        average.copy_to(vae)
        whole = min(options.sizes)
        drawn = draw(random.Random(options.seed), options.scale_from if scale is None else 1, whole)
        sample = as_tensor(drawn).to(device)
        factor = scaling_factor(vae.eval(), sample)
        if scale is not None and not 2 / 3 < scale / factor < 3 / 2:
            logger.warning("the latents' spread is %.1f and a UNet needs about 1: run align.py", scale / factor)
        vae.register_to_config(scaling_factor=factor if scale is None else scale)
        partial = options.out.with_name(f"{options.out.name}.part")
        if options.free:
            pictures = draw_some(collection, renders[0], 12).to(device)
            plain = bound(vae, pictures, decoder_only=options.decoder_only)
        else:
            plain = copy.deepcopy(vae)
        plain.half().save_pretrained(partial)
        if options.free:
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
        pictures = as_tensor(next(batches)).to(device, memory_format=torch.channels_last)
        with autocast(device):
            with torch.set_grad_enabled(not options.decoder_only):
                posterior = vae.encode(pictures).latent_dist
                latent = posterior.sample()
            if options.latent_noise:
                latent = latent + options.latent_noise / vae.config.scaling_factor * torch.randn_like(latent)
            decoded = vae.decode(latent).sample
        loss = loss_of(pictures, decoded.float(), posterior, kl=options.kl, colour=options.colour)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        average.update(vae)
        step += 1
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            psnr = -10 * torch.log10((decoded.float() - pictures).square().mean() / 4).item()
            sides = f"{len(pictures)} of {pictures.shape[-1]} px"
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
    parser.add_argument("--scenes", action="store_true", help="things made of materials instead of all emoji")
    parser.add_argument("--start", type=Path, help="VAE folder to go on from, whose scaling factor is kept")
    parser.add_argument("--out", type=Path, default=WORK / "vae", help="where the averaged VAE is written")
    parser.add_argument("--state", type=Path, default=WORK / "vae.pt", help="what a later start goes on from")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time, over all starts")
    parser.add_argument("--steps", type=int, default=-1, help="stop after this many steps, however early")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of the renders in px")
    parser.add_argument("--crop", type=int, default=64, help="side of a crop in px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=7e-4)
    parser.add_argument("--kl", type=float, default=1e-4)
    parser.add_argument("--free", action="store_true", help="train without GroupNorm's statistics, see norms.py")
    parser.add_argument(
        "--decoder-only", action="store_true", help="leave the encoder of --start as it is; needs --free"
    )
    parser.add_argument(
        "--latent-noise", type=float, default=0.0, help="spread of noise on scaled latents, which a UNet's have too"
    )
    parser.add_argument("--colour", type=float, default=0.0, help="weight of the means over 32x32 px")
    parser.add_argument(
        "--whole", type=int, default=0, help="every so many steps show one whole picture of the last size; 0 = never"
    )
    parser.add_argument("--average", type=float, default=0.999, help="decay of the weights' moving average")
    parser.add_argument("--variants", type=int, default=1, help="with --scenes, rounds of every pair")
    parser.add_argument("--scale-from", type=int, default=64, help="pictures that the latent's scale is taken from")
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.crop > min(options.sizes):
        parser.error(
            f"--crop {options.crop} is larger than the smallest of --sizes, {min(options.sizes)}; give at most that"
        )
    if options.decoder_only and not (options.free and options.start is not None and has_freed(options.start)):
        parser.error("--decoder-only needs --free and a --start that vae.py --free wrote; give both")
    return options


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(parse())
