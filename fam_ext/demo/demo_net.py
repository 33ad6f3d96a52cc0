"""demo-net: two small networks that say what a picture shows, and give features to measure distances in.

One tells the thing from the whole picture, the other the material from crops that are never resized, so that a stitch
of twice the size is another texture. They stand in for CLIP and Inception, under their own name: "agreement
(demo-net)", "FD (demo-net)". `demo_net.json` lists what they tell apart and how often they were right when
`tools/demo_model/judge.py` had trained them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fam_ext.errors import UsageError

FOLDER = Path(__file__).parent
WEIGHTS, LISTS = "demo_net.safetensors", "demo_net.json"
SIZE = 128
"""Side in px at which whole pictures are looked at."""
CROP = 128
"""Side in px of the crops that show a material."""
GROUND = 12
"""Levels of 255 within which a pixel is the ground."""
WIDTHS = (32, 64, 128, 256)
DEPTHS = (1, 2, 2)


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut; the first may halve the side."""

    def __init__(self, width: int, out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(width, out, 1, bias=False) if width != out else nn.Identity()
        # an odd side is halved upwards, as the convolution does
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(hidden)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(self.pool(hidden)))


class DemoNet(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] to logits (B, things); trained at 128 px and blind to what is finer."""

    def __init__(self, num_things: int) -> None:
        super().__init__()
        stem = (nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(), nn.AvgPool2d(2))
        self.stem = nn.Sequential(*stem)
        blocks: list[nn.Module] = []
        for width, out, depth in zip(WIDTHS[:-1], WIDTHS[1:], DEPTHS, strict=True):
            blocks.append(Residual(width, out, stride=2))
            blocks.extend(Residual(out, out) for _ in range(depth - 1))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(WIDTHS[-1], num_things)

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate layer's features (B, 256) of pictures of any one size; (B, 3, H, W) in [0, 1]."""
        # white is the ground of most pictures: make it zero, so that padding looks like it
        return self.blocks(self.stem(2 * images - 2)).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class TextureNet(nn.Module):
    """Crops (B, 3, H, W) in [0, 1] at their own scale to logits of their kind of surface, and (B, 2) of whether it is
    native or enlarged two times."""

    def __init__(self, num_kinds: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(Residual(32, 64, stride=2), Residual(64, 96, stride=2), Residual(96, 128, stride=2))
        self.material = nn.Linear(128, num_kinds)
        self.enlarged = nn.Linear(128, 2)

    def features(self, crops: Tensor) -> Tensor:
        """Return the features (B, 128) before the heads, of crops of any one size."""
        return self.blocks(self.stem(2 * crops - 1)).mean(dim=(2, 3))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(crops)
        return self.material(features), self.enlarged(features)


class Judge(nn.Module):
    """What says which of `things` a picture shows, of which of `materials`, and how its texture looks."""

    def __init__(self, things: Sequence[str], materials: Sequence[str]) -> None:
        super().__init__()
        self.things = tuple(things)
        self.kinds: tuple[str | None, ...] = (None, *materials)
        """What the material's head tells apart; None is plain."""
        self.whole = DemoNet(len(self.things))
        self.texture = TextureNet(len(self.kinds))

    @torch.no_grad()
    def thing_of(self, picture: Tensor) -> str:
        """Return the thing that a picture (3, H, W) in [0, 1] shows."""
        return self.things[int(self.whole(at_net_size(picture[None])).argmax())]

    @torch.no_grad()
    def material_of(self, picture: Tensor) -> str | None:
        """Return the material of a picture (3, H, W) in [0, 1]: what its crops on the thing say together."""
        material, _ = self.texture(crops_of(picture))
        return self.kinds[int(material.log_softmax(dim=1).mean(dim=0).argmax())]

    @torch.no_grad()
    def whole_features(self, pictures: Sequence[Tensor]) -> Tensor:
        """Return the features (N, 256) of whole pictures (3, H, W) in [0, 1] of any sizes."""
        return self.whole.features(torch.cat([at_net_size(picture[None]) for picture in pictures]))

    @torch.no_grad()
    def crop_features(self, crops: Tensor) -> Tensor:
        """Return the features (N, 128) of crops (N, 3, H, W) in [0, 1] at their own scale."""
        return self.texture.features(crops)

    def asked_for(self, prompt: str) -> tuple[str, str | None]:
        """Return the thing and the material that `prompt` names in whole words, None where it is plain: "a knitted
        teapot on a blue ground" -> ("teapot", "knitted"). The longest name counts.

        Raises `UsageError` for a prompt that names none of the things.
        """
        thing = _named(self.things, prompt)
        if thing is None:
            raise UsageError(
                f"{prompt!r} names no thing that demo-net knows; name one of its {len(self.things)}, as in"
                ' "a knitted teapot"'
            )
        return thing, _named([kind for kind in self.kinds if kind], prompt)


def load_demo_net(folder: Path = FOLDER) -> Judge:
    """Return the demo-net in `folder`, else the shipped one, in float32 on the CPU, ready for evaluation."""
    from safetensors.torch import load_file

    said = json.loads((folder / LISTS).read_text(encoding="utf-8"))
    judge = Judge(said["things"], said["materials"])
    state = {key: value.float() for key, value in load_file(folder / WEIGHTS).items()}
    judge.load_state_dict(state, strict=False)  # without BatchNorm's counters
    return judge.eval()


def at_net_size(images: Tensor) -> Tensor:
    """Return pictures (B, 3, H, W) in [0, 1] at demo-net's 128 px, low-pass filtered before they shrink."""
    if images.shape[-2:] == (SIZE, SIZE):
        return images
    return F.interpolate(images, size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)


def crops_of(picture: Tensor) -> Tensor:
    """Return the crops (N, 3, CROP, CROP) of a picture (3, H, W) at its own scale that lie mostly on the thing.

    They overlap by half, and are smaller where the picture is. The ground is the colour of the corners. Where none is
    mostly thing, those that are most.
    """
    corners = picture[:, [0, 0, -1, -1], [0, -1, 0, -1]].median(dim=1).values
    thing = ((picture - corners[:, None, None]).abs().amax(dim=0) > GROUND / 255).float()
    side, step = min(CROP, *picture.shape[1:]), CROP // 2
    covered = F.avg_pool2d(thing[None, None], side, step)[0, 0]
    crops = picture.unfold(1, side, step).unfold(2, side, step).permute(1, 2, 0, 3, 4)
    return crops[covered >= min(0.5, covered.max().item())]


def _named(names: Sequence[str], prompt: str) -> str | None:
    words = " ".join(re.findall(r"[^\W_]+", prompt.lower()))
    return max((name for name in names if f" {name} " in f" {words} "), key=len, default=None)
