"""One table of sampler and schedule names in every program's spelling, and what stands in for those not offered.

Standard library only: planning reads it without torch, the hosts check their own tables against it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fam_ext.errors import UnsupportedSamplerError, UnsupportedScheduleError
from fam_ext.options.field import MOST_STEPS

# canonical name (A1111's) -> other spellings: k-diffusion, ComfyUI, diffusers, InvokeAI, NovelAI, AI Horde
_SAMPLERS: Mapping[str, str] = {
    "DDIM": "ddim|k_ddim|ddim_v3|DDIMScheduler",
    "DDIM CFG++": "ddim_cfgpp|ddim_cfg_pp",
    "DDPM": "ddpm|DDPMScheduler",
    "Euler": "euler|k_euler|euler_discrete|EulerDiscreteScheduler|euler flow match",
    "Euler a": "euler_a|euler_ancestral|k_euler_a|k_euler_ancestral|EulerAncestralDiscreteScheduler|Euler Ancestral|"
    "Euler A Substep",
    "Heun": "heun|k_heun|HeunDiscreteScheduler|heunpp2",
    "LMS": "lms|k_lms|LMSDiscreteScheduler",
    "DPM2": "dpm2|KDPM2|dpm_2|k_dpm_2|kdpm_2|KDPM2DiscreteScheduler",
    "DPM2 a": "dpm2_a|dpm_2_a|dpm_2_ancestral|k_dpm_2_a|k_dpm_2_ancestral|kdpm_2_a|KDPM2AncestralDiscreteScheduler",
    "DPM fast": "dpm_fast|k_dpm_fast",
    "DPM adaptive": "dpm_adaptive|k_dpm_adaptive",
    "DPM++ 2S a": "dpmpp_2s_a|dpmpp_2s_ancestral|k_dpmpp_2s_a|k_dpmpp_2s_ancestral|DPM++ 2S Ancestral|dpm++2s_a",
    "DPM++ 2M": "dpmpp_2m|k_dpmpp_2m|dpm++2m|dpm++2mv2|DPMSolverMultistepScheduler|"
    "dpm_solver_multistep|dpmpp|dpm_solver_stability|dpm_solver|k_dpm_solver|dpmpp_2",
    "DPM++ SDE": "dpmpp_sde|dpmpp_sde_gpu|k_dpmpp_sde|DPMSolverSDEScheduler|DPM SDE|DPM++ SDE Substep",
    "DPM++ 2M SDE": "dpmpp_2m_sde|dpmpp_2m_sde_gpu|k_dpmpp_2m_sde",
    "DPM++ 2M SDE Heun": "dpmpp_2m_sde_heun|dpmpp_2m_sde_heun_gpu|k_dpmpp_2m_sde_heun",
    "DPM++ 3M SDE": "dpmpp_3m_sde|dpmpp_3m_sde_gpu|k_dpmpp_3m_sde",
    "DPM++ 2S": "dpmpp_2s|DPMSolverSinglestepScheduler",
    "UniPC": "uni_pc|unipc|uni_pc_bh2|UniPCMultistepScheduler|unipc_snr|unipc_snr_2|unipc_tu|unipc_tu_2|unipc_tq",
    "LCM": "lcm|k_lcm|LCMScheduler|lcm_custom_noise",
    "TCD": "tcd|TCDScheduler",
    "PLMS": "plms|pndm|k_plms|PNDMScheduler",
    "DEIS": "deis|DEISMultistepScheduler",
    "Restart": "restart",
    "iPNDM": "ipndm|ipndm_v",
    "RES 2S": "res_2s",
    "RES multistep": "res_multistep|res_2m|res_multistep_ancestral",
    "ER SDE": "er_sde",
    "SA Solver": "sa_solver|SASolverScheduler",
}
_SCHEDULES: Mapping[str, str] = {
    "Automatic": "automatic|auto|default|none|use same scheduler|",
    "Normal": "normal|native|discrete",
    "Karras": "karras",
    "Exponential": "exponential",
    "Polyexponential": "polyexponential|poly_exponential",
    "Uniform": "uniform",
    "SGM Uniform": "sgm_uniform|trailing|sgm",
    "Simple": "simple",
    "DDIM": "ddim_uniform|ddim",
    "KL Optimal": "kl_optimal",
    "Align Your Steps": "ays|align_your_steps|AYS SDXL|AYS SD1",
    "Beta": "beta",
    "Turbo": "turbo",
    "Linear Quadratic": "linear_quadratic",
    "GITS": "gits",
}

# what the standalone host offers: sampler -> the schedule that Automatic means (tests compare it with `table`)
OFFERED: Mapping[str, str] = {
    "DDIM": "Uniform",
    "DDIM CFG++": "Uniform",
    "Euler": "Uniform",
    "Euler a": "Uniform",
    "LMS": "Uniform",
    "Heun": "Uniform",
    "DPM2": "Karras",
    "DPM2 a": "Karras",
    "DPM++ 2S a": "Karras",
    "DPM++ 2M": "Karras",
    "DPM++ 2M SDE": "Exponential",
    "DPM++ 3M SDE": "Exponential",
    "DPM++ SDE": "Karras",
    "UniPC": "Uniform",
    "LCM": "Uniform",
}
OFFERED_SCHEDULES = (
    *("Automatic", "Uniform", "Normal", "SGM Uniform", "Simple", "DDIM", "Turbo"),
    *("Karras", "Exponential", "Polyexponential", "KL Optimal", "Align Your Steps", "Beta"),
)
REFUSED: Mapping[str, str] = {
    "PLMS": "its first step averages two calls at different states",
    "DPM adaptive": "it retries a step from a state that FM has changed already",
    "DPM fast": "its stages restart from states that FM does not see",
    "Restart": "it goes back to noisier states inside a step",
}
"""Samplers that FM cannot steer exactly, and why."""
OWN_SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "DDIM": ("Uniform", "SGM Uniform"),
    "DDIM CFG++": ("Uniform", "SGM Uniform"),
    "LCM": ("Uniform",),
}
"""Samplers with a schedule of their own, as in their papers; every other one takes all."""
SAME_AS_OWN = ("Uniform", "Normal", "DDIM", "SGM Uniform")
"""Schedules that say no more than what those samplers do anyway: even timesteps."""
SPACED_ENDS = ("Euler", "LMS", "Heun", "DPM++ SDE")
"""Samplers whose Karras and Exponential sigmas lie between the ends that the timestep spacing gives."""
MAX_STEPS: Mapping[str, int] = {"LCM": 50}
"""The distilled model knows 50 timesteps."""
CFG_SHARE: Mapping[str, float] = {"DDIM CFG++": 1 / 12.5}
"""Samplers that ask for the network's output without guidance too (CFG++), and the share of the asked CFG scale that
they guide by: theirs is between 0 and 1, and 12.5 means 1, as in the WebUI."""
FALLBACK = "DPM++ 2M"
_NEAREST: Mapping[str, str] = {
    "DPM++ 2M SDE Heun": "DPM++ 2M SDE",
    "DPM++ 2S": "DPM++ 2M",
    "TCD": "LCM",
    "DDPM": "Euler a",
    "PLMS": "LMS",
}
_MAX_NAME = 80
_CFG_PP = "cfgpp"


def _fold(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.strip()[:_MAX_NAME].casefold()).replace("++", "pp")


def _table(names: Mapping[str, str]) -> dict[str, str]:
    table: dict[str, str] = {}
    for canonical, others in names.items():
        for spelling in (canonical, *others.split("|")):
            table.setdefault(_fold(spelling), canonical)
    return table


_SAMPLER_BY_SPELLING = _table(_SAMPLERS)
_SCHEDULE_BY_SPELLING = _table(_SCHEDULES)
# "dpmpp_2m_karras", "Euler Ancestral Karras", "euler_a discrete": a schedule behind the sampler's name
_SUFFIXES = sorted(set(_SCHEDULE_BY_SPELLING) - {"", "auto", "automatic", "default", "none"}, key=len, reverse=True)


def schedule(name: str) -> str | None:
    """Return the schedule's usual name for any program's spelling, None when it is unknown."""
    return _SCHEDULE_BY_SPELLING.get(_fold(name))


def sampler(name: str) -> tuple[str, str | None] | None:
    """Return (sampler, schedule) for any program's spelling; None when unknown. "dpmpp_2m_karras" names both;
    InvokeAI's "euler_k" is Euler with Karras."""
    # ComfyUI's first names, and RES4LYF's "multistep/res_2m"
    folded = _fold(name.rpartition("/")[2]).removeprefix("sample")
    if folded in _SAMPLER_BY_SPELLING:
        return _SAMPLER_BY_SPELLING[folded], None
    for suffix in _SUFFIXES:
        stem = folded.removesuffix(suffix)
        if stem != folded and stem in _SAMPLER_BY_SPELLING:
            return _SAMPLER_BY_SPELLING[stem], _SCHEDULE_BY_SPELLING[suffix]
    stem = folded.removesuffix("k")
    if stem != folded and stem in _SAMPLER_BY_SPELLING:
        return _SAMPLER_BY_SPELLING[stem], "Karras"
    _, other, rest = folded.partition(_CFG_PP)
    if other:  # Euler's is the very same, the others' guidance is
        return "DDIM CFG++", _SCHEDULE_BY_SPELLING[rest] if rest in _SUFFIXES else None
    _, dash, last = name.rpartition(" - ")  # Krita's "Default - DPM++ 2M"
    return sampler(last) if dash else None


