"""HiresGuide: what one guided pass does to a latent and to attention, and what it reports."""

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fam_ext.core.config import FamConfig
from fam_ext.core.frequency import high_pass_mask, modulate
from fam_ext.core.guide import HiresGuide, NativeRecord, seeded_noise
from fam_ext.core.schedule import NoiseLevel, config_box
from fam_ext.errors import ConfigError


def vp(timestep):
    abar = math.cos(timestep / 1000 * 1.5) ** 2
    return NoiseLevel(timestep, math.sqrt(abar), math.sqrt(1 - abar))


def ve(timestep):
    level = vp(timestep)
    return NoiseLevel(timestep, 1.0, level.sigma)


def make(config=None, **options):
    native = seeded_noise((4, 8, 6), [1, 2])
    target = seeded_noise((4, 16, 12), [3, 4])
    noise = seeded_noise((4, 16, 12), [5, 6])
    return HiresGuide(config or FamConfig(), native=native, target=target, noise=noise, steps=10, **options)


@pytest.mark.parametrize("position", [vp, ve])
def test_modulate_keeps_a_latent_that_is_the_reference(position):
    guide, level = make(), position(300)
    assert torch.allclose(guide.modulate(guide.diffused(level), level), guide.diffused(level), atol=1e-5)
    assert guide.report.fm_calls == 1


def test_modulation_is_the_same_in_either_of_the_samplers_spaces():
    guide, latent = make(), seeded_noise((4, 16, 12), [7, 8])
    scale = ve(400).scale  # VE latent = VP latent * sqrt(1 + sigma^2)
    assert torch.allclose(guide.modulate(latent * scale, ve(400)) / scale, guide.modulate(latent, vp(400)), atol=1e-5)
    constant = make(FamConfig(reference="constant"))
    assert torch.allclose(
        constant.modulate(latent * scale, ve(400)) / scale, constant.modulate(latent, vp(400)), atol=1e-5
    )
    assert not torch.allclose(constant.modulate(latent, vp(400)), guide.modulate(latent, vp(400)), atol=1e-2)


def test_modulation_pulls_more_as_t_falls_and_never_when_off():
    guide, latent = make(), seeded_noise((4, 16, 12), [7, 8])
    moved = [float((guide.modulate(latent, vp(t)) - guide.diffused(vp(t))).norm()) for t in (900, 600, 300, 50)]
    assert moved == sorted(moved, reverse=True)
    for off in ({"fm": False}, {"cutoff": 0.0}, {"fm_window": (0.5, 0.4)}):
        guide = make(FamConfig(**off))
        assert guide.modulate(latent, vp(300)) is latent and guide.report.fm_calls == 0


def test_native_input_is_replayed_at_the_same_level_or_recorded_at_the_nearest():
    guide = make()
    latent, level = guide.native_input(ve(500))
    assert level == ve(500)
    expected = vp(500).signal * guide.native + vp(500).noise * guide.native_noise
    assert torch.allclose(latent, expected, atol=1e-5)
    record = NativeRecord()
    for t in (900, 480, 100):
        record.add(torch.full((2, 4, 8, 6), float(t)) * ve(t).scale, ve(t))
    recorded, level = make(record=record).native_input(ve(500))
    assert level.timestep == 480
    assert torch.allclose(recorded, torch.full((2, 4, 8, 6), 480.0))
    assert make(FamConfig(am_source="replay"), record=record).native_input(ve(500))[1].timestep == 500
    with pytest.raises(ConfigError, match="no native run was recorded"):
        make(FamConfig(am_source="recorded"))
    make(FamConfig(am_source="recorded", am=False))  # nobody asks for one


def tokens(count, seed, rows=2):
    return torch.randn(rows, 2, count, 8, generator=torch.Generator().manual_seed(seed))


