"""What the batch engine costs, measured: `fam-hires bench jobs`. No renderer, no torch."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from fam_ext.jobs import make
from fam_ext.jobs.contract import Progress, Ran, Rendered
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.run import run_job
from fam_ext.jobs.walk import walk
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule
from fam_ext.options.request import HiresRequest

PLAN_SECONDS, PLAN_MEGABYTES = 60.0, 250.0
RESUME_SECONDS = 10.0
OVERHEAD_MILLISECONDS = 3.0
OVERLAP_SHARE = 0.05
LARGE = 100_000
PER_FOLDER = 1000


@dataclass(frozen=True)
class Measure:
    """One measured number beside its target."""

    name: str
    value: float
    unit: str
    target: float
    n: int

    @property
    def met(self) -> bool:
        """Return whether the value is within the target."""
        return self.value <= self.target


class NoOp:
    """A renderer that only resizes to the target by the cheapest filter: what remains is the engine."""

    name = "no-op"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.total = 0.0

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        """Return the picture at its size, after `seconds` of sleep (a GPU's work leaves Python free)."""
        began = time.perf_counter()
        if self.seconds:
            time.sleep(self.seconds)
        height, width = request.size
        made = image.resize((width, height), Image.Resampling.NEAREST)
        self.total += time.perf_counter() - began
        return Rendered(made, Ran())


def make_folder(folder: Path, count: int, *, side: int = 16) -> None:
    """Make `count` PNG files with a WebUI's metadata, a thousand a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (side, side), (90, 140, 200))
    for number in range(count):
        place = folder / f"folder {number // PER_FOLDER}"
        if number % PER_FOLDER == 0:
            place.mkdir(exist_ok=True)
        info = PngImagePlugin.PngInfo()
        info.add_text(
            "parameters",
            f"a picture of a lighthouse on a cliff, oil painting, detailed, number {number}\n"
            "Negative prompt: blurry, lowres\nSteps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, "
            f"Seed: {number}, Size: {side}x{side}, Model hash: 105adaeb50, Model: some-model, Version: 1.10.1",
        )
        image.save(place / f"picture {number}.png", pnginfo=info, compress_level=1)


def _peak_megabytes() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1024


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _in_child(target: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:  # noqa: ANN401
    """Run a measurement in a fresh process, so that its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(target, arguments)


def _measure_plan(source: str, output: str) -> dict[str, float]:
    options = Job.of((source,), output, recursive=True)
    began = time.perf_counter()
    with Journal(output) as journal:
        counts = journal.plan(walk(options.places), options, plan_file)
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time(),
        "megabytes": _peak_megabytes(),
        "files": counts.files,
        "new": counts.new,
    }


def _mark_done(output: str) -> None:
    """Turn a planned job into a finished one: every row done, every output there."""
    with Journal(output) as journal:
        folders: set[Path] = set()
        for item in journal.items():
            target = journal.output / item.output
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.add(target.parent)
            target.write_bytes(b"x")
        with journal._transaction() as db:  # pyright: ignore[reportPrivateUsage]
            db.execute("UPDATE items SET state = 'done', bytes = 1, content_hash = 'x', output_hash = 'x'")
        from fam_ext.jobs import report

        for name in report.NAMES:
            (journal.output / name).write_text("")


def _measure_resume(source: str, output: str) -> dict[str, float]:
    options = Job.of((source,), output, recursive=True)
    began = time.perf_counter()

    def never() -> NoOp:
        raise AssertionError("nothing should be rendered")

    summary = run_job(options, never)
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time(),
        "megabytes": _peak_megabytes(),
        "done_before": summary.done_before,
        "done": summary.done,
    }


def _measure_run(source: str, output: str) -> dict[str, float]:
    """Return the engine's milliseconds a file, beyond reading, decoding, rendering and encoding the pictures."""
    options = Job.of((source,), output, recursive=True)
    renderer = NoOp()
    spent = _Clock()
    load, pack = make.load, make.pack
    make.load = spent.timed(load)
    make.pack = spent.timed(pack)
    try:
        began = time.perf_counter()
        summary = run_job(options, lambda: renderer, run=RunRule(report=False))
        whole = time.perf_counter() - began
    finally:
        make.load, make.pack = load, pack
    return {
        "whole": whole,
        "cpu": time.process_time(),
        "pictures": spent.seconds + renderer.total,
        "per_file": whole / max(1, summary.done) * 1000,
        "done": summary.done,
        "megabytes": _peak_megabytes(),
    }


