"""The `fam-hires` command. Planning and help import no torch; a model is loaded when the first picture needs it."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import os
import shlex
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fam_ext import __version__, cli_inspect, cli_model
from fam_ext.errors import FamError, OutputError, UsageError
from fam_ext.jobs.plan import DEFAULT_MAX_MEGAPIXELS, PlanOptions, Rule, with_preset
from fam_ext.jobs.run import Control, Event, Listener, RendererSpec, RunOptions, Summary, run_job, wordless_line
from fam_ext.jobs.walk import shown
from fam_ext.metadata import pictures
from fam_ext.metadata.infotext import parse_value, to_preset
from fam_ext.methods.catalog import METHODS
from fam_ext.options import presets as preset_store
from fam_ext.options.table import CONFIG_FIELDS
from fam_ext.terminal import PlainFormatter, as_json, plain, say

if TYPE_CHECKING:
    from fam_ext.core.config import FamConfig
    from fam_ext.jobs.journal import Item, Journal

app = typer.Typer(
    name="fam-hires",
    help="Pictures at 2x to 4x a Stable Diffusion model's size, by FAM Diffusion (CVPR 2025).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
presets_app = typer.Typer(help="Named settings: list, show, import, export, from-image, delete.", no_args_is_help=True)

app.add_typer(presets_app, name="presets")

cli_model.register(app)
app.command()(cli_inspect.inspect)

USAGE_EXIT = 2
FAILED_EXIT = 1
INTERRUPTED_EXIT = 130


class View(str, Enum):
    """How progress is shown."""

    auto = "auto"
    plain = "plain"
    json = "json"
    live = "live"


class Offload(str, Enum):
    """What rests in main memory while another part of the model works."""

    none = "none"
    model = "model"
    sequential = "sequential"


class TableFormat(str, Enum):
    """How a plan is printed."""

    table = "table"
    json = "json"
    csv = "csv"


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the parts do.")] = False,
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    if version:
        say(__version__)
        raise typer.Exit


# --- upscale ------------------------------------------------------------------------------------------------------

_PICTURES, _SETTINGS, _FAM, _MODEL, _OUTPUT, _RUN = (
    "Which pictures",
    "Settings of a picture",
    "FAM",
    "Model and device",
    "Output files",
    "Running",
)


@app.command()
def upscale(
    inputs: Annotated[list[str], typer.Argument(help="Pictures and folders.", metavar="PATH...", show_default=False)],
    output: Annotated[str, typer.Option("--output", "-o", help="Output folder; made if it is not there.")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders within folders too; the tree is mirrored.")
    ] = False,
    include: Annotated[list[str] | None, typer.Option(help="Only files that match this pattern (repeatable).")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files that match this pattern (repeatable).")] = None,
    first: Annotated[int | None, typer.Option(help="Only the first N files: a trial.")] = None,
    first_frame: Annotated[bool, typer.Option("--first-frame", help="Take frame 1 of animated files.")] = False,
    max_input_megapixels: Annotated[float, typer.Option(help="Refuse larger inputs (MP).")] = (
        pictures.DEFAULT_MAX_PIXELS / 1e6
    ),
    scale: Annotated[float, typer.Option("--scale", "-s", help="Target side / native side.")] = 2.0,
    size: Annotated[
        str | None, typer.Option(help="Target WxH in px instead of --scale; the aspect is kept within it.")
    ] = None,
    exact_size: Annotated[bool, typer.Option(help="Take --size as it is, whatever the picture's aspect.")] = False,
    max_side: Annotated[int | None, typer.Option(help="Cap of the target's longer side (px).")] = None,
    max_megapixels: Annotated[float, typer.Option(help="Cap of the target's area (MP); 0: no cap.")] = (
        DEFAULT_MAX_MEGAPIXELS
    ),
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Prompt; see --prompt-rule.")] = None,
    negative: Annotated[str | None, typer.Option("--negative", "-n", help="Negative prompt.")] = None,
    prompt_rule: Annotated[
        str,
        typer.Option(
            help="take: the picture's own prompt, else --prompt; override: --prompt always; prefix or suffix: --prompt "
            'before or after its own; replace: --prompt "old=>new" within its own. Also for --negative.'
        ),
    ] = "take",
    rule: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=RULE for one field (repeatable): prompt, negative_prompt, seed, steps, sampler, schedule, "
            "cfg_scale, model, vae, clip_skip, config. An option given below overrides, unless FIELD=take."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampler steps, instead of each picture's own.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Sampler, instead of each picture's own.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Schedule type, instead of each picture's own.")] = None,
    cfg_scale: Annotated[float | None, typer.Option(help="Guidance scale, instead of each picture's own.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of each picture's own.")] = None,
    preset: Annotated[str, typer.Option(help="Named settings; see `fam-hires presets list`.")] = preset_store.DEFAULT,
    method: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(METHODS)} (the others are comparisons); default: the preset's, or fam."),
    ] = None,
    no_fm: Annotated[bool, typer.Option("--no-fm", help="Frequency Modulation off.")] = False,
    no_am: Annotated[bool, typer.Option("--no-am", help="Attention Modulation off.")] = False,
    cutoff: Annotated[
        float | None,
        typer.Option(help="c: share of the native side up to 1, or cycles per picture with --cutoff-reference cycles."),
    ] = None,
    cutoff_reference: Annotated[str | None, typer.Option(help="native, target or cycles.")] = None,
    attention: Annotated[float | None, typer.Option(help="lambda: share of the native attention map, 0 to 1.")] = None,
    start: Annotated[float | None, typer.Option(help="Where the pass begins in rho, up to 1 (pure noise).")] = None,
    upsample: Annotated[str | None, typer.Option(help="How the native picture reaches the target's size.")] = None,
    set_field: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE for any other FAM field, as in infotext (repeatable)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Diffusers folder or .safetensors; default: the embedded model.")
    ] = None,
    lora: Annotated[list[str] | None, typer.Option(help="LoRA file, or FILE:WEIGHT (repeatable).")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best there is.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    tile: Annotated[int | None, typer.Option(help="Side of the VAE's tiles (px); 0 never tiles.")] = None,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory", help="Slower: unconditional and conditional half in turn, native queries in main memory."
        ),
    ] = False,
    offload: Annotated[
        Offload,
        typer.Option(
            help="none: the model on the device; model: one network there at a time; sequential: one layer, slowest."
        ),
    ] = Offload.none,
    picture_format: Annotated[
        str | None, typer.Option("--format", "-f", help="png, jpeg, webp, avif, tiff, bmp; default: as the input.")
    ] = None,
    quality: Annotated[int | None, typer.Option(help="1 to 100 for JPEG, WebP, AVIF.")] = None,
    name: Annotated[
        str,
        typer.Option(
            help="Name pattern: {stem} {width} {height} {scale} {seed} {index:04d} {steps} {method} {format}."
        ),
    ] = "{stem}",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist; default: keep them.")
    ] = False,
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Write pixels and colour profile only.")
    ] = False,
    keep_times: Annotated[bool, typer.Option("--keep-times", help="Give outputs the inputs' times.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, write nothing.")] = False,
    plan_format: Annotated[TableFormat, typer.Option(help="How --dry-run prints.")] = TableFormat.table,
    workers: Annotated[int, typer.Option(help="Renderer processes, one a GPU; 0: in this process.")] = 0,
    ray: Annotated[str | None, typer.Option(help="Ray cluster: local, auto or an address.")] = None,
    ray_gpus: Annotated[float, typer.Option(help="GPUs for each Ray actor.")] = 1.0,
    join: Annotated[bool, typer.Option("--join", help="Share the work with a process already at it.")] = False,
    retries: Annotated[int, typer.Option(help="Further tries when the renderer fails.")] = 1,
    timeout: Annotated[float | None, typer.Option(help="Longest time for one picture (s).")] = None,
    stop_on_error: Annotated[bool, typer.Option("--stop-on-error", help="End at the first failure.")] = False,
    progress: Annotated[View, typer.Option(help="auto: live in a terminal, else plain lines.")] = View.auto,
) -> None:
    """Upscale pictures and folders, each with its own prompt and settings from its metadata.

    The same command again resumes. Exit codes: 0 all done or validly skipped, 1 some failed, 2 wrong usage, 130
    interrupted.
    """
    chosen = preset_store.PresetStore().get(preset)
    given = {"steps": steps, "sampler": sampler, "schedule": schedule, "cfg_scale": cfg_scale, "seed": seed}
    defaults, rules = with_preset(chosen, _rules(given, prompt, negative, prompt_rule, rule or []))
    changes = {"cutoff_reference": cutoff_reference, "attention": attention, "start": start, "upsample": upsample}
    config = fam_config(chosen.config, changes, cutoff, no_fm, no_am, set_field or [])
    loras = [lora_entry(entry) for entry in lora or []]
    model_path = os.path.abspath(os.path.expanduser(model)) if model is not None else None
    options = PlanOptions(
        inputs=tuple(os.path.abspath(os.path.expanduser(entry)) for entry in inputs),
        output=os.path.abspath(os.path.expanduser(output)),
        recursive=recursive,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        scale=scale,
        size=None if size is None else parse_size(size),
        fit="exact" if exact_size else "inside",
        max_side=max_side,
        max_megapixels=None if max_megapixels == 0 else max_megapixels,
        config=config,
        settings=defaults,
        rules=rules,
        method=method or str(chosen.settings.get("method", "fam")),
        tile=tile,
        low_memory=low_memory,
        format=None if picture_format is None else _format(picture_format),
        quality=quality,
        strip_metadata=strip_metadata,
        keep_times=keep_times,
        name=name,
        overwrite=overwrite,
        first=first,
        first_frame=first_frame,
        max_input_pixels=_input_pixels(max_input_megapixels),
        renderer=json.dumps([model_path, loras]),
        standalone=True,
    )
    if dry_run:
        _print_plan(options, plan_format)
        return
    run = RunOptions(
        workers=workers,
        ray=ray,
        ray_gpus=ray_gpus,
        retries=retries,
        timeout=timeout,
        stop_on_error=stop_on_error,
        join=join,
    )
    spec = RendererSpec(
        arguments={
            "model": model_path,
            "device": device,
            "dtype": dtype,
            "loras": [list(entry) for entry in loras],
            "offload": offload.value,
        }
    )
    with watched(progress) as (control, listen, finish):
        summary = run_job(options, spec, run=run, control=control, on_event=listen)
        finish(summary, options.output)
    raise typer.Exit(summary.exit_code)


def _rules(
    given: dict[str, Any], prompt: str | None, negative: str | None, prompt_rule: str, entries: Sequence[str]
) -> dict[str, Rule]:
    """Return the rule of each field: an option that was given overrides the pictures' own, prompts follow
    --prompt-rule, and --rule has the last word."""
    rules = {name: Rule("override", value) for name, value in given.items() if value is not None}
    for name, text in (("prompt", prompt), ("negative_prompt", negative)):
        if text is not None:
            rules[name] = Rule(prompt_rule, text)
    if prompt is None and negative is None and prompt_rule != "take":
        raise UsageError(f"--prompt-rule {prompt_rule} needs --prompt or --negative")
    for entry in entries:
        name, separator, kind = entry.partition("=")
        if not separator:
            raise UsageError(f"--rule is {entry!r}; write FIELD=RULE, as seed=take")
        known = rules.get(name)
        rules[name] = Rule(kind, None if known is None else known.value)
    return rules


def fam_config(
    base: FamConfig,
    changes: dict[str, Any],
    cutoff: float | None,
    no_fm: bool,
    no_am: bool,
    entries: Sequence[str],
) -> FamConfig:
    given = {name: value for name, value in changes.items() if value is not None}
    if cutoff is not None:
        given["cutoff"] = cutoff
        if "cutoff_reference" not in given and base.cutoff_reference == "cycles" and cutoff <= 1:
            given["cutoff_reference"] = "native"  # 0.5 is the paper's c, not half a cycle
    elif given.get("cutoff_reference") not in (None, base.cutoff_reference):
        given["cutoff"] = 32.0 if given["cutoff_reference"] == "cycles" else 0.5
    if no_fm:
        given["fm"] = False
    if no_am:
        given["am"] = False
    for entry in entries:
        name, separator, text = entry.partition("=")
        spec = next((field for field in CONFIG_FIELDS if field.name == name), None)
        if not separator or spec is None:
            names = ", ".join(field.name for field in CONFIG_FIELDS)
            raise UsageError(f"--set is {entry!r}; write FIELD=VALUE with one of {names}")
        value = parse_value(spec, text)
        given[name] = (not value if spec.inverted else value) if spec.kind == "bool" else value
    return base.replace(**given)


def parse_size(text: str) -> tuple[int, int]:
    width, separator, height = text.lower().replace(" ", "").partition("x")
    try:
        if not separator:
            raise ValueError
        return int(height), int(width)
    except ValueError:
        raise UsageError(f"--size is {text!r}; write WIDTHxHEIGHT in px, as 1024x1536") from None


def _input_pixels(megapixels: float) -> int:
    if not 0.001 <= megapixels <= 10_000:  # not: also inf and nan
        raise UsageError(f"--max-input-megapixels is {megapixels}; choose 0.001 to 10000")
    return int(megapixels * 1e6)


def _format(text: str) -> str:
    try:
        return pictures.normal_format(text)
    except FamError as error:
        raise UsageError(str(error)) from None


def lora_entry(entry: str) -> tuple[str, float]:
    path, separator, weight = entry.rpartition(":")
    if separator:
        try:
            number = float(weight)
        except ValueError:
            pass  # a drive letter or a colon in the name
        else:
            if not -100 <= number <= 100:  # not: also nan
                raise UsageError(f"--lora is {shown(entry)!r}; choose a weight from -100 to 100")
            return os.path.abspath(os.path.expanduser(path)), number
    return os.path.abspath(os.path.expanduser(entry)), 1.0


# --- dry run ------------------------------------------------------------------------------------------------------


def _print_plan(options: PlanOptions, plan_format: TableFormat) -> None:
    from fam_ext.jobs.journal import Journal
    from fam_ext.jobs.plan import plan_file
    from fam_ext.jobs.walk import check_places, left_out_line, walk

    check_places(options)
    left_out: Counter[str] = Counter()
    with Journal(options.output, memory=True) as journal:
        counts = journal.plan(walk(options, left_out), options, plan_file)
        history = journal.history()
        if plan_format is TableFormat.csv:
            writer = csv.writer(sys.stdout)
            writer.writerow(_plan_row(None, history))
            for item in journal.items():
                values = _plan_row(item, history).values()
                writer.writerow([plain(value) if isinstance(value, str) else value for value in values])
            return
        if plan_format is TableFormat.json:
            for item in journal.items():
                say(as_json(_plan_row(item, history)))
            return
        for item in journal.items():
            row = _plan_row(item, history)
            say(
                f"{row['state']:8} {row['source']}  {row['native']} -> {row['target']}  {row['output']}  "
                f"{row['sampler']} {row['steps']} seed {row['seed']}  {shown(row['error'] or row['prompt'])}"
                + (f"  [{shown(row['program'])}]" if row["program"] else "")
                + (f"  ({shown(row['notes'])})" if row["notes"] else "")
            )
        _print_estimate(journal, counts.files, history)
        for line in (wordless_line(journal), left_out_line(left_out)):
            if line:
                say(line)
        if options.max_megapixels is not None:
            typer.echo(f"no target is larger than {options.max_megapixels:g} MP (--max-megapixels)")


def _plan_row(item: Item | None, history: tuple[float, float] | None) -> dict[str, Any]:
    names = ("state", "source", "output", "native", "target", "origin", "prompt", "negative_prompt", "seed", "steps")
    names += ("sampler", "schedule", "cfg_scale", "method", "seconds", "bytes", "error", "program", "notes")
    if item is None:
        return {name: None for name in names}
    request = item.request
    megapixels = request.size[0] * request.size[1] / 1e6 if request else 0.0
    values: dict[str, Any] = {name: None for name in names}
    values |= {
        "state": item.state,
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


def _print_estimate(journal: Journal, files: int, history: tuple[float, float] | None) -> None:
    states = ", ".join(f"{number} {state}" for state, number in journal.counts().items() if number)
    say(f"{files} files: {states or 'none'}")
    megapixels = journal.pending_pixels() / 1e6
    if history is None:
        say(f"{megapixels:.1f} MP to make; time and disk are estimated once this folder holds a finished file")
    else:
        say(
            f"{megapixels:.1f} MP to make: about {clock(history[0] * megapixels)} and "
            f"{history[1] * megapixels / 1e6:.1f} MB, going by this folder's history"
        )


# --- progress -----------------------------------------------------------------------------------------------------


def clock(seconds: float) -> str:
    """Return a duration as 1:02:03 or 2:03."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


