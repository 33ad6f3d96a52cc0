"""ScaleCrafter: dilated by the scale, until its end."""

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.methods.scalecrafter import ScaleCrafter
from tests.methods.neighbours import Dilating, begun, phases_of


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


def test_scalecrafter_ends_on_the_way():
    steered = begun(ScaleCrafter(FamConfig()))
    assert phases_of(steered, 0.9) == ["target"] and phases_of(steered, 0.4) == ["off"]
