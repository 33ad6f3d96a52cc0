"""Give a trained model an outer level, so that it works at twice the size: `python tools/demo_model/grow.py IN OUT`.

A model trained at 256 px knows what things look like on a 32x32 grid. Its whole UNet becomes the inside of a new one:
a DownBlock brings the 64x64 latent of a 512 px picture to that grid, an UpBlock brings the features back. The inside
sees objects at the size it learned them, so nothing of their layout has to be learned again.

The new parts are fitted, not drawn: the DownBlock gives what the old first convolution gave for the pooled latent; the
timestep embedding is that of the old timestep with the same signal-to-noise ratio after pooling, which averages four
values of the noise. Then the UNet is trained as a whole by `unet.py --start OUT --stages 512:MINUTES`.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from data import WORK
from torch import Tensor, nn
from unet import Model, tag_of, write_index

logger = logging.getLogger(__name__)


def grown_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the UNet's `config` with one more level outside, as wide as the outermost was."""
    heads = config["attention_head_dim"]
    return {
        **config,
        "block_out_channels": [config["block_out_channels"][0], *config["block_out_channels"]],
        "down_block_types": ["DownBlock2D", *config["down_block_types"]],
        "up_block_types": [*config["up_block_types"], "UpBlock2D"],
        "attention_head_dim": [heads[0], *heads] if isinstance(heads, list | tuple) else heads,
        "sample_size": 2 * config["sample_size"],
    }


def inner_key(key: str) -> str | None:
    """Return where the old UNet's parameter `key` lives in the grown one; None for what the grown one replaces."""
    kind, _, rest = key.partition(".")
    if kind == "down_blocks":
        level, _, rest = rest.partition(".")
        return f"down_blocks.{int(level) + 1}.{rest}"
    if kind in ("up_blocks", "mid_block"):
        return key
    return None


def twin_timesteps(alphas: Tensor) -> Tensor:
    """Return (T,) float: for each timestep the one, between two, whose signal-to-noise ratio is 4 times as high.

    Averaging 2x2 values leaves the signal and divides the noise's variance by 4. Below the first timestep's noise there
    is none to name, and 0 stands in.
    """
    level = (alphas / (1 - alphas)).log()
    wanted = (level + np.log(4.0)).numpy()
    steps = np.arange(len(alphas), dtype=np.float64)
    return torch.from_numpy(np.interp(wanted, level.numpy()[::-1], steps[::-1])).float()


def fit(module: nn.Module, loss: Any, *, steps: int, rate: float) -> float:
    """Minimise `loss()` over `module`'s parameters by Adam; return the last loss."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    value = float("nan")
    for _ in range(steps):
        error = loss()
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        optimizer.step()
        schedule.step()
        value = error.item()
    return value


def grow(model: Model, latents: Tensor, *, steps: int, seed: int) -> Any:
    """Return the grown UNet of `model`. `latents` (N, 4, h, w) are scaled latents at the new size."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(seed)
    kind: Any = UNet2DConditionModel
    old, alphas = model.unet.eval().requires_grad_(False), model.alphas
    new = kind.from_config(grown_config(dict(old.config)))
    state = {place: value for key, value in old.state_dict().items() if (place := inner_key(key))}
    missing, unexpected = new.load_state_dict(state, strict=False)
    if unexpected:
        raise SystemExit(f"the old UNet has parts without a place in the grown one: {', '.join(unexpected[:3])}")
    logger.info("%d tensors kept, %d new", len(state), len(missing))

    twins = twin_timesteps(alphas)
    everything = torch.arange(len(alphas))
    with torch.no_grad():
        wanted = old.time_embedding(old.time_proj(twins))
    new.time_embedding.load_state_dict(old.time_embedding.state_dict())
    error = fit(
        new.time_embedding,
        lambda: F.mse_loss(new.time_embedding(new.time_proj(everything)), wanted),
        steps=10 * steps,
        rate=2e-3,
    )
    logger.info("timestep embedding: error %.5f of variance %.5f", error, wanted.var().item())

    # the resnets of the new level begin as the identity: their last convolution gives zero
    outer = nn.ModuleList([new.conv_in, new.down_blocks[0]])
    last = new.up_blocks[-1]
    for resnet in [*new.down_blocks[0].resnets, *last.resnets]:
        nn.init.zeros_(resnet.conv2.weight)
        nn.init.zeros_(resnet.conv2.bias)
    with torch.no_grad():
        for resnet in last.resnets:  # of (features, skip) the features pass
            nn.init.zeros_(resnet.conv_shortcut.bias)
            nn.init.zeros_(resnet.conv_shortcut.weight)
            resnet.conv_shortcut.weight[:, : resnet.conv_shortcut.out_channels, 0, 0] = torch.eye(
                resnet.conv_shortcut.out_channels
            )
        new.conv_norm_out.load_state_dict(old.conv_norm_out.state_dict())
        new.conv_out.load_state_dict(old.conv_out.state_dict())
        smooth = torch.tensor([1.0, 2.0, 1.0])
        convolution = new.up_blocks[-2].upsamplers[0].conv
        nn.init.zeros_(convolution.bias)
        nn.init.zeros_(convolution.weight)
        for channel in range(convolution.out_channels):
            convolution.weight[channel, channel] = smooth.outer(smooth) / 16

    def down_error() -> Tensor:
        chosen = torch.randint(len(latents), (4,))
        timesteps = torch.randint(len(alphas), (4,))
        scale = alphas[timesteps][:, None, None, None]
        noisy = scale.sqrt() * latents[chosen] + (1 - scale).sqrt() * torch.randn(4, *latents.shape[1:])
        pooled = F.avg_pool2d(noisy, 2) / (scale + (1 - scale) / 4).sqrt()  # of the old input's variance
        embedding = new.time_embedding(new.time_proj(timesteps)).detach()
        features, _ = new.down_blocks[0](new.conv_in(noisy), embedding)
        return F.mse_loss(features, old.conv_in(pooled))

    error = fit(outer, down_error, steps=steps, rate=2e-3)
    logger.info("DownBlock for the old first convolution: error %.4f", error)
    return new


def write(model: Model, unet: Any, out: Path) -> None:
    """Write `model` with the grown `unet` as a diffusers folder."""
    for part in ("tokenizer", "scheduler", "vae", "text_encoder"):
        shutil.copytree(model.folder / part, out / part)
    unet.save_pretrained(out / "unet")
    write_index(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="diffusers folder of the smaller model")
    parser.add_argument("out", type=Path, help="where the grown one is written")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.out.exists():
        raise SystemExit(f"{options.out} exists; give a folder that does not")
    model = Model(options.model)
    size = 2 * 8 * model.unet.config.sample_size
    tag = tag_of(options.model / "vae")
    cache = options.work / "latents" / f"{tag}-{size}.npy"
    if not cache.is_file():
        raise SystemExit(f"{cache} is missing; run latents.py --size {size} first")
    done = np.load(cache.with_name(f"{cache.stem}-done.npy"))[:, 0].astype(bool)
    latents = torch.from_numpy(np.load(cache, mmap_mode="r")[done, 0]).float()
    write(model, grow(model, latents, steps=options.steps, seed=options.seed), options.out)


if __name__ == "__main__":
    main()
