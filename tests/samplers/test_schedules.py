"""Schedules: equal to k-diffusion's, to the real WebUI's, and to diffusers' ways to spread timesteps."""

import importlib.util
import math
import os
import sys
import types
from pathlib import Path

import pytest
import torch

from fam_ext.errors import UnsupportedModelError
from fam_ext.samplers import schedules
from fam_ext.samplers.names import OFFERED, OFFERED_SCHEDULES
from fam_ext.samplers.run import SamplerRun
from fam_ext.samplers.table import steps_of
from fam_ext.samplers.trained import Trained
from tests.hosts import ldm_toys
from tests.hosts.toys import training

WEBUI = Path(os.environ.get("FAM_WEBUI_DIR", Path.home() / "stable-diffusion-webui"))
STEPS = (1, 2, 4, 11, 20, 30, 150)
TRAINED = Trained.of(training())
needs_k_diffusion = pytest.mark.skipif(not ldm_toys.HAS_K_DIFFUSION, reason=ldm_toys.WITHOUT)


def denoiser():
    """Return k-diffusion's denoiser of the same model."""
    _, external = ldm_toys.k_diffusion()
    network = ldm_toys.Network()
    network.alphas_cumprod = torch.tensor(TRAINED.alphas_cumprod)
    return external.CompVisDenoiser(network)


