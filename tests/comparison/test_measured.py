"""What is measured for the page: spectra, and the maps that `core.attention` never builds."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from fam_ext.comparison.attention import MOST_SIDE, QUERIES, Maps, Watch, atlas, modulated_map
from fam_ext.comparison.spectrum import radial_spectrum
from fam_ext.core.attention import modulated_attention


def wave(side, cycles):
    """A picture of one wave across, from 0.25 to 0.75."""
    across = 0.5 + 0.25 * np.sin(2 * math.pi * cycles * (np.arange(side) + 0.5) / side)
    return Image.fromarray((np.tile(across, (side, 1)) * 255).round().astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("cycles", [5, 20])
def test_a_wave_stands_at_its_frequency_at_any_size(cycles):
    peaks = []
    for side in (128, 255, 256):
        found = radial_spectrum(wave(side, cycles))
        at = int(np.argmax(found.power))
        assert found.cycles[at] == pytest.approx(cycles, rel=0.15)
        assert found.cycles[0] < 1.5 and found.cycles[-1] == pytest.approx(side / 2, rel=0.1)
        peaks.append(found.power[at])
    assert peaks[0] == pytest.approx(peaks[2], rel=0.25)  # not four times as much where there are four times the pixels


def test_noise_is_flat_and_a_flat_picture_has_no_power():
    noise = radial_spectrum(Image.effect_noise((256, 256), 60))
    assert max(noise.power[8:]) < 3 * min(noise.power[8:])
    assert np.mean(noise.power[8:]) * 256**2 == pytest.approx((60 / 255) ** 2, rel=0.3)  # Parseval: its variance
    assert max(radial_spectrum(Image.new("RGB", (64, 96), "white")).power) < 1e-12


@pytest.mark.parametrize("interp", ["bilinear", "nearest"])
@pytest.mark.parametrize(("native_size", "size"), [((4, 6), (8, 12)), ((4, 4), (10, 6)), ((3, 3), (3, 3))])
def test_the_maps_are_those_the_network_used(native_size, size, interp):
    torch.manual_seed(0)
    heads, depth = 3, 5
    tokens, few = size[0] * size[1], native_size[0] * native_size[1]
    q, k = torch.randn(2, 1, heads, tokens, depth)
    native_q, native_k = torch.randn(2, 1, heads, few, depth)
    v = torch.randn(1, 1, tokens, depth).expand(1, heads, tokens, depth)  # one for all: heads can be averaged after it
    wanted = modulated_attention(
        q, k, v, native_q, native_k, size=size, native_size=native_size, strength=0.7, interp=interp
    ).mean(1)[0]
    points = torch.tensor([0, tokens // 2, tokens - 1])
    native = (native_q @ native_k.transpose(-1, -2) * depth**-0.5).softmax(-1).mean(1)[0]
    target = (q @ k.transpose(-1, -2) * depth**-0.5).softmax(-1).mean(1)[0][points]
    found = modulated_map(native, target, points, native_size, size, strength=0.7, interp=interp)
    assert torch.allclose(found.sum(-1), torch.ones(3), atol=1e-5)
    assert torch.allclose(found @ v[0, 0], wanted[points], atol=1e-5)


def test_a_grid_that_was_made_smaller_than_the_native_one_has_no_map():
    watch, tokens = Watch(), torch.ones(1, 1, 16, 4)
    for phase, size in (("native", (4, 4)), ("target", (3, 5))):
        watch.look("up.0", *2 * [tokens[:, :, : size[0] * size[1]]], size=size, scale=None, phase=phase)
    assert watch.maps() is None


def test_an_atlas_has_each_point_in_its_place():
    points = QUERIES * QUERIES
    target = torch.full((points, 6, 5), 0.5)
    target[QUERIES + 2, 4, 3] = 4.0  # row 1, column 2
    maps = Maps("up", 1, 0.5, torch.ones(points, 2, 3), target, target)
    sheet, peaks = atlas(maps)
    assert sheet.size == (QUERIES * 13, QUERIES * 6) and peaks[QUERIES + 2] == 4 and peaks[0] == 1
    pixels = np.asarray(sheet)
    assert pixels[6 + 4, 2 * 13 + 3 + 3] == 255 and pixels[6 + 4, 2 * 13 + 8 + 3] == 255
    assert pixels[6, 2 * 13 + 3] == round(255 * math.sqrt(0.5 / 4)) and pixels[6, 2 * 13] == round(
        255 * math.sqrt(1 / 4)
    )
    assert MOST_SIDE * 3 * QUERIES < 16_383  # what any encoder takes
