"""The loops of diffusers, k-diffusion and A1111, to hold ours against: real schedulers, real sampler functions."""

import importlib.util
import inspect
import math
import os
import sys
import types
import warnings
from pathlib import Path
from unittest import mock

import torch

from fam_ext.hosts.base import unmodified
from fam_ext.samplers.run import SamplerRun
from fam_ext.samplers.table import BROWNIAN, SAMPLERS
from fam_ext.samplers.trained import Trained
from tests.hosts import ldm_toys
from tests.hosts.toys import training

SHAPE = (1, 4, 8, 8)
SEED = 5
KINDS = {
    "epsilon": {},
    "v": {"prediction_type": "v_prediction"},
    "v, zero SNR": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}
SCHEDULERS = {
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ SDE": ("DPMSolverSDEScheduler", {"noise_sampler_seed": SEED}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "LCM": ("LCMScheduler", {"clip_sample": False}),
}
SCHEDULES = {
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"use_exponential_sigmas": True},
    "SGM Uniform": {"timestep_spacing": "trailing"},
}
FUNCTIONS = {
    "Euler": "sample_euler",
    "Euler a": "sample_euler_ancestral",
    "LMS": "sample_lms",
    "Heun": "sample_heun",
    "DPM2": "sample_dpm_2",
    "DPM2 a": "sample_dpm_2_ancestral",
    "DPM++ 2S a": "sample_dpmpp_2s_ancestral",
    "DPM++ 2M": "sample_dpmpp_2m",
    "DPM++ 2M SDE": "sample_dpmpp_2m_sde",
    "DPM++ 3M SDE": "sample_dpmpp_3m_sde",
    "DPM++ SDE": "sample_dpmpp_sde",
}
WEBUI = Path(os.environ.get("FAM_WEBUI_DIR", Path.home() / "stable-diffusion-webui"))
HAS_WEBUI = (WEBUI / "modules" / "sd_samplers_timesteps_impl.py").exists()
WITHOUT_WEBUI = f"no WebUI in {WEBUI}; set FAM_WEBUI_DIR"


class Run(SamplerRun):
    """A run that takes a plain function for a network: both of its outputs are the same."""

    def run(self, latent, model, **more):
        def both(latent, level):
            return torch.cat([model(latent, level)] * 2)

        return super().run(latent, both if self.wants_both else model, **more)


def network(latent, timestep):
    """Depends on its input's scale, nonlinearly, and on the time."""
    return torch.tanh(1.3 * latent) + 0.2 * latent.roll(1, -1) - 0.3 * math.sin(timestep / 300)


def begin(run, dtype=torch.float32):
    """Return noise at the first level of a run."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).to(dtype) * run.levels[0].scale


def ours(settings, name, schedule, *, steps=10, start=1.0, spacing=None, dtype=torch.float32):
    """Return (our run, what it makes of `begin`)."""
    run = Run(Trained.of(settings), name, schedule, steps=steps, seeds=[SEED], start=start, spacing=spacing)
    return run, run.run(begin(run, dtype), lambda latent, level: network(latent, level.timestep))


def distance(one, other):
    """Return the largest difference by the largest value of `other`."""
    assert torch.isfinite(other).all()
    return float((one - other).abs().max() / other.abs().max())


def scheduler(settings, name, schedule, *, steps):
    """Return diffusers' scheduler with its timesteps set."""
    import diffusers
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    kind, options = SCHEDULERS[name]
    cls = getattr(diffusers, kind)
    accepted = inspect.signature(cls.__init__).parameters
    config = settings | options | SCHEDULES.get(schedule, {})
    made = cls(**{key: value for key, value in config.items() if key in accepted})
    if settings.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in accepted:
        # LMS, Heun and DPM++ SDE have no such option: the noise levels are Euler's, which has
        euler = {key: settings[key] for key in ("beta_start", "beta_end", "beta_schedule", "rescale_betas_zero_snr")}
        made.alphas_cumprod = EulerDiscreteScheduler(**euler).alphas_cumprod
    made.set_timesteps(steps)
    return made


