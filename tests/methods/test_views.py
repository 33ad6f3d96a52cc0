"""Views of a latent: windows, tiles, dilated samples, and the shifts that a level decides."""

import pytest
import torch

from fam_ext.core.guide import seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.methods.views import dilated, jitter, tiles, windows
from tests.methods.neighbours import CONDITION, LEVEL

SIZES = [((16, 16), (8, 8)), ((24, 24), (8, 8)), ((32, 32), (8, 8)), ((16, 32), (8, 8)), ((19, 13), (8, 12))]


@pytest.mark.parametrize(("size", "window"), SIZES)
@pytest.mark.parametrize("stride", [(1, 1), (3, 5), (8, 8)])
@pytest.mark.parametrize("shift", [(0, 0), (2, -3), (-1, 7)])
def test_windows_cover_a_latent_and_stay_in_it(size, window, stride, shift):
    views = windows(size, window, stride, shift=shift)
    count = torch.zeros(size)
    for rows, columns in views:
        assert 0 <= rows.start < rows.stop <= size[0] and 0 <= columns.start < columns.stop <= size[1]
        count[rows, columns] += 1
    assert count.min() >= 1
    assert len({(rows.start, columns.start) for rows, columns in views}) == len(views)


def test_windows_stand_a_stride_apart():
    starts = sorted({rows.start for rows, _ in windows((16, 8), (8, 8), (4, 4))})
    assert starts == [0, 4, 8]
    assert sorted({rows.start for rows, _ in windows((16, 8), (8, 8), (4, 4), shift=(1, 0))}) == [0, 5, 8]


def test_a_shift_makes_no_more_windows():
    """It is DemoFusion's: those at the borders stay, 9 in all at twice the native side."""
    assert all(len(windows((128, 128), (64, 64), (32, 32), shift=(down, -down))) == 9 for down in range(-8, 9))


@pytest.mark.parametrize(("size", "window"), SIZES)
def test_tiles_keep_each_pixel_once_and_give_the_network_at_most_a_window(size, window):
    kept = torch.zeros(size)
    for (rows, columns), (inside, inside_columns) in tiles(size, window, (1, 2)):
        kept[inside, inside_columns] += 1
        assert rows.start <= inside.start and inside.stop <= rows.stop
        assert rows.stop - rows.start <= window[0] and columns.stop - columns.start <= window[1]
        for given, inner, side, overlap in ((rows, inside, size[0], 1), (columns, inside_columns, size[1], 2)):
            assert (given.start, given.stop) == (max(0, inner.start - overlap), min(side, inner.stop + overlap))
    assert torch.equal(kept, torch.ones(size))


def test_a_shift_is_the_levels_own_and_within_bounds():
    shifts = [jitter(NoiseLevel(float(t), 0.6, 0.8), (2, 3)) for t in range(0, 1000, 20)]
    assert shifts == [jitter(NoiseLevel(float(t), 0.6, 0.8), (2, 3)) for t in range(0, 1000, 20)]
    assert {down for down, _ in shifts} == set(range(-2, 3)) and {right for _, right in shifts} == set(range(-3, 4))


def test_random_numbers_of_others_are_not_drawn():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    jitter(LEVEL, (2, 3))
    assert torch.equal(torch.rand(1), expected)


def test_dilated_samples_fall_back_into_their_places():
    latent = seeded_noise((4, 15, 10), [5])
    sizes = []

    def call(latent, level, condition, *, phase="target"):
        sizes.append(tuple(latent.shape[-2:]))
        return 2 * latent

    assert torch.equal(dilated(call, latent, LEVEL, CONDITION, 3), 2 * latent)
    assert len(sizes) == 9 and set(sizes) == {(5, 4), (5, 3)}
