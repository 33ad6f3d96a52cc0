"""Out of memory: one step down at a time, and never to something that needs more."""

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.jobs.make import degrade
from fam_ext.options.request import HiresRequest

EVERYTHING = ("tile", "low_memory", "am")


def chain(request: HiresRequest, can=EVERYTHING) -> list[tuple[int | None, bool, bool]]:
    """Return (tile, low memory, AM) after each step down."""
    steps = []
    while (step := degrade(request, can)) is not None:
        assert step[0] != request and step[1].startswith("out of memory: ")
        request = step[0]
        steps.append((request.tile, request.low_memory, request.config.am))
    return steps


@pytest.mark.parametrize(
    ("tile", "steps"),
    [
        (None, [(512, False, True), (256, True, True), (256, True, False)]),
        (0, [(512, False, True), (256, True, True), (256, True, False)]),
        (1024, [(512, False, True), (256, True, True), (256, True, False)]),
        (512, [(256, True, True), (256, True, False)]),
        (320, [(256, True, True), (256, True, False)]),
        (128, [(128, True, True), (128, True, False)]),
    ],
)
def test_tiles_only_become_smaller(tile, steps) -> None:
    assert chain(HiresRequest((1024, 2048), tile=tile)) == steps


def test_a_step_that_would_change_nothing_is_left_out() -> None:
    assert chain(HiresRequest((256, 256))) == [(None, True, True), (None, True, False)]
    assert chain(HiresRequest((256, 384))) == [(256, True, True), (256, True, False)]
    assert chain(HiresRequest((256, 256), method="direct", cfg_scale=1)) == []
    assert chain(HiresRequest((256, 256), config=FamConfig(am=False))) == [(None, True, False)]


def test_only_what_the_renderer_can_give_up_is_given_up() -> None:
    request = HiresRequest((1024, 1024))
    assert chain(request, ()) == []
    assert chain(request, ("tile",)) == [(512, False, True)]
    assert chain(request, ("low_memory",)) == [(None, True, True)]
    assert chain(request, ("am",)) == [(None, False, False)]
