"""FouriScale: a low-pass, a dilation that falls, and a second run under the first one's maps."""

import math
from unittest.mock import Mock

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.frequency import modulate
from fam_ext.core.guide import seeded_noise
from fam_ext.methods.fouriscale import SD, SDXL, Branch, FouriScale, low_pass
from tests.methods.neighbours import CONDITION, Dilating, Makings, at, begun, meant, phases_of, starting, wave


def low_passed(feature_map, factor, **more):
    gain = low_pass(tuple(feature_map.shape[-2:]), factor, device=feature_map.device, **more)
    return modulate(feature_map, torch.zeros_like(feature_map), gain)


@pytest.mark.parametrize(("cycles", "left"), [(0, 1.0), (9, 1.0), (10, 0.7), (11, 0.4), (14, 0.4)])
def test_a_low_pass_keeps_the_native_band_and_leaves_its_floor_of_the_rest(cycles, left):
    made = low_passed(wave(cycles), 2.0, ramp=1 / 8, floor=0.4)  # 16 cycles are the whole band
    assert torch.allclose(made, left * wave(cycles), atol=1e-5)
    assert torch.allclose(made.mT, low_passed(wave(cycles).mT, 2.0, ramp=1 / 8, floor=0.4), atol=1e-5), (
        "both axes alike"
    )
    crossed = wave(cycles) * wave(cycles).mT
    assert torch.allclose(low_passed(crossed, 2.0, ramp=1 / 8, floor=0.4), left**2 * crossed, atol=1e-5), "one by one"


def test_a_low_pass_of_the_whole_band_changes_no_bit():
    feature_map = seeded_noise((3, 7, 6), [1])
    assert torch.equal(low_passed(feature_map, 1.0, ramp=1 / 8, floor=0.0), feature_map)


def test_fouriscale_at_the_native_size_is_plain():
    steered = begun(FouriScale(FamConfig()), size=(8, 8))
    assert [phases_of(steered, rho) for rho in (1.0, 0.7, 0.1)] == [["off"]] * 3


def test_fouriscales_dilation_falls_from_the_scale_to_one():
    steered = begun(FouriScale(FamConfig()), size=(24, 24))
    assert [steered.dilation(at(rho)) for rho in (1.0, 0.6, 0.45, 0.3, 0.1)] == pytest.approx([3, 3, 2, 1, 1])
    assert phases_of(steered, 0.5) == ["target"] * 2 and phases_of(steered, 0.3) == ["off"]


def test_fouriscale_has_the_authors_settings_for_each_network():
    """Their steps of 50: 10 to 30 at twice the side in SD1.5, 20 to 35 in SDXL and at four times."""
    for size, is_sdxl, full, end in (
        ((16, 16), False, 0.8, 0.4),
        ((32, 32), False, 0.6, 0.3),
        ((16, 16), True, 0.6, 0.3),
    ):
        steered = begun(FouriScale(FamConfig()), size=size, is_sdxl=is_sdxl)
        whole = size[0] / 8
        assert [steered.dilation(at(rho)) for rho in (full, (full + end) / 2, end)] == pytest.approx(
            [whole, (1 + whole) / 2, 1]
        )
    inner = "mid_block", "up_blocks.0", "down_blocks.2"
    assert meant(SD.sites, 4) == starting(4, *inner, "down_blocks.3", "up_blocks.1", "up_blocks.2")
    assert meant(SDXL.sites, 3) == starting(3, *inner, "up_blocks.1.resnets")


def test_fouriscale_filters_what_its_dilation_skips_and_nothing_before_an_upsampler():
    steered, feature_map = begun(FouriScale(FamConfig())), seeded_noise((3, 6, 6), [1])
    phases_of(steered, 0.9)
    steered.branch = Branch(2, 1 / 4)

    def made(site, kernel):
        return steered.convolve(site, feature_map, kernel, size=(6, 6), phase="target"), kernel.runs

    out, runs = made("up_blocks.0.upsamplers.0.conv", Dilating())
    assert torch.equal(out, feature_map) and runs == [((6, 6), (2, 2), None)]
    out, runs = made("down_blocks.2.downsamplers.0.conv", Dilating((2, 2)))
    assert torch.equal(out, feature_map[..., ::2, ::2]) and runs == [((6, 6), (2, 2), None)]
    assert not torch.allclose(made("mid_block.resnets.0.conv1", Dilating())[0], feature_map, atol=0.1)