class _Clock:
    """Sums the CPU time of a function over all threads."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._mutex = threading.Lock()

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                with self._mutex:
                    self.seconds += time.thread_time() - began

        return call


def _measure_overlap(source: str, output: str, render_seconds: float, io_seconds: float) -> dict[str, float]:
    """Return wall time over the renderer's alone, with slow reading and writing around each picture."""
    options = Job.of((source,), output, recursive=True)
    renderer = NoOp(render_seconds)
    load, pack = make.load, make.pack

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            time.sleep(io_seconds / 2)
            return function(*arguments, **named)

        return call

    make.load, make.pack = slow(load), slow(pack)
    try:
        began = time.perf_counter()
        summary = run_job(options, lambda: renderer, run=RunRule(report=False))
        whole = time.perf_counter() - began
    finally:
        make.load, make.pack = load, pack
    return {"whole": whole, "alone": renderer.total, "done": summary.done}


def run(
    *, large: int = LARGE, small: int = 1000, overlap: int = 20, folder: Path | None = None, say: Callable[[str], None]
) -> list[Measure]:
    """Measure and return all numbers; `say` gets a line as each is known. Needs some 4 KB of disk a file twice."""
    base = Path(tempfile.mkdtemp(prefix="fam-bench-", dir=folder))
    measures: list[Measure] = []

    def add(name: str, value: float, unit: str, target: float, n: int) -> None:
        measure = Measure(name, value, unit, target, n)
        measures.append(measure)
        verdict = "met" if measure.met else "NOT met"
        say(f"{name}: {value:.2f} {unit} (target {target:g} {unit}, {verdict}; n = {n})")

    try:
        say(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"{platform.system()} {platform.release()}, load {_load()}"
        )
        source, output = str(base / "in"), str(base / "out")
        make_folder(Path(source), large)
        found = _in_child(_measure_plan, source, output)
        add("plan", found["seconds"], "s", PLAN_SECONDS, int(found["new"]))
        say(f"  {found['cpu']:.1f} s of CPU")
        add("plan, peak memory", found["megabytes"], "MB", PLAN_MEGABYTES, int(found["new"]))
        _mark_done(output)
        gc.collect()
        found = _in_child(_measure_resume, source, output)
        add("resume of a finished job", found["seconds"], "s", RESUME_SECONDS, int(found["done_before"]))
        say(f"  {found['cpu']:.1f} s of CPU, peak {found['megabytes']:.0f} MB")
        shutil.rmtree(output)
        for count in (small, large):
            part = base / f"in-{count}"
            if count == large:
                part = Path(source)
            else:
                make_folder(part, count)
            found = _in_child(_measure_run, str(part), str(base / f"out-{count}"))
            per_file = (found["whole"] - found["pictures"]) / max(1.0, found["done"]) * 1000
            add(f"engine overhead, {count} files", per_file, "ms/file", OVERHEAD_MILLISECONDS, int(found["done"]))
            say(
                f"  whole job {found['per_file']:.2f} ms/file with plan, decode, encode and fsync, "
                f"{found['cpu'] / max(1.0, found['done']) * 1000:.2f} ms/file of CPU; peak {found['megabytes']:.0f} MB"
            )
            shutil.rmtree(base / f"out-{count}", ignore_errors=True)
        part = base / "in-overlap"
        make_folder(part, overlap, side=64)
        found = _measure_overlap(str(part), str(base / "out-overlap"), 1.0, 0.3)
        share = found["whole"] / found["alone"] - 1
        add("overlap: wall over renderer alone", share * 100, "%", OVERLAP_SHARE * 100, int(found["done"]))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return measures


def as_json(measures: list[Measure]) -> str:
    """Return the measures as JSON."""
    return json.dumps([{**asdict(measure), "met": measure.met} for measure in measures], indent=1)
