"""`fam-hires compare`: methods and scales on a page, one picture's methods on a sheet, or BEFORE and AFTER on a page.
Torch is imported inside."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fam_ext.cli.making import MADE, PRESET, RENDERER, SIZES, load_renderer, picture_words, steps_bar
from fam_ext.cli.options import named_files, parse_scales, takes
from fam_ext.cli.upscale import renderer_of
from fam_ext.cli.written import folder_at, write_new
from fam_ext.errors import OutputError, UsageError
from fam_ext.escapes import shown
from fam_ext.jobs.compare_page import pairs, write_page
from fam_ext.jobs.make import enlarged, infotext_of
from fam_ext.metadata import pictures
from fam_ext.methods.catalog import METHODS
from fam_ext.options import resolve
from fam_ext.options.job import Job
from fam_ext.options.presets import DEFAULT, PresetStore
from fam_ext.options.renderer import RendererChoice
from fam_ext.placing import replace
from fam_ext.prompt_file import read_prompts
from fam_ext.terminal import say

DEFAULT_METHODS = "direct,fam"
_PAGE = (".html", ".htm")
_RESUMES = "a page of methods resumes in a folder of its own; give a folder as --out, without --overwrite"


_SCALE = [spec for spec in SIZES if spec.name == "scale"]
_MADE = [spec for spec in MADE if spec.name != "method"]  # --methods says it


@takes([*_SCALE, *_MADE, *PRESET, *RENDERER])
def compare(
    given: Annotated[
        list[str] | None,
        typer.Argument(help="Pictures and folders. Two with nothing to make: BEFORE and AFTER.", metavar="PICTURE..."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--out",
            "--output",
            "-o",
            help="A folder for the page and the pictures, or one file (default: compare; of BEFORE and AFTER "
            "compare.html; of one picture compare.png).",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the one file where it exists.")] = False,
    methods: Annotated[
        str | None,
        typer.Option(help=f"Comma-separated; each of {', '.join(METHODS)}. (default: {DEFAULT_METHODS})"),
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Comma-separated: every picture at each (default: the scale).")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="A text file with a prompt on each line: pictures made from these.")
    ] = None,
    *,
    said: dict[str, Any],
) -> None:
    """Compare methods on a page: pictures or prompts by methods, at scales; the same command again resumes.

    The page shows a lens over all methods, a slider between two, spectra, times, attention; --out is its folder.

    BEFORE and AFTER, two pictures or two folders, are compared as they are, on a page.

    One picture, no folder, without --scales and with no folder as --out is put on one sheet.
    """
    inputs = named_files(given or [])
    kind = _kind(inputs, output, methods=methods, scales=scales, prompts=prompts, said=said)
    if kind == "page":
        if overwrite:
            raise UsageError(_RESUMES)
        _compare_on_page(inputs, output or "compare", methods, scales, prompts, said)
    elif kind == "pair":
        _compare_pair(inputs, output or "compare.html", overwrite=overwrite)
    else:
        _compare_on_sheet(inputs[0], output or "compare.png", methods, said, overwrite=overwrite)


def _kind(
    inputs: list[str],
    output: str | None,
    *,
    methods: str | None,
    scales: str | None,
    prompts: str | None,
    said: dict[str, Any],
) -> Literal["page", "pair", "sheet"]:
    """Return what is asked for: a page of methods, BEFORE and AFTER, or one picture's sheet. Raises `UsageError` for an
    --out, or an option, that it has not."""
    # an ending names a file; anything else is a folder, and so is one that has such a name
    ending = Path(output or "").suffix.lower()
    is_named = ending in _PAGE or pictures.format_of(output or "") is not None
    is_file = output is None or (is_named and not _is_folder(output))
    is_many = len(inputs) not in (1, 2) or (len(inputs) == 1 and _is_folder(inputs[0]))
    names_folder = not is_file and (len(inputs) == 1 or methods or said)
    if scales is not None or prompts is not None or is_many or names_folder:
        if output is not None and is_file:
            raise UsageError(_RESUMES)
        return "page"
    if len(inputs) == 2:
        if said or methods:
            raise UsageError(
                "AFTER is given, so nothing is made; give --scales or a folder as --out for a page of methods, or "
                "leave out AFTER, or the options of a making"
            )
        if output is not None and ending not in _PAGE:
            raise UsageError(
                f"--out is {shown(output)}, and BEFORE and AFTER make one page; name a .html file, or give --methods "
                "or --scales for a page of methods in a folder"
            )
        return "pair"
    if output is not None and ending != ".png":
        raise UsageError(
            f"--out is {shown(output)}, and a sheet of one picture is a PNG; name a .png file, or a folder for a page"
        )
    return "sheet"


def _is_folder(path: str) -> bool:
    return Path(path).expanduser().is_dir()


def _compare_pair(inputs: list[str], output: str, *, overwrite: bool) -> None:
    found, note = pairs(*(Path(path).expanduser() for path in inputs))
    for problem in write_page(found, note, Path(output).expanduser(), overwrite=overwrite):
        say(problem, err=True)
    say(f"{output}: {len(found)} compared{f'; {note}' if note else ''}")


def _compare_on_page(
    inputs: list[str],
    output: str,
    methods: str | None,
    scales: str | None,
    prompts: str | None,
    said: dict[str, Any],
) -> None:
    from fam_ext.comparison.page import MOST_BYTES, check_readable, write_page
    from fam_ext.comparison.plan import Plan, parse_methods, rows_of_pictures, rows_of_prompts
    from fam_ext.comparison.results import Results, held

    names = parse_methods(methods or DEFAULT_METHODS)
    resolve.refuse_unread(said, names)
    if scales is not None and "scale" in said:
        raise UsageError("--scale and --scales are given; leave one out")
    sizes = parse_scales(f"{said.get('scale', 2.0)}" if scales is None else scales)
    if inputs and prompts is not None:
        raise UsageError("pictures and --prompts are given; leave one out")
    if prompts is not None and "prompt" in said:
        raise UsageError("--prompt and --prompts are given; leave one out")
    if not inputs and prompts is None and "prompt" not in said:
        raise UsageError("nothing is given to compare; name pictures, or give --prompt or --prompts")
    renderer, folder = renderer_of(said), Path(output).expanduser()
    job = _job(said, inputs or ["text"], folder, renderer)
    if inputs:
        rows = rows_of_pictures(job, sizes)
    else:
        asked = [said["prompt"]] if prompts is None else read_prompts(Path(prompts).expanduser())
        rows = rows_of_prompts(list(dict.fromkeys(asked)), job)
    plan = Plan(rows, names, sizes)
    results = Results.read(folder)
    check_readable(results)
    for row in rows:
        for note in row.notes:
            say(f"{row.label}: {note}", err=True)

    from fam_ext.comparison.run import Workshop, check_missing, make
    from fam_ext.quality.setting import surroundings

    loaded = load_renderer(renderer)
    around, preset = surroundings(loaded.host, renderer), said.get("preset", DEFAULT)
    shop = Workshop(loaded.host, loaded.upscaler, around, steps_bar, say, infotext_of, preset)
    check_missing(shop, plan, results)
    folder_at(output)
    with held(folder):
        results = Results.read(folder)  # as another run left it that ended meanwhile
        failed = make(shop, plan, results)
        page, size, words = write_page(results)
    say(f"{page}: {size / 1e6:.1f} MB, pictures at {words}")
    if size > MOST_BYTES:
        say(
            f"more than {MOST_BYTES / 1e6:g} MB with the smallest pictures; fewer in a folder make a lighter page",
            err=True,
        )
    if failed:
        say(f"{failed} could not be made; the same command tries them again", err=True)
        raise typer.Exit(1)


def _job(said: dict[str, Any], inputs: list[str], folder: Path, renderer: RendererChoice) -> Job:
    words = {**picture_words(said), "inputs": inputs, "output": str(folder)}
    return resolve.job(words, preset_of=PresetStore().get, renderer=renderer)


def _compare_on_sheet(
    picture: str,
    output: str,
    methods: str | None,
    said: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    from fam_ext.compare import Cell, contact_sheet, structure_psnr
    from fam_ext.comparison.plan import parse_methods
    from fam_ext.jobs.plan import check_job, plan_file
    from fam_ext.jobs.walk import walk

    names = parse_methods(methods or DEFAULT_METHODS)
    resolve.refuse_unread(said, names)
    target = Path(output).expanduser()
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; choose another --out, or add --overwrite")
    renderer = renderer_of(said)
    path = Path(picture).expanduser()
    options = _job(said, [picture], target.parent, renderer)
    check_job(options)
    planned = plan_file(next(walk(options.places)), options)
    if planned.request is None:
        raise UsageError(f"{path.name}: {planned.problem}")
    for note in planned.notes:
        say(note, err=True)
    native, _ = enlarged(pictures.decode(pictures.read_file(path)).image)

    from fam_ext import standalone
    from fam_ext.quality.protocol import lanczos_note

    loaded = load_renderer(renderer)
    asked = ((name, dataclasses.replace(planned.request, method=name), (native.height, native.width)) for name in names)
    if loaded.upscaler is None and (note := lanczos_note(asked)):
        say(note)
    height, width = planned.request.size
    cells = [Cell(native, f"{native.width}x{native.height}"), Cell(native.resize((width, height)), "bicubic")]
    for name in names:
        request = dataclasses.replace(planned.request, method=name)
        with steps_bar(name) as progress:
            made = standalone.render_on(loaded.host, native, request, progress, upscaler=loaded.upscaler)
        for note in made.ran.notes:
            say(f"{name}: {note}", err=True)
        structure = structure_psnr(made.image, native)
        say(f"{name}: structure {structure:.1f} dB, {made.ran.seconds:.1f} s")
        cells.append(Cell(made.image, f"{structure:.1f} dB, {made.ran.seconds:.1f} s"))
    sheet = contact_sheet([cells], header=["native", "plain resize", *names], side=min(512, max(height, width)))
    made = write_new(folder_at(str(target.parent)), target.stem, sheet, None)
    if overwrite:
        replace(made, target)
    say(str(target if overwrite else made))
