"""AccDiffusion: samples that are mixed, and windows that have the words that are there."""

import dataclasses

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import NativeRecord, seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.methods.accdiffusion import AccDiffusion, covered, permuted, shuffle
from fam_ext.methods.base import Condition, Pictures
from fam_ext.methods.demofusion import DemoFusion
from fam_ext.methods.views import windows
from tests.fake_device import DEVICE, FakeDevice
from tests.methods.neighbours import CONDITION, LEVEL, Makings, Network, at, begun


@pytest.mark.parametrize("size", [(16, 16), (15, 10)])
def test_pixels_change_places_inside_their_cells_and_come_back(size):
    latent = torch.arange(2.0 * 3 * size[0] * size[1]).reshape(2, 3, *size)
    order = shuffle(size, 3, LEVEL)
    mixed = permuted(latent, order, 3)
    assert torch.equal(permuted(mixed, order.argsort(-1), 3), latent) and not torch.equal(mixed, latent)
    whole = [side // 3 * 3 for side in size]
    assert torch.equal(mixed[..., whole[0] :, :], latent[..., whole[0] :, :]), "what is left at a border stays"
    cell = [{*latents[0, 0, 3:6, 6:9].flatten().tolist()} for latents in (mixed, latent)]
    assert cell[0] == cell[1]
    assert torch.equal(order, shuffle(size, 3, LEVEL)) and not torch.equal(order, shuffle(size, 3, at(0.3)))


def test_accdiffusions_samples_are_denoised_mixed_and_put_back():
    steered, latent = begun(AccDiffusion(FamConfig())), seeded_noise((4, 16, 16), [5])
    given = []

    def call(latent, level, condition, *, phase="target"):
        given.append(latent)
        return 2 * latent

    assert torch.equal(steered.in_samples(call, latent, LEVEL, CONDITION), 2 * latent)
    plain = [latent[..., row::2, column::2] for row in range(2) for column in range(2)]
    assert all(len({float(each[0, 0, 4, 4]) for each in samples}) == 4 for samples in (given, plain))
    assert not any(torch.equal(mixed, own) for mixed, own in zip(given, plain, strict=True))


def test_accdiffusion_without_words_is_demofusion_in_its_windows():
    latent, views = seeded_noise((4, 16, 16), [5, 6]), windows((16, 16), (8, 8), (4, 4))
    outs = [
        begun(make(FamConfig())).in_windows(Network(), latent, LEVEL, CONDITION, views)
        for make in (AccDiffusion, DemoFusion)
    ]
    assert torch.equal(*outs)


def test_a_word_is_where_its_attention_is_more_than_its_mean_without_specks():
    maps = torch.zeros(2, 8, 8)
    maps[0, :, :4] = 1.0
    maps[1, 2, 2] = 9.0
    found = covered(maps)
    assert torch.equal(found[0], maps[0] > 0) and not found[1].any()


class FourWords:
    """A picture's prompt of four words, of which the third has two tokens and the last has none."""

    def __init__(self):
        self.kept = []

    def of(self, picture):
        return [[1], [2], [3, 4], []]

    def only(self, kept):
        self.kept.append({picture: set(indices) for picture, indices in kept.items()})
        return self.kept[-1]


def test_accdiffusions_windows_have_the_words_that_are_there():
    steered, words, calls = begun(AccDiffusion(FamConfig())), FourWords(), []
    q, k = torch.zeros(2, 1, 16, 3), torch.zeros(2, 1, 6, 3)
    q[..., 0] = 1.0 * (torch.arange(16) % 4 < 2)  # the left half of a 4 x 4 grid
    q[..., 1] = 1.0 * (torch.arange(16) // 4 >= 2)  # the lower half
    k[1, 0, 1, 0] = k[1, 0, 2, 1] = k[1, 0, 4, 0] = 9.0

    def call(latent, level, condition, *, phase="target"):
        calls.append((phase, tuple(latent.shape[-2:]), condition))
        if phase == "native":
            steered.watch("a", q, k, size=(4, 4), scale=None, phase=phase)
        return latent

    condition = Condition(
        lambda: torch.zeros(2, dtype=torch.int64), None, lambda: torch.tensor([True, False]), words=words
    )
    views = windows((16, 16), (8, 8), (8, 8))
    latent = seeded_noise((4, 16, 16), [5, 6])
    assert torch.equal(steered.in_windows(call, latent, LEVEL, condition, views), latent)
    assert [words.kept[index] for index in (0, 1, 3)] == [{0: {0, 2}}, {0: {2, 3}}, {0: {1}}]
    assert calls[0] == ("native", (8, 8), condition)
    assert [(size, own) for _, size, own in calls[1:]] == [((8, 8), kept) for kept in words.kept]
    steered.watch("a", q, k, size=(4, 4), scale=None, phase="target")
    assert not steered._seen


def test_a_finer_map_is_opened_by_more():
    maps = torch.zeros(1, 32, 32)
    maps[0, 4:8, 4:8] = maps[0, 20:25, 20:25] = 1.0
    assert covered(maps)[0].nonzero().min() == 20, "3 of 16 are 5 of 32"


def test_accdiffusions_words_are_where_the_native_runs_steps_saw_them_all_together():
    assert AccDiffusion(FamConfig()).wants_record
    record, words = NativeRecord(), FourWords()
    for rho in (0.9, 0.5, 0.1):
        record.add(torch.full((1, 4, 8, 8), 2 * rho), NoiseLevel(1000 * rho, 2.0 * rho, 2.0 * (1 - rho**2) ** 0.5))
    steered = begun(AccDiffusion(FamConfig()), record=record)
    q, k, given = torch.zeros(2, 1, 16, 1), torch.zeros(2, 1, 6, 1), []
    q[:, 0, :8] = 1.0  # the upper half
    k[1, 0, 2] = 9.0

    def call(latent, level, condition, *, phase="target"):
        if phase == "native":
            given.append((float(latent[0, 0, 0, 0]), level.timestep))
            steered.watch("a", q * (level.timestep < 600), k, size=(4, 4), scale=None, phase=phase)
        return latent

    condition = Condition(CONDITION._find_rows, None, CONDITION._find_uncond, words=words)
    for rho in (0.9, 0.3):
        steered.in_windows(
            call, seeded_noise((4, 16, 16), [5, 6]), at(rho), condition, windows((16, 16), (8, 8), (8, 8))
        )
    assert given == [(pytest.approx(rho), 1000 * rho) for rho in (0.9, 0.5, 0.1)], "once"
    assert [kept[0] for kept in words.kept] == [{1}, {1}, {0, 2, 3}, {0, 2, 3}] * 2


def test_accdiffusion_asks_for_its_maps_at_the_native_size_in_each_phase():
    stage = AccDiffusion(FamConfig()).stages((192, 192), (64, 64))[-1]
    latents = (seeded_noise((4, side, side), [1]) for side in (16, 24, 24))  # the picture before is the phase of 2x
    steered = AccDiffusion(FamConfig()).begin(stage, Pictures(*latents, None, steps=10))
    q, sizes = torch.ones(2, 1, 16, 3), []

    def call(latent, level, condition, *, phase="target"):
        sizes.append(tuple(latent.shape[-2:]))
        steered.watch("a", q, q[:, :, :6], size=(4, 4), scale=None, phase=phase)
        return latent

    condition = Condition(CONDITION._find_rows, None, CONDITION._find_uncond, words=FourWords())
    steered.in_windows(call, seeded_noise((4, 24, 24), [5, 6]), LEVEL, condition, windows((24, 24), (8, 8), (8, 8)))
    assert sizes == [(8, 8)] * 10


def test_accdiffusion_enlarges_its_reference_once_and_waits_twice_a_step():
    """Once for whose rows these are, once for the words of all windows."""
    q = seeded_noise((1, 16, 3), [5, 6])

    def call(latent, level, condition, *, phase="target"):
        if phase == "native":
            steered.watch("a", q_there, q_there[:, :, :6], size=(4, 4), scale=None, phase=phase)
        return latent

    with FakeDevice() as device, Makings() as makings:
        q_there, latent = q.to(DEVICE), seeded_noise((4, 16, 16), [5, 6]).to(DEVICE)
        steered = begun(AccDiffusion(FamConfig()))
        pictures = steered.pictures
        steered.pictures = dataclasses.replace(
            pictures, native=pictures.native.to(DEVICE), noise=pictures.noise.to(DEVICE)
        )
        rows, uncond = torch.zeros(2, dtype=torch.int64).to(DEVICE), torch.tensor([True, False]).to(DEVICE)
        condition = Condition(lambda: rows, None, lambda: uncond, words=FourWords())
        waits = []
        for rho in (0.9, 0.8):
            before = device.counts["sync"]
            steered.in_windows(call, latent, at(rho), condition, windows((16, 16), (8, 8), (4, 4)))
            waits.append(device.counts["sync"] - before)
    assert waits == [2, 2]
    assert makings.counts["_upsample_bilinear2d_aa"] == 1
