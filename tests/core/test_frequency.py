"""Frequency Modulation: Eq. 4, 5, 8-11."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fam_ext.core.config import FamConfig
from fam_ext.core.frequency import high_pass_mask, mirrored, modulate, modulate_spatial
from fam_ext.core.schedule import box_size, config_box, inside_weight, rho
from fam_ext.errors import ConfigError
from tests.inputs import drawn

sides = st.integers(4, 41)
unit = st.floats(0, 1)


def latents(height, width, *, dtype=torch.float32, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, height, width, generator=stream, dtype=torch.float64).to(dtype)


@given(sides, sides, unit, unit)
@settings(max_examples=drawn(60), deadline=None)
def test_mask_is_eq_11_with_a_symmetric_box(height, width, position, cutoff):
    box = box_size((height, width), position, cutoff)
    mask = high_pass_mask((2 * height, width + 3), box, position)
    expected = [
        [
            position if min(y, 2 * height - y) < box[0] / 2 and min(x, width + 3 - x) < box[1] / 2 else 1.0
            for x in range(width + 3)
        ]
        for y in range(2 * height)
    ]
    assert torch.equal(mask, torch.tensor(expected))


@pytest.mark.parametrize("size", [(16, 16), (17, 17), (16, 17), (23, 40)])
@pytest.mark.parametrize("position", [0.0, 0.3, 0.9])
def test_modulated_latent_is_real(size, position):
    mask = high_pass_mask(size, box_size(size, position, 0.8), position).double()
    z, reference = latents(*size, dtype=torch.float64), latents(*size, dtype=torch.float64, seed=1)
    spectrum = mask * torch.fft.fft2(z) + (1 - mask) * torch.fft.fft2(reference)
    result = torch.fft.ifft2(spectrum)
    assert result.imag.abs().max() < 1e-12
    assert torch.allclose(result.real, modulate(z, reference, mask), atol=1e-12)


@given(sides, sides, unit, unit)
@settings(max_examples=drawn(60), deadline=None)
def test_both_forms_agree(height, width, position, cutoff):
    mask = high_pass_mask((height, width), box_size((height, width), position, cutoff), position)
    z, reference = latents(height, width), latents(height, width, seed=1)
    assert torch.allclose(modulate(z, reference, mask), modulate_spatial(z, reference, mask), atol=1e-5)


def test_k_of_one_leaves_the_latent_alone_bit_for_bit():
    z = latents(12, 15)
    assert torch.equal(modulate(z, latents(12, 15, seed=1), high_pass_mask((12, 15), (8, 8), 1.0)), z)
    assert torch.equal(modulate(z, latents(12, 15, seed=1), high_pass_mask((12, 15), (0, 0), 0.2)), z)


def test_k_of_zero_in_a_box_over_everything_returns_the_reference():
    reference = latents(12, 15, seed=1)
    mask = high_pass_mask((12, 15), (100, 100), 0.0)
    assert torch.allclose(modulate(latents(12, 15), reference, mask), reference, atol=1e-6)


def test_low_band_is_the_references_and_the_rest_the_latents():
    mask = high_pass_mask((32, 32), (9, 9), 0.0)
    z, reference = latents(32, 32), latents(32, 32, seed=1)
    spectrum, low = torch.fft.fft2(modulate(z, reference, mask)), mask == 0
    assert int(low.sum()) == 81
    assert torch.allclose(spectrum[..., low], torch.fft.fft2(reference)[..., low], atol=1e-3)
    assert torch.allclose(spectrum[..., ~low], torch.fft.fft2(z)[..., ~low], atol=1e-3)


def test_a_soft_edge_fades_by_half_a_cosine_around_the_hard_one():
    soft = high_pass_mask((64, 48), (16.0, 16.0), 0.25, edge=0.5)
    share = (1 - soft) / 0.75
    assert share[0, :5].tolist() == [1.0] * 5 and share[12:53].abs().max() == 0  # whole below 4 bins, gone from 12 on
    assert share[8, 0] == pytest.approx(0.5) and share[6, 0] == pytest.approx(0.5 + math.sqrt(0.125))
    assert torch.allclose(share, share[:, :1] * share[:1], atol=1e-6)  # an outer product: `modulate_spatial` can do it
    assert torch.equal(soft[1:], soft[1:].flip(0)) and torch.equal(soft[:, 1:], soft[:, 1:].flip(1))  # so real
    # as much is pulled along an axis as by the hard edge, and an empty box stays empty
    assert float(share[:, 0].sum()) == pytest.approx(15 + 1)
    assert torch.equal(high_pass_mask((64, 48), (0, 16), 0.25, edge=1.0), torch.ones(64, 48))
    z, reference = latents(64, 48), latents(64, 48, seed=1)
    assert torch.allclose(modulate(z, reference, soft), modulate_spatial(z, reference, soft), atol=1e-5)


@pytest.mark.parametrize("edge", [0.0, 0.5])
def test_the_mask_is_float32_whatever_the_default(edge):
    torch.set_default_dtype(torch.float64)
    try:
        assert high_pass_mask((8, 8), (4, 4), 0.5, edge=edge).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_soft_edge_rings_less():
    step = torch.zeros(1, 1, 64, 64)
    step[..., 16:48] = 1.0
    beyond = [
        float(modulate(torch.zeros_like(step), step, high_pass_mask((64, 64), (24, 24), 0.0, edge=edge)).max()) - 1
        for edge in (0.0, 0.5, 1.0)
    ]
    assert beyond == sorted(beyond, reverse=True) and beyond[0] > 0.07 and beyond[2] < 0.01


@given(st.floats(-4, 4), unit)
@settings(max_examples=drawn(25), deadline=None)
def test_modulate_is_linear(factor, position):
    mask = high_pass_mask((14, 11), (6, 7), position)
    z, reference = latents(14, 11), latents(14, 11, seed=1)
    assert torch.allclose(
        modulate(factor * z, factor * reference, mask), factor * modulate(z, reference, mask), atol=1e-4
    )


def test_reference_share_never_falls_as_t_falls():
    shares = []
    for t in range(1000, -1, -20):
        position = rho(t, 1000)
        shares.append(float((1 - high_pass_mask((64, 64), box_size((32, 32), position, 0.5), position)).sum()))
    assert shares == sorted(shares)
    assert shares[0] == 0 and shares[-1] == 15 * 15  # strict inequality: |f| < 8


def test_papers_kept_bins_on_sdxl():
    # method.md 1.0: SDXL, native latent 128, 50 leading steps
    for t, bins in [(981, 1), (801, 13), (601, 25), (401, 39), (201, 51), (1, 63)]:
        mask = high_pass_mask((256, 256), box_size((128, 128), rho(t, 1000), 0.5), rho(t, 1000))
        assert int((mask[0] < 1).sum()) == bins


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype):
    mask = high_pass_mask((8, 8), (4, 4), 0.5)
    z = latents(8, 8, dtype=dtype)
    assert modulate(z, z, mask).dtype == modulate_spatial(z, z, mask).dtype == dtype


def test_wrong_sizes_and_masks_are_named():
    mask = high_pass_mask((8, 8), (4, 4), 0.5)
    with pytest.raises(ConfigError, match=r"differ in size"):
        modulate(latents(8, 8), latents(8, 9), mask)
    with pytest.raises(ConfigError, match="not separable"):
        modulate_spatial(
            latents(8, 8), latents(8, 8, seed=1), torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
        )
    with pytest.raises(ConfigError, match="0 to 1000"):
        rho(1001, 1000)


def test_cutoff_in_cycles_is_sdxls_reach_on_every_native_size():
    sdxl = config_box(FamConfig(), (128, 128), (256, 256), rho=0.25)
    for native in (32, 64, 128):
        cycles = FamConfig(cutoff=32, cutoff_reference="cycles")
        assert config_box(cycles, (native, native), (2 * native, 2 * native), rho=0.25) == pytest.approx(sdxl)
    tall = config_box(FamConfig(cutoff=32, cutoff_reference="cycles"), (64, 32), (256, 128), rho=0.0)
    assert tall[0] / tall[1] == pytest.approx(2) and math.sqrt(tall[0] * tall[1]) == pytest.approx(64)
    assert config_box(FamConfig(cutoff_reference="target"), (64, 64), (256, 256), rho=0.0) == (128, 128)


def test_step_invariant_pull_is_the_fifty_step_pull():
    def total_pull(config, steps):
        left = 1.0
        for step in range(steps):
            left *= inside_weight(config, 1 - (step + 0.5) / steps, steps=steps)
        return math.log(left)

    config = FamConfig(step_invariant=True)
    assert total_pull(config, 8) == pytest.approx(total_pull(config, 50), rel=0.05)
    assert total_pull(FamConfig(), 8) > 0.3 * total_pull(FamConfig(), 50)  # without it 8 steps pull far less


def test_step_invariance_counts_the_whole_schedule_of_which_a_late_start_runs_a_part():
    whole, late = FamConfig(step_invariant=True), FamConfig(step_invariant=True, start=0.6)
    assert inside_weight(whole, 0.5, steps=10) == pytest.approx(0.5**5)
    assert inside_weight(late, 0.5, steps=6) == pytest.approx(0.5**5)


def cosines(side):
    """Return the orthonormal DCT-II matrix (side, side)."""
    k, at = torch.arange(side, dtype=torch.float64)[:, None], torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi * k * (2 * at + 1) / (2 * side)) * math.sqrt(2 / side)
    return torch.cat([matrix[:1] / math.sqrt(2), matrix[1:]])


@pytest.mark.parametrize("size", [(16, 16), (17, 12)])
@pytest.mark.parametrize("position", [0.0, 0.3, 0.9])
def test_a_mirrored_modulation_is_the_dct_in_the_place_of_the_dft(size, position):
    box = box_size(size, position, 0.8)
    mask = high_pass_mask((2 * size[0], 2 * size[1]), (2 * box[0], 2 * box[1]), position).double()
    z, reference = latents(*size, dtype=torch.float64), latents(*size, dtype=torch.float64, seed=1)
    down, across = cosines(size[0]), cosines(size[1])
    # half cycles per picture, strictly nearer to 0 than half the box
    inside = [torch.arange(side) / 2 < tau / 2 for side, tau in zip(size, box, strict=True)]
    pull = (1 - position) * (inside[0][:, None] & inside[1]).double()
    expected = z + down.mT @ (pull * (down @ (reference - z) @ across.mT)) @ across
    made = modulate(mirrored(z), mirrored(reference), mask)[..., : size[0], : size[1]]
    assert torch.allclose(made, expected, atol=1e-6)  # the mask is float32
