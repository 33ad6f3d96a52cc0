"""`fam-hires upscale`: pictures and folders, each with its own words; and what it would do."""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fam_ext.cli.options import flag, named_files, parse_dials, parse_rules, takes
from fam_ext.cli.progress import KEPT, View, clock, watched
from fam_ext.cli.written import check_output
from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, UsageError
from fam_ext.escapes import shown
from fam_ext.jobs.renderers import RendererSpec
from fam_ext.jobs.run import run_job, wordless_line
from fam_ext.jobs.walk import check_any
from fam_ext.options import resolve
from fam_ext.options.field import CLI, PANELS, options_of
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule
from fam_ext.options.presets import PresetStore
from fam_ext.options.renderer import LANCZOS, STANDALONE, RendererChoice
from fam_ext.options.resolve import options_at
from fam_ext.terminal import as_json, plain, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fam_ext.jobs.journal import Journal
    from fam_ext.jobs.journal.rows import Item, PlanCounts
    from fam_ext.options.request import HiresRequest


class TableFormat(str, Enum):
    """How a plan is printed."""

    table = "table"
    json = "json"
    csv = "csv"


_RENDERER = [spec.name for spec in options_of(RendererChoice)]
_RUN = [spec.name for spec in options_of(RunRule)]


@takes([*options_at(CLI), *(spec for spec in options_of(RunRule) if CLI in spec.doors)])
def upscale(
    inputs: Annotated[list[str], typer.Argument(help="Pictures and folders.", metavar="PATH...", show_default=False)],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="Output folder; made if it is not there.", rich_help_panel=PANELS["output"]
        ),
    ],
    rule: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=RULE for one field (repeatable): prompt, negative_prompt, seed, steps, sampler, schedule, "
            "cfg_scale, clip_skip, timestep_spacing, config. An option that is given overrides, unless FIELD=take.",
            rich_help_panel=PANELS["words"],
        ),
    ] = None,
    set_field: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="FIELD=VALUE for any FAM field, as in infotext (repeatable).",
            rich_help_panel=PANELS["method"],
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, write nothing.")] = False,
    plan_format: Annotated[TableFormat, typer.Option(help="How --dry-run prints.")] = TableFormat.table,
    progress: Annotated[View, typer.Option(help="auto: live in a terminal, else plain lines.")] = View.auto,
    *,
    said: dict[str, Any],
) -> None:
    """Upscale pictures and folders, each with its own prompt and settings from its metadata.

    The same command again resumes. Exit codes: 0 all done or validly skipped, 1 some failed, 2 wrong usage, 130
    interrupted.
    """
    if plan_format is not TableFormat.table and not dry_run:
        raise UsageError(f"--plan-format is {plan_format.value}; give --dry-run as well, or leave it out")
    dials = parse_dials(set_field or ())
    options, run = job_of(inputs, output, said, rules=parse_rules(rule or ()), dials=dials)
    resolve.refuse_unread({**said, **dials}, [resolve.method_of(options)])
    resolve.refuse_unasked(said, options)
    if options.places.include:
        check_any(options.places, said_by="--include", choose="*.png, and give it again for *.jpg")
    if dry_run:
        print_plan(options, plan_format)
        return
    with watched(progress) as (control, listen, finish):
        spec = RendererSpec(arguments=options.renderer.arguments)
        summary = run_job(options, spec, run=run, control=control, on_event=listen)
        finish(summary, options.places.output)
    raise typer.Exit(summary.exit_code)


def job_of(
    inputs: list[str], output: str, said: dict[str, Any], *, rules: dict[str, str], dials: dict[str, Any]
) -> tuple[Job, RunRule]:
    """Return the job that a command line asks for, and how it is to be run. Raises `ConfigError` or `UsageError`."""
    run = RunRule(**{name: said[name] for name in _RUN if name in said})
    words = {name: value for name, value in said.items() if name not in (*_RUN, *_RENDERER) or name == "name"}
    for name in ("model", "vae"):
        if name in rules:
            raise UsageError(f"--rule is {name}={rules[name]}; one model draws a whole job here: name it with --model")
    for name in dials:
        if name in words:
            as_flag = flag(next(spec for spec in options_of(FamConfig) if spec.name == name))
            raise ConfigError(f"{name} is given twice; give it as {as_flag} or with --set")
    check_output(output)
    words |= {"inputs": [_full(path) for path in named_files(inputs)], "output": _full(output), "rules": rules, **dials}
    return resolve.job(words, preset_of=PresetStore().get, renderer=renderer_of(said)), run