Finish = Callable[[Summary, str], None]


@contextmanager
def watched(view: View) -> Iterator[tuple[Control, Listener, Finish]]:
    """Yield a control tied to Ctrl-C, a listener that shows progress, and what prints the end."""
    control = Control()
    if view is View.auto:
        view = View.live if sys.stdout.isatty() else View.plain
    if view is View.json:
        show: Any = _JsonView()
    else:
        show = _LiveView() if view is View.live else _PlainView()

    def interrupt(number: int, _frame: object) -> None:
        if control.cancelled:
            raise Interrupted
        control.cancel()
        show.note("stopping: what is under way is dropped, and the same command resumes (again to quit at once)")

    with _handling(interrupt), show:
        yield control, _while_open(show.event), _while_open(show.finish)


class Interrupted(BaseException):
    """Ctrl-C, under a name that typer leaves to us."""


def _interrupted(number: int, frame: object) -> None:
    raise Interrupted


@contextmanager
def _handling(interrupt: Callable[[int, object], None]) -> Iterator[None]:
    """Let `interrupt` answer Ctrl-C and SIGTERM."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _while_open(show: Callable[..., None]) -> Callable[..., None]:
    """Return `show`, which falls silent when what reads stdout is gone: a batch does not end for that."""

    def call(*values: Any) -> None:  # noqa: ANN401  # an event, or a summary and its folder
        try:
            show(*values)
            sys.stdout.flush()
        except BrokenPipeError:
            _silence()

    return call


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def summary_line(summary: Summary, output: str) -> str:
    """Return how a job ended, on one line."""
    from fam_ext.jobs import report as reports

    parts = [f"{summary.done} done"]
    if summary.done_before:
        parts.append(f"{summary.done_before} done before")
    if summary.kept:
        parts.append(
            f"{summary.kept} kept as they are (made from another picture or other settings; --overwrite replaces)"
        )
    if summary.skipped:
        parts.append(f"{summary.skipped} skipped")
    if summary.failed:
        parts.append(failed_line(summary, output))
    if summary.pending:
        parts.append(f"{summary.pending} waiting (the same command resumes)")
    if summary.left_out:
        parts.append(summary.left_out)
    page = reports.place(Path(output), "report.html")
    return f"{', '.join(parts)} in {clock(summary.seconds)}{f'; report: {page}' if page.is_file() else ''}"


def failed_line(summary: Summary, output: str) -> str:
    """Return how many pictures failed, and what helps each kind."""
    retry = f"fam-hires retry-failed {shlex.quote(output)}"
    kinds: list[str] = []
    if summary.unusable:
        kinds.append(f"{summary.unusable} cannot be taken: mend what their lines name, then give the job's command")
    if drawn := summary.failed - summary.unusable - summary.poisoned:
        kinds.append(f"{drawn} when drawn: {retry}")
    if summary.poisoned:
        kinds.append(
            f"{summary.poisoned} ended the process twice: make them or --scale smaller; {retry} tries once more"
        )
    return f"{summary.failed} failed ({'; '.join(kinds)})"


class _PlainView:
    """One line a file, for pipes and logs."""

    def __enter__(self) -> _PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        say(text, err=True)

    def event(self, event: Event) -> None:
        place = f"[{event.done + event.failed}/{event.total - event.skipped}]"
        if event.kind == "finished":
            left = "" if event.eta is None else f", {clock(event.eta)} left"
            notes = f" ({'; '.join(event.notes)})" if event.notes else ""
            say(f"{place} {shown(event.key)} -> {shown(event.output)} in {event.seconds:.1f} s{left}{notes}")
        elif event.kind == "failed":
            say(f"{place} {shown(event.key)} failed: {event.message}", err=True)
        elif event.kind == "planned":
            for note in event.notes:
                say(note, err=True)
        elif event.kind == "retry":
            say(f"{place} {shown(event.key)} again: {event.message}", err=True)

    def finish(self, summary: Summary, output: str) -> None:
        _finish(summary, output)


class _JsonView(_PlainView):
    """One JSON object a line on stdout: every event, then the summary."""

    def event(self, event: Event) -> None:
        values = {name: value for name, value in dataclasses.asdict(event).items() if value not in ("", (), None)}
        say(json.dumps(values))

    def finish(self, summary: Summary, output: str) -> None:
        say(json.dumps({"kind": "summary", "output": output, **dataclasses.asdict(summary)}))


class _LiveView(_PlainView):
    """Two bars: the folder with its ETA, the steps of the picture under way."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
        )
        self._files = self._bars.add_task("pictures", total=None, left="")
        self._steps = self._bars.add_task("", total=None, left="", visible=False)

    def __enter__(self) -> _LiveView:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        self._console.print(plain(text), markup=False)

    def event(self, event: Event) -> None:
        if event.kind == "planning":
            self._bars.update(self._files, description=f"planning {event.total}")
            return
        left = "" if event.eta is None else f"{clock(event.eta)} left"
        if event.failed:
            left += f"  {event.failed} failed"
        made = event.done + event.failed + event.skipped
        self._bars.update(self._files, description="pictures", completed=made, total=event.total, left=left)
        if event.kind in ("started", "step"):
            self._bars.update(
                self._steps,
                description=shown(event.key)[-40:],
                completed=event.step,
                total=event.steps or None,
                visible=True,
            )
        elif event.kind == "planned":
            for note in event.notes:
                self._console.print(note, markup=False)
        elif event.kind in ("failed", "retry"):
            self._console.print(plain(f"{event.key}: {event.message}"), markup=False)

    def finish(self, summary: Summary, output: str) -> None:
        self._bars.stop()
        _finish(summary, output)


