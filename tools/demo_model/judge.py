"""Train demo-net, which judges pictures of things made of materials: `python tools/demo_model/judge.py`. Stopped, it
goes on.

Whole pictures teach the thing, crops of 128 px as they are the material, and whether a crop's texture is native or
enlarged two times. It begins from the shipped demo-net; what it writes is shipped by copying it to `fam_ext/demo/`.
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
from data import WORK, Scenes, compose
from safetensors.torch import save_file
from things import MATERIALS, THINGS, Scene, draw_ground, is_held_out
from torch import Tensor
from training import pick_device, teach

from fam_ext.demo.demo_net import CROP, LISTS, SIZE, WEIGHTS, Judge, load_demo_net

logger = logging.getLogger(__name__)

KINDS: tuple[str | None, ...] = (None, *MATERIALS)
FULL = 0.5
"""The share of a training crop that the thing covers at least."""


def begun() -> Judge:
    """Return a judge of these things and materials with the shipped demo-net's eyes, and with its heads where they
    tell as much apart."""
    judge = Judge(list(THINGS), MATERIALS)
    own = judge.state_dict()
    known = {key: value for key, value in load_demo_net().state_dict().items() if value.shape == own[key].shape}
    judge.load_state_dict({**own, **known})
    return judge


def augment(pictures: Tensor, size: int, *, generator: torch.Generator, plain: float = 0.0) -> Tensor:
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
    shift = extent[:, None] * uniform(-0.15, 0.15, count, 2)
    rows = torch.stack([zoom * angle.cos(), -zoom * angle.sin(), shift[:, 0]], dim=1)
    columns = torch.stack([zoom * angle.sin(), zoom * angle.cos(), shift[:, 1]], dim=1)
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


def textured(scenes: Scenes, rng: random.Random, *, size: int, enlarged: bool) -> tuple[np.ndarray, str | None]:
    """Return a uint8 crop (CROP, CROP, 3) of a true picture at `size` px or twice that, and its material; `enlarged`
    two times it is never plain."""
    side = CROP // 2 if enlarged else CROP
    while True:
        thing, material = rng.choice(scenes.pairs)
        if enlarged and material is None:
            continue
        part = scenes.part(rng, thing, size=rng.choice((size, 2 * size)), side=side)
        if part[..., 3].mean() >= 255 * FULL:
            break
    crop = compose(part, Scene(thing, material, draw_ground(rng)), rng.getrandbits(31))
    if enlarged:
        values = torch.from_numpy(crop).permute(2, 0, 1)[None].float()
        values = F.interpolate(values, size=(CROP, CROP), mode="bicubic").clamp(0, 255).round()
        crop = values[0].permute(1, 2, 0).byte().numpy()
    return crop, material


def disturbed(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Return crops (B, 3, H, W) in [0, 1] turned over, softened, noisy and of other contrast: never of another size."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    count, side = len(crops), crops.shape[-1]
    flipped = torch.where(uniform(0, 1, count, 1, 1, 1) < 0.5, crops.flip(3), crops)
    small = int(side / uniform(1.0, 2.0, 1).item())
    soft = F.interpolate(
        F.interpolate(flipped, size=(small, small), mode="bilinear", antialias=True), size=(side, side), mode="bicubic"
    )
    # an enlarged texture is told by its size, not by being soft
    mixed = torch.where(uniform(0, 1, count, 1, 1, 1) < 0.5, soft, flipped)
    mixed = (mixed - 0.5) * uniform(0.8, 1.2, count, 1, 1, 1) + 0.5 + uniform(-0.06, 0.06, count, 3, 1, 1)
    noise = torch.randn(mixed.shape, generator=generator)
    return (mixed + uniform(0, 0.03, count, 1, 1, 1) * noise).clamp(0, 1)


def whole_views(scenes: Scenes, rng: random.Random, count: int, *, size: int) -> tuple[Tensor, list[int]]:
    """Return uint8 pictures (count, 3, size, size) and their things' numbers; the material may be one never seen on
    the thing, which must not count."""
    names = list(THINGS)
    pictures: list[np.ndarray] = []
    chosen = [rng.choice(names) for _ in range(count)]
    for name in chosen:
        scene = Scene(name, rng.choice(KINDS), draw_ground(rng))
        pictures.append(compose(scenes.drawing(name, size), scene, rng.getrandbits(31)))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), [names.index(name) for name in chosen]


def crop_views(scenes: Scenes, rng: random.Random, count: int, *, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return crops (count, 3, CROP, CROP) in [0, 1], their materials' numbers and 1 where enlarged, every third."""
    larger = [number % 3 == 2 for number in range(count)]
    made = [textured(scenes, rng, size=size, enlarged=enlarged) for enlarged in larger]
    crops = torch.from_numpy(np.stack([crop for crop, _ in made])).permute(0, 3, 1, 2).float() / 255
    return crops, torch.tensor([KINDS.index(material) for _, material in made]), torch.tensor(larger).long()


