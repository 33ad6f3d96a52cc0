"""FreeScale: the layout of windows and the detail of the whole, until its end."""

import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.methods.base import Pictures
from fam_ext.methods.freescale import SITES, FreeScale, overlapping
from fam_ext.methods.views import jitter, windows
from tests.methods.neighbours import Dilating, Makings, at, begun, meant, phases_of, starting


def test_freescale_at_the_native_size_attends_and_convolves_as_usual():
    steered, kernel = begun(FreeScale(FamConfig()), size=(8, 8)), Dilating()
    phases_of(steered, 0.9)
    q, k, v = (seeded_noise((2, 24, 3), [seed]) for seed in (1, 2, 3))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(steered.attend("a", q, k, v, size=(4, 6), scale=None, phase="target"), plain, atol=1e-6)
    steered.convolve("a", seeded_noise((3, 6, 6), [1]), kernel, size=(6, 6), phase="target")
    assert kernel.runs == [((6, 6), (1, 1), None)]


def test_freescale_takes_the_layout_of_windows_and_the_detail_of_the_whole():
    steered, grid = begun(FreeScale(FamConfig()), size=(16, 16)), (8, 8)
    phases_of(steered, 0.9)
    q, k, v = torch.zeros(1, 1, 64, 2), torch.zeros(1, 1, 64, 2), torch.zeros(1, 1, 8, 8, 2)
    v[0, 0, :, 4:] = 1.0  # zero queries: attention is the mean of what is seen
    out = steered.attend("a", q, k, v.flatten(2, 3), size=grid, scale=None, phase="target").unflatten(2, grid)
    assert out[0, 0, 4, 0, 0] < 0.2 and out[0, 0, 4, 7, 0] > 0.8, "a window sees its own side"
    for phase in ("native", "off"):
        assert steered.attend("a", q, k, v.flatten(2, 3), size=grid, scale=None, phase=phase) is None


def test_freescale_dilates_until_its_end_and_pulls_by_its_own_power():
    steered, kernel = begun(FreeScale(FamConfig()), size=(16, 32)), Dilating()
    feature_map = seeded_noise((3, 6, 6), [1])
    for rho in (0.31, 0.3):
        phases_of(steered, rho)
        steered.convolve("a", feature_map, kernel, size=(6, 6), phase="target")
    assert kernel.runs == [((6, 6), (2, 4), None)]
    assert begun(FreeScale(FamConfig()), size=(7, 16), native=(8, 8)).scales == [1, 2]
    state, level = seeded_noise((4, 16, 32), [9]), at(0.5)
    reference = level.diffused(steered.pictures.target, steered.pictures.noise)
    assert torch.allclose(steered.before_step(state, level), state.lerp(reference, 0.25), atol=1e-6)


def test_freescale_doubles_from_phase_to_phase_and_every_phase_knows_the_native_size():
    method = FreeScale(FamConfig())
    sizes = {
        times: [stage.size[0] // 64 for stage in method.stages((64 * times,) * 2, (64, 64))] for times in (2, 3, 4, 7)
    }
    assert sizes == {2: [2], 3: [2, 3], 4: [2, 4], 7: [2, 4, 7]}
    before, noise = seeded_noise((4, 16, 16), [1]), seeded_noise((4, 32, 32), [2])
    pictures = Pictures(before, noise, noise, None, steps=10)  # the second phase's "native" is what the first has made
    steered, kernel = method.begin(method.stages((256, 256), (64, 64))[-1], pictures), Dilating()
    phases_of(steered, 0.9)
    steered.convolve("a", seeded_noise((3, 16, 16), [3]), kernel, size=(16, 16), phase="target")
    assert kernel.runs == [((16, 16), (4, 4), None)]
    q, k, v = torch.zeros(1, 1, 256, 2), torch.zeros(1, 1, 256, 2), torch.zeros(1, 1, 16, 16, 2)
    v[0, 0, :, 4:] = 1.0
    out = steered.attend("a", q, k, v.flatten(2, 3), size=(16, 16), scale=None, phase="target").unflatten(2, (16, 16))
    assert out[0, 0, 8, 0, 0] < 0.2, "a window is the native picture's grid, not the former phase's"


def test_freescale_dilates_the_authors_layers():
    assert meant(SITES, 3) == starting(3, "down_blocks.1.downsamplers", "down_blocks.2", "mid_block")


def test_freescales_windows_are_shifted_by_up_to_an_eighth_of_their_side():
    levels = [at(number / 100) for number in range(100)]
    starts = {
        overlapping((32, 32), (16, 16), level, device="cpu", dtype=torch.float32)[0][4][0].start for level in levels
    }
    assert starts == {6, 7, 8, 9, 10}
    assert {jitter(level, (2, 2))[0] + 8 for level in levels} == starts


def test_freescales_gaussian_is_made_once_and_its_windows_are_counted_once_a_step():
    steered, made = begun(FreeScale(FamConfig(), sigma=1.7)), []  # a sigma that no other test has
    q, k, v = (seeded_noise((2, 64, 3), [seed]) for seed in (1, 2, 3))
    for rho in (0.9, 0.8):
        phases_of(steered, rho)
        for site in ("a", "b"):
            with Makings() as makings:
                steered.attend(site, q, k, v, size=(8, 8), scale=None, phase="target")
            made.append((makings.counts["arange"], makings.counts["add_"]))
    windows_of = len(windows((8, 8), (4, 4), (2, 2)))
    assert made[1] == (0, windows_of) and made[0] == (1, 2 * windows_of)
    assert made[3][0] == made[2][0] == 0 and made[2][1] == 2 * made[3][1]
