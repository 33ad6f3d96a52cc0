"""What a larger picture kept of the native one: PSNR, MS-SSIM, its low band, coarse colours, objects, strays.

Pictures are uint8 (H, W, 3). "Downsampled" is by box, antialiased, to the native size.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Picture = NDArray[np.uint8]
CYCLES = 16
"""Reach of the low band in cycles a picture: the paper's c = 0.5 on a 64-wide latent."""
BOX = 32
"""Side in px of the boxes whose mean colours are compared."""
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of MS-SSIM's scales, finest first (Wang et al. 2003)."""
SEEN = 128
"""Side in px at which objects are counted."""
OFF_GROUND = 0.1
"""How far of 1 a colour lies from the ground's, to be part of an object."""
SMALLEST = 0.002
"""Share of the picture under which a piece is no object."""
REACH = 3
"""px of SEEN by which an outline may move before it counts as stray."""
EVEN_GROUND = 12.0
"""Spread in levels of 255 of a border's pixels up to which a picture stands on a plain ground."""


def kept(picture: Picture, native: Picture) -> dict[str, float | None]:
    """Return the measures of `picture` (H, W, 3) against its `native` one."""
    small = downsampled(picture, native.shape[:2])
    colours = coarse_colour(small, native)
    return {
        "psnr": psnr(small, native),
        "ms_ssim": ms_ssim(small, native),
        "low_band": low_band(small, native),
        "colour_mean": float(colours.mean()),
        "colour_p99": float(np.quantile(colours, 0.99)),
        **objects(picture, native),
    }


def downsampled(picture: Picture, size: tuple[int, ...]) -> Picture:
    """Return `picture` box-filtered to `size` (height, width): a px that two boxes share counts in each by its part.

    Rounded once. Pillow's box rounds halves up along each side, a third of a level too light in all, and takes whole
    px only, which moves a picture whose side is no multiple.
    """

    def small(channel: NDArray[np.uint8]) -> NDArray[np.float64]:
        shorter = _means(channel.astype(np.float64), size[0])
        return _means(shorter.swapaxes(0, 1), size[1]).swapaxes(0, 1)

    # one after the other: a large picture in float64 takes eight times its memory
    return np.rint(np.stack([small(picture[..., channel]) for channel in range(3)], axis=2)).astype(np.uint8)


def psnr(picture: Picture, other: Picture) -> float:
    """Return the PSNR in dB of two pictures of one size; 99 for equal ones, so that a mean can be taken."""
    error = float(np.mean((picture.astype(np.float64) - other) ** 2))
    return 99.0 if error == 0 else min(99.0, 10 * math.log10(255**2 / error))


def ms_ssim(picture: Picture, other: Picture) -> float:
    """Return the mean over channels of the product over scales of SSIM's contrast-structure term, each to the power of
    its weight, and of the luminance term at the coarsest (Wang et al. 2003); 1 is equal.

    11x11 Gaussian of 1.5 px. A side under 176 px has fewer scales than five, their weights made to sum to 1.
    """
    first, second = (_values(one)[None] * 255 for one in (picture, other))
    count = min(len(SCALES), int(math.log2(min(picture.shape[:2]) / 11)) + 1)
    weights = np.asarray(SCALES[:count]) / sum(SCALES[:count])
    result = torch.ones(3)
    for number, weight in enumerate(weights):
        luminance, structure = _ssim_terms(first, second)
        term = structure if number < count - 1 else luminance * structure
        result = result * term.mean((0, 2, 3)).clamp_min(0) ** float(weight)
        first, second = (F.avg_pool2d(one, 2) for one in (first, second))
    return float(result.mean())


def coarse_colour(picture: Picture, other: Picture) -> NDArray[np.float64]:
    """Return the absolute differences, in levels of 255, of the means over BOX px boxes of two pictures of one size."""
    return np.abs(_box_means(picture) - _box_means(other)).ravel()


def low_band(picture: Picture, other: Picture, *, cycles: int = CYCLES) -> float:
    """Return |F - F'| / |F'| in percent over the frequencies up to `cycles` a picture each way, the mean left out: how
    much of `other`'s low band is changed. Two flat pictures give 0."""
    rows, columns = (np.abs(np.fft.fftfreq(side, 1 / side)) <= cycles for side in picture.shape[:2])
    first, second = (np.fft.fft2(one.astype(np.float64), axes=(0, 1))[rows][:, columns] for one in (picture, other))
    difference = first - second
    difference[0, 0] = second[0, 0] = 0
    whole = float(np.linalg.norm(second))
    return 100 * float(np.linalg.norm(difference)) / whole if whole else 0.0


