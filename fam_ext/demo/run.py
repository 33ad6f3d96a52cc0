"""The demo: the main job on the sample folder by FAM and by direct inference, and a contact sheet beside the truth."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fam_ext.compare import Cell, contact_sheet, most_textured, structure_psnr
from fam_ext.errors import RenderError
from fam_ext.jobs.events import Control, Listener
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.renderers import RendererSpec
from fam_ext.jobs.run import run_job
from fam_ext.jobs.walk import natural_key, walk
from fam_ext.metadata import pictures
from fam_ext.options import resolve
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule
from fam_ext.options.presets import PresetStore
from fam_ext.options.renderer import STANDALONE, RendererChoice

SCALE = 2.0
METHODS = {"fam": "FAM at 2x", "direct": "direct inference at 2x"}
SIDE = 304
"""px of a square of the sheet, a whole picture or a piece of it at 1:1: four rows of texture are 3 to 4 MB."""

BOX = 16
"""Native px of the squares whose means say what is kept: single pixels of a texture drawn anew differ even in true
pictures of two sizes, which are 17 to 26 dB from one another."""


def samples() -> Path:
    """Return the folder of sample pictures, written by A1111 1.10.1 with the embedded model."""
    return Path(__file__).parent / "samples"


def true_picture(source: Path) -> Image.Image | None:
    """Return the picture in `truths()` that is named as the sample `source`, None where none is."""
    found = [path for suffix in (".webp", ".png") if (path := truths() / f"{source.stem}{suffix}").is_file()]
    return pictures.decode(found[0].read_bytes()).image.convert("RGB") if found else None


def truths() -> Path:
    """Return the folder of true pictures, each named as its sample: written by tools/demo_model/export.py."""
    return Path(__file__).parent / "truths"


def demo_options(output: Path, method: str, count: int) -> Job:
    """Return the plan of one half of the demo: the first `count` samples at 2x by `method`, each with its own prompt,
    seed, sampler and steps."""
    words = {
        "inputs": (str(samples()),),
        "output": str(output / method),
        "scale": SCALE,
        "method": method,
        "first": count,
    }
    return resolve.job(words, preset_of=PresetStore().get, renderer=RendererChoice(STANDALONE))


def run_demo(
    output: Path,
    *,
    count: int,
    say: Callable[[str], None],
    control: Control | None = None,
    listen: Listener | None = None,
) -> tuple[Path, list[str]]:
    """Return the contact sheet's path and the lines that sum it up. What an earlier run made is kept and used.

    Raises `RenderError` when a picture could not be made, or when `output` holds one of an earlier version's samples.
    """
    for method, title in METHODS.items():
        say(f"{title}: {output / method}")
        options = demo_options(output, method, count)
        _check_others(options, output)
        summary = run_job(options, RendererSpec(), run=RunRule(), control=control, on_event=listen)
        if summary.failed or summary.stopped or summary.pending:
            raise RenderError(f"the demo ended early ({summary.stopped or 'see the report'}); run it again to go on")

    rows: list[list[Cell | None]] = []
    kept: dict[str, list[float]] = {method: [] for method in METHODS}
    for source in sorted((path for path in samples().iterdir() if path.is_file()), key=lambda p: natural_key(p.name)):
        made = {method: output / method / source.name for method in METHODS}
        if not all(path.is_file() for path in made.values()):
            continue
        native = pictures.decode(source.read_bytes()).image.convert("RGB")
        opened = {method: Image.open(path).convert("RGB") for method, path in made.items()}
        for method, image in opened.items():
            kept[method].append(structure_psnr(image, native, box=BOX))
        rows.append(_row(source, native, opened, true_picture(source)))
    sheet = output / "contact-sheet.png"
    columns = (
        f"native, {SIDE} px of it at 1:1 below",
        "plain resize",
        METHODS["direct"],
        METHODS["fam"],
        "true picture",
    )
    shown = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    rows = [[row[number] for number in shown] for row in rows]
    contact_sheet(rows, header=[columns[number] for number in shown], side=SIDE).save(sheet)
    lines = [
        f"{title}: structure kept {statistics.mean(kept[method]):.1f} dB (mean PSNR to the native picture, both in"
        f" boxes of {BOX} native px, n = {len(kept[method])})"
        for method, title in METHODS.items()
    ]
    return sheet, lines


def _check_others(options: Job, output: Path) -> None:
    """Raise `RenderError` where the pictures of the samples' names were made from others, or with other settings."""
    with Journal(options.places.output, memory=True) as journal:
        counts = journal.plan(walk(options.places), options, plan_file)
        numbered = sum(item.key != Path(item.source).name for item in journal.items(planned=True))
    if others := counts.kept + numbered:
        raise RenderError(
            f"{options.places.output} holds {others} of the demo's pictures made from other samples or settings: "
            f"delete {output}, or give another folder with --out"
        )


def _row(
    source: Path, native: Image.Image, made: dict[str, Image.Image], true: Image.Image | None
) -> list[Cell | None]:
    """Return a sample's row: each picture, and under it the same place of it at 1:1, where the true picture, or else
    FAM's, has most texture."""
    fam, direct = made["fam"], made["direct"]
    if true is not None and true.size != fam.size:
        raise RenderError(
            f"the true picture of {source.name} is {true.width}x{true.height} and the demo's {fam.width}x{fam.height}: "
            f"write {truths()} again with tools/demo_model/export.py"
        )
    left, top = most_textured(true or fam, SIDE)
    place = (left, top, left + SIDE, top + SIDE)
    shrink = native.width / fam.width
    small = (round(left * shrink), round(top * shrink), round(place[2] * shrink), round(place[3] * shrink))

    def cell(image: Image.Image, caption: str) -> Cell:
        return Cell(image, caption, image.crop(place))

    return [
        Cell(native, source.stem, native.crop(small)),
        cell(native.resize(fam.size, Image.Resampling.BICUBIC), f"{fam.width}x{fam.height}, bicubic"),
        cell(direct, f"structure {structure_psnr(direct, native, box=BOX):.1f} dB"),
        cell(fam, f"structure {structure_psnr(fam, native, box=BOX):.1f} dB"),
        None if true is None else cell(true, f"rendered at {true.width}x{true.height}"),
    ]