def _finish(summary: Summary, output: str) -> None:
    if summary.stopped:
        say(f"stopped: {summary.stopped}", err=True)
    nothing = not (summary.done or summary.done_before or summary.kept or summary.skipped)
    if nothing and not (summary.failed or summary.pending):
        left = f" ({summary.left_out})" if summary.left_out else ""
        say(f"no pictures were found{left}; add --recursive for folders within folders")
        return
    say(summary_line(summary, output))


# --- report, retry-failed -----------------------------------------------------------------------------------------


@app.command()
def report(output: Annotated[str, typer.Argument(help="Output folder of an earlier job.", metavar="OUT")]) -> None:
    """Write report.csv, report.json and report.html again from the journal, and print the counts."""
    from fam_ext.jobs import report as reports
    from fam_ext.jobs.journal import Journal
    from fam_ext.jobs.run import check_journal

    check_journal(output)
    with Journal(output) as journal:
        for path in reports.write_all(journal):
            say(str(path))
        say(", ".join(f"{number} {state}" for state, number in journal.counts().items() if number))


@app.command("retry-failed")
def retry(
    output: Annotated[str, typer.Argument(help="Output folder of an earlier job.", metavar="OUT")],
    workers: Annotated[int, typer.Option(help="Renderer processes; 0: in this process.")] = 0,
    retries: Annotated[int, typer.Option(help="Further tries when the renderer fails.")] = 1,
    timeout: Annotated[float | None, typer.Option(help="Longest time for one picture (s).")] = None,
    progress: Annotated[View, typer.Option(help="auto: live in a terminal, else plain lines.")] = View.auto,
) -> None:
    """Try the failed files of a job again, with the settings in its journal."""
    from fam_ext.jobs.run import retry_failed

    run = RunOptions(workers=workers, retries=retries, timeout=timeout)
    with watched(progress) as (control, listen, finish):
        summary = retry_failed(output, run=run, control=control, on_event=listen)
        finish(summary, output)
    raise typer.Exit(summary.exit_code)