def loss_of(judge: Judge, scenes: Scenes, options: argparse.Namespace, step: int) -> Tensor:
    """Return the loss of one step's views: the same for the same seed and step."""
    device = next(judge.parameters()).device
    rng = random.Random(options.seed * 1_000_003 + step)
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    side = max(options.size // 2, SIZE)  # half the native one: a fourth of the time, and the shape is as told
    pictures, things = whole_views(scenes, rng, options.batch // 2, size=side)
    views = augment(pictures, SIZE, generator=generator, plain=0.5).to(device)
    loss = F.cross_entropy(judge.whole(views), torch.tensor(things).to(device), label_smoothing=0.1)
    crops, materials, larger = crop_views(scenes, rng, options.batch, size=options.size)
    kind, enlarged = judge.texture(disturbed(crops, generator).to(device))
    told = (materials != KINDS.index(None)).to(device)  # a plain crop looks the same enlarged
    loss = loss + F.cross_entropy(kind, materials.to(device), label_smoothing=0.05)
    return loss + F.cross_entropy(enlarged[told], larger.to(device)[told])


def train(options: argparse.Namespace) -> None:
    scenes = Scenes(options.work, variants=1)
    torch.manual_seed(options.seed)
    judge = begun().to(pick_device(), memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    step, seconds = teach(
        judge,
        lambda step: loss_of(judge, scenes, options, step),
        state=options.out.with_name(f"{options.out.name}.pt"),
        minutes=options.minutes,
        steps=options.steps,
        rate=options.rate,
        decay=0.99,
    )
    card = {"steps": step, "seconds": round(seconds), **check(judge, scenes, options)}
    write(judge, options.out, card)
    logger.info("%s", json.dumps(card))


@torch.no_grad()
def check(judge: Judge, scenes: Scenes, options: argparse.Namespace) -> dict[str, float]:
    """Return the judge's shares of right answers on true pictures that no step drew, each with its n."""
    rng = random.Random(-1 - options.seed)
    right: dict[str, list[bool]] = {}
    for _ in range(options.check):
        thing, material = rng.choice(list(THINGS)), rng.choice(KINDS)
        scene = Scene(thing, material, draw_ground(rng))
        picture = compose(scenes.drawing(thing, options.size), scene, rng.getrandbits(31))
        values = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
        pairs = "unseen pairs" if is_held_out(thing, material) else "seen pairs"
        right.setdefault(f"things, {pairs}", []).append(judge.thing_of(values) == thing)
        right.setdefault(f"materials of pictures, {pairs}", []).append(judge.material_of(values) == material)
    for _ in range(options.check):
        crops, materials, larger = crop_views(scenes, rng, 3, size=options.size)
        kind, enlarged = judge.texture(crops)
        right.setdefault("materials of crops", []).extend((kind.argmax(dim=1) == materials).tolist())
        told = materials != KINDS.index(None)
        right.setdefault("native or enlarged", []).extend((enlarged.argmax(dim=1) == larger)[told].tolist())
    shares = {name: round(sum(values) / len(values), 4) for name, values in sorted(right.items())}
    return shares | {f"{name}, n": len(values) for name, values in sorted(right.items())}


def write(judge: Judge, folder: Path, card: dict[str, float]) -> None:
    """Write demo-net's fp16 weights, what it tells apart and how well."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in judge.state_dict().items() if not k.endswith("batches_tracked")}
    save_file(state, folder / WEIGHTS)
    text = json.dumps({"things": list(THINGS), "materials": list(MATERIALS), "checked": card}, indent=1)
    (folder / LISTS).write_text(text + "\n", encoding="utf-8")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=WORK / "judge", help="folder that gets it; its state lies beside")
    parser.add_argument("--size", type=int, default=512, help="native side in px")
    parser.add_argument("--minutes", type=float, default=20.0, help="training time, over all starts")
    parser.add_argument("--steps", type=int, default=-1, help="stop after this many steps, however early")
    parser.add_argument("--batch", type=int, default=32, help="crops a step; half as many whole pictures")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--check", type=int, default=272, help="true pictures that it is checked on")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(parse())
