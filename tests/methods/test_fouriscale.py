"""FouriScale: a low-pass, a dilation that falls, and a second run under the first one's maps."""

import dataclasses
import math
from unittest.mock import Mock

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.frequency import modulate
from fam_ext.core.guide import seeded_noise
from fam_ext.methods.fouriscale import FouriScale, low_pass
from tests.methods.neighbours import CONDITION, Dilating, Makings, at, begun, phases_of, wave


def low_passed(feature_map, factor, **more):
    gain = low_pass(tuple(feature_map.shape[-2:]), factor, device=feature_map.device, **more)
    return modulate(feature_map, torch.zeros_like(feature_map), gain)


@pytest.mark.parametrize(("cycles", "left"), [(0, 1.0), (8, 1.0), (9, 0.5), (10, 0.25), (14, 0.25)])
def test_a_low_pass_keeps_the_native_band_and_leaves_its_floor_of_the_rest(cycles, left):
    made = low_passed(wave(cycles), 2.0, ramp=1 / 8, floor=0.25)  # 16 cycles are the whole band
    assert torch.allclose(made, left * wave(cycles), atol=1e-5)
    assert torch.allclose(made.mT, low_passed(wave(cycles).mT, 2.0, ramp=1 / 8, floor=0.25), atol=1e-5), (
        "both axes alike"
    )


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


@pytest.mark.parametrize(
    ("size", "given"), [((16, 16), (6, 6)), ((16, 32), (12, 6)), ((12, 16), (8, 6)), ((24, 24), (6, 6))]
)
def test_fouriscale_pads_to_the_native_aspect_and_crops_again(size, given):
    kernel, steered = Dilating(), begun(FouriScale(FamConfig()), size=size)
    feature_map = seeded_noise((3, 6, 6), [1])
    phases_of(steered, 0.9)
    steered.branch = dataclasses.replace(steered.branch, dilation=float(math.ceil(max(steered.scales))))
    out = steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="target")
    whole = math.ceil(max(size) / 8)
    assert kernel.runs == [(given, (whole, whole), None)] and out.shape == feature_map.shape
    assert steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="native") is None


def test_fouriscale_guides_rows_with_words_by_its_milder_run_under_the_first_runs_maps():
    steered, branches, attended = begun(FouriScale(FamConfig(), leaves=0.5)), [], []
    q, k, v = (seeded_noise((1, 4, 3), [seed, seed + 9]) for seed in (1, 2, 3))

    def call(latent, level, condition, *, phase="target"):
        branches.append((steered.branch.dilation, steered.branch.floor))
        run = len(branches)
        attended.append(steered.attend("a", run * q, run * k, v, size=(2, 2), scale=None, phase=phase))
        return latent + run

    latent = torch.zeros(2, 4, 16, 16)
    out = steered.around_model(call, latent, at(0.9), CONDITION)
    assert branches == [(2.0, 0.0), (2 / 1.5, 0.5)]
    assert torch.equal(out[0], latent[0] + 1) and torch.equal(out[1], latent[0] + 2)
    assert attended[0] is None, "as usual"
    assert torch.equal(attended[1], torch.nn.functional.scaled_dot_product_attention(q, k, v))
    assert steered.attend("a", q, k, v, size=(2, 2), scale=None, phase="native") is None


def test_fouriscales_filter_is_made_once_for_a_size_and_a_scale():
    steered, feature_map = begun(FouriScale(FamConfig(), sites="*")), seeded_noise((3, 6, 6), [1])

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
        steered.branch = dataclasses.replace(steered.branch, dilation=2.0, floor=0.25)
        return [steered.convolve("a", feature_map, Dilating(), size=(6, 7), phase="target") for _ in range(2)]

    (expected, _), absent = convolved(), NotImplementedError("The operator is not currently implemented for the device")
    assert not torch.allclose(expected, feature_map, atol=1e-2)
    monkeypatch.setattr(torch.fft, "rfft2", Mock(side_effect=absent))
    with caplog.at_level("INFO"):
        results = convolved()
    assert all(torch.allclose(result, expected, atol=1e-5) for result in results)
    assert caplog.text.count("no FFT") == torch.fft.rfft2.call_count == 1