def asked_cfg(name: str, cfg: float) -> float:
    """Return the CFG scale that means the same with the sampler that `sampler` gives: what CFG++ is told in ComfyUI and
    Forge is the share itself."""
    if _CFG_PP not in _fold(name) or _fold(name).startswith("ddim"):
        return cfg
    return round(cfg / CFG_SHARE["DDIM CFG++"], 4)


def usual(name: str, schedule_name: str | None) -> tuple[str, str | None]:
    """Return sampler and schedule in their usual spelling; a name that no table has stays as it is."""
    found = sampler(name)
    own, inner = found if found is not None else (name, None)
    given = schedule(schedule_name) or schedule_name if schedule_name else None
    return own, inner if given in (None, "Automatic") and inner is not None else given


def choose(name: str, schedule_name: str) -> tuple[str, str, tuple[str, ...]]:
    """Return what runs on the standalone host for a sampler and schedule that a picture asks for, and one note for
    each replaced name. A missing schedule replaces the schedule only, a missing sampler the sampler only."""
    notes: list[str] = []
    wanted, given = usual(name, schedule_name)
    plan = given or "Automatic"
    runs = wanted
    if wanted not in OFFERED:
        runs = _NEAREST.get(wanted, FALLBACK)
        notes.append(f"sampler {wanted[:_MAX_NAME]} is not offered, {runs} is used")
    if plan not in OFFERED_SCHEDULES:
        automatic = OFFERED[runs]
        notes.append(f"schedule {plan[:_MAX_NAME]} is not offered, {automatic} is used")
        plan = automatic
    elif not has_schedule(runs, plan):
        notes.append(f"{runs} takes no other schedule than its own, Uniform is used, not {plan}")
        plan = "Uniform"
    return runs, plan, tuple(notes)


