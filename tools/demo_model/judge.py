"""Train what judges pictures of things made of materials: `python tools/demo_model/judge.py`. Stopped, it goes on.

Two networks, since they look at different sizes. The thing is told by the whole picture at 128 px, by demo-net with its
head cut to the things. The material is told by crops of 128 px as they are, never resized, so that a stitch of twice
the size is another thing: a third head says whether a crop's texture is native or enlarged two times, and the features
before the heads are those of "FD on the judge's crops".
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import WORK, Scenes, compose
from demo_net import augment
from things import MATERIALS, THINGS, Scene, draw_ground, is_held_out
from torch import Tensor, nn
from training import pick_device, read_small, teach, write_small

from fam_ext.demo import demo_net
from fam_ext.demo.demo_net import DemoNet, Residual, at_net_size

logger = logging.getLogger(__name__)

CROP = 128
KINDS: tuple[str | None, ...] = (None, *MATERIALS)
"""What the material's head tells apart; None is plain."""
FULL = 0.5
"""The share of a training crop that the thing covers at least."""
GROUND = 12
"""Levels of 255 within which a pixel is the ground."""


class TextureNet(nn.Module):
    """Crops (B, 3, H, W) in [0, 1] at their own scale to features (B, 128), a material and whether it is enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(Residual(32, 64, stride=2), Residual(64, 96, stride=2), Residual(96, 128, stride=2))
        self.material = nn.Linear(128, len(KINDS))
        self.enlarged = nn.Linear(128, 2)

    def features(self, crops: Tensor) -> Tensor:
        return self.blocks(self.stem(2 * crops - 1)).mean(dim=(2, 3))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(crops)
        return self.material(features), self.enlarged(features)


class Judge(nn.Module):
    """What says of a picture which thing it shows, of which material, and how its texture looks."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = DemoNet(len(THINGS))
        self.texture = TextureNet()

    def thing_of(self, pictures: Tensor) -> list[str]:
        """Return the thing that each picture (B, 3, H, W) in [0, 1] shows."""
        names = list(THINGS)
        return [names[number] for number in self.whole(at_net_size(pictures)).argmax(dim=1).tolist()]

    def material_of(self, picture: Tensor) -> str | None:
        """Return the material of a picture (3, H, W) in [0, 1]: what its crops on the thing say together."""
        material, _ = self.texture(crops_of(picture))
        return KINDS[int(material.log_softmax(dim=1).mean(dim=0).argmax())]


def begun(judge: Judge) -> Judge:
    """Give a new judge the shipped demo-net's eyes, and of its head what the things are called."""
    shipped = demo_net.load_demo_net()
    names = {name: number for number, name in enumerate(demo_net.labels())}
    known = [names[stem] for stem in THINGS.values()]
    state = shipped.state_dict()
    judge.whole.load_state_dict({**state, **{key: state[key][known] for key in ("head.weight", "head.bias")}})
    return judge


def crops_of(picture: Tensor, *, side: int = CROP) -> Tensor:
    """Return the crops (N, 3, side, side) of a picture (3, H, W) at its own scale that lie mostly on the thing.

    They overlap by half. The ground is the colour of the corners. Where none is mostly thing, the one that is most.
    """
    corners = picture[:, [0, 0, -1, -1], [0, -1, 0, -1]].median(dim=1).values
    thing = ((picture - corners[:, None, None]).abs().amax(dim=0) > GROUND / 255).float()
    step = side // 2
    covered = F.avg_pool2d(thing[None, None], side, step)[0, 0]
    crops = picture.unfold(1, side, step).unfold(2, side, step).permute(1, 2, 0, 3, 4)
    chosen = covered >= min(0.5, covered.max().item())
    return crops[chosen]


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
    side = max(options.size // 2, demo_net.SIZE)  # half the native one: a fourth of the time, and the shape is as told
    pictures, things = whole_views(scenes, rng, options.batch // 2, size=side)
    fixed = torch.zeros(len(pictures), dtype=torch.bool)
    views = augment(pictures, demo_net.SIZE, mirrorable=fixed, generator=generator, plain=0.5).to(device)
    loss = F.cross_entropy(judge.whole(views), torch.tensor(things).to(device), label_smoothing=0.1)
    crops, materials, larger = crop_views(scenes, rng, options.batch, size=options.size)
    kind, enlarged = judge.texture(disturbed(crops, generator).to(device))
    told = (materials != KINDS.index(None)).to(device)  # a plain crop looks the same enlarged
    loss = loss + F.cross_entropy(kind, materials.to(device), label_smoothing=0.05)
    return loss + F.cross_entropy(enlarged[told], larger.to(device)[told])


def train(options: argparse.Namespace) -> None:
    scenes = Scenes(options.work, variants=1)
    torch.manual_seed(options.seed)
    judge = begun(Judge()).to(pick_device(), memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
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
        right.setdefault(f"things, {pairs}", []).append(judge.thing_of(values[None]) == [thing])
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
    """Write the judge, and what it can do."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value for key, value in judge.state_dict().items() if not key.endswith("batches_tracked")}
    write_small(state, folder / "judge.safetensors")
    text = json.dumps({"things": list(THINGS), "materials": list(MATERIALS), "checked": card}, indent=1)
    (folder / "judge.json").write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> Judge:
    """Return the judge in `folder`; exits when it knows other things or materials than these scripts."""
    said = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
    if (said["things"], said["materials"]) != (list(THINGS), list(MATERIALS)):
        raise SystemExit(f"the judge in {folder} was made for other things or materials; train it anew")
    judge = Judge()
    judge.load_state_dict(read_small(folder / "judge.safetensors"), strict=False)
    return judge.eval()


@torch.no_grad()
def crop_features(judge: Judge, pictures: Sequence[Tensor]) -> list[Tensor]:
    """Return for each picture (3, H, W) the features (N, 128) of its crops on the thing."""
    return [judge.texture.features(crops_of(picture)) for picture in pictures]


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
