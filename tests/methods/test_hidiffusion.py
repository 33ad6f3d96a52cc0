"""HiDiffusion: smaller inside while it begins, and windows of attention that move."""

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.methods.catalog import METHODS
from fam_ext.methods.hidiffusion import HiDiffusion, in_windows, out_of_windows
from tests.methods.neighbours import LEVEL, Dilating, begun, phases_of


def acting(steered, rho, strided="down_blocks.1.downsamplers.0.conv"):
    """Return which of HiDiffusion's two places act at `rho`."""
    phases_of(steered, rho)
    feature_map, kernel = torch.zeros(1, 3, 8, 8), Dilating()
    strided = steered.stride(strided, feature_map, kernel, size=(4, 4), phase="target")
    pooled = steered.pool("b", feature_map, size=(8, 8), phase="target")
    assert (strided is None) == (steered.unstride("c", feature_map, kernel, size=(16, 16), phase="target") is None)
    assert (pooled is None) == (steered.unpool("d", feature_map, size=(16, 16), phase="target") is None)
    for phase in ("native", "off"):
        assert steered.stride("a", feature_map, kernel, size=(4, 4), phase=phase) is None
        assert steered.pool("b", feature_map, size=(8, 8), phase=phase) is None
    if strided is not None:
        assert kernel.runs[0] == ((8, 8), (2, 2), (4, 4)) and strided.shape[-1] == 2
        assert kernel.runs[1] == ((16, 16), (1, 1), None)
    if pooled is not None:
        assert pooled.shape[-1] == 4
    return "strided" * (strided is not None) + "pooled" * (pooled is not None)


def test_hidiffusion_runs_smaller_inside_while_it_begins():
    double, triple = (begun(HiDiffusion(FamConfig()), size=size) for size in ((16, 16), (24, 24)))
    assert [acting(double, rho) for rho in (0.95, 0.8, 0.61, 0.59, 0.1)] == ["strided", "pooled", "pooled", "", ""]
    assert [acting(triple, rho) for rho in (0.95, 0.71, 0.69, 0.31, 0.29)] == [
        *("stridedpooled", "stridedpooled", "pooled", "pooled", "")
    ]


def test_hidiffusion_takes_the_authors_times_for_sd15_where_it_strides_first():
    double, triple = (begun(HiDiffusion(FamConfig()), size=size) for size in ((16, 16), (24, 24)))
    first = "down_blocks.0.downsamplers.0.conv"
    assert [acting(double, rho, first) for rho in (0.95, 0.8, 0.61, 0.59)] == ["strided", "strided", "strided", ""]
    assert [acting(triple, rho, first) for rho in (0.95, 0.71, 0.69, 0.31, 0.29)] == [
        *("stridedpooled", "stridedpooled", "strided", "strided", "")
    ]


def test_hidiffusion_makes_as_large_again_what_it_pooled():
    """From 3x on the stride has halved it before, and the skip that it meets is of that size."""
    steered = begun(HiDiffusion(FamConfig()), size=(24, 24))
    phases_of(steered, 0.95)
    small = steered.pool("pooled", torch.ones(1, 2, 6, 5), size=(12, 10), phase="target")
    assert small.shape[-2:] == (3, 3)
    assert steered.unpool("unpooled", small, size=(12, 10), phase="target").shape[-2:] == (6, 5)


@pytest.mark.parametrize(("size", "is_large"), [((24, 24), True), ((16, 32), False), ((24, 16), False)])
def test_both_places_act_at_once_only_where_both_sides_are_large(size, is_large):
    assert begun(HiDiffusion(FamConfig()), size=size).is_large == is_large


def test_hidiffusion_at_the_native_size_is_plain():
    assert [bool(begun(HiDiffusion(FamConfig()), size=size).patches()) for size in ((8, 8), (6, 8), (9, 8))] == [
        *(False, False, True)
    ]
    both = begun(METHODS["hidiffusion+fam"].load()(FamConfig()), size=(8, 8))
    assert phases_of(both, 0.95) == ["native", "target"] and [each.place for each in both.patches()] == ["attention"]


@pytest.mark.parametrize("size", [(4, 6), (8, 8)])
@pytest.mark.parametrize("shift", [(0, 0), (1, 2)])
def test_windows_of_attention_come_back_to_their_places(size, shift):
    tokens = torch.arange(2.0 * 3 * size[0] * size[1] * 5).reshape(2, 3, -1, 5)
    inside = in_windows(tokens, size, shift)
    assert inside.shape == (2, 12, size[0] * size[1] // 4, 5)
    assert torch.equal(out_of_windows(inside, size, shift), tokens)


def test_a_token_sees_its_window_alone():
    """One key among zeros: where it is seen, the output is more than the values' mean."""
    steered = begun(HiDiffusion(FamConfig()))
    q = torch.ones(1, 1, 16, 2)
    k, v = torch.zeros(1, 1, 16, 2), torch.zeros(1, 1, 16, 2)
    v[0, 0, 0] = 1.0  # the picture's first pixel, of 4 x 4
    for quarters, seen in (((0, 0), {0, 1, 4, 5}), ((2, 0), {0, 1, 12, 13})):
        steered.quarters = quarters
        out = steered.attend("last", q, k, v, size=(4, 4), scale=None, phase="target")
        assert set(out[0, 0, :, 0].nonzero().flatten().tolist()) == seen
    assert steered.attend("last", q, k, v, size=(4, 4), scale=None, phase="native") is None
    odd = torch.ones(1, 1, 15, 2)
    assert steered.attend("last", odd, odd, odd, size=(3, 5), scale=None, phase="target") is None


def test_hidiffusions_windows_move_from_step_to_step():
    steered, shifts = begun(HiDiffusion(FamConfig())), set()
    for step in range(50):
        phases_of(steered, step / 50)
        shifts.add(steered.quarters)
    assert {down for down, _ in shifts} == {right for _, right in shifts} == {0, 1, 2, 3}


def test_hidiffusion_with_fam_does_both():
    steered = begun(METHODS["hidiffusion+fam"].load()(FamConfig()))
    assert phases_of(steered, 0.9) == ["native", "target"]
    assert [patch.place for patch in steered.patches()].count("attention") == 2
    assert steered.initial(LEVEL).shape == (1, 4, 16, 16) and steered.pictures.target is not None
