"""hosts/ldm/sampler.py on k-diffusion's samplers: FM changes each state once, and never an estimate."""

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import NativeRecord
from fam_ext.errors import ConfigError, UnsupportedSamplerError
from fam_ext.hosts.ldm import sampler as ldm_sampler
from fam_ext.hosts.ldm import schedule as ldm_schedule
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import Pass, Pictures
from tests.hosts import ldm_toys
from tests.methods.passes import Notes, fam_pass

pytestmark = [
    pytest.mark.skipif(not ldm_toys.HAS_K_DIFFUSION, reason=ldm_toys.WITHOUT),
    pytest.mark.filterwarnings("ignore:Should have t"),  # torchsde's own rounding
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor"),  # k-diffusion's DPM solver
]

ONE = ["sample_euler", "sample_euler_ancestral", "sample_lms", "sample_dpmpp_2m", "sample_dpmpp_2m_sde"]
ONE = [*ONE, "sample_dpmpp_3m_sde"]
TWO = ["sample_heun", "sample_dpm_2", "sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral", "sample_dpmpp_sde"]
STEPS = 6


def latent(seed=0):
    return 14.6 * torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def noting(replace=None):
    return Notes(Pictures(latent(), latent(), latent(), None, steps=STEPS), replace)


def run(name, guide, x=None):
    sampler, steering = ldm_toys.Sampler(name, steps=STEPS), Steering()
    with steering.running(guide), ldm_sampler.steered_sampler(sampler, steering):
        return sampler, sampler.run(latent() if x is None else x)


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_fm_sees_each_step_s_state_once_at_its_own_sigma(name):
    guide = noting()
    sampler, _ = run(name, guide)
    assert [level.noise for level in guide.levels] == pytest.approx(sampler.sigmas[:-1].tolist(), rel=1e-4)


@pytest.mark.parametrize("name", ["sample_euler", "sample_heun", "sample_dpm_2"])
@pytest.mark.parametrize("at", [0, 2, STEPS - 2])
def test_the_step_starts_from_the_changed_state_and_from_nothing_else(name, at):
    changed = latent(seed=5) * 0.1
    sampler, result = run(name, noting(replace={at: changed}))
    alone = ldm_toys.Sampler(name, steps=STEPS).run(changed.clone(), sampler.sigmas[at:])
    assert torch.allclose(result, alone, atol=1e-5)


def test_dpm_fast_and_adaptive_change_states_only():
    for name in ("sample_dpm_fast", "sample_dpm_adaptive"):
        guide = noting()
        run(name, guide)
        sigmas = [level.noise for level in guide.levels]
        assert sigmas == sorted(sigmas, reverse=True) and len(set(sigmas)) == len(sigmas)
    guide = noting()
    sampler, _ = run("sample_dpm_fast", guide)
    assert len(guide.levels) == sampler.reported


def test_a_step_that_adaptive_rejects_is_not_changed_twice():
    calls = ldm_sampler.StateCalls("sample_dpm_adaptive", steps=3)
    state, estimate, following = torch.zeros(1), torch.ones(1), torch.ones(1)
    assert calls.is_state(state)
    assert not calls.is_state(estimate) and not calls.is_state(estimate)
    assert not calls.is_state(state)  # rejected: the same tensor again
    assert not calls.is_state(estimate) and not calls.is_state(estimate)
    assert calls.is_state(following)


@pytest.mark.parametrize("name", [*ONE, *TWO, "sample_dpm_fast", "sample_dpm_adaptive"])
def test_fm_off_and_hooks_gone_change_no_bit(name):
    plain = ldm_toys.Sampler(name, steps=STEPS).run(latent())
    sampler, guided = run(name, noting())
    assert torch.equal(plain, guided)
    assert "forward" not in sampler.model_wrap_cfg.__dict__ and "callback_state" not in sampler.__dict__
    assert torch.equal(sampler.run(latent()), plain)


@pytest.mark.parametrize("name", ["sample_euler", "sample_dpmpp_2m", "sample_heun"])
def test_fm_pulls_the_result_to_the_reference(name):
    native = torch.zeros(1, 4, 2, 2)
    noise = latent(3)
    target = torch.linspace(-1, 1, 4)[None, None, :, None].expand(1, 4, 4, 4).contiguous()
    guide = fam_pass(
        FamConfig(cutoff=1.0, cutoff_reference="target", am=False),
        native=native,
        target=target,
        noise=noise / 14.6,
        steps=STEPS,
    )
    _, guided = run(name, guide, target + noise)
    _, plain = run(name, noting(), target + noise)
    assert guide.ran().fm_calls == STEPS
    assert (guided - target).abs().mean() < 0.8 * (plain - target).abs().mean()


