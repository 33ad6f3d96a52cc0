"""HiresGuide: what one guided pass does to a latent and to attention, and what it reports."""

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import HiresGuide, NativeRecord, seeded_noise
from fam_ext.core.schedule import NoiseLevel
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
    with pytest.raises(ConfigError, match="4 rows but its native pass had 2"):
        guide.blended("a", *[tokens(48, s, rows=4) for s in (4, 5, 6)], size=(8, 6))
    guide.drop_maps()
    assert guide.blended("a", *large, size=(8, 6)) is None
    assert guide.report.am_calls == {"a": 1}


def test_noise_depends_on_its_own_seed_and_salt_only():
    together = seeded_noise((4, 8, 8), [11, 12])
    assert torch.equal(together[1], seeded_noise((4, 8, 8), [12])[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(seeded_noise((4, 8, 8), [11], salt=1)[0], together[0])


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match="do not fit"):
        HiresGuide(
            FamConfig(),
            native=torch.zeros(1, 4, 8, 8),
            target=torch.zeros(2, 4, 16, 16),
            noise=torch.zeros(2, 4, 16, 16),
            steps=4,
        )
