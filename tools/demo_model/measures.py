"""Measures of pictures: pieces, likeness, coarse colours, the texture's period, and how sure a mean is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fam_ext.demo.demo_net import at_net_size

Picture = NDArray[np.uint8]
BOX = 32
CROP = 128
EVEN = 6.0
"""The spread, in levels of 255, under which a crop shows no texture."""
WHITE_TOLERANCE = 0.1
SMALLEST_PIECE = 0.002


def components(image: Tensor) -> int:
    """Return how many pieces stand on the white ground of (3, H, W) in [0, 1]: 8-connected, at 128 px, specks
    under 0.2 % of the picture not counted."""
    small = at_net_size(image[None])[0]
    foreground = ((1 - small).amax(dim=0) > WHITE_TOLERANCE).float()
    numbers = foreground * torch.arange(1, foreground.numel() + 1, dtype=torch.float32).view_as(foreground)
    while True:
        # each pixel takes the largest number around it, until every piece has one
        spread = F.max_pool2d(numbers[None, None], 3, stride=1, padding=1)[0, 0] * foreground
        if torch.equal(spread, numbers):
            break
        numbers = spread
    _, sizes = numbers[numbers > 0].unique(return_counts=True)
    return int((sizes >= SMALLEST_PIECE * foreground.numel()).sum())


def psnr(image: Tensor, other: Tensor) -> float:
    """Return the PSNR in dB of two pictures in [0, 1]; equal ones give infinity."""
    error = (image - other).square().mean().item()
    return math.inf if error == 0 else -10 * math.log10(error)


def shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (3, H, W) at `size`, low-pass filtered."""
    return F.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)


def coarse_colour(picture: Picture, truth: Picture) -> NDArray[np.float64]:
    """Return the absolute differences, in levels of 255, of the means over 32x32 px of two (H, W, 3) pictures."""
    if picture.shape != truth.shape:
        raise ValueError(f"the pictures are {picture.shape} and {truth.shape}; compare pictures of one size")
    return np.abs(_box_means(picture) - _box_means(truth)).ravel()


def texture_period(picture: Picture, *, crop: int = CROP) -> float | None:
    """Return the mean period in px of a picture's texture: the median over its crops of what `_period` says of each.

    Crops of (H, W, 3) `picture` overlap by half and are not resized; an even one has no say. None when no crop has.
    Compare with the true picture's: harmonics count too, so that a knit of 18 px is not 18.
    """
    light = picture.astype(np.float64).mean(axis=2)
    found = [
        _period(part)
        for top in range(0, light.shape[0] - crop + 1, crop // 2)
        for left in range(0, light.shape[1] - crop + 1, crop // 2)
        if (part := light[top : top + crop, left : left + crop]).std() >= EVEN
    ]
    return float(np.median(found)) if found else None


def interval(values: Sequence[float], *, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of `values`, one value a picture."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 pictures and got {len(values)}")
    numbers = np.asarray(values, np.float64)
    chosen = np.random.default_rng(seed).integers(len(numbers), size=(draws, len(numbers)))
    low, high = np.quantile(numbers[chosen].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _box_means(picture: Picture) -> NDArray[np.float64]:
    height, width = (side // BOX * BOX for side in picture.shape[:2])
    boxes = picture[:height, :width].astype(np.float64).reshape(height // BOX, BOX, width // BOX, BOX, -1)
    return boxes.mean(axis=(1, 3))


def _period(light: NDArray[np.float64]) -> float:
    """Return the geometric mean of the periods in a square, 3 to 64 px, by power times frequency, so that outlines and
    shading, whose waves are long, count less."""
    size = len(light)
    window = np.hanning(size)[:, None] * np.hanning(size)[None]
    power = np.abs(np.fft.fft2((light - light.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    heard = (frequency >= 1 / 64) & (frequency <= 1 / 3)
    weight = power[heard] * frequency[heard]
    return float(np.exp(-(weight * np.log(frequency[heard])).sum() / weight.sum()))