def test_attention_is_kept_blended_and_dropped():
    guide = make()
    small, large = [tokens(12, s) for s in (1, 2, 3)], [tokens(48, s) for s in (4, 5, 6)]
    assert guide.blended("a", *large, size=(8, 6)) is None
    guide.keep_map("a", *small[:2], size=(4, 3))
    blended = guide.blended("a", *large, size=(8, 6))
    assert not torch.allclose(blended, scaled_dot_product_attention(*large), atol=1e-2)
    assert guide.blended("never kept", *large, size=(8, 6)) is None
    assert guide.blended("a", *large, size=(8, 6)) is None, "a map is used once"
    guide.keep_map("a", *small[:2], size=(4, 3))
    acted = dict(guide.report.am_calls)
    assert guide.blended("a", *large, size=(2, 24)) is None, "smaller than the native grid in one direction"
    assert guide.report.am_calls == acted
    guide.keep_map("a", *small[:2], size=(4, 3))
    with pytest.raises(ConfigError, match="4 rows but its native pass had 2"):
        guide.blended("a", *[tokens(48, s, rows=4) for s in (4, 5, 6)], size=(8, 6))
    guide.keep_map("a", *small[:2], size=(4, 3))
    guide.drop_maps()
    assert guide.blended("a", *large, size=(8, 6)) is None
    assert guide.report.am_calls == {"a": 1}


