"""The demo: the main job on the sample folder by FAM and by direct inference, and a contact sheet of both."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fam_ext.compare import Cell, contact_sheet, structure_psnr
from fam_ext.errors import RenderError
from fam_ext.jobs.events import Control, Listener
from fam_ext.jobs.renderers import RendererSpec
from fam_ext.jobs.run import run_job
from fam_ext.jobs.walk import natural_key
from fam_ext.metadata import pictures
from fam_ext.options import resolve
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule
from fam_ext.options.presets import PresetStore
from fam_ext.options.renderer import STANDALONE, RendererChoice

SCALE = 2.0
METHODS = {"fam": "FAM at 2x", "direct": "direct inference at 2x"}


def samples() -> Path:
    """Return the folder of sample pictures, written by A1111 1.10.1 with the embedded model."""
    return Path(__file__).parent / "samples"


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
        summary = run_job(
            demo_options(output, method, count), RendererSpec(), run=RunRule(), control=control, on_event=listen
        )
        if summary.failed or summary.stopped or summary.pending:
            raise RenderError(f"the demo ended early ({summary.stopped or 'see the report'}); run it again to go on")
        if summary.kept:
            raise RenderError(
                f"{output / method} holds {summary.kept} of the demo's pictures made from other samples or settings: "
                f"delete {output}, or give another folder with --out"
            )

    rows: list[list[Cell]] = []
    kept: dict[str, list[float]] = {method: [] for method in METHODS}
    for source in sorted((path for path in samples().iterdir() if path.is_file()), key=lambda p: natural_key(p.name)):
        made = {method: output / method / source.name for method in METHODS}
        if not all(path.is_file() for path in made.values()):
            continue
        native = pictures.decode(source.read_bytes()).image
        opened = {method: Image.open(path).convert("RGB") for method, path in made.items()}
        structure = {method: structure_psnr(image, native) for method, image in opened.items()}
        for method, value in structure.items():
            kept[method].append(value)
        size = opened["fam"].size
        rows.append(
            [
                Cell(native, source.name[:34]),
                Cell(native.resize(size, Image.Resampling.BICUBIC), f"{size[0]}x{size[1]}, bicubic"),
                Cell(opened["direct"], f"structure {structure['direct']:.1f} dB"),
                Cell(opened["fam"], f"structure {structure['fam']:.1f} dB"),
            ]
        )
    sheet = output / "contact-sheet.png"
    header = ("native", "plain resize", METHODS["direct"], METHODS["fam"])
    contact_sheet(rows, header=header, side=384).save(sheet)
    lines = [
        f"{title}: structure kept {statistics.mean(kept[method]):.1f} dB (mean PSNR of the downsampled result to the"
        f" native picture, n = {len(kept[method])})"
        for method, title in METHODS.items()
    ]
    return sheet, lines
