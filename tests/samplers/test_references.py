"""Every sampler on every schedule is diffusers' own loop, or k-diffusion's, and from a late start what exact scores
say."""

import math

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.hosts.base import unmodified
from fam_ext.samplers import run as run_module
from fam_ext.samplers.names import OFFERED, OFFERED_SCHEDULES, split_name
from fam_ext.samplers.run import SamplerRun
from fam_ext.samplers.table import BROWNIAN, SAMPLERS
from fam_ext.samplers.trained import Trained
from tests.hosts import ldm_toys
from tests.hosts.toys import training
from tests.methods.passes import fam_pass
from tests.samplers import references

BOUND = 1e-4  # of the largest value; one for all
PAIRS = sorted({(name, split_name(name, schedule)[1]) for name in OFFERED for schedule in OFFERED_SCHEDULES})
DIFFUSERS = [pair for pair in PAIRS if pair[0] in references.SCHEDULERS and pair[1] in SAMPLERS[pair[0]].diffusers]
# but where the network is told whole timesteps, as by diffusers
K_DIFFUSION = [
    (name, schedule)
    for name, schedule in PAIRS
    if name in references.FUNCTIONS and not (SAMPLERS[name].whole and schedule in SAMPLERS[name].diffusers)
]
needs_k_diffusion = pytest.mark.skipif(not ldm_toys.HAS_K_DIFFUSION, reason=ldm_toys.WITHOUT)


def test_every_pair_has_a_reference():
    """But UniPC's on the WebUI's schedules, where nobody runs it (one loop for all of them); CFG++ is below."""
    without = set(PAIRS) - {*DIFFUSERS, *K_DIFFUSION}
    assert {name for name, _ in without} == {"UniPC", "DDIM CFG++"}


@pytest.mark.slow  # diffusers takes longer to import than a unit file may run
@pytest.mark.parametrize("start", [1.0, 0.6])
@pytest.mark.parametrize("kind", references.KINDS)
@pytest.mark.parametrize(("name", "schedule"), DIFFUSERS)
def test_it_is_diffusers_own_loop(name, schedule, start, kind):
    settings = references.settings_of(kind)
    run, made = references.ours(settings, name, schedule, start=start)
    assert run.schedule == schedule
    theirs = references.diffusers_loop(settings, name, schedule, references.begin(run), steps=10, run=run)
    assert references.distance(made, theirs) < BOUND


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 13])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", references.SCHEDULERS)
def test_a_spacing_is_diffusers_own(name, spacing, steps):
    settings = training()
    run, made = references.ours(settings, name, "Uniform", steps=steps, spacing=spacing)
    begin = references.begin(run)
    theirs = references.diffusers_loop(settings, name, "Uniform", begin, steps=steps, spacing=spacing, run=run)
    assert references.distance(made, theirs) < BOUND


@needs_k_diffusion
@pytest.mark.parametrize(
    ("name", "schedule", "kind", "start"),
    [
        pytest.param(
            *(name, schedule, kind, start),
            marks=() if (kind, start) == ("v", 1.0) and schedule in ("Simple", "KL Optimal") else pytest.mark.slow,
        )
        for name, schedule in K_DIFFUSION
        for kind in references.KINDS
        for start in (1.0, 0.6)
        # every schedule once, and one that ends at 0 and one that doesn't with every kind of network from any start
        if (kind, start) == ("epsilon", 1.0) or schedule in ("Simple", "KL Optimal")
    ],
)
def test_it_is_k_diffusions_loop(name, schedule, start, kind):
    """At zero terminal SNR in double precision: beside states of 4096, single precision alone is 5e-4 off."""
    settings = references.settings_of(kind)
    exact = "zero SNR" in kind and SAMPLERS[name].noise != BROWNIAN  # a Brownian path needs the sigmas' last digit
    dtype = torch.float64 if exact else torch.float32
    run, made = references.ours(settings, name, schedule, start=start, dtype=dtype)
    if len(run.levels) == 1 and name in ("DPM++ 2M SDE", "DPM++ 3M SDE"):
        pytest.skip("k-diffusion itself fails on a run of one step")
    theirs = references.k_diffusion_loop(settings, name, references.begin(run, dtype), steps=10, run=run)
    assert references.distance(made, theirs) < BOUND


