"""Procedural materials: how much light a surface gives at each pixel, with a period fixed in pixels.

Each texture is a function of coordinates in px and not of the picture's size, so a render at 1024 px shows more of it
than one at 512 px, and not bigger. Profiles are smooth over about 3 px: no sharper than the VAE's latent can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]  # of floats


def shade(material: str, size: int, seed: int) -> Field:
    """Return (size, size) float32, the factor on the plain picture's colours, about 0.5 to 1.15.

    `seed` moves the texture and draws what is random in it.
    """
    rng = np.random.default_rng([seed, sorted(TEXTURES).index(material)])
    top, left = rng.uniform(0, 1000, 2)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    texture, _ = TEXTURES[material]
    return texture(y + np.float32(top), x + np.float32(left), int(rng.integers(2**31))).astype(np.float32)


def knitted(y: Field, x: Field, seed: int) -> Field:
    """Columns of V stitches, 24 px wide and 18 high."""
    across = np.abs(x / 24 % 1 - 0.5) * 2
    leg = wave(y / 18 + 0.75 * across)
    return 0.66 + 0.44 * leg - 0.22 * across**4


def woven(y: Field, x: Field, seed: int) -> Field:
    """Bands over and under each other, each 13 px wide: a period of 26."""
    column, row = np.floor(x / 13), np.floor(y / 13)
    fx, fy = np.sin(np.pi * (x / 13 % 1)), np.sin(np.pi * (y / 13 % 1))
    across_on_top = (column + row) % 2 == 0
    bulge = np.where(across_on_top, fy**0.6 * (0.55 + 0.45 * fx**0.5), fx**0.6 * (0.55 + 0.45 * fy**0.5) * 0.85)
    return 0.5 + 0.6 * bulge


def brick(y: Field, x: Field, seed: int) -> Field:
    """Courses 18 px high of bricks 28 px long, each of its own tone."""
    row = np.floor(y / 18)
    shifted = x / 28 + 0.5 * (row % 2)
    column = np.floor(shifted)
    edge = np.minimum(from_edge(y, 18), from_edge(shifted * 28, 28))
    tone = 0.88 + 0.24 * hashed(row, column, seed)
    return 0.48 + (tone - 0.48) * rise(edge, 1.0, 4.0)


def scaly(y: Field, x: Field, seed: int) -> Field:
    """Rows of round scales 26 px wide, 17 px apart, each over the next lower one."""
    result = np.zeros_like(x)
    covered = np.zeros(x.shape, bool)
    first = np.floor(y / 17) - 1
    for step in range(3):
        row = first + step
        centre_y = row * 17 + 3
        column = np.floor(x / 26 + 0.5 * (row % 2))
        centre_x = (column + 0.5 - 0.5 * (row % 2)) * 26
        away = np.hypot(x - centre_x, (y - centre_y) * 0.8) / 17.5
        here = (away < 1) & ~covered
        result = np.where(here, 1.12 - 0.62 * np.clip(away, 0, 1) ** 3, result)
        covered |= here
    return np.where(covered, result, 0.5).astype(np.float32)


def furry(y: Field, x: Field, seed: int) -> Field:
    """Wavy tufts about 18 px apart, running down."""
    bent = x + 9 * (noise(y / 34, x / 60, seed) - 0.5)
    coarse = noise(y / 38, bent / 9, seed + 1)
    fine = noise(y / 22, bent / 6, seed + 2)
    return 0.5 + 0.66 * smooth(0.72 * coarse + 0.28 * fine)


def wooden(y: Field, x: Field, seed: int) -> Field:
    """Grain running down, 20 px apart, bent by knots."""
    bent = x + 26 * noise(y / 110, x / 70, seed) + 4 * noise(y / 40, x / 30, seed + 1)
    phase = bent / 20 % 1
    ring = np.where(phase < 0.78, phase / 0.78, (1 - phase) / 0.22)
    return 1.1 - 0.5 * ring**1.5


def mosaic(y: Field, x: Field, seed: int) -> Field:
    """Square tiles of 20 px with light joints, each of its own tone."""
    row, column = np.floor(y / 20), np.floor(x / 20)
    edge = np.minimum(from_edge(y, 20), from_edge(x, 20))
    tone = 0.6 + 0.4 * hashed(row, column, seed)
    return 1.18 + (tone - 1.18) * rise(edge, 0.8, 3.6)


def crystalline(y: Field, x: Field, seed: int) -> Field:
    """Facets about 24 px wide, each lit by its own slope."""
    row, column = np.floor(y / 24), np.floor(x / 24)
    weight, total = np.full_like(x, 1e-12), np.zeros_like(x)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            i, j = row + down, column + right
            dy = y - (i + 0.15 + 0.7 * hashed(i, j, seed)) * 24
            dx = x - (j + 0.15 + 0.7 * hashed(i, j, seed + 1)) * 24
            near = np.exp(-np.hypot(dy, dx) / 1.1)
            turn = 2 * np.pi * hashed(i, j, seed + 2)
            lit = 0.82 + 0.3 * (hashed(i, j, seed + 3) - 0.5) + 0.017 * (dy * np.sin(turn) + dx * np.cos(turn))
            weight, total = weight + near, total + near * lit
    return np.clip(total / weight, 0.45, 1.2)


def dotted(y: Field, x: Field, seed: int) -> Field:
    """Dark round dots 24 px apart in rows of 20.8 px."""
    height = 24 * np.sqrt(0.75)
    row = np.round(y / height)
    dx = ((x / 24 + 0.5 * (row % 2)) % 1 - 0.5) * 24
    return 0.5 + 0.55 * rise(np.hypot(dx, y - row * height), 5.0, 9.0)


def striped(y: Field, x: Field, seed: int) -> Field:
    """Slanting stripes, a pair in 22 px."""
    across = from_edge((x + y) / np.sqrt(2), 22)
    return 0.55 + 0.5 * rise(across, 3.7, 7.3)


TEXTURES: dict[str, tuple[Callable[[Field, Field, int], Field], float]] = {
    "knitted": (knitted, 18.0),
    "woven": (woven, 26.0),
    "brick": (brick, 18.0),
    "scaly": (scaly, 17.0),
    "furry": (furry, 18.0),
    "wooden": (wooden, 20.0),
    "mosaic": (mosaic, 20.0),
    "crystalline": (crystalline, 24.0),
    "dotted": (dotted, 20.8),
    "striped": (striped, 22.0),
}
"""Each material's texture and its period in px, 16 to 28: that of its repeating rows, or the usual distance where it is
irregular."""


def wave(phase: Field) -> Field:
    """Return 0 to 1 to 0 over each whole number of `phase`."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * phase)