def renderer_of(said: dict[str, Any]) -> RendererChoice:
    """Return the standalone renderer that the options ask for, paths in full."""
    given = {name: said[name] for name in _RENDERER if name in said and name != "name"}
    given |= {name: _full(given[name]) for name in ("model", "model_config") if name in given}
    if given.get("upscaler", LANCZOS) != LANCZOS:
        given["upscaler"] = _full(given["upscaler"])
    given["loras"] = tuple(_full(entry) for entry in given.get("loras", ()))
    choice = RendererChoice(STANDALONE, **given)
    _ = choice.weighted_loras  # a weight that is none is said now
    return choice


def _full(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def print_plan(options: Job, plan_format: TableFormat) -> None:
    from fam_ext.jobs.journal import Journal
    from fam_ext.jobs.plan import check_job
    from fam_ext.jobs.preview import kept_changes, noting_requests
    from fam_ext.jobs.report import cell
    from fam_ext.jobs.walk import left_out_line, walk

    check_job(options)
    _check_files(options.renderer)
    left_out: Counter[str] = Counter()
    asked: dict[str, HiresRequest] = {}
    with Journal(options.places.output, memory=True) as journal:
        history = journal.history()  # first: what is to be replaced loses its own
        counts = journal.plan(walk(options.places, left_out), options, noting_requests(asked))

        def rows() -> Iterator[dict[str, Any]]:
            for item in journal.items(planned=True):
                kept = asked.get(item.key, item.request) if item.key in counts.kept_keys else None
                yield _plan_row(item, history, kept=kept)

        if plan_format is TableFormat.csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")  # Windows makes its own of it
            writer.writerow(_plan_row(None, history))
            for row in rows():
                writer.writerow([cell(plain(value)) if isinstance(value, str) else value for value in row.values()])
            return
        if plan_format is TableFormat.json:
            for row in rows():
                say(as_json(row))
            return
        for row in rows():
            say(
                f"{row['state']:8} {row['source']}  {row['native']} -> {row['target']}  {row['output']}  "
                f"{row['sampler']} {row['steps']} seed {row['seed']}  {shown(row['error'] or row['prompt'])}"
                + (f"  [{shown(row['program'])}]" if row["program"] else "")
                + (f"  ({shown(row['notes'])})" if row["notes"] else "")
            )
        _print_estimate(journal, counts, history)
        if counts.kept:
            say(f"{counts.kept} {KEPT}: {'; '.join(kept_changes(journal, counts, asked))}")
        for line in (wordless_line(journal), left_out_line(left_out)):
            if line:
                say(line)
        if options.size.max_megapixels is not None and not options.size.exact_size:
            say(f"no target is larger than {options.size.max_megapixels:g} MP (--max-megapixels)")


def _check_files(renderer: RendererChoice) -> None:
    """Raise `UsageError` for a file of the model that is not there: a dry run loads none."""
    for name, path in renderer.files:
        if not os.path.exists(path):
            raise UsageError(f"{name} is {shown(path)}, and nothing is there; check the path")


def _plan_row(
    item: Item | None, history: tuple[float, float] | None, *, kept: HiresRequest | None = None
) -> dict[str, Any]:
    """Return the values of an item's line; of no item's the names. `kept` is what is asked for of one that stays."""
    names = ("state", "source", "output", "native", "target", "origin", "prompt", "negative_prompt", "seed", "steps")
    names += ("sampler", "schedule", "cfg_scale", "method", "seconds", "bytes", "error", "program", "notes")
    if item is None:
        return {name: None for name in names}
    request = kept or item.request
    megapixels = request.size[0] * request.size[1] / 1e6 if request else 0.0
    values: dict[str, Any] = {name: None for name in names}
    values |= {
        "state": "kept" if kept else item.state,
        "source": shown(item.key),
        "output": shown(item.output),
        "native": f"{item.native[1]}x{item.native[0]}",
        "origin": item.origin,
        "program": item.program,
        "notes": "; ".join(item.notes),
        "error": item.error,
    }
    if request is not None:
        values["target"] = f"{request.size[1]}x{request.size[0]}"
        for name in names:
            if hasattr(request, name):
                values[name] = getattr(request, name)
    if history is not None and item.state == "pending":
        values["seconds"] = round(history[0] * megapixels, 1)
        values["bytes"] = int(history[1] * megapixels)
    return values


def _print_estimate(journal: Journal, counts: PlanCounts, history: tuple[float, float] | None) -> None:
    numbers = journal.counts()
    numbers["done"] -= counts.kept
    states = ", ".join(f"{number} {state}" for state, number in {**numbers, "kept": counts.kept}.items() if number)
    say(f"{counts.files} files: {states or 'none'}")
    megapixels = journal.pending_pixels() / 1e6
    if history is None:
        say(f"{megapixels:.1f} MP to make; time and disk are estimated once this folder holds a finished file")
    else:
        say(
            f"{megapixels:.1f} MP to make: about {clock(history[0] * megapixels)} and "
            f"{history[1] * megapixels / 1e6:.1f} MB, going by this folder's history"
        )
