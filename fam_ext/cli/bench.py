"""`fam-hires bench`: what FAM costs, how fast the batch engine is, how good each method's pictures are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fam_ext import __version__
from fam_ext.cli.making import MADE, PRESET, RENDERER, load_renderer, picture_words, steps_bar
from fam_ext.cli.options import in_flags, parse_dials, parse_scales, parse_size, takes
from fam_ext.cli.progress import clock
from fam_ext.cli.upscale import renderer_of
from fam_ext.cli.written import folder_at
from fam_ext.core.config import FamConfig
from fam_ext.errors import UsageError
from fam_ext.escapes import shown
from fam_ext.jobs.contract import Progress
from fam_ext.jobs.lock import alone_in
from fam_ext.jobs.settings import request_of_words
from fam_ext.metadata.infotext import format_value
from fam_ext.methods.capabilities import STANDALONE as GIVES
from fam_ext.methods.catalog import METHODS, entry_for
from fam_ext.options import resolve
from fam_ext.options.field import MOST_STEPS, options_of
from fam_ext.options.presets import DEFAULT, PresetStore
from fam_ext.options.renderer import RendererChoice
from fam_ext.options.request import MAX_SEED, HiresRequest
from fam_ext.prompt_file import read_prompts
from fam_ext.terminal import say

if TYPE_CHECKING:
    from fam_ext.quality.protocol import Row, Variant

bench_app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)

_MADE = [spec for spec in MADE if spec.name not in ("prompt", "method", "seed")]
"""Of a picture's settings those that a benchmark does not go through."""
_MOST_CROPS = 1000


@bench_app.command("cost")
@takes(spec for spec in RENDERER if spec.name != "upscaler")  # no method that is timed asks for one
def bench_cost(
    scales: Annotated[str, typer.Option(help="Comma-separated.")] = "2,3",
    steps: Annotated[int, typer.Option(help="Sampler steps timed per method.")] = 4,
    repeats: Annotated[int, typer.Option(help="Rounds; methods take turns, the median counts.")] = 3,
    *,
    said: dict[str, Any],
) -> None:
    """Time and peak memory of FAM beside direct inference, on your model and device."""
    from fam_ext.bench import cost_table

    factors = parse_scales(scales)
    if not 1 <= steps <= MOST_STEPS or repeats < 1:
        raise UsageError(
            f"--steps is {steps} and --repeats {repeats}; give 1 to {MOST_STEPS} steps, and at least one round"
        )
    host = load_renderer(renderer_of(said)).host
    for line in cost_table(host, factors, steps=steps, repeats=repeats):
        say(line)


@bench_app.command("jobs")
def bench_jobs(
    files: Annotated[int, typer.Option(help="Size of the large folder.")] = 100_000,
    folder: Annotated[Path | None, typer.Option(help="Where to work; default: the system's temporary place.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON at the end.")] = False,
) -> None:
    """Measure the batch engine: plan, resume, overhead a file, overlap with the renderer."""
    from fam_ext.jobs import bench

    if files < 1:
        raise UsageError(f"--files is {files}; choose at least 1")
    measures = bench.run(large=files, small=min(1000, files), folder=folder, say=lambda line: say(line, err=as_json))
    if as_json:
        say(bench.as_json(measures))
    raise typer.Exit(0 if all(measure.met for measure in measures) else 1)


