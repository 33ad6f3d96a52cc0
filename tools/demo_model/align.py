"""Give a VAE's latents the meaning of another's: `python tools/demo_model/align.py .work/vae OUT --like MODEL/vae`.

A VAE that is trained on keeps what its latents tell but not how: after 7,800 steps their spread was 5.8 instead of 1
and their channels were mixed, so that a UNet and a text encoder of the old latents knew nothing of the new ones. A 4x4
map and an offset, fitted on true pictures, take most of that back: 0.85 to 0.9 of each channel's variance. They go into
the VAE's two 1x1 convolutions, so its pictures stay what they were.

One axis of the shipped VAE's latents is only 0.03 wide, and no UNet is that exact: noise of 0.1 on the latents cost 11
and 15 dB there, and 3 and 6 dB with no axis under 0.4 (two pictures). Hence `--floor`.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from data import WORK, Renders, Scenes
from norms import FREED, bound, read_freed, write_freed
from norms import free as free_of
from torch import Tensor
from training import autocast, pick_device
from vae import draw_some

logger = logging.getLogger(__name__)


def fit(latents: Tensor, wanted: Tensor, *, floor: float) -> tuple[Tensor, Tensor]:
    """Return (4, 4) `map` and (4,) `offset`, so that `latents` (B, 4, H, W) become nearly `wanted` as map @ x + offset.

    The result has the covariance of `wanted`, but no axis of a spread under `floor`.
    """
    x, y = (values.transpose(0, 1).flatten(1).double() for values in (latents, wanted))
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    x, y = x - x_mean, y - y_mean
    from_x, to_y = power(torch.cov(x), -0.5), power(torch.cov(y), 0.5, floor=floor)
    left, _, right = torch.linalg.svd(power(torch.cov(y), -0.5) @ y @ (from_x @ x).T)
    found = to_y @ left @ right @ from_x
    lost = (y - found @ x).square().mean(1) / y.square().mean(1)
    logger.info("explained of each channel: %s", [round(1 - share, 3) for share in lost.tolist()])
    return found.float(), (y_mean - found @ x_mean)[:, 0].float()


def power(covariance: Tensor, exponent: float, *, floor: float = 0.0) -> Tensor:
    """Return a symmetric matrix to the power `exponent`, its eigenvalues taken for at least `floor` squared."""
    values, axes = torch.linalg.eigh(covariance)
    return axes @ torch.diag(values.clamp_min(floor**2) ** exponent) @ axes.T


@torch.no_grad()
def put_in(vae: Any, found: Tensor, offset: Tensor) -> None:
    """Make `vae` encode `found` @ x + `offset`, (4, 4) and (4,), where it encoded x, and decode what it decoded."""
    count = len(offset)
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    weight[:count] = torch.einsum("ij,jkhw->ikhw", found, weight[:count])  # the rest are the posterior's spreads
    bias[:count] = found @ bias[:count] + offset
    back = torch.linalg.inv(found.double()).float()
    old = vae.post_quant_conv.weight[:, :, 0, 0].clone()
    vae.post_quant_conv.weight[:, :, 0, 0] = old @ back
    vae.post_quant_conv.bias -= old @ back @ offset


@torch.no_grad()
def modes(vae: Any, pictures: Tensor) -> Tensor:
    """Return the means of the posteriors of `pictures` (B, 3, H, W) in [-1, 1], unscaled."""
    device = pick_device()
    with autocast(device):
        found = [vae.encode(picture[None].to(device)).latent_dist.mode().float().cpu() for picture in pictures]
    return torch.cat(found)


def align(options: argparse.Namespace) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    device = pick_device()
    pictures = draw_some(Renders(Scenes(options.work, variants=1), options.size), options.count)
    other = kind.from_pretrained(options.like).float().to(device).eval()
    vae = free_of(kind.from_config(kind.load_config(options.vae))).to(device)
    read_freed(vae, options.vae)
    vae.train()  # its norms need not note how large the features are
    scale = other.config.scaling_factor
    found, offset = fit(modes(vae, pictures), modes(other, pictures), floor=options.floor / scale)
    put_in(vae, found.to(device), offset.to(device))
    vae.register_to_config(scaling_factor=scale)
    latents = scale * modes(vae, pictures[:8])
    logger.info("mean %s", [round(value, 3) for value in latents.mean(dim=(0, 2, 3)).tolist()])
    logger.info("spread %s", [round(value, 3) for value in latents.std(dim=(0, 2, 3)).tolist()])
    spreads = torch.linalg.eigvalsh(torch.cov(latents.transpose(0, 1).flatten(1))).sqrt()
    logger.info("spread along the main axes %s", [round(value, 3) for value in spreads.tolist()])
    vae.register_to_config(_name_or_path="")  # no folder of this machine
    partial = options.out.with_name(f"{options.out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    with autocast(device):  # only how large the features get is wanted of these
        plain = bound(vae, pictures[:4].to(device))
    plain.half().save_pretrained(partial)
    write_freed(vae, partial)
    shutil.rmtree(options.out, ignore_errors=True)
    partial.rename(options.out)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", type=Path, help=f"folder that vae.py wrote, with its {FREED}")
    parser.add_argument("out", type=Path, help="where the same VAE with other latents is written")
    parser.add_argument("--like", type=Path, required=True, help="VAE folder whose latents they shall resemble")
    parser.add_argument("--floor", type=float, default=0.3, help="smallest spread of scaled latents along any axis")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--size", type=int, default=512, help="of the true pictures it is fitted on, px")
    parser.add_argument("--count", type=int, default=24, help="of those")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    align(parse())
