"""Sides that are no multiples of 8: every method's scale is the one that was asked, not what rounding made of it."""

import math
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fam_ext.core.config import FamConfig
from fam_ext.methods.accdiffusion import AccDiffusion
from fam_ext.methods.base import Pictures
from fam_ext.methods.demofusion import DemoFusion, phases
from fam_ext.methods.diffusehigh import DiffuseHigh
from fam_ext.methods.fouriscale import FouriScale
from fam_ext.methods.freescale import FreeScale
from fam_ext.methods.hidiffusion import HiDiffusion
from fam_ext.methods.scalecrafter import ScaleCrafter
from fam_ext.methods.scales import scales
from tests.methods.neighbours import Dilating, at, phases_of

SIZES = [(500, 500), (683, 1024), (1065, 1600), (853, 1280), (1000, 750), (768, 1365), (520, 520)]
SCALES = [1.5, 2, 3, 4]
ordinary_sizes = pytest.mark.parametrize(("native", "scale"), list(product(SIZES, SCALES)))


def in_eights(native, scale=1.0):
    """Return the size that a job draws, in latent pixels."""
    return round(native[0] * scale / 8), round(native[1] * scale / 8)


def begun(method, native, scale):
    """Return the pass of a stage from `native` at once to `scale`."""
    size = in_eights(native, scale)
    stage = method.stages((8 * size[0], 8 * size[1]), native)[-1]
    target = None if stage.upsample is None else torch.zeros(1, 4, *size)
    pictures = Pictures(torch.zeros(1, 4, *in_eights(native)), target, torch.zeros(1, 4, *size), None, steps=10)
    return method.begin(stage, pictures)


@ordinary_sizes
def test_convolutions_are_dilated_by_the_scale(native, scale):
    whole = math.ceil(scale)
    for method in (ScaleCrafter(FamConfig()), FreeScale(FamConfig())):
        steered, kernel = begun(method, native, scale), Dilating()
        phases_of(steered, 0.9)
        steered.convolve("a", torch.zeros(1, 1, 40, 60), kernel, size=(40, 60), phase="target")
        ((given_size, dilation, _),) = kernel.runs
        assert dilation == (whole, whole)
        assert (given_size == (40, 60)) == (whole == scale), "what is a whole scale needs no enlarging"
    assert begun(FouriScale(FamConfig()), native, scale).dilation(at(1.0)) == whole


@ordinary_sizes
def test_hidiffusion_is_large_from_three_on(native, scale):
    assert begun(HiDiffusion(FamConfig()), native, scale).is_large == (scale >= 3)


@ordinary_sizes
def test_there_is_a_phase_for_each_multiple_and_as_many_samples(native, scale):
    height, width = in_eights(native, scale)
    sizes = phases((8 * height, 8 * width), native)
    assert len(sizes) == max(1, math.ceil(scale) - 1) and sizes[-1] == (8 * height, 8 * width)
    for factor, size in zip(range(2, math.ceil(scale)), sizes, strict=False):
        assert all(abs(side - factor * own) <= 8 for side, own in zip(size, native, strict=True))
    for method in (DemoFusion(FamConfig()), AccDiffusion(FamConfig())):
        assert [stage.size for stage in method.stages((8 * height, 8 * width), native)] == sizes
        assert begun(method, native, scale).factor == math.ceil(scale)
    stages = DiffuseHigh(FamConfig()).stages((8 * height, 8 * width), native)
    assert [stage.size for stage in stages if stage.pixels] == sizes


@given(native=st.tuples(st.integers(64, 2000), st.integers(64, 2000)), more=st.tuples(st.floats(1, 6), st.floats(1, 6)))
def test_no_two_phases_are_nearly_equal(native, more):
    size = 8 * math.ceil(native[0] * more[0] / 8), 8 * math.ceil(native[1] * more[1] / 8)
    sizes = phases(size, native)
    for smaller, larger in pairwise(sizes):
        assert max(larger[0] - smaller[0], larger[1] - smaller[1]) > 8


def test_what_rounding_cannot_explain_stays():
    assert scales((128, 192), (64, 64)) == (2.0, 3.0)
    assert scales((130, 129), (64, 64)) == (130 / 64, 2.0)
    assert scales((127, 126), (64, 64)) == (2.0, 126 / 64)
    assert scales((65, 64), (64, 64)) == (65 / 64, 1.0)
