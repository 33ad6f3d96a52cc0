"""Every sampler on every schedule is diffusers' own loop, and from a late start what exact scores say."""

import inspect
import math
import warnings

import pytest
import torch

from fam_ext.hosts import diffusers_samplers
from fam_ext.hosts.diffusers_samplers import SCHEDULERS, SCHEDULES, DiffusersSampler, split_name

from .toys import training

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run

SHAPE = (1, 4, 8, 8)
BOUND = 1e-4  # of the largest value; one for all
KINDS = {
    "epsilon": {},
    "v": {"prediction_type": "v_prediction"},
    "v, zero SNR": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}
PAIRS = sorted({(name, split_name(name, schedule)[1]) for name in SCHEDULERS for schedule in SCHEDULES})


def network(latent, timestep):
    """Depends on its input's scale, nonlinearly, and on the time."""
    return torch.tanh(1.3 * latent) + 0.2 * latent.roll(1, -1) - 0.3 * math.sin(timestep / 300)


def own_loop(settings, name, schedule, latent, *, steps, skipped):
    """Diffusers' own loop on the last part of a schedule, as if there were no other."""
    import diffusers

    kind, options, _ = SCHEDULERS[name]
    cls = getattr(diffusers, kind)
    accepted = inspect.signature(cls.__init__).parameters
    config = {key: value for key, value in settings.items() if key in accepted} | options
    if SCHEDULES[schedule] in accepted:
        config[SCHEDULES[schedule]] = True
    if schedule == "SGM Uniform":
        config["timestep_spacing"] = "trailing"
    if "noise_sampler_seed" in accepted:
        config["noise_sampler_seed"] = 5
    scheduler = cls(**config)
    if settings.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in accepted:
        # the very same numbers as diffusers' own rescaling: a Brownian path is rough, and shows the last digit
        euler = {key: settings[key] for key in ("beta_start", "beta_end", "beta_schedule", "rescale_betas_zero_snr")}
        scheduler.alphas_cumprod = diffusers.EulerDiscreteScheduler(**euler).alphas_cumprod
    scheduler.set_timesteps(steps)
    largest = float(scheduler.sigmas.max()) if hasattr(scheduler, "sigmas") else 0.0
    if name in ("LMS", "Euler", "Heun"):
        scheduler.sigmas, scheduler.timesteps = scheduler.sigmas[skipped:], scheduler.timesteps[skipped:]
        times = scheduler.timesteps
    else:
        times = scheduler.timesteps[skipped:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
    if name == "DPM++ SDE":
        assert largest == float(scheduler.sigmas.max())  # one Brownian path over the whole schedule
    generator = torch.Generator().manual_seed((5 * 1_000_003 + 7) % 2**63)
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for timestep in times:
        shown = scheduler.scale_model_input(latent, timestep)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Should have t[ab][<>]=t[01]")
            latent = scheduler.step(network(shown, float(timestep)), timestep, latent, return_dict=False, **extra)[0]
    return latent


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        pytest.param(start, kind, marks=() if (start, kind) == (0.6, "v, zero SNR") else pytest.mark.slow)
        for start in (1.0, 0.6)
        for kind in KINDS
    ],
)
@pytest.mark.parametrize(("name", "schedule"), PAIRS)
def test_it_is_diffusers_own_loop(name, schedule, start, kind):
    settings = training(**KINDS[kind])
    run = DiffusersSampler(settings, name, schedule, steps=10, seeds=[5], start=start)
    assert run.schedule == schedule
    begin = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * run.levels[0].scale
    ours = run.run(begin, lambda latent, level: network(latent, level.timestep))
    theirs = own_loop(settings, name, schedule, begin, steps=10, skipped=run._first).float()
    assert torch.isfinite(theirs).all()
    assert (ours - theirs).abs().max() <= BOUND * theirs.abs().max()


@pytest.mark.parametrize("start", [1.0, 0.7, 0.6])
@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        pytest.param(*pair, marks=() if pair == ("LMS", "Uniform") else pytest.mark.slow)
        for pair in PAIRS
        if pair[0] != "LCM"
    ],
)
def test_with_exact_scores_the_result_has_the_datas_mean_and_spread(name, schedule, start, monkeypatch):
    """Data N(0.3, 0.5^2): the exact epsilon is known, and from any level the result must be that data again.

    250 steps: Euler a is of first order and short of spread by 6 % at 100, on any number of samples, by 3 % at 250.
    (A divisor of 1000: on others diffusers' DDIM with trailing timesteps steps by 1000 // steps between them.)
    """
    mean, spread = 0.3, 0.5
    monkeypatch.setattr(diffusers_samplers, "MOST_STEPS", 250)  # more than a user is given
    monkeypatch.setattr(diffusers_samplers, "most_steps", lambda name: 250)
    run = DiffusersSampler(training(), name, schedule, steps=250, seeds=[5], start=start)
    first = run.levels[0]
    noise = torch.randn((1, 4, 48, 48), generator=torch.Generator().manual_seed(1))
    begin = first.signal * mean + noise * math.hypot(first.signal * spread, first.noise)

    def exact(latent, level):
        signal, noise = level.signal / level.scale, level.noise / level.scale
        return noise * (latent - signal * mean) / ((signal * spread) ** 2 + noise**2)

    result = run.run(begin, exact)
    assert abs(float(result.mean()) - mean) < 0.04 * spread
    assert abs(float(result.std()) - spread) < 0.04 * spread


def test_a_schedule_that_begins_at_the_noisiest_timestep():
    for name in SCHEDULERS:
        assert DiffusersSampler(training(), name, "SGM Uniform", steps=4, seeds=[1]).levels[0].timestep == 999
    assert DiffusersSampler(training(), "Euler", "Uniform", steps=4, seeds=[1]).levels[0].timestep == 751