def has_schedule(sampler_name: str, plan: str) -> bool:
    """Return whether an offered sampler runs an offered schedule, or one that says the same."""
    return sampler_name not in OWN_SCHEDULES or plan in ("Automatic", *SAME_AS_OWN)


def split_name(name: str, schedule: str) -> tuple[str, str]:
    """Return (sampler, schedule) as they run, for usual names: "DPM++ 2M Karras" is "DPM++ 2M" with "Karras".

    Raises `UnsupportedSamplerError` naming what is offered.
    """
    for suffix in ("Karras", "Exponential"):
        if name.lower().endswith(f" {suffix.lower()}"):
            name, schedule = name[: -len(suffix) - 1], suffix
    known = {offered.lower(): offered for offered in (*OFFERED, *REFUSED)}.get(name.lower(), name)
    if known in REFUSED:
        raise UnsupportedSamplerError(
            f"sampler {known!r} is refused: {REFUSED[known]}; choose one of {', '.join(OFFERED)}"
        )
    if known not in OFFERED:
        raise UnsupportedSamplerError(f"sampler {name!r} is unknown; choose one of {', '.join(OFFERED)}")
    if schedule in ("", "Automatic"):
        return known, OFFERED[known]
    if schedule not in OFFERED_SCHEDULES:
        raise UnsupportedScheduleError(
            f"schedule {schedule!r} is unknown; choose one of {', '.join(OFFERED_SCHEDULES)}"
        )
    return known, schedule if schedule in OWN_SCHEDULES.get(known, OFFERED_SCHEDULES) else "Uniform"


def spacing_that_runs(name: str, schedule: str, spacing: str | None) -> str | None:
    """Return the asked timestep spacing where it acts on this sampler and schedule, resolved by `split_name`; None
    where the model's own runs, LCM's fixed timesteps, or what the schedule's name says."""
    acts = schedule == "Uniform" or (schedule in ("Karras", "Exponential") and name in SPACED_ENDS)
    return spacing if acts and name != "LCM" else None


def most_steps(name: str) -> int:
    """Return the largest number of steps that the sampler takes."""
    return MAX_STEPS.get(name, MOST_STEPS)