# --- presets ------------------------------------------------------------------------------------------------------


@presets_app.command("list")
def presets_list() -> None:
    """List all presets, those that ship first."""
    store = preset_store.PresetStore()
    for name in store.names():
        say(f"{name:16} {store.get(name).description}")


@presets_app.command("show")
def presets_show(name: str) -> None:
    """Print a preset as JSON."""
    say(as_json(preset_store.PresetStore().get(name).to_json(), indent=2))


@presets_app.command("export")
def presets_export(name: str, file: Path) -> None:
    """Write a preset to a JSON file."""
    preset_store.write(preset_store.PresetStore().get(name), file)
    say(str(file))


@presets_app.command("import")
def presets_import(
    file: Path,
    name: Annotated[str | None, typer.Option(help="Another name for it.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a preset of that name.")] = False,
) -> None:
    """Add a preset from a JSON file."""
    found = preset_store.read(file)
    if name is not None:
        found = dataclasses.replace(found, name=name)
    say(str(preset_store.PresetStore().save(found, replace=replace)))


@presets_app.command("from-image")
def presets_from_image(
    picture: Path,
    name: str,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a preset of that name.")] = False,
) -> None:
    """Make a preset from a picture that FAM made."""
    text = pictures.read_header(picture).infotext or ""
    say(str(preset_store.PresetStore().save(to_preset(text, name), replace=replace)))


