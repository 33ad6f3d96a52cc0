"""How alike the texture of a picture's parts is: a method that loses sight of the whole draws them apart.

A crop is described by the power of its waves, ring by ring of frequency and sixth by sixth of direction, in dB of
its own mean light: where the waves lie, and what colour or brightness it has, does not count.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from fam_ext.quality.detail import CROP, EVEN
from fam_ext.quality.structure import OFF_GROUND, Picture, ground_of

Places = list[tuple[int, int]]
"""(top, left) of crops in px."""
ON_THING = 0.95
"""Share of a crop that is no ground, for it to lie on the thing."""
PERIODS = (5.0, 32.0)
"""Shortest and longest period in px that counts."""
RINGS, DIRECTIONS = 6, 6
FLOOR = 0.01
"""Power, of a mean light of 1, beside which less is not told apart."""
DARK = 16.0
"""Levels of 255 added to a crop's mean light: in the dark, texture is hard to see."""


def texture_spread(picture: Picture, places: Places | None = None) -> float | None:
    """Return how unlike the texture is from crop to crop, in dB: the mean over pairs of crops at `places` of the root
    mean square of their descriptions' differences. 0 is one texture all over.

    None where fewer than two crops have texture. Outlines within the thing count too, so compare pictures of one thing.
    """
    chosen = places_on_thing(picture) if places is None else places
    crops = [picture[top : top + CROP, left : left + CROP].mean(axis=2, dtype=np.float64) for top, left in chosen]
    if sum(float(crop.std()) >= EVEN for crop in crops) < 2:
        return None
    found = np.stack([_described(crop) for crop in crops])
    apart = np.sqrt(((found[:, None] - found[None]) ** 2).mean(axis=2))
    return float(apart.sum() / (len(found) * (len(found) - 1)))


def spread_beyond(picture: Picture, truth: Picture) -> float | None:
    """Return by how many dB the texture of `picture` is more unlike from crop to crop than that of `truth`, the true
    picture of its size, at the same places; None where one of them has no texture there."""
    places = places_on_thing(truth)
    here, there = texture_spread(picture, places), texture_spread(truth, places)
    return None if here is None or there is None else here - there


def places_on_thing(picture: Picture) -> Places:
    """Return the places of CROP px crops, which overlap by half, that are no ground; where a picture has no plain
    ground, all of them."""
    ground = ground_of(picture)
    height, width = picture.shape[:2]
    return [
        (top, left)
        for top in range(0, height - CROP + 1, CROP // 2)
        for left in range(0, width - CROP + 1, CROP // 2)
        if ground is None or _off_ground(picture[top : top + CROP, left : left + CROP], ground) >= ON_THING
    ]


def _off_ground(crop: Picture, ground: NDArray[np.float64]) -> float:
    return float((np.abs(crop - ground).max(axis=2) > 255 * OFF_GROUND).mean())


def _described(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power of a (CROP, CROP) square of grey in each ring and direction, in dB."""
    window, heard, share = _bins()
    mean = float((light * window**2).sum())
    power = np.abs(np.fft.fft2((light - mean) / (mean + DARK) * window)) ** 2
    return 10 * np.log10(share @ power[heard] + FLOOR)


@functools.cache
def _bins() -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return the window, whose squares sum to 1; the frequencies that count; how much each of them is part of each bin.
    Edges are soft, so that a wave at an edge is not in one bin here and in the next there."""
    window = np.hanning(CROP)[:, None] * np.hanning(CROP)[None]
    rows, columns = np.fft.fftfreq(CROP)[:, None], np.fft.fftfreq(CROP)[None]
    frequency, direction = np.hypot(rows, columns), np.arctan2(rows, columns) % np.pi
    heard = (frequency >= 1 / PERIODS[1]) & (frequency <= 1 / PERIODS[0])
    place = np.log2(frequency[heard] * PERIODS[1]) / math.log2(PERIODS[1] / PERIODS[0])
    ring = np.exp(-(((place - (np.arange(RINGS)[:, None] + 0.5) / RINGS) * RINGS / 0.8) ** 2) / 2)
    turned = (direction[heard] / np.pi - np.arange(DIRECTIONS)[:, None] / DIRECTIONS + 0.5) % 1 - 0.5
    share = (ring[:, None] * np.exp(-((turned * DIRECTIONS / 0.5) ** 2) / 2)[None]).reshape(RINGS * DIRECTIONS, -1)
    return window / np.sqrt((window**2).sum()), heard, share / share.sum(axis=1, keepdims=True)
