"""Write docs/options.md from the options' tables: `python tools/options_page.py`. A test finds it out of date."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from fam_ext.cli.options import default_shown, flag
from fam_ext.options.field import API, CLI, INFOTEXT, PAGE, PANELS, SCRIPT, XYZ, Option, allowed
from fam_ext.options.parts import RunRule
from fam_ext.options.presets import DEFAULT
from fam_ext.options.resolve import RANDOM_SEED, options_at

FILE = Path(__file__).parents[1] / "docs" / "options.md"
OTHERS = {API: "API", SCRIPT: "script", XYZ: "X/Y/Z"}
"""Doors that call an option by its name, or by its label."""
HEAD = f"""# Options

*Written by `python tools/options_page.py` from the tables in `fam_ext/options/` and `fam_ext/core/config.py`.*

One option is one line, whatever door it stands at. **Option** is its name in Python, and in the API's JSON: of a folder
job (*API*: `POST /fam-hires/v1/jobs`) and of the hires script's one object (*script*: `alwayson_scripts`). *X/Y/Z* is
an axis of that plot. **Default** is what runs where nothing is said, which is preset `{DEFAULT}`; where a picture's own
metadata may bring a value, marked *own*, that counts before it. **Decides** says what changes with the option: the
pixels, the size, the file (its kind or metadata), its name or times, or only how the job runs.

Said now counts before an overriding preset, that before the picture's metadata, that before any preset, and that before
the default; a prompt that is said is for pictures without one, unless `prompt_rule` says otherwise. At the command line
`--rule` says how a setting of the picture counts (FIELD=RULE; `rules` in the API), `--set` gives one of FAM's dials as
infotext has it (FIELD=VALUE), `--dry-run` prints the plan (`--plan-format`: table, json or csv), `--progress` how a run
is shown. A value out of range is refused at every door with one sentence, before anything runs.
"""
COLUMNS = ("option", "command line", "page", "other doors", "infotext", "default", "allowed", "decides", "what it does")


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for panel, title in PANELS.items():
        lines = [row(spec) for spec in every_option() if spec.panel == panel]
        parts.append("\n".join([f"## {title}\n", cells(COLUMNS), cells("---" for _ in COLUMNS), *lines, ""]))
    return "\n".join(parts)


def every_option() -> list[Option]:
    """Return the options that stand at any door, each once."""
    doors = (CLI, PAGE, API, SCRIPT, XYZ, INFOTEXT)
    found = (spec for door in doors for spec in (*options_at(door), *options_at(door, RunRule)))
    return list(dict.fromkeys(found))


def row(spec: Option) -> str:
    """Return an option's line."""
    names = [name for name in spec.flags if not name.startswith("--")]
    flags = "PATH..." if spec.name == "inputs" else ", ".join([flag(spec), *names])
    others = [title for door, title in OTHERS.items() if door in spec.doors]
    return cells(
        (
            f"`{spec.name}`",
            f"`{flags}`" if CLI in spec.doors else "",
            (spec.page or spec.label) if PAGE in spec.doors else "",
            ", ".join(others),
            f"`{spec.key}`" if INFOTEXT in spec.doors else "",
            ", ".join(part for part in (default_shown(spec), "own" if spec.own else "") if part),
            allowed(dataclasses.replace(spec, low=RANDOM_SEED) if spec.name == "seed" else spec),
            spec.decides,
            spec.help,
        )
    )


def cells(texts: Iterable[str]) -> str:
    """Return one line of a table."""
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
