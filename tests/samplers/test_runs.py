"""Samplers: FM reaches the state of every one that is offered, and a seed is a picture whatever the batch."""

import pytest
import torch

from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import Cancelled, NonFiniteLatentError, UnsupportedSamplerError, UsageError
from fam_ext.samplers.names import OFFERED, REFUSED, split_name
from fam_ext.samplers.table import SAMPLERS
from fam_ext.samplers.trained import Trained
from tests.hosts.toys import training
from tests.samplers.references import Run

NAMES = [*OFFERED, "DPM++ 2M Karras", "Euler Karras", "Euler a Karras"]
# drawn between states
FRESH_NOISE = [name for name in NAMES if SAMPLERS[split_name(name, "")[0]].noise]
SHAPE = (1, 4, 8, 8)


def sampler(name, *, steps=6, seeds=(5,), start=1.0):
    return Run(Trained.of(training()), name, "Automatic", steps=steps, seeds=list(seeds), start=start)


def noise(*seeds):
    return torch.cat([torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def constant(latent: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
    """A network that always says the same epsilon: what it is shown has no influence, only the state has."""
    return noise(99).expand_as(latent)


def denoiser(latent: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
    """The exact epsilon for data that is always 0.3."""
    share = level.noise / level.scale, level.signal / level.scale
    return (latent - share[1] * 0.3) / share[0]


def next_state(name, begin, state, at):
    """Return the state at level `at` + 1 of a run from `begin` whose state at level `at` is replaced by `state`."""
    run, seen = sampler(name), {}

    def modify(latent, level):
        seen.setdefault(level, latent)
        return state * level.scale if level == run.levels[at] else latent

    # a network whose estimate (of epsilon for LMS, of the clean latent for the others) is the same for every state:
    # what a multistep method remembers then says nothing of the states it came through
    run.run(begin * run.levels[0].scale, constant if name == "LMS" else denoiser, modify=modify)
    return seen[run.levels[at + 1]]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_step_starts_from_the_changed_state_and_from_nothing_else(name, at):
    """Eq. 3: p(z_{t-1} | f_t(.)). A sampler that kept the unchanged state somewhere would show it here."""
    result, other_past = (next_state(name, noise(past), noise(10), at) for past in (1, 2))
    assert torch.allclose(result, other_past, atol=1e-4 * float(result.abs().max()))
    changed = next_state(name, noise(1), noise(11), at)
    if name != "LCM":  # LCM keeps nothing of a state but its clean estimate
        assert not torch.allclose(result, changed, rtol=0.1)


@pytest.mark.parametrize("name", ["DDIM", "DDIM CFG++", "Euler", "Euler a", "LMS", "Heun", "LCM"])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_change_of_the_state_reaches_the_result_whole(name, at):
    """With a network blind to its input only a changed state can change the result: by signal / final signal."""
    target = sampler(name).levels[at]
    change = torch.full(SHAPE, 0.5)

    def modify(latent, level):
        return latent + change * level.signal if level == target else latent

    begin = noise(1) * sampler(name).levels[0].scale
    moved = sampler(name).run(begin, constant, modify=modify) - sampler(name).run(begin, constant)
    assert torch.allclose(moved, change, rtol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_it_samples(name):
    run = sampler(name, steps=10)
    result = run.run(noise(1) * run.levels[0].scale, denoiser)
    # DDIM ends at abar_0, with a last 3 % of noise
    assert (result - 0.3).abs().mean() < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_modify_sees_each_state_once_in_order_and_at_its_level(name):
    run, seen = sampler(name, steps=6), []

    def modify(latent, level):
        seen.append(level)
        return latent

    run.run(noise(1) * run.levels[0].scale, denoiser, modify=modify)
    # UniPC is told again of the corrected state, at the same level
    distinct = list(dict.fromkeys(seen))
    assert distinct == run.levels
    assert name == "UniPC" or seen == run.levels
    assert [level.timestep for level in run.levels] == sorted((level.timestep for level in run.levels), reverse=True)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FRESH_NOISE])
def test_level_describes_the_state(name):
    """The state stays signal * clean + noise * epsilon: a network that knows both keeps it there."""
    run = sampler(name, steps=6)
    clean, epsilon = noise(3), noise(4)

    def modify(latent, level):
        assert torch.allclose(latent, level.signal * clean + level.noise * epsilon, atol=2e-2 * level.scale)
        return latent

    first = run.levels[0]
    run.run(first.signal * clean + first.noise * epsilon, lambda latent, level: epsilon, modify=modify)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_is_a_picture_whatever_the_batch(name):
    begin = noise(1, 2)
    both = sampler(name, seeds=(5, 6))
    together = both.run(begin * both.levels[0].scale, denoiser)
    alone = sampler(name, seeds=(6,)).run(begin[1:] * both.levels[0].scale, denoiser)
    assert torch.equal(together[1:], alone)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("start", [0.6, 0.3])
def test_a_late_start_skips_the_noisy_steps(name, start):
    late, full = sampler(name, steps=20, start=start), sampler(name, steps=20)
    assert late.levels == [level for level in full.levels if level.timestep <= start * 1000]
    first, steps = late.levels[0], []
    clean, epsilon = torch.full(SHAPE, 0.3), noise(4)
    result = late.run(
        first.signal * clean + first.noise * epsilon, denoiser, step=lambda done, total: steps.append((done, total))
    )
    assert (result - 0.3).abs().mean() < (0.1 if name == "LMS" else 0.03)  # LMS of order 4 has just begun
    assert steps == [(done, len(late.levels)) for done in range(1, len(late.levels) + 1)]


def test_a_start_at_a_level_begins_there():
    whole = sampler("DDIM", steps=10)
    for at, level in enumerate(whole.levels):
        assert sampler("DDIM", steps=10, start=level.timestep / 1000).levels == whole.levels[at:]


def test_names_and_limits_are_answered():
    assert split_name("dpm++ 2m karras", "Automatic") == ("DPM++ 2M", "Karras")
    assert split_name("Euler", "Automatic") == ("Euler", "Uniform")
    with pytest.raises(UnsupportedSamplerError, match="'PLMS' is refused"):
        sampler("PLMS")
    with pytest.raises(UnsupportedSamplerError, match="'Foo' is unknown; choose one of DDIM"):
        sampler("Foo")
    with pytest.raises(UsageError, match="steps is 0"):
        sampler("DDIM", steps=0)
    with pytest.raises(UsageError, match="1 to 50 with LCM"):
        sampler("LCM", steps=60)


def test_a_nan_and_a_cancel_stop_the_run():
    run = sampler("DDIM")
    with pytest.raises(NonFiniteLatentError, match="not finite after step 1 of 6 with DDIM"):
        run.run(noise(1), lambda latent, level: latent * float("nan"))
    done = []
    with pytest.raises(Cancelled, match="after 2 of 6 steps"):
        sampler("DDIM").run(
            noise(1), denoiser, step=lambda count, total: done.append(count), cancelled=lambda: len(done) == 2
        )


def test_a_noise_path_is_one_whatever_the_steps_and_the_start():
    """The increments of a Brownian path add up, and a late start is on the same path."""
    from fam_ext.samplers.noise import BrownianPaths

    levels = [NoiseLevel(0, 1.0, sigma) for sigma in (10.0, 1.0)]
    path = BrownianPaths([5], levels)
    like = torch.zeros(SHAPE)
    whole, first, second = path.draw(like, 9.0, 2.0), path.draw(like, 9.0, 4.0), path.draw(like, 4.0, 2.0)
    assert torch.allclose(whole * 7**0.5, first * 5**0.5 + second * 2**0.5, atol=1e-4)
    assert not torch.allclose(whole, BrownianPaths([6], levels).draw(like, 9.0, 2.0))


def test_a_path_is_told_apart_by_31_bits_of_its_seed():
    """A picture whose seed has more of them stays the picture it was."""
    from fam_ext.samplers.noise import BrownianPaths

    levels, like = [NoiseLevel(0, 1.0, sigma) for sigma in (10.0, 1.0)], torch.zeros(SHAPE)
    first, second, other = (BrownianPaths([seed], levels).draw(like, 9.0, 2.0) for seed in (5, 2**31 + 5, 2**30 + 5))
    assert torch.equal(first, second) and not torch.allclose(first, other)


@pytest.mark.parametrize("name", REFUSED)
def test_what_fm_cannot_steer_is_refused_with_its_reason(name):
    with pytest.raises(UnsupportedSamplerError, match=f"'{name}' is refused: {REFUSED[name]}; choose one of DDIM"):
        sampler(name.lower())
