"""The measures of pictures say what they are named after."""

from __future__ import annotations

import math

import materials
import measures
import numpy as np
import pytest
import torch
from measures import components, psnr, shrunk
from PIL import Image


def surface(material: str, size: int, seed: int = 0) -> np.ndarray:
    shade = materials.shade(material, size, seed)[..., None] * np.array([200.0, 120.0, 90.0])
    return np.clip(shade, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("material", materials.TEXTURES)
def test_an_enlarged_texture_has_twice_the_period_and_the_true_one_the_same(material: str) -> None:
    small, large = surface(material, 256), surface(material, 512)
    enlarged = np.asarray(Image.fromarray(small).resize((512, 512), Image.Resampling.BICUBIC))
    period = measures.texture_period(small)
    assert period is not None and 8 < period < 30
    assert measures.texture_period(large) == pytest.approx(period, rel=0.15)
    enlarged_period = measures.texture_period(enlarged)
    assert enlarged_period is not None and 1.4 < enlarged_period / period < 2.1  # harmonics under 3 px come in


def test_an_even_picture_has_no_texture() -> None:
    assert measures.texture_period(np.full((256, 256, 3), 90, np.uint8)) is None


def test_coarse_colour_sees_a_cast_and_not_fine_noise() -> None:
    rng = np.random.default_rng(0)
    truth = np.full((96, 64, 3), 100, np.uint8)
    cast = truth.copy()
    cast[:32, :32, 1] += 12
    assert measures.coarse_colour(cast, truth).max() == 12 and measures.coarse_colour(cast, truth).size == 18
    noisy = (truth + rng.integers(-20, 21, truth.shape)).astype(np.uint8)
    assert measures.coarse_colour(noisy, truth).max() < 2
    with pytest.raises(ValueError, match="one size"):
        measures.coarse_colour(truth, truth[:64])


def test_an_interval_holds_the_mean_and_narrows_with_n() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400).tolist()
    low, high = measures.interval(values)
    assert low < 5.1 and high > 4.9 and 0.3 < high - low < 0.5
    few = measures.interval(values[:25])
    assert few[1] - few[0] > 2.5 * (high - low)
    with pytest.raises(ValueError, match="at least 2"):
        measures.interval([1.0])


def blank() -> torch.Tensor:
    return torch.ones(3, 128, 128)


def test_pieces_are_counted_and_specks_are_not() -> None:
    picture = blank()
    assert components(picture) == 0
    picture[:, 10:40, 10:40] = 0.2
    picture[:, 40:60, 40:60] = 0.2  # touches by a corner: one piece
    assert components(picture) == 1
    picture[1, 80:110, 80:110] = 0.5
    picture[:, 5:8, 100:103] = 0  # 9 px of 16384
    assert components(picture) == 2


def test_a_winding_piece_is_one() -> None:
    picture = blank()
    for row in range(4, 120, 8):
        picture[:, row : row + 3, 4:124] = 0
        side = 4 if (row // 8) % 2 else 120
        picture[:, row : row + 11, side : side + 4] = 0
    assert components(picture) == 1


def test_pieces_of_a_large_picture_are_counted_at_128_px() -> None:
    picture = torch.ones(3, 512, 512)
    picture[:, 100:200, 100:200] = 0
    picture[:, 300:400, 300:400] = 0
    assert components(picture) == 2


def test_psnr() -> None:
    picture = torch.full((3, 8, 8), 0.5)
    assert psnr(picture, picture) == math.inf
    assert psnr(picture, picture + 0.1) == pytest.approx(20, abs=1e-4)


def test_shrinking_keeps_the_mean() -> None:
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    small = shrunk(picture, (16, 16))
    assert small.shape == (3, 16, 16)
    assert small.mean().item() == pytest.approx(picture.mean().item(), abs=5e-3)