@bench_app.command("quality")
@takes([*_MADE, *PRESET, *RENDERER])
def bench_quality(
    output: Annotated[
        str, typer.Option("--out", "--output", "-o", help="Folder for rows, pictures, tables; the same one resumes.")
    ],
    methods: Annotated[str, typer.Option(help="Comma-separated names; see docs/methods.md.")] = "fam,direct",
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="A row more: LABEL=METHOD:FIELD=VALUE,... with fields that it reads, as fm-only=fam:am=false; repeat."
        ),
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Comma-separated factors. (default: 2, or none with --sizes)")
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="Comma-separated WIDTHxHEIGHT in px, of any aspect, beside --scales.")
    ] = None,
    prompts: Annotated[str, typer.Option(help="Text file with a prompt on each line, or default.")] = "default",
    count: Annotated[int, typer.Option(help="Pictures for each method and size; the prompts in turn.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the first picture; they count up.")] = 0,
    truth: Annotated[Path | None, typer.Option(help="Folder of true pictures, WIDTHxHEIGHT/SEED-PROMPT.png.")] = None,
    references: Annotated[
        Path | None, typer.Option(help="Folder of real pictures for the set distances, instead of --truth's.")
    ] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the crops in px. (default: the native side)")] = None,
    crops: Annotated[int, typer.Option(help="Crops of each picture.")] = 10,
    inception: Annotated[
        str | None, typer.Option(help="torch-fidelity's Inception weights, for FID and KID; extra: fidelity.")
    ] = None,
    clip: Annotated[str | None, typer.Option(help="Folder of a CLIP model (transformers), for the CLIP score.")] = None,
    *,
    said: dict[str, Any],
) -> None:
    """Measure the pictures of several methods over prompts with fixed seeds; docs/benchmark.md says what and how.

    Writes results.sqlite, results.csv, table.md, table.tex, pareto.svg and the pictures. The same command resumes.
    """
    from fam_ext.comparison.run import check
    from fam_ext.quality import extractors, protocol, setting
    from fam_ext.quality.ruler import Ruler

    if count < 1 or not 1 <= crops <= _MOST_CROPS:
        raise UsageError(
            f"--count is {count} and --crops {crops}; choose at least 1 of each, and at most {_MOST_CROPS} crops"
        )
    if seed > MAX_SEED + 1 - count:
        raise UsageError(f"--seed is {seed} and --count {count}; choose a seed that may be counted up to 2^64 - 1")
    words = protocol.DEFAULT_PROMPTS if prompts == "default" else read_prompts(Path(prompts).expanduser())
    first = _request(said, seed)
    rivals = _variants(methods, variant or [], first.config)
    for rival in rivals:
        entry_for(rival.method, GIVES, where="the standalone host")
    try:
        with in_flags(options_of(FamConfig)):
            resolve.refuse_unread(said, [rival.method for rival in rivals])
    except UsageError as error:
        say(str(error), err=True)  # not refused: it is in the rows' fingerprints, and another call's rows may read it
    wanted = _sizes(scales, sizes)
    if (pictures := count * len(rivals) * len(wanted)) > protocol.MOST_ROWS:
        raise UsageError(
            f"--count {count} by {len(rivals)} methods at {len(wanted)} sizes are {pictures} pictures; choose at most "
            f"{protocol.MOST_ROWS}"
        )
    truth, references = (None if folder is None else folder.expanduser() for folder in (truth, references))

    renderer = renderer_of(said)
    made_with = [_all_made_with(said, first, renderer, prompts), *_variants_made_with(rivals, first.config)]
    loaded = load_renderer(renderer)
    host = loaded.host
    # what the model or the sampler cannot do is said before anything runs
    host.sampler(first.sampler, first.schedule, first.steps, seeds=[seed], spacing=first.timestep_spacing)
    for rival in rivals:
        entry_for(rival.method, host.gives, where=f"the host of {host.name}").load()(rival.config)
    pairs = dict.fromkeys(setting.native_and_target(host, size) for size in wanted)  # 2x may be one of --sizes too
    cases = protocol.cases(list(pairs), words, count=count, seed=seed)
    side = min(host.native_side, *(min(case.size) for case in cases)) if crop is None else crop
    protocol.check_crop(side, cases)
    if truth is not None:
        protocol.check_truths(truth, cases)
    real = None if references is None else protocol.pictures_in(references, least=side, flag="--references")
    ruler = Ruler(
        crop=side,
        crops=crops,
        truth=truth,
        others=() if inception is None else (extractors.inception(inception),),
        clip=None if clip is None else extractors.clip(clip),
        weights=setting.measuring_weights(inception, clip),
    )
    rows = protocol.rows(cases, rivals, first, setting.surroundings(host, renderer))
    check(host, [row.request for row in rows], recorded=True)
    asked = ((row.label, row.request, row.case.native) for row in rows)
    if loaded.upscaler is None and (note := protocol.lanczos_note(asked)):
        made_with.append(note)
        say(note)
    folder = folder_at(output)
    with alone_in(folder, ".fam-bench.lock"):
        _measure(host, folder, rows, ruler, real, loaded.upscaler, made_with)


def _measure(
    host: Any,  # noqa: ANN401
    folder: Path,
    rows: list[Row],
    ruler: Any,  # noqa: ANN401
    real: list[Path] | None,
    upscaler: Any,  # noqa: ANN401
    made_with: list[str],
) -> None:
    from fam_ext.quality.protocol import size_words
    from fam_ext.quality.results import drawn_by, machines, tables
    from fam_ext.quality.run import Bench, true_features
    from fam_ext.quality.store import Store
    from fam_ext.quality.written import write_results

    with Store(folder) as store:
        made = Bench(host, folder, rows, ruler, upscaler=upscaler).run(
            store,
            watch=_watched,
            tell=lambda label, left: say(f"{label}, {clock(left)} left"),
            warn=lambda line: say(line, err=True),
        )
    say("counting intervals")
    found = tables(made, ruler.extractors, true_features(ruler, [row.case for row, _ in made], real))
    lacking = {(row.label, row.case.size) for row in rows} - {(row.label, row.case.size) for row, _ in made}
    for label, size in sorted(lacking):
        say(f"{label} is left out of the tables at {size_words(size)}: none of its pictures could be made", err=True)
    for size in sorted({row.case.size for row, _ in made} - {table.size for table in found}):
        say(f"there is no table at {size_words(size)}: no picture was made by every method", err=True)
    where = "; ".join(ran_on := machines(made)) or "no picture was made"
    if len(ran_on) > 1:
        where = f"times are left out, since they are of different machines: {where}"
        say(where, err=True)
    request = rows[0].request
    head = [
        f"{host.name} ({host.weights_hash()[:8]}), {request.sampler} {request.steps} steps, CFG {request.cfg_scale:g}; "
        f"{ruler.crops} crops of {ruler.crop} px a picture; 95 % bootstrap intervals by prompt; "
        f"{where}{'' if upscaler is None else f', upscaler {upscaler.name}'}; fam-hires {__version__}; "
        f"drawn with {drawn_by(made)}",
        "",
        *(f"- {shown(line)}" for line in made_with),
    ]
    for path in write_results(folder, found, made, "\n".join(head)):
        say(str(path))
    if failed := len(rows) - len(made):
        say(f"{failed} of {len(rows)} pictures could not be made; the same command tries them again", err=True)
        raise typer.Exit(1)