@needs_k_diffusion
@pytest.mark.skipif(not references.HAS_WEBUI, reason=references.WITHOUT_WEBUI)
@pytest.mark.parametrize(("cfg_scale", "fm"), [(1.0, False), (7.0, False), (7.0, True), (12.5, False)])
@pytest.mark.parametrize("start", [1.0, 0.6])
@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize("schedule", SAMPLERS["DDIM CFG++"].diffusers)
def test_cfgpp_is_the_webuis_loop(schedule, kind, start, cfg_scale, fm):
    """Also where FM acts on its states: there in place, at the call, as hosts/ldm does."""
    settings = references.settings_of(kind)
    native, target, noise = (torch.randn(shape) for shape in ((1, 4, 4, 4), references.SHAPE, references.SHAPE))
    modify = fam_pass(FamConfig(am=False), native=native, target=target, noise=noise).before_step if fm else unmodified
    more = {"cfg_scale": cfg_scale, "modify": modify}
    run, made = references.ours_guided(settings, schedule, start=start, **more)
    theirs = references.webui_cfgpp_loop(settings, references.begin(run), run=run, **more)
    assert references.distance(made, theirs) < BOUND
    if fm:
        _, without = references.ours_guided(settings, schedule, start=start, cfg_scale=cfg_scale)
        assert references.distance(made, without) > 0.01


@pytest.mark.parametrize("kind", references.KINDS)
def test_cfgpp_without_guidance_is_ddim_and_with_it_is_not(kind):
    settings = references.settings_of(kind)
    _, ddim = references.ours(settings, "DDIM", "Uniform")
    assert torch.equal(references.ours_guided(settings, "Uniform", cfg_scale=0.0)[1], ddim)
    assert references.distance(references.ours_guided(settings, "Uniform", cfg_scale=7.0)[1], ddim) > 0.05


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", OFFERED)
def test_what_the_network_predicts_is_said_in_three_ways(name, prediction):
    """One network whose answer is told as noise, as v and as the clean latent makes one picture."""
    level_of = references.Run(Trained.of(training()), name, "Automatic", steps=6, seeds=[5])

    def answer(latent, level):
        signal, noise = level.signal / level.scale, level.noise / level.scale
        clean = torch.tanh(latent) * 0.5
        epsilon = (latent - signal * clean) / noise
        return {"epsilon": epsilon, "v_prediction": signal * epsilon - noise * clean, "sample": clean}[prediction]

    begin = references.begin(level_of)
    trained = Trained.of(training(prediction_type=prediction))
    made = references.Run(trained, name, "Automatic", steps=6, seeds=[5]).run(begin, answer)
    clean = references.Run(Trained.of(training(prediction_type="sample")), name, "Automatic", steps=6, seeds=[5])
    told = clean.run(begin, lambda latent, level: torch.tanh(latent) * 0.5)
    assert references.distance(made, told) < BOUND


@pytest.mark.parametrize("start", [1.0, 0.7, 0.6])
@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        pytest.param(*pair, marks=() if pair == ("LMS", "Uniform") else pytest.mark.slow)
        for pair in PAIRS
        if pair[0] != "LCM" and pair[1] in (*SAMPLERS[pair[0]].diffusers, OFFERED[pair[0]], "Normal")
    ],
)
def test_with_exact_scores_the_result_has_the_datas_mean_and_spread(name, schedule, start, monkeypatch):
    """Data N(0.3, 0.5^2): the exact epsilon is known, and from any level the result must be that data again.

    250 steps: Euler a is of first order and short of spread by 6 % at 100, on any number of samples, by 3 % at 250.
    (A divisor of 1000: on others diffusers' DDIM with trailing timesteps steps by 1000 // steps between them.)
    """
    mean, spread = 0.3, 0.5
    monkeypatch.setattr(run_module, "MOST_STEPS", 250)  # more than a user is given
    monkeypatch.setattr(run_module, "most_steps", lambda name: 250)
    run = references.Run(Trained.of(training()), name, schedule, steps=250, seeds=[5], start=start)
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
    trained = Trained.of(training())
    for name in OFFERED:
        assert SamplerRun(trained, name, "SGM Uniform", steps=4, seeds=[1]).levels[0].timestep == 999
    assert SamplerRun(trained, "Euler", "Uniform", steps=4, seeds=[1]).levels[0].timestep == 751
