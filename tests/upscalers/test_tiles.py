"""Tiles, with networks whose answer is known; no model file."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from fam_ext import upscalers
from fam_ext.errors import Cancelled, ConfigError, NonFiniteLatentError
from fam_ext.upscalers import LEAST_TILE, OVERLAP, Upscaler, lanczos, spans
from tests.fake_device import DEVICE, FakeDevice

CPU = torch.device("cpu")


def blurred(scale):
    """Return a network that sees two pixels around each, with zeros beyond the edge of what it is given."""
    return lambda image: interpolate(avg_pool2d(image, 5, stride=1, padding=2), scale_factor=scale, mode="nearest")


def doubled(image):
    return image.repeat_interleave(2, -1).repeat_interleave(2, -2)


def picture(width, height):
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8))


def difference(one, other):
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


@given(side=st.integers(1, 3000), tile=st.integers(LEAST_TILE, 512))
def test_spans_make_every_pixel_once_from_no_more_than_a_tile(side, tile):
    found = spans(side, tile)
    assert [pixel for span in found for pixel in range(span.start, span.stop)] == list(range(side))
    for span in found:
        assert span.last - span.first <= tile
        assert span.first == max(0, span.start - OVERLAP) or len(found) == 1
        assert span.last == min(side, span.stop + OVERLAP) or len(found) == 1


@pytest.mark.parametrize("width, height", [(200, 130), (131, 65), (64, 64), (1, 97)])
@pytest.mark.parametrize("tile", [64, 100])
def test_tiles_give_what_the_whole_picture_gives(width, height, tile):
    image, size = picture(width, height), (height * 2, width * 2)
    upscaler = Upscaler("fake", 2, blurred(2), CPU)
    assert difference(upscaler.enlarge(image, size, tile=tile), upscaler.enlarge(image, size, tile=0)) <= 1


def test_without_an_overlap_they_would_not(monkeypatch):
    monkeypatch.setattr(upscalers, "OVERLAP", 0)
    upscaler = Upscaler("fake", 2, blurred(2), CPU)
    image = picture(130, 130)
    assert difference(upscaler.enlarge(image, (260, 260), tile=64), upscaler.enlarge(image, (260, 260), tile=0)) > 30


def test_the_network_sees_no_more_than_a_tile_and_the_callbacks_see_each():
    given_sides, steps = [], []

    def network(image):
        given_sides.append(max(image.shape[-2:]))
        return blurred(2)(image)

    Upscaler("fake", 2, network, CPU).enlarge(
        picture(150, 100), (200, 300), tile=80, step=lambda *progress: steps.append(progress)
    )
    assert max(given_sides) <= 80
    assert steps == [(done, len(given_sides)) for done in range(1, len(given_sides) + 1)] and len(steps) == 12


def test_a_network_that_divides_the_picture_itself_is_given_all_of_it():
    def network(image):
        assert image.shape[-2:] == (100, 150)
        return blurred(2)(image)

    Upscaler("fake", 2, network, CPU, tiles=False).enlarge(picture(150, 100), (200, 300), tile=64)


@pytest.mark.parametrize(
    "scale, size, runs",
    [(2, (75, 203), 1), (2, (148, 404), 2), (2, (111, 303), 2), (4, (74, 202), 1), (4, (37, 101), 1), (4, (20, 50), 1)],
)
def test_any_size_is_met_and_the_network_runs_as_often_as_comes_nearest(scale, size, runs):
    calls = []

    def network(image):
        calls.append(image.shape)
        return blurred(scale)(image)

    made = Upscaler("fake", scale, network, CPU).enlarge(picture(101, 37), size)
    assert (made.height, made.width) == size and made.mode == "RGB"
    assert len(calls) == runs


def test_colours_come_back_exactly():
    image = picture(40, 30)
    made = Upscaler("fake", 2, doubled, CPU).enlarge(image, (60, 80))
    assert made.resize(image.size, Image.Resampling.NEAREST).tobytes() == image.tobytes()


def test_values_beyond_white_and_black_are_cut_not_wrapped():
    over = Upscaler("fake", 2, lambda given: blurred(2)(given) * 0 + torch.tensor([1.5, -0.5, 0.5])[:, None, None], CPU)
    assert over.enlarge(picture(20, 20), (40, 40)).getpixel((7, 7)) == (255, 0, 128)


def test_a_cancel_stops_before_the_next_tile():
    done = []
    with pytest.raises(Cancelled, match="after 2 of 9 tiles"):
        Upscaler("fake", 2, blurred(2), CPU).enlarge(
            picture(90, 90), (180, 180), tile=64, step=lambda *at: done.append(at), cancelled=lambda: len(done) == 2
        )
    assert done == [(1, 9), (2, 9)]


def test_values_that_are_not_finite_are_an_error_not_a_picture():
    broken = Upscaler("its name", 2, lambda image: blurred(2)(image) / 0, CPU)
    with pytest.raises(NonFiniteLatentError, match="its name gave values that are not finite; use --dtype float32"):
        broken.enlarge(picture(20, 20), (40, 40))


@pytest.mark.parametrize("tile", [-1, 1, LEAST_TILE - 1])
def test_a_tile_smaller_than_its_overlap_is_refused(tile):
    with pytest.raises(ConfigError, match=rf"tile is {tile}; choose 0 .* or at least {LEAST_TILE} px"):
        Upscaler("fake", 2, blurred(2), CPU).enlarge(picture(20, 20), (40, 40), tile=tile)


@pytest.mark.slow  # torch imports its compiler for the fake device
def test_a_tile_is_copied_to_the_device_as_bytes_and_back_as_bytes():
    image = picture(100, 64)
    with FakeDevice() as device:
        made = Upscaler("fake", 2, doubled, DEVICE).enlarge(image, (128, 200), tile=64)
    assert made.tobytes() == Upscaler("fake", 2, doubled, CPU).enlarge(image, (128, 200), tile=0).tobytes()
    assert device.counts["to_device"] == 4  # one a tile


def test_half_precision_is_given_and_taken():
    def network(image):
        assert image.dtype == torch.bfloat16
        return doubled(image)

    image = picture(30, 30)
    made = Upscaler("fake", 2, network, CPU, torch.bfloat16).enlarge(image, (60, 60))
    assert difference(made.resize((30, 30), Image.Resampling.NEAREST), image) <= 1


def test_lanczos_needs_no_model():
    image = picture(30, 20).convert("RGBA")
    made = lanczos(image, (40, 90))
    assert (made.mode, made.size) == ("RGB", (90, 40))
    assert made.tobytes() == image.convert("RGB").resize((90, 40), Image.Resampling.LANCZOS).tobytes()