def _request(said: dict[str, Any], seed: int) -> HiresRequest:
    """Return the settings that every picture has."""
    words = {"prompt": "a picture", "seed": seed, **picture_words(said), "inputs": ["text"]}
    job = resolve.job(words, preset_of=PresetStore().get)
    request, notes = request_of_words((64, 64), job.picture)
    for note in notes:
        say(note, err=True)
    return request


def _all_made_with(said: dict[str, Any], first: HiresRequest, renderer: RendererChoice, prompts: str) -> str:
    """Return what all pictures have in common, beside sampler and steps."""
    preset = said.get("preset", DEFAULT)
    dials = _dials_text(first.config, PresetStore().get(preset).config)
    loras = ", ".join(f"{Path(file).name}:{weight:g}" for file, weight in renderer.weighted_loras)
    parts = [f"preset {preset}" + (f" with {dials}" if dials else "")]
    parts += [f"negative prompt {first.negative_prompt!r}"] if first.negative_prompt else []
    parts += [f"LoRAs {loras}"] if loras else []
    return "; ".join([*parts, f"first seed {first.seed}", f"prompts {prompts}"])


def _variants_made_with(rivals: list[Variant], config: FamConfig) -> list[str]:
    """Return "label = method: dials" of each variant, the dials other than those of `config`."""
    return [
        f"{one.label} = {one.method}: {_dials_text(one.config, config)}" for one in rivals if one.label != one.method
    ]


def _dials_text(config: FamConfig, other: FamConfig) -> str:
    """Return the dials of `config` that differ from `other`'s, as --variant takes them."""
    return ", ".join(
        f"{spec.name}={format_value(spec, value)}"
        for spec in options_of(FamConfig)
        if (value := getattr(config, spec.name)) != getattr(other, spec.name)
    )


def _variants(methods: str, entries: list[str], config: FamConfig) -> list[Variant]:
    """Return the rows of the tables: the methods as they are asked for, then the variants. Raises `UsageError`."""
    from fam_ext.quality.protocol import Variant

    found = {name.strip(): Variant(name.strip(), name.strip(), config) for name in methods.split(",") if name.strip()}
    if not found:
        raise UsageError("--methods is empty; give one name or more, as fam,direct")
    for entry in entries:
        label, _, rest = entry.partition("=")
        method, colon, dials = rest.partition(":")
        # a method's name would stand in the tables for what it is not: "less FAM's"
        own_label = label.strip().isprintable() and label.strip() not in (*METHODS, *found)
        if not label.strip() or not method.strip() or not colon or not own_label:
            raise UsageError(
                f"--variant is {entry!r}; write LABEL=METHOD:FIELD=VALUE with a label of its own, as "
                "fm-only=fam:am=false"
            )
        # a comma before no FIELD= is one of the value's, as in am_window=1,0.4
        parts = [part for part in re.split(r",(?=\s*\w+\s*=|\s*$)", dials) if part.strip()]
        own = parse_dials((part.strip() for part in parts), said_by="--variant")
        read = entry_for(method.strip(), GIVES, where="the standalone host").dials
        if unread := [name for name in own if name not in read]:
            # it would be drawn at full cost, and stand under another name
            raise UsageError(
                f"--variant is {entry!r}, and {method.strip()} does not read {', '.join(unread)}; it reads "
                f"{', '.join(read) or 'no dial'}"
            )
        found[label.strip()] = Variant(label.strip(), method.strip(), config.replace(**own))
    return list(found.values())


def _sizes(scales: str | None, sizes: str | None) -> list[float | tuple[int, int]]:
    """Return the factors and the (height, width) that are asked for. Raises `UsageError`."""
    factors = scales or ("" if sizes else "2")
    wanted: list[float | tuple[int, int]] = [*parse_scales(factors)] if factors else []
    wanted += [_checked(parse_size(text, said_by="--sizes")) for text in (sizes or "").split(",") if text.strip()]
    if not wanted:
        raise UsageError(f"--scales is {scales!r} and --sizes {sizes!r}; give one size or more, as --scales 2")
    return wanted


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    if any(side % 8 or not 64 <= side <= 8192 for side in size):
        raise UsageError(f"--sizes has {size[1]}x{size[0]}; choose multiples of 8 from 64 to 8192 px")
    return size


@contextmanager
def _watched(label: str, left: float | None) -> Iterator[Progress]:
    words = label if left is None else f"{label}, {clock(left)} left"
    with steps_bar(words) as progress:
        yield progress
