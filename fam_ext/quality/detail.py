"""What a larger picture added: its texture's period, contrast of neighbours, how well it compresses.

Pictures are uint8 (H, W, 3). The last two reward noise as well: they stand only beside the structure kept.
"""

from __future__ import annotations

import functools
import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fam_ext.quality.structure import Picture

CROP = 128
"""Side in px of the crops in which a period is sought."""
PERIODS = (6.0, 64.0)
"""Shortest and longest period in px."""
BINS = 64
EVEN = 6.0
"""Spread in levels of 255 under which a crop shows no texture."""
LEVELS = 64
"""Levels of grey of the co-occurrence matrix."""
QUALITY = 95
"""JPEG's, for the compression ratio."""


def texture_period(picture: Picture) -> float | None:
    """Return the dominant period in px of a picture's texture: the median over CROP px crops, which overlap by half and
    are not resized, of `dominant_period`. An even crop has no say; None when no crop has one."""
    light = picture.astype(np.float64).mean(axis=2)
    found = [
        dominant_period(part)
        for top in range(0, light.shape[0] - CROP + 1, CROP // 2)
        for left in range(0, light.shape[1] - CROP + 1, CROP // 2)
        if (part := light[top : top + CROP, left : left + CROP]).std() >= EVEN
    ]
    return float(np.median(found)) if found else None


def dominant_period(light: NDArray[np.float64]) -> float:
    """Return the period in px at which P(f) f^3 is highest, P being the mean power of a (CROP, CROP) square of grey at
    frequency f: outlines fall by f^-3, so that they weigh the same at every f and a texture stands out.
    In a crop this small a period of 25 to 64 px is read up to a fifth short, a longer one as 64 px at most.
    """
    heard, frequencies, rings = _rings()
    window = np.hanning(CROP)[:, None] * np.hanning(CROP)[None]
    power = np.abs(np.fft.fft2((light - light.mean()) * window)) ** 2
    return float(1 / frequencies[int((rings @ power[heard] * frequencies**3).argmax())])


@functools.cache
def _rings() -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Return the frequencies that count, the rings' own, and how much each of the first is part of each ring. Edges are
    soft: few frequencies lie in a coarse ring."""
    frequency = np.hypot(np.fft.fftfreq(CROP)[:, None], np.fft.fftfreq(CROP)[None])
    heard = (frequency >= 1 / PERIODS[1]) & (frequency <= 1 / PERIODS[0])
    octaves = math.log2(PERIODS[1] / PERIODS[0])
    place = np.log2(frequency[heard] * PERIODS[1]) / octaves
    centres = (np.arange(BINS) + 0.5) / BINS
    share = np.exp(-(((place[None] - centres[:, None]) / 0.03) ** 2) / 2)
    return heard, 2 ** (centres * octaves) / PERIODS[1], share / share.sum(axis=1, keepdims=True)


def period_error(picture: Picture, truth: Picture) -> float | None:
    """Return how far a picture's period is from the true one in octaves, 1 being twice or half; None where the truth
    has no texture. A picture that lost its texture counts as one octave off."""
    wanted, found = texture_period(truth), texture_period(picture)
    if wanted is None:
        return None
    return 1.0 if found is None else abs(math.log2(found / wanted))


def glcm_contrast(picture: Picture) -> float:
    """Return the contrast sum (i - j)^2 p(i, j) of the grey-level co-occurrence matrix p at 64 levels, neighbours right
    and below (Haralick 1973)."""
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.int64) * LEVELS // 256
    pairs = [np.diff(grey, axis=0).ravel(), np.diff(grey, axis=1).ravel()]
    return float(np.mean(np.concatenate(pairs) ** 2))


def compression_ratio(picture: Picture) -> float:
    """Return raw bytes over JPEG bytes at quality 95: less is more detail, or more noise."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY)
    return picture.nbytes / file.tell()
