"""demo-net: a small classifier of the embedded model's pictures, and the distances measured in its features.

It names the base name of an emoji ("firefighter") and stands in for CLIP and Inception, under its own name: "top-1
agreement of demo-net", "FD on demo-net". Made by `tools/demo_model/demo_net.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fam_ext.errors import UsageError

WEIGHTS = Path(__file__).with_suffix(".safetensors")
LABELS = Path(__file__).with_suffix(".json")
SIZE = 128
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
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(hidden)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(self.pool(hidden)))


class DemoNet(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] to logits (B, labels); trained at 128 px and blind to what is finer."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        stem = (nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(), nn.AvgPool2d(2))
        self.stem = nn.Sequential(*stem)
        blocks: list[nn.Module] = []
        for width, out, depth in zip(WIDTHS[:-1], WIDTHS[1:], DEPTHS, strict=True):
            blocks.append(Residual(width, out, stride=2))
            blocks.extend(Residual(out, out) for _ in range(depth - 1))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(WIDTHS[-1], num_labels)

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate layer's features (B, 256) of pictures of any one size; (B, 3, H, W) in [0, 1]."""
        # white is the ground of every picture: make it zero, so that padding looks like it
        return self.blocks(self.stem(2 * images - 2)).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def at_net_size(images: Tensor) -> Tensor:
    """Return pictures (B, 3, H, W) in [0, 1] at demo-net's 128 px, low-pass filtered before they shrink."""
    if images.shape[-2:] == (SIZE, SIZE):
        return images
    return F.interpolate(images, size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)


@cache
def labels() -> tuple[str, ...]:
    """Return the base names that demo-net tells apart, in the order of its logits."""
    return tuple(json.loads(LABELS.read_text(encoding="utf-8"))["labels"])


def load_demo_net() -> DemoNet:
    """Return the shipped demo-net in float32 on the CPU, ready for evaluation."""
    from safetensors.torch import load_file

    net = DemoNet(len(labels()))
    net.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS).items()}, strict=False)
    return net.eval()


def label_of(prompt: str) -> int:
    """Return the label that `prompt` asks for: "a firefighter, medium skin, emoji" -> that of "firefighter".

    Raises `UsageError` for a prompt that names none of the labels.
    """
    name = re.sub(r"^(an?|the) ", "", prompt.split(",")[0].strip().lower()).replace(" ", "-")
    try:
        return labels().index(name)
    except ValueError:
        raise UsageError(
            f"{prompt!r} names nothing demo-net knows; start with one of its {len(labels())} names, as in"
            ' "a teapot, emoji"'
        ) from None


@torch.no_grad()
def look(net: DemoNet, images: Iterable[Tensor], *, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Return features (N, 256) and logits (N, labels) of pictures (3, H, W) in [0, 1] of any sizes."""
    features: list[Tensor] = []
    small = [at_net_size(image[None].float()) for image in images]
    for start in range(0, len(small), batch):
        features.append(net.features(torch.cat(small[start : start + batch])))
    found = torch.cat(features)
    return found, net.head(found)


def agreement(logits: Tensor, wanted: Sequence[int]) -> tuple[float, float]:
    """Return the shares of pictures whose wanted label is demo-net's first, and among its first five, choice."""
    first_five = logits.topk(5, dim=1).indices == torch.tensor(wanted)[:, None]
    return first_five[:, 0].float().mean().item(), first_five.any(dim=1).float().mean().item()


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two feature sets (N, D), (M, D): "FD on demo-net".

    With few pictures it is biased upwards: compare equal n only.
    """
    first, second = features.double(), others.double()
    c1, c2 = torch.cov(first.T), torch.cov(second.T)
    values, vectors = torch.linalg.eigh(c1)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    # the eigenvalues of C1 C2 are those of the symmetric C1^(1/2) C2 C1^(1/2)
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp_min(0).sqrt().sum()
    mean = (first.mean(0) - second.mean(0)).square().sum()
    return (mean + c1.trace() + c2.trace() - 2 * cross).item()


def kernel_distance(features: Tensor, others: Tensor) -> float:
    """Return the unbiased squared MMD with kernel (x.y / D + 1)^3 of two feature sets: "KD on demo-net"."""
    first, second = features.double(), others.double()
    n, m, width = len(first), len(second), first.shape[1]

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return (left @ right.T / width + 1) ** 3

    within = kernel(first, first).fill_diagonal_(0).sum() / (n * (n - 1))
    within_other = kernel(second, second).fill_diagonal_(0).sum() / (m * (m - 1))
    return (within + within_other - 2 * kernel(first, second).mean()).item()