@pytest.mark.parametrize(
    ("size", "given"), [((16, 16), (6, 6)), ((16, 32), (12, 6)), ((12, 16), (8, 6)), ((24, 24), (6, 6))]
)
def test_fouriscale_pads_to_the_native_aspect_and_crops_again(size, given):
    kernel, steered = Dilating(), begun(FouriScale(FamConfig()), size=size)
    feature_map, sizes = seeded_noise((3, 6, 6), [1]), []
    phases_of(steered, 0.9)
    gain = steered._gain
    steered._gain = lambda size, *rest, **more: sizes.append(size) or gain(size, *rest, **more)
    out = steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="target")
    whole = math.ceil(max(size) / 8)
    assert kernel.runs == [((6, 6), (whole, whole), None)] and out.shape == feature_map.shape and sizes == [given]
    assert steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="native") is None


@pytest.mark.parametrize(("is_sdxl", "milder"), [(False, 2), (True, 1)])
def test_fouriscale_guides_rows_with_words_by_its_milder_run_under_the_first_runs_maps(is_sdxl, milder):
    steered, branches, attended = begun(FouriScale(FamConfig()), is_sdxl=is_sdxl), [], []
    q, k, v = (seeded_noise((1, 4, 3), [seed, seed + 9]) for seed in (1, 2, 3))

    def call(latent, level, condition, *, phase="target"):
        branches.append((steered.branch.dilation, steered.branch.ramp))
        run = len(branches)
        attended.append(steered.attend("a", run * q, run * k, v, size=(2, 2), scale=None, phase=phase))
        return latent + run

    latent = torch.zeros(2, 4, 16, 16)
    out = steered.around_model(call, latent, at(0.32 if is_sdxl else 0.9), CONDITION)
    assert branches == [(2, 1 / 4), (milder, None)]
    assert torch.equal(out[0], latent[0] + 1) and torch.equal(out[1], latent[0] + 2)
    assert attended[0] is None, "as usual"
    assert torch.equal(attended[1], torch.nn.functional.scaled_dot_product_attention(q, k, v))
    assert steered.attend("a", q, k, v, size=(2, 2), scale=None, phase="native") is None


def test_fouriscales_filter_is_made_once_for_a_size_and_a_scale():
    steered, feature_map = begun(FouriScale(FamConfig())), seeded_noise((3, 6, 6), [1])

    def call(latent, level, condition, *, phase="target"):
        for site in ("mid_block.resnets.0.conv1", "mid_block.resnets.0.conv2"):
            steered.convolve(site, feature_map, Dilating(), size=(6, 6), phase=phase)
        return latent

    with Makings() as makings:
        for rho in (0.95, 0.9):  # s is whole at both, and milder in each second run
            steered.around_model(call, torch.zeros(2, 4, 16, 16), at(rho), CONDITION)
    assert makings.counts["arange"] == 2 * 2, "of two runs, for both sides"


def test_fouriscale_on_a_device_without_fft_takes_the_matmuls_and_says_so_once(monkeypatch, caplog):
    feature_map = seeded_noise((3, 6, 7), [1])

    def convolved():
        steered = begun(FouriScale(FamConfig()))
        steered.reach = 2.0
        return [steered.convolve("a", feature_map, Dilating(), size=(6, 7), phase="target") for _ in range(2)]

    (expected, _), absent = convolved(), NotImplementedError("The operator is not currently implemented for the device")
    assert not torch.allclose(expected, feature_map, atol=1e-2)
    monkeypatch.setattr(torch.fft, "rfft2", Mock(side_effect=absent))
    with caplog.at_level("INFO"):
        results = convolved()
    assert all(torch.allclose(result, expected, atol=1e-5) for result in results)
    assert caplog.text.count("no FFT") == torch.fft.rfft2.call_count == 1
