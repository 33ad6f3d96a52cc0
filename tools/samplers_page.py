"""Write docs/samplers.md: `python -m tools.samplers_page`, where diffusers and k-diffusion are. A test finds it out of
date."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from fam_ext.samplers.names import CFG_SHARE, OFFERED, OWN_SCHEDULES, REFUSED, most_steps
from fam_ext.samplers.schedules import WEBUI
from fam_ext.samplers.table import ALL_OF_DIFFUSERS, SAMPLERS

FILE = Path(__file__).parents[1] / "docs" / "samplers.md"
HEAD = """# Samplers

*Written by `python -m tools.samplers_page` from `fam_ext/samplers/` and what it measures.*

What the standalone tool offers; in a WebUI its own samplers run. Each is one loop in `fam_ext/samplers/loops.py`, held
against the other programs' own code: **difference** is the largest over whole runs of 10 steps, as a share of the
largest value and rounded up, on a network that depends on its input's scale, for epsilon, v and zero terminal SNR, from
rho 1 and 0.6. FM changes the state before every step, and nothing of the unchanged state is kept. *Fresh noise* is
drawn per picture on the CPU: a seed is a picture, whatever the batch and the device.
"""
COLUMNS = ("sampler", "Automatic is", "order", "fresh noise", "to diffusers", "to k-diffusion (the WebUI)", "schedules")
SCHEDULES = """## Schedules

`Uniform` spreads timesteps as the model (or `--timestep-spacing`) says; where it says nothing, as SD1.5 and SD2.1,
DDIM's are leading, the others' from the noisiest to 0 (linspace). `SGM Uniform` is trailing spacing; these two,
`Karras` and `Exponential` are diffusers' for the samplers that diffusers has. The WebUI's, from the model's largest
sigma to its smallest, stand in their place for {without};
for `Karras` and `Exponential` also for Euler a.
All others are the WebUI's for every sampler (`Turbo` is Forge's):
{names}.
With their own timesteps only: {own}.

`DDIM` takes as many steps as T // steps makes: 31 for 30, as in the WebUI. `KL Optimal` ends at the smallest sigma.
Without the last sigma before 0 of a schedule with one step more, as in the WebUI: {skipping}.
"""
CFG_SCALE = """## CFG++

{names} (Chung et al. 2024) goes to the guided estimate along the noise that is seen without guidance. A CFG scale of
{full:g} is its full guidance, as in the WebUI: 7 is {seven:g} of it, 1 is {one:g}, and both halves are always computed.
It is held against A1111's own function, for epsilon and v: at zero terminal SNR that divides by 0.
A network with guidance built in (LCM) has no other half: refused by name.
"""
WEBUI_LOOPS = """## In the WebUI

A1111's own loops run, on A1111's schedules, and FAM acts on their state before each step: with all of its samplers,
{offered} and the four above included. UniPC alone is refused by name there: its loop calls the network with states
and corrections alike, and does not tell which.
"""


def page(differences: Mapping[str, Mapping[str, float]]) -> str:
    """Return the whole page; `differences` by sampler and reference."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    lines += [row(name, differences[name]) for name in OFFERED]
    said = {
        "without": [name for name, entry in SAMPLERS.items() if not entry.diffusers],
        "names": [name for name in WEBUI if name not in ALL_OF_DIFFUSERS],
        "own": list(OWN_SCHEDULES),
        "skipping": [name for name, entry in SAMPLERS.items() if entry.skips_last_sigma],
    }
    refused = [f"- {name}: {reason}." for name, reason in REFUSED.items()]
    return (
        "\n".join(
            [
                *(
                    HEAD,
                    *lines,
                    "",
                    SCHEDULES.format(**{key: ", ".join(names) for key, names in said.items()}),
                    _cfg_scale(),
                ),
                *("## Refused by name\n", *refused, "", WEBUI_LOOPS.format(offered=", ".join(CFG_SHARE))),
            ]
        ).rstrip("\n")
        + "\n"
    )


def _cfg_scale() -> str:
    (share,) = set(CFG_SHARE.values())
    return CFG_SCALE.format(names=", ".join(CFG_SHARE), full=1 / share, seven=7 * share, one=share)


def row(name: str, found: Mapping[str, float]) -> str:
    """Return a sampler's line."""
    entry = SAMPLERS[name]
    schedules = ", ".join(OWN_SCHEDULES.get(name, ("all",)))
    limit = f", at most {most_steps(name)} steps" if name == "LCM" else ""
    told = [rounded_up(found[reference]) if reference in found else "" for reference in ("diffusers", "k-diffusion")]
    return f"| {' | '.join((name, OFFERED[name], str(entry.order), entry.noise, *told, schedules + limit))} |"


def rounded_up(difference: float) -> str:
    """Return a power of ten that another machine's rounding keeps below."""
    return f"1e{math.ceil(math.log10(3 * difference))}"


def main() -> None:
    """Measure and write."""
    from tests.samplers.references import differences

    FILE.write_text(page({name: differences(name) for name in OFFERED}), encoding="utf-8")


if __name__ == "__main__":
    main()
