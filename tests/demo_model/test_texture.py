"""Texture from part to part, on every material as the true pictures show it."""

from __future__ import annotations

import numpy as np
import pytest
from data import compose
from PIL import Image
from things import MATERIALS, Scene

from fam_ext.quality.consistency import spread_beyond
from fam_ext.quality.detail import period_error
from fam_ext.quality.structure import Picture

pytestmark = pytest.mark.slow  # fifty renders: about ten seconds on an idle core

SIDE = 640


def truth(material: str, *, side: int = SIDE, seed: int = 0, ground: str = "blue") -> Picture:
    """A disc of `material`, shaded from left to right."""
    y, x = np.mgrid[0:side, 0:side] / side
    drawing = np.zeros((side, side, 4), np.uint8)
    drawing[..., :3] = np.stack([230 - 80 * x, 150 + 60 * y, 120 + 0 * x], axis=2).astype(np.uint8)
    drawing[..., 3] = 255 * (np.hypot(y - 0.5, x - 0.5) < 0.48)
    return compose(drawing, Scene("balloon", material, ground), seed)


def left_half(picture: Picture, right: Picture) -> Picture:
    return np.concatenate([picture[:, : SIDE // 2], right[:, SIDE // 2 :]], axis=1)


def resized(picture: Picture, side: int) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("material", MATERIALS)
def test_a_half_that_is_enlarged_or_smoothed_or_of_another_material_is_unlike(material: str) -> None:
    true = truth(material)
    same = spread_beyond(truth(material, seed=1, ground="pink"), true)
    enlarged = resized(truth(material, side=SIDE // 2), SIDE)
    other = truth(MATERIALS[MATERIALS.index(material) - 3])
    smooth = resized(resized(true, SIDE // 20), SIDE)
    found = [spread_beyond(left_half(true, right), true) for right in (enlarged, other, smooth)]
    assert same is not None and abs(same) < 0.2
    assert all(one is not None and one > 1.2 for one in found)


@pytest.mark.parametrize("material", MATERIALS)
def test_an_enlarged_material_has_about_twice_the_period_and_another_true_picture_the_same(material: str) -> None:
    true = truth(material)
    enlarged = period_error(resized(truth(material, side=SIDE // 2), SIDE), true)
    same = period_error(truth(material, seed=1, ground="pink"), true)
    assert same is not None and same < 0.2
    assert enlarged is not None and 0.6 < enlarged < 1.2