def test_a_failure_inside_the_sampler_leaves_nothing():
    sampler = ldm_toys.Sampler("sample_euler")
    guide = noting()
    guide.before_step = lambda state, level: (_ for _ in ()).throw(RuntimeError("no"))
    steering = Steering()
    with pytest.raises(RuntimeError), steering.running(guide), ldm_sampler.steered_sampler(sampler, steering):
        sampler.run(latent())
    assert steering.active is None
    assert "forward" not in sampler.model_wrap_cfg.__dict__ and "callback_state" not in sampler.__dict__


@pytest.mark.parametrize("name", ["unipc", "sample_res_multistep"])
def test_samplers_whose_state_is_out_of_reach_are_refused_by_name(name):
    with pytest.raises(UnsupportedSamplerError, match=name):
        ldm_sampler.StateCalls(name, steps=3)


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_the_native_run_is_recorded_at_every_step(name):
    sampler, record = ldm_toys.Sampler(name, steps=STEPS), NativeRecord()
    with ldm_sampler.recorded_sampler(sampler, record):
        sampler.run(latent())
    assert len(record) == STEPS
    level, first = record.nearest(ldm_schedule.level_at(sampler, 14.6))
    assert level.noise == pytest.approx(14.6, rel=1e-3) and torch.allclose(first, latent())


def test_levels_of_both_families():
    sampler = ldm_toys.Sampler("sample_euler")
    level = ldm_schedule.level_at(sampler, 14.6)
    assert level.timestep == pytest.approx(999, abs=1) and level.signal == 1 and level.noise == 14.6
    sampler.model_wrap_cfg.inner_model = torch.nn.Identity()  # the DDIM family's has no sigmas
    level = ldm_schedule.level_at(sampler, 501.0)
    abar = float(ldm_toys.alphas_cumprod()[501])
    assert level.timestep == 501 and level.signal**2 == pytest.approx(abar) and level.scale == pytest.approx(1)


@pytest.mark.parametrize("start", [1.0, 0.6, 0.3])
def test_the_schedule_is_the_host_s_own_from_start_on(start):
    sampler = ldm_toys.Sampler("sample_euler")
    full = sampler.get_sigmas(None, 12)
    schedule = ldm_schedule.schedule_from(sampler, None, steps=12, start=start)
    for denoising in (start, 0.999):  # the host asks for more and takes the last calls + 1
        total = int(schedule.steps / min(denoising, 0.999))
        given = schedule.give(None, total)[total - schedule.steps :]
        assert torch.equal(given, full[-(schedule.calls + 1) :])
    assert ldm_schedule.level_at(sampler, float(given[0])).timestep <= 1000 * start + 1
    if start < 1:
        before = float(full[-(schedule.calls + 2)])
        assert ldm_schedule.level_at(sampler, before).timestep > 1000 * start


class Ddim:
    """The WebUI's DDIM family, as far as its schedule goes."""

    @staticmethod
    def get_timesteps(p, steps):
        return torch.clip(torch.tensor(list(range(0, 1000, 1000 // steps))) + 1, 0, 999)


@pytest.mark.parametrize("start", [1.0, 0.6])
def test_the_ddim_family_begins_where_its_noise_was_added(start):
    schedule = ldm_schedule.schedule_from(Ddim(), None, steps=20, start=start)
    given = schedule.give(None, 0)
    noise_level, run_over = given[schedule.steps - 1], given[: schedule.steps - 1]
    assert noise_level == run_over[-1] == (951 if start == 1 else 551)
    assert len(run_over) - 1 == schedule.calls
    assert run_over[:2].tolist() == [0, 1]  # the first is only where the host's loop ends: its last call is at 1


def test_a_start_that_leaves_no_step_is_answered():
    with pytest.raises(ConfigError, match=r"start is 0\.01"):
        ldm_schedule.schedule_from(Ddim(), None, steps=3, start=0.01)


@pytest.mark.parametrize("name", ["sample_euler", "sample_heun"])
def test_a_pass_without_a_reference_begins_from_its_own_noise_alone(name):
    steered = Pass(Pictures(latent(), None, latent(4) / 14.6, None, steps=STEPS))
    sampler, result = run(name, steered, latent(seed=9))
    begun = steered.initial(ldm_schedule.level_at(sampler, float(sampler.sigmas[0])))
    assert torch.equal(result, ldm_toys.Sampler(name, steps=STEPS).run(begun.clone()))


def test_a_sampler_out_of_reach_serves_a_pass_that_leaves_the_state_alone():
    sampler, steering = ldm_toys.Sampler("sample_euler", steps=STEPS), Steering()
    own = sampler.func
    sampler.func = lambda *args, **more: own(*args, **more)
    sampler.func.__name__ = "sample_of_another_extension"
    with steering.running(Pass(noting().pictures)), ldm_sampler.steered_sampler(sampler, steering):
        result = sampler.run(latent())
    assert torch.equal(result, ldm_toys.Sampler("sample_euler", steps=STEPS).run(latent()))
    with (
        pytest.raises(UnsupportedSamplerError),
        steering.running(noting()),
        ldm_sampler.steered_sampler(sampler, steering),
    ):
        pass