def diffusers_loop(settings, name, schedule, latent, *, steps, spacing=None, run):
    """Return what diffusers' own loop makes of `latent` on the part of the schedule that `run` has, as if there were
    no other."""
    if spacing is not None:
        settings = settings | {"timestep_spacing": spacing}
    made = scheduler(settings, name, schedule, steps=steps)
    if name not in ("DDIM", "LCM"):
        latent = latent / run.levels[0].scale * _scale(made, name, run)
    skipped = len(made.timesteps) - _calls(made, run)
    if name in ("LMS", "Euler", "Heun"):
        made.sigmas, made.timesteps = made.sigmas[skipped:], made.timesteps[skipped:]
        times = made.timesteps
    else:
        times = made.timesteps[skipped:]
        if hasattr(made, "set_begin_index"):
            made.set_begin_index(skipped)
    generator = torch.Generator().manual_seed((SEED * 1_000_003 + 7) % 2**63)
    extra = {"generator": generator} if "generator" in inspect.signature(made.step).parameters else {}
    for timestep in times:
        shown = made.scale_model_input(latent, timestep)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Should have t[ab][<>]=t[01]")
            latent = made.step(network(shown, float(timestep)), timestep, latent, return_dict=False, **extra)[0]
    return latent.float()


def _calls(made, run):
    second_order = hasattr(made, "state_in_first_order")
    return 2 * len(run.levels) - 1 if second_order else len(run.levels)


def _scale(made, name, run):
    """Return the scale of a state in the scheduler's own space: DPM-Solvers and UniPC keep it at 1."""
    return 1.0 if name in ("DPM++ 2M", "DPM++ 2M SDE", "UniPC") else run.levels[0].scale


def k_diffusion_loop(settings, name, latent, *, steps, run):
    """Return what k-diffusion's function makes of `latent` on the sigmas of `run`, with its own denoiser."""
    sampling, external = ldm_toys.k_diffusion()
    trained = Trained.of(settings)
    alphas_cumprod = 1 / (1 + torch.tensor(trained.sigmas) ** 2)
    is_v = settings["prediction_type"] == "v_prediction"

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.alphas_cumprod = alphas_cumprod

        def apply_model(self, latent, timestep, cond):
            return network(latent, float(timestep[0]))

    denoiser = (external.CompVisVDenoiser if is_v else external.CompVisDenoiser)(Network())
    sigmas = torch.tensor([*(level.sigma for level in run.levels), run.end.sigma]).to(latent.dtype)
    more = {}
    if SAMPLERS[name].noise == BROWNIAN:
        whole, _ = ours(settings, name, run.schedule, steps=steps)  # its path is over the whole schedule
        ends = min(level.sigma for level in (*whole.levels, whole.end) if level.sigma > 0), whole.levels[0].sigma
        more["noise_sampler"] = sampling.BrownianTreeNoiseSampler(torch.zeros(SHAPE), *ends, seed=SEED)
    elif "noise_sampler" in inspect.signature(getattr(sampling, FUNCTIONS[name])).parameters:
        generator = torch.Generator().manual_seed((SEED * 1_000_003 + 7) % 2**63)
        more["noise_sampler"] = lambda sigma, end: torch.randn(SHAPE, generator=generator)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Should have t[ab][<>]=t[01]")
        return getattr(sampling, FUNCTIONS[name])(denoiser, latent, sigmas, {"cond": None}, disable=True, **more)


def guided(latent, timestep, cfg_scale):
    """Return (guided, without guidance) of a network that also depends on its words."""
    unguided = network(latent, timestep)
    return unguided + cfg_scale * (network(0.6 * latent + 0.2, timestep) - unguided), unguided


def ours_guided(settings, schedule, *, cfg_scale, start=1.0, steps=10, modify=unmodified):
    """Return (our run of DDIM CFG++, what it makes of `begin`)."""
    run = SamplerRun(Trained.of(settings), "DDIM CFG++", schedule, steps=steps, seeds=[SEED], start=start)

    def model(latent, level):
        return torch.cat(guided(latent, level.timestep, cfg_scale * run.cfg_share))

    return run, run.run(begin(run), model, modify=modify)