@presets_app.command("delete")
def presets_delete(name: str) -> None:
    """Delete one of your own presets."""
    preset_store.PresetStore().delete(name)
    say(f"{name} deleted")


# --- bench --------------------------------------------------------------------------------------------------------


@cli_model.bench_app.command("jobs")
def bench_jobs(
    files: Annotated[int, typer.Option(help="Size of the large folder.")] = 100_000,
    folder: Annotated[Path | None, typer.Option(help="Where to work; default: the system's temporary place.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON at the end.")] = False,
) -> None:
    """Measure the batch engine: plan, resume, overhead a file, overlap with the renderer."""
    from fam_ext.jobs import bench

    measures = bench.run(large=files, small=min(1000, files), folder=folder, say=lambda line: say(line, err=as_json))
    if as_json:
        say(bench.as_json(measures))
    raise typer.Exit(0 if all(measure.met for measure in measures) else FAILED_EXIT)


# --- entry --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code. An error a user can answer is one line on stderr."""
    began = time.monotonic()
    try:
        with _handling(_interrupted):
            app(args=list(arguments) if arguments is not None else None)
    except BrokenPipeError:
        _silence()
        sys.exit(FAILED_EXIT)
    except OutputError as error:
        _exit_with(error, FAILED_EXIT)
    except sqlite3.Error as error:
        what = f"the journal is damaged ({error}); move the output's .fam-hires folder away, then existing outputs are"
        _exit_with(OutputError(f"{what} kept and the rest is made"), FAILED_EXIT)
    except FamError as error:
        _exit_with(error, USAGE_EXIT)
    except (Interrupted, KeyboardInterrupt):
        say(f"interrupted after {clock(time.monotonic() - began)}; nothing is left half-written", err=True)
        sys.exit(INTERRUPTED_EXIT)


def _exit_with(error: FamError, code: int) -> None:
    say(f"error: {' '.join(str(error).split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
