"""Train demo-net on the renders: `python tools/demo_model/demo_net.py --minutes 30`. Stopped, it goes on where it was.

The held-out names are labels too: demo-net is what judges whether the model can draw them.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import WORK, Collection, Renders
from safetensors.torch import save_file
from torch import Tensor
from training import pick_device, teach

from fam_ext.demo import demo_net
from fam_ext.demo.demo_net import DemoNet, agreement

logger = logging.getLogger(__name__)


def load_pictures(renders: Renders, indices: list[int]) -> Tensor:
    """Return uint8 pictures (B, 3, H, W)."""
    return torch.from_numpy(np.stack([renders[index] for index in indices])).permute(0, 3, 1, 2)


def augment(
    pictures: Tensor, size: int, *, mirrorable: Tensor, generator: torch.Generator, plain: float = 0.0
) -> Tensor:
    """Return float views (B, 3, size, size) in [0, 1]: moved, turned, zoomed, tinted, blurred, noisy, partly hidden.

    A share `plain` of them is as rendered, moved and turned by a fifth of what the others are.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    count = len(pictures)
    images = pictures.float() / 255 - 1  # white is zero: what moves in from outside is white
    if size < images.shape[-1]:
        images = F.interpolate(images, size=(size, size), mode="area")
    is_plain = uniform(0, 1, count) < plain
    extent = torch.where(is_plain, 0.2, 1.0)
    angle = extent * uniform(-0.26, 0.26, count)
    zoom = 1 + extent * uniform(-0.1, 0.4, count)
    side = torch.where((torch.rand(count, generator=generator) < 0.5) & mirrorable, -1.0, 1.0)
    shift = extent[:, None] * uniform(-0.15, 0.15, count, 2)
    rows = torch.stack([side * zoom * angle.cos(), -zoom * angle.sin(), shift[:, 0]], dim=1)
    columns = torch.stack([side * zoom * angle.sin(), zoom * angle.cos(), shift[:, 1]], dim=1)
    grid = F.affine_grid(torch.stack([rows, columns], dim=1), [count, 3, size, size], align_corners=False)
    images = F.grid_sample(images, grid, align_corners=False) + 1
    moved = images
    # soft pictures, as a half-trained model draws them
    small = int(size / uniform(1.0, 3.0, 1).item())
    blurred = F.interpolate(
        F.interpolate(images, size=(small, small), mode="bilinear", antialias=True), size=(size, size), mode="bilinear"
    )
    images = torch.where(uniform(0, 1, count, 1, 1, 1) < 0.5, blurred, images)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * uniform(0.7, 1.3, count, 1, 1, 1)
    images = (images - 0.5) * uniform(0.8, 1.2, count, 1, 1, 1) + 0.5 + uniform(-0.08, 0.08, count, 3, 1, 1)
    cloud = F.interpolate(torch.randn(count, 3, 8, 8, generator=generator), size=(size, size), mode="bicubic")
    images = images + uniform(0, 0.08, count, 1, 1, 1) * cloud
    images = images + uniform(0, 0.06, count, 1, 1, 1) * torch.randn(images.shape, generator=generator)
    # a white patch over up to a third of the side
    place = torch.arange(size)
    hidden: list[Tensor] = []
    for _ in range(2):
        start = uniform(0, size, count, 1)
        hidden.append((place >= start) & (place < start + uniform(0, size / 3, count, 1)))
    patch = hidden[0][:, None, :, None] & hidden[1][:, None, None, :]
    images = torch.where(patch & (uniform(0, 1, count, 1, 1, 1) < 0.4), 1.0, images)
    return torch.where(is_plain[:, None, None, None], moved, images).clamp(0, 1)


def train(options: argparse.Namespace) -> None:
    collection = Collection(options.work)
    renders = Renders(collection, demo_net.SIZE)
    labels = {name: index for index, name in enumerate(collection.names)}
    mirrorable = torch.tensor([not collection.mirrors_another(emoji.name) for emoji in collection.emojis])
    device = pick_device()
    torch.manual_seed(options.seed)
    net = DemoNet(len(labels)).to(device)
    net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def loss_of(step: int) -> Tensor:
        rng = random.Random(options.seed * 1_000_003 + step)
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        chosen = collection.draw(rng, options.batch)
        wanted = torch.tensor([labels[collection.emojis[index].name] for index in chosen]).to(device)
        views = augment(
            load_pictures(renders, chosen), demo_net.SIZE, mirrorable=mirrorable[chosen], generator=generator,
            plain=options.plain,
        )  # fmt: skip
        views = views.to(device).contiguous(memory_format=torch.channels_last)
        return F.cross_entropy(net(views), wanted, label_smoothing=0.1)

    state = options.work / "demo_net.pt"
    step, seconds = teach(net, loss_of, state=state, minutes=options.minutes, steps=options.steps, rate=options.rate)
    write(net, collection.names, options.out)
    top1, top5 = check(net, collection, renders, count=options.check, seed=options.seed + 1)
    size = (options.out / demo_net.WEIGHTS.name).stat().st_size / 1e6
    logger.info(
        "demo-net: %d steps, %.0f s, %.1f MB; unseen augmentations of renders: top-1 %.3f, top-5 %.3f (n %d)",
        step, seconds, size, top1, top5, options.check,
    )  # fmt: skip


@torch.no_grad()
def check(net: DemoNet, collection: Collection, renders: Renders, *, count: int, seed: int) -> tuple[float, float]:
    """Return top-1 and top-5 on `count` augmented renders that no training step drew (another seed)."""
    labels = {name: index for index, name in enumerate(collection.names)}
    chosen = collection.draw(random.Random(-seed), count)
    generator = torch.Generator().manual_seed(2**40 + seed)
    logits: list[Tensor] = []
    for start in range(0, count, 64):
        part = chosen[start : start + 64]
        mirrorable = torch.zeros(len(part), dtype=torch.bool)
        views = augment(load_pictures(renders, part), demo_net.SIZE, mirrorable=mirrorable, generator=generator)
        logits.append(net(views.to(next(net.parameters()).device)).cpu())
    return agreement(torch.cat(logits), [labels[collection.emojis[index].name] for index in chosen])


def write(net: DemoNet, names: list[str], folder: Path) -> None:
    """Write demo-net's fp16 weights and its labels into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous().cpu() for k, v in net.state_dict().items() if not k.endswith("batches_tracked")}
    save_file(state, folder / demo_net.WEIGHTS.name)
    text = json.dumps({"size": demo_net.SIZE, "labels": names}, indent=0)
    (folder / demo_net.LABELS.name).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=demo_net.WEIGHTS.parent)
    parser.add_argument("--minutes", type=float, default=30.0, help="training time, over all starts")
    parser.add_argument("--steps", type=int, default=-1, help="stop after this many steps, however early")
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--plain", type=float, default=0.0, help="share of the views that are as rendered, but moved")
    parser.add_argument("--check", type=int, default=1600, help="augmented renders to check on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(options)


if __name__ == "__main__":
    main()