def test_noise_depends_on_its_own_seed_and_salt_only():
    together = seeded_noise((4, 8, 8), [11, 12])
    assert torch.equal(together[1], seeded_noise((4, 8, 8), [12])[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(seeded_noise((4, 8, 8), [11], salt=1)[0], together[0])


def test_a_seeds_noise_stays_what_it_was():
    # pictures are made again from their seeds: another stream would be another picture
    assert seeded_noise((2,), [7]).flatten().tolist() == pytest.approx([-0.3294311, -0.4009940])
    assert seeded_noise((2,), [2**63], salt=1).flatten().tolist() == pytest.approx([0.6613522, 0.2669241])


def test_a_level_beyond_the_schedule_counts_as_its_end():
    guide = make()
    assert [guide.rho(NoiseLevel(timestep, 1.0, 1.0)) for timestep in (-3, 0, 250, 1000, 1003)] == [0, 0, 0.25, 1, 1]
    late = NoiseLevel(-3, 1.0, 0.0)
    assert guide.modulate(seeded_noise((4, 16, 12), [7, 8]), late).shape == (2, 4, 16, 12)


def test_at_pure_noise_nothing_is_pulled():
    guide, latent = make(), seeded_noise((4, 16, 12), [7, 8])
    assert guide.modulate(latent, NoiseLevel(1000, 0.0, 1.0)) is latent and guide.report.fm_calls == 0
    assert math.isinf(NoiseLevel(1000, 0.0, 1.0).sigma) and NoiseLevel(0, 0.5, 1.0).sigma == 2


def test_attention_is_steered_within_its_window_and_its_calls_are_counted():
    guide = make(FamConfig(am_window=(0.6, 0.4)))
    assert [guide.steers_at(vp(t)) for t in (700, 600, 400, 300)] == [False, True, True, False]
    small, large = [tokens(12, s) for s in (1, 2, 3)], [tokens(48, s) for s in (4, 5, 6)]
    for _ in range(2):
        guide.keep_map("a", *small[:2], size=(4, 3))
        guide.blended("a", *large, size=(8, 6))
    assert guide.report.am_calls == {"a": 2}


def test_low_memory_changes_no_result():
    small, large = [tokens(12, s) for s in (1, 2, 3)], [tokens(48, s) for s in (4, 5, 6)]
    blended = []
    for low_memory in (False, True):
        guide = make(low_memory=low_memory)
        guide.keep_map("a", *small[:2], size=(4, 3))
        blended.append(guide.blended("a", *large, size=(8, 6)))
    assert torch.equal(*blended)


def test_a_record_keeps_its_own_copy_and_the_last_of_equal_levels():
    record, latent = NativeRecord(), torch.zeros(1, 4, 8, 6)
    assert not record
    for value in (1.0, 2.0):
        record.add(latent.fill_(value), vp(300))
    latent.fill_(9.0)
    assert len(record) == 1 and float(record.nearest(vp(10))[1].mean()) == 2.0


@pytest.mark.parametrize(
    ("native", "target", "noise"),
    [
        ((1, 4, 8, 8), (2, 4, 16, 16), (2, 4, 16, 16)),
        ((2, 3, 8, 8), (2, 4, 16, 16), (2, 4, 16, 16)),
        ((2, 4, 8, 8), (2, 4, 16, 16), (2, 4, 16, 8)),
    ],
)
def test_sizes_that_do_not_fit_are_named(native, target, noise):
    with pytest.raises(ConfigError, match="do not fit"):
        HiresGuide(
            FamConfig(), native=torch.zeros(native), target=torch.zeros(target), noise=torch.zeros(noise), steps=4
        )


def test_a_mirrored_boundary_does_not_join_top_and_bottom():
    """A picture that is dark above and light below: periodic, its first and last rows are pulled toward each other."""
    ramp = torch.linspace(-1, 1, 32)[:, None].expand(1, 1, 32, 32)
    errors = {}
    for boundary in ("periodic", "mirrored"):
        config = FamConfig(fm_boundary=boundary, cutoff=1.0)
        guide = HiresGuide(config, native=torch.zeros(1, 1, 16, 16), target=ramp, noise=torch.zeros_like(ramp), steps=9)
        # what FM adds to nothing is the reference's low band; at t = 0 it has all of it
        made = guide.modulate(torch.zeros_like(ramp), NoiseLevel(0.0, 1.0, 0.0))
        errors[boundary] = (made - ramp).abs().amax((0, 1, 3))[[0, -1]].max()
    assert errors["periodic"] > 0.5 and errors["mirrored"] < 0.05


def test_a_periodic_boundary_is_the_papers_bit_for_bit():
    guide, level = make(), vp(400.0)
    state = seeded_noise((4, 16, 12), [7, 8])
    box = config_box(guide.config, guide.native_size, guide.target_size, rho=0.4)
    mask = high_pass_mask(guide.target_size, box, 0.4)
    assert guide.config.fm_boundary == "periodic"
    assert torch.equal(guide.modulate(state, level), modulate(state, guide.diffused(level), mask))


@pytest.mark.parametrize("boundary", ["periodic", "mirrored"])
def test_a_soft_edge_is_in_the_mask_of_both_boundaries(boundary):
    line = torch.cos(2 * math.pi * 8 * torch.arange(32) / 32)  # at the cut-off: half of it is taken
    if boundary == "mirrored":
        line = torch.cos(math.pi * 16 * (2 * torch.arange(32) + 1) / 64)
    target = line[:, None].expand(1, 1, 32, 32)
    pictures = {"native": torch.zeros(1, 1, 16, 16), "target": target, "noise": torch.zeros_like(target)}
    guide = HiresGuide(FamConfig(fm_boundary=boundary, cutoff=1.0, fm_edge=0.5), **pictures, steps=9)
    made = guide.modulate(torch.zeros_like(target), NoiseLevel(0.0, 1.0, 0.0))
    assert torch.allclose(made, 0.5 * target, atol=1e-5)


@pytest.mark.parametrize(("half_cycles", "share"), [(0, 1.0), (1, 1.0), (15, 1.0), (16, 0.0), (31, 0.0)])
def test_a_mirrored_boundary_keeps_the_reach_of_the_box(half_cycles, share):
    line = torch.cos(math.pi * half_cycles * (2 * torch.arange(32) + 1) / 64)
    target = line[:, None].expand(1, 1, 32, 32)
    pictures = {"native": torch.zeros(1, 1, 16, 16), "target": target, "noise": torch.zeros_like(target)}
    guide = HiresGuide(FamConfig(fm_boundary="mirrored", cutoff=1.0), **pictures, steps=9)
    # of a 16-wide native latent's 8 cycles at t = 0 those below the last
    made = guide.modulate(torch.zeros_like(target), NoiseLevel(0.0, 1.0, 0.0))
    assert torch.allclose(made, share * target, atol=1e-5)