@pytest.fixture(scope="module")
def webui_schedulers():
    """The WebUI's own module, with the two settings that it reads and a model of each kind."""
    path = WEBUI / "modules" / "sd_schedulers.py"
    if not path.is_file():
        pytest.skip(f"needs the WebUI's {path}")
    ldm_toys.k_diffusion()
    modules = {name: types.ModuleType(name) for name in ("modules", "modules.shared")}
    shared = modules["modules"].shared = modules["modules.shared"]
    shared.opts = types.SimpleNamespace(beta_dist_alpha=0.6, beta_dist_beta=0.6)
    shared.sd_model = types.SimpleNamespace(is_sdxl=False)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        spec = importlib.util.spec_from_file_location("webui_sd_schedulers", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


@pytest.mark.webui
@pytest.mark.parametrize("name", sorted(set(OFFERED_SCHEDULES) - {"Automatic", "Turbo"}))
def test_the_sigmas_are_the_webuis(webui_schedulers, name):
    scheduler, inner = webui_schedulers.schedulers_map[name], denoiser()
    for steps in STEPS:
        ends = {"sigma_min": float(inner.sigma_min), "sigma_max": float(inner.sigma_max)}
        more = {"inner_model": inner} if scheduler.need_inner_model else {}
        theirs = scheduler.function(n=steps, **ends, **more, device="cpu")
        if name == "Align Your Steps" and steps == 1:
            assert theirs[0] < 0.03  # no noise for a picture to come from: ours begins at the noisiest
            continue
        assert schedules.WEBUI[name](TRAINED, steps) == pytest.approx(theirs.tolist(), rel=1e-4, abs=1e-7)


@pytest.mark.webui
def test_align_your_steps_knows_sdxl(webui_schedulers):
    webui_schedulers.shared.sd_model.is_sdxl = True
    theirs = webui_schedulers.get_align_your_steps_sigmas(17, 0.03, 14.6, "cpu")
    ours = schedules.align_your_steps(Trained.of(training(), is_sdxl=True), 17)
    assert ours == pytest.approx(theirs.tolist(), rel=1e-5)
    assert ours != pytest.approx(schedules.align_your_steps(TRAINED, 17), rel=0.01)


@needs_k_diffusion
@pytest.mark.parametrize("steps", STEPS)
def test_the_sigmas_are_k_diffusions(steps):
    sampling, _ = ldm_toys.k_diffusion()
    inner = denoiser()
    ends = float(inner.sigma_min), float(inner.sigma_max)
    for name, theirs in {
        "Normal": inner.get_sigmas(steps),
        "Karras": sampling.get_sigmas_karras(steps, *ends),
        "Exponential": sampling.get_sigmas_exponential(steps, *ends),
        "Polyexponential": sampling.get_sigmas_polyexponential(steps, *ends),
    }.items():
        assert schedules.WEBUI[name](TRAINED, steps) == pytest.approx(theirs.tolist(), rel=1e-4)


@needs_k_diffusion
def test_a_sigmas_timestep_is_k_diffusions():
    inner, sigmas = denoiser(), [0.01, 0.03, 0.5, 1.0, 7.7, 14.6, 20.0, TRAINED.sigmas[-1], TRAINED.sigmas[0]]
    for sigma in sigmas:
        assert TRAINED.at(sigma).timestep == pytest.approx(float(inner.sigma_to_t(torch.tensor(sigma))), abs=1e-3)
    assert TRAINED.at(TRAINED.sigmas[500]).timestep == 500
    assert TRAINED.sigma(TRAINED.timestep(3.3)) == pytest.approx(3.3)


@pytest.mark.parametrize("name", ["Euler", "DPM++ 2M"])
def test_a_sampler_walks_the_shape_that_was_asked_for(name):
    """Karras: even in sigma^(1/7); Exponential: even in its logarithm."""
    for schedule, even in (("Karras", lambda sigma: sigma ** (1 / 7)), ("Exponential", math.log)):
        first, *_, last = sigmas = [pair[0].sigma for pair in steps_of(name, schedule, TRAINED, steps=9, spacing=None)]
        assert even(sigmas[4]) == pytest.approx((even(first) + even(last)) / 2, rel=1e-4)


def test_turbos_timesteps_are_those_it_was_distilled_at():
    """Forge's: 1000 / n apart, the noisiest first."""
    assert [TRAINED.at(sigma).timestep for sigma in schedules.turbo(TRAINED, 4)[:-1]] == [999, 749, 499, 249]
    assert [TRAINED.at(sigma).timestep for sigma in schedules.turbo(TRAINED, 1)[:-1]] == [999]


@pytest.mark.parametrize("name", OFFERED)
@pytest.mark.parametrize("schedule", OFFERED_SCHEDULES)
def test_every_pair_falls_from_few_to_many_steps(name, schedule):
    for steps in (1, 2, 3, 8, 50):
        run = SamplerRun(TRAINED, name, schedule, steps=steps, seeds=[1])
        sigmas = [level.sigma for level in run.levels]
        assert sigmas == sorted(set(sigmas), reverse=True) and run.end.sigma < sigmas[-1]
        assert all(0 <= level.timestep <= 999 for level in run.levels)
        assert len(run.levels) == steps or run.schedule == "DDIM"


@pytest.mark.slow  # diffusers takes longer to import than a unit file may run
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_are_spread_as_diffusers_spreads_them(spacing):
    import diffusers

    settings = training(timestep_spacing=spacing)
    for steps in range(1, 151):
        theirs = []
        for cls in (diffusers.EulerDiscreteScheduler, diffusers.DPMSolverMultistepScheduler):
            scheduler = cls.from_config(settings)
            scheduler.set_timesteps(steps)
            theirs.append(scheduler.timesteps.tolist())
        if spacing == "trailing" and steps in (61, 103, 121, 122):
            # numpy's arange is one too long there: diffusers adds a step at timestep -1
            assert [len(timesteps) for timesteps in theirs] == [steps + 1] * 2
            theirs = [timesteps[:-1] for timesteps in theirs]
        assert schedules.spread(TRAINED, steps, spacing) == pytest.approx(theirs[0], abs=1e-3)
        assert schedules.spread_above_zero(TRAINED, steps, spacing) == theirs[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("zero", [False, True])
def test_the_trained_levels_are_diffusers_own(kind, zero):
    import diffusers

    settings = training(beta_schedule=kind, rescale_betas_zero_snr=zero)
    ours = Trained.of(settings)
    assert list(ours.alphas_cumprod) == diffusers.DDIMScheduler.from_config(settings).alphas_cumprod.tolist()
    abar = diffusers.EulerDiscreteScheduler.from_config(settings).alphas_cumprod
    assert list(ours.sigmas) == (((1 - abar) / abar) ** 0.5).tolist()
    assert (ours.alphas_cumprod[-1] == 0) == zero


def test_betas_given_one_by_one_and_settings_that_are_unknown():
    betas = (torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).tolist()
    assert Trained.of({"trained_betas": betas}).sigmas == pytest.approx(TRAINED.sigmas)
    with pytest.raises(UnsupportedModelError, match="beta schedule is 'sigmoid'; choose linear, "):
        Trained.of(training(beta_schedule="sigmoid"))
    with pytest.raises(UnsupportedModelError, match="predicts 'flow'; choose one of epsilon, "):
        Trained.of(training(prediction_type="flow"))
