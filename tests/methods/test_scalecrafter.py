"""ScaleCrafter: dilated by the scale, until its end."""

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.methods.scalecrafter import SITES, ScaleCrafter
from tests.methods.neighbours import Dilating, begun, meant, phases_of, starting


@pytest.mark.parametrize(
    ("size", "runs"),
    [
        ((8, 8), [((6, 6), (1, 1), None)]),
        ((16, 16), [((6, 6), (2, 2), None)]),
        ((16, 32), [((6, 6), (2, 4), None)]),
        ((12, 16), [((8, 6), (2, 2), None)]),
    ],
)
def test_scalecrafter_dilates_by_the_scale_and_enlarges_what_it_cannot(size, runs):
    kernel, steered = Dilating(), begun(ScaleCrafter(FamConfig()), size=size)
    feature_map = seeded_noise((3, 6, 6), [1])
    out = steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="target")
    assert kernel.runs == runs and out.shape == feature_map.shape
    assert steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="native") is None


def test_scalecrafter_dilates_the_authors_layers():
    assert meant(SITES, 4) == starting(4, "down_blocks.3", "mid_block", "up_blocks.0")
    assert meant(SITES, 3) == starting(3, "mid_block", "up_blocks.0")


def test_a_dilated_convolution_with_a_stride_gives_its_own_size():
    steered, feature_map = begun(ScaleCrafter(FamConfig()), size=(12, 16)), seeded_noise((3, 6, 7), [1])
    out = steered.convolve("a", feature_map, Dilating((2, 2)), size=(3, 4), phase="target")
    assert out.shape[-2:] == (3, 4)


def test_scalecrafter_ends_on_the_way():
    steered = begun(ScaleCrafter(FamConfig()))
    assert phases_of(steered, 0.9) == ["target"] and phases_of(steered, 0.4) == ["off"]