def objects(picture: Picture, native: Picture) -> dict[str, float | None]:
    """Return "objects", the pieces that stand on the ground more or fewer than in `native`, and "strays", the percent
    of the picture's area that is no ground where, and near where, the native picture's is.

    Both are None where the native picture's border shows no plain ground.
    """
    ground = ground_of(native)
    if ground is None:
        return {"objects": None, "strays": None}
    shrink = SEEN / max(native.shape[:2])  # of the native one: a picture's aspect may differ from it
    size = tuple(max(1, round(side * shrink)) for side in native.shape[:2])
    here, there = (_off_ground(downsampled(one, size), ground) for one in (picture, native))
    near = F.max_pool2d(there, 2 * REACH + 1, stride=1, padding=REACH)
    return {
        "objects": float(abs(pieces(here) - pieces(there))),
        "strays": 100 * float((here * (1 - near)).mean()),
    }


def ground_of(picture: Picture) -> NDArray[np.float64] | None:
    """Return the colour, 0 to 255, of the ground a picture's object stands on: its border's median; None where the
    border is not plain."""
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]]).astype(np.float64)
    colour = np.median(border, axis=0)
    # an object may reach a part of the border
    return colour if np.quantile(np.abs(border - colour).max(axis=1), 0.75) <= EVEN_GROUND else None


def pieces(foreground: Tensor) -> int:
    """Return how many 8-connected pieces of at least SMALLEST of the picture a mask (1, 1, H, W) of 0 and 1 has."""
    numbers = foreground * torch.arange(1, foreground.numel() + 1, dtype=torch.float32).view_as(foreground)
    while True:  # each pixel takes the largest number around it, until every piece has one
        spread = F.max_pool2d(numbers, 3, stride=1, padding=1) * foreground
        if torch.equal(spread, numbers):
            break
        numbers = spread
    _, sizes = numbers[numbers > 0].unique(return_counts=True)
    return int((sizes >= SMALLEST * foreground.numel()).sum())


def _off_ground(picture: Picture, ground: NDArray[np.float64]) -> Tensor:
    away = np.abs(picture - ground).max(axis=2) / 255
    return torch.from_numpy((away > OFF_GROUND).astype(np.float32))[None, None]


def _means(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the means over `count` equal parts of the first axis."""
    edges = np.linspace(0, len(values), count + 1)
    whole = edges.astype(int).clip(max=len(values) - 1)
    sums = np.concatenate([np.zeros_like(values[:1]), values.cumsum(axis=0)])
    return np.diff(sums[whole] + (edges - whole)[:, None] * values[whole], axis=0) * count / len(values)


def _values(picture: Picture) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


def _ssim_terms(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return SSIM's luminance and contrast-structure terms of (1, 3, H, W) in 0 to 255."""
    place = torch.arange(11) - 5.0
    bell = torch.exp(-(place**2) / (2 * 1.5**2))
    kernel = (bell[:, None] * bell[None] / bell.sum() ** 2).expand(3, 1, 11, 11)

    def blur(one: Tensor) -> Tensor:
        return F.conv2d(one, kernel, groups=3)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean1, mean2 = blur(first), blur(second)
    spread1, spread2 = blur(first**2) - mean1**2, blur(second**2) - mean2**2
    shared = blur(first * second) - mean1 * mean2
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    return luminance, (2 * shared + c2) / (spread1 + spread2 + c2)


def _box_means(picture: Picture) -> NDArray[np.float64]:
    height, width = (max(1, side // BOX) for side in picture.shape[:2])
    whole = picture[: height * BOX, : width * BOX].astype(np.float64)
    rows, columns = (np.linspace(0, side, count + 1).astype(int)[:-1] for side, count in
                     ((whole.shape[0], height), (whole.shape[1], width)))  # fmt: skip
    sums = np.add.reduceat(np.add.reduceat(whole, rows, axis=0), columns, axis=1)
    return sums / (whole.shape[0] * whole.shape[1] / (height * width))
