"""hosts/ldm/rows.py: whose a row is where pictures are equal, and which are unconditional."""

import pytest
import torch

from fam_ext.errors import UnsupportedModelError
from fam_ext.hosts.ldm import rows as ldm_rows
from fam_ext.hosts.ldm import unet as ldm_unet
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import Pass
from tests.hosts import ldm_toys
from tests.hosts.test_ldm import LEVEL, by_content
from tests.methods.passes import fam_pass

pytestmark = pytest.mark.skipif(not ldm_toys.HAS_LDM, reason=ldm_toys.WITHOUT)


def equal_pictures():
    """Return a pass of two pictures whose latents are equal and whose native pictures are not."""
    torch.manual_seed(1)
    native, target = torch.randn(2, 4, 8, 8), torch.randn(1, 4, 16, 16)
    same = target.repeat(2, 1, 1, 1)
    return fam_pass(native=native, target=same, noise=torch.randn(1, 4, 16, 16).repeat(2, 1, 1, 1), steps=6)


def native_rows(steered, order, layout):
    """Return which native picture each row of a call was given; `order` are the rows' pictures, `layout` the host's."""
    unet, seen = ldm_toys.unet(), []
    unet.input_blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    state = steered.initial(LEVEL)
    x = (state / LEVEL.scale)[order]
    steering = Steering()
    with steering.running(steered), ldm_unet.steered_unet(unet, steering):
        steering.latent, steering.level = state, LEVEL
        steering.layout = [(picture, False) for picture in layout]
        for rows in (x,) if len(layout) == len(order) else x.split(len(order) // 2):
            unet(rows, torch.full((len(rows),), 500.0), context=torch.zeros(len(rows), 5, ldm_toys.CONTEXT))
    given, _ = steered.guide.native_input(LEVEL)
    natives = [rows for rows in seen if rows.shape[-1] == 8]
    return [int((given - row).flatten(1).norm(dim=1).argmin()) for rows in natives for row in rows]


def test_equal_latents_keep_their_own_native_maps_by_the_hosts_order():
    assert native_rows(equal_pictures(), [0, 1, 0, 1], [0, 1, 0, 1]) == [0, 1, 0, 1]
    assert native_rows(equal_pictures(), [0, 0, 1, 0, 1], [0, 0, 1, 0, 1]) == [0, 0, 1, 0, 1]  # one has two AND parts
    halves = [0, 1, 0, 1, 0, 1]  # what is left of the layout is another call's, or was left out
    assert native_rows(equal_pictures(), [0, 1, 0, 1], halves) == [0, 1, 0, 1]


def test_equal_latents_without_an_order_are_refused():
    latent = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1)
    other = torch.cat([latent, torch.randn(1, 4, 8, 8)])
    for order in (None, torch.tensor([2, 2])):
        with pytest.raises(UnsupportedModelError, match=r"two pictures of the batch are equal.*set Batch size to 1"):
            by_content(other[:2], other, order)
    assert by_content(other[2:], other) == [2], "the third is nobody's equal"
    assert by_content(latent / 3, latent, torch.tensor([1, 0])) == [1, 0]


def test_the_layout_is_the_hosts_own():
    def cond(*parts):
        return type("Multicond", (), {"batch": [["part"] * count for count in parts]})

    uncond = [(0, True), (1, True)]
    assert ldm_rows.layout_of(cond(1, 1), 2) == [(0, False), (1, False), *uncond, *uncond]
    assert ldm_rows.layout_of(cond(2, 1), 2) == [(0, False), (0, False), (1, False), *uncond, *uncond]
    assert ldm_rows.layout_of(cond(1, 1), 3) is None and ldm_rows.layout_of(object(), 1) is None
    steering = Steering()
    steering.layout = [(0, False), (1, False), *uncond]
    assert [steering.next_rows(count) for count in (2, 2, 1)] == [((0, False), (1, False)), tuple(uncond), None]


class UncondNotes(Pass):
    """Notes which rows of each call are unconditional."""

    def __init__(self, pictures):
        super().__init__(pictures)
        self.seen = []

    def around_model(self, call, latent, level, condition):
        self.seen += condition.uncond.tolist()
        return call(latent, level, condition)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_pass_is_told_which_rows_are_unconditional(calls):
    unet, steered = ldm_toys.unet(), UncondNotes(equal_pictures().pictures)
    state, steering = steered.initial(LEVEL), Steering()
    with steering.running(steered), ldm_unet.steered_unet(unet, steering):
        steering.latent, steering.level = state, LEVEL
        steering.layout = [(0, False), (0, False), (1, False), (1, False), (0, True), (1, True)]
        for rows in torch.cat([state, state, state]).chunk(calls):
            unet(rows, torch.full((len(rows),), 500.0), context=torch.zeros(len(rows), 5, ldm_toys.CONTEXT))
        assert steered.seen == [False] * 4 + [True] * 2
        with pytest.raises(UnsupportedModelError, match=r"which rows of the batch are unconditional; disable"):
            unet(state, torch.full((2,), 500.0), context=torch.zeros(2, 5, ldm_toys.CONTEXT))