def webui_cfgpp_loop(settings, latent, *, cfg_scale, run, modify=unmodified):
    """Return what A1111's own function makes of `latent` on the timesteps of `run`, around a denoiser like its own."""
    alphas_cumprod = torch.tensor(Trained.of(settings).alphas_cumprod)

    class Denoiser:
        cond_scale_miltiplier = 1.0
        inner_model = types.SimpleNamespace(inner_model=types.SimpleNamespace(alphas_cumprod=alphas_cumprod))

        def __call__(self, latent, timestep):
            at = int(timestep[0])
            latent.copy_(modify(latent, run._trained.preserving(at)))
            outputs = guided(latent, at, cfg_scale * self.cond_scale_miltiplier)
            if settings["prediction_type"] == "v_prediction":
                abar = alphas_cumprod[at]
                outputs = [abar.sqrt() * output + (1 - abar).sqrt() * latent for output in outputs]
            output, self.last_noise_uncond = outputs
            return output

    # from the level at which the last step ends up to the first state's
    timesteps = [0, *(int(level.timestep) for level in reversed(run.levels))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its numpy arithmetic on tensors
        return _webui_samplers().ddim_cfgpp(Denoiser(), latent, torch.tensor(timesteps), disable=True)


def _webui_samplers():
    """Return A1111's module of them, from its file, without its settings and its UniPC."""
    spec = importlib.util.spec_from_file_location("webui_samplers", WEBUI / "modules" / "sd_samplers_timesteps_impl.py")
    module = importlib.util.module_from_spec(spec)
    ldm_toys.k_diffusion()
    stubs = {
        "modules": types.SimpleNamespace(shared=None),
        "modules.models.diffusion.uni_pc": types.SimpleNamespace(uni_pc=types.SimpleNamespace(UniPC=object)),
        "modules.torch_utils": types.SimpleNamespace(float64=lambda latent: torch.float64),
    }
    with mock.patch.dict(sys.modules, stubs):
        spec.loader.exec_module(module)
    return module


def settings_of(kind):
    """Return the training settings of one of KINDS."""
    return training(**KINDS[kind])


def differences(name, *, kinds=tuple(KINDS)):
    """Return the largest distance over whole runs to each reference that the sampler has, on its own schedules there
    (k-diffusion: three of the WebUI's), with each kind of network, from both starts."""
    found = {}
    for kind in kinds:
        settings = settings_of(kind)
        for start in (1.0, 0.6):
            if name == "DDIM CFG++" and "zero SNR" not in kind:
                # A1111 divides by a signal of 0
                for schedule in SAMPLERS[name].diffusers:
                    run, made = ours_guided(settings, schedule, start=start, cfg_scale=7.0)
                    theirs = webui_cfgpp_loop(settings, begin(run), cfg_scale=7.0, run=run)
                    found["k-diffusion"] = max(found.get("k-diffusion", 0.0), distance(made, theirs))
            for schedule in SAMPLERS[name].diffusers if name in SCHEDULERS else ():
                run, made = ours(settings, name, schedule, start=start)
                theirs = diffusers_loop(settings, name, schedule, begin(run), steps=10, run=run)
                found["diffusers"] = max(found.get("diffusers", 0.0), distance(made, theirs))
            for schedule in ("Normal", "Polyexponential", "KL Optimal") if name in FUNCTIONS else ():
                # as the tests: beside states of 4096, single precision alone is 5e-4 off
                dtype = torch.float64 if "zero SNR" in kind and SAMPLERS[name].noise != BROWNIAN else torch.float32
                run, made = ours(settings, name, schedule, start=start, dtype=dtype)
                theirs = k_diffusion_loop(settings, name, begin(run, dtype), steps=10, run=run)
                found["k-diffusion"] = max(found.get("k-diffusion", 0.0), distance(made, theirs))
    return found