def from_edge(place: Field, period: float) -> Field:
    """Return the distance in px to the nearest multiple of `period`."""
    part = place % period
    return np.minimum(part, period - part)


def rise(value: Field, low: float, high: float) -> Field:
    """Return 0 below `low`, 1 above `high` and a smooth step between."""
    return smooth(np.clip((value - low) / (high - low), 0, 1))


def smooth(share: Field) -> Field:
    return share * share * (3 - 2 * share)


def hashed(row: Field, column: Field, seed: int) -> Field:
    """Return a number in [0, 1) for each whole (row, column), the same for the same `seed` everywhere."""
    with np.errstate(over="ignore"):
        mixed = row.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
        mixed = mixed ^ (column.astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA77))
        mixed = mixed ^ np.uint32(seed * 0xC2B2AE3D & 0xFFFFFFFF)
        for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
            mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
        mixed = mixed ^ (mixed >> np.uint32(15))
    return (mixed >> np.uint32(8)).astype(np.float32) / np.float32(2**24)


def noise(y: Field, x: Field, seed: int) -> Field:
    """Return smooth noise in [0, 1] that is free at whole coordinates."""
    row, column = np.floor(y), np.floor(x)
    fy, fx = smooth(y - row), smooth(x - column)
    upper = hashed(row, column, seed) * (1 - fx) + hashed(row, column + 1, seed) * fx
    lower = hashed(row + 1, column, seed) * (1 - fx) + hashed(row + 1, column + 1, seed) * fx
    return upper * (1 - fy) + lower * fy
