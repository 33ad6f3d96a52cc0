"""Try before the night: three files of a folder, chosen for difference, with several presets; and what the whole folder
would take. No torch, no UI."""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageChops, ImageFilter, ImageStat

from fam_ext.errors import FamError, UsageError
from fam_ext.jobs.events import Control, Event, Listener, Summary
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.plan import Planned, check_job, plan_file
from fam_ext.jobs.renderers import RendererSource, RendererSpec
from fam_ext.jobs.run import run_job
from fam_ext.jobs.walk import walk
from fam_ext.metadata.pictures import decode, read_file
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule

MOST_PRESETS = 3
_MOST_SEEN = 40
"""Files that are looked at to find the busiest: decoding takes a while."""
_SEEN_SIDE = 256


@dataclass(frozen=True)
class Chosen:
    """A file of the trial, and what it is chosen for."""

    why: str
    planned: Planned


@dataclass(frozen=True)
class Column:
    """One preset of the trial: the job that makes the chosen files, and what each file of the folder asks for."""

    preset: str
    job: Job
    chosen: tuple[tuple[int, float], ...]
    """(target pixels, work) of each chosen file; work is pixels x the steps that are sampled."""
    folder: tuple[tuple[int, float], ...]
    """The same of each file of the folder."""
    keys: Mapping[str, str]
    """What its job calls a chosen file -> what the folder's job calls it."""


@dataclass(frozen=True)
class Cell:
    """One file with one preset, as it stands."""

    state: str
    output: Path
    seconds: float | None = None
    peak_memory: int | None = None
    message: str = ""
    """Why it failed, or what it was made without."""


@dataclass(frozen=True)
class Forecast:
    """What the whole folder would take with one preset, as far as the trial measured."""

    files: int
    seconds: float | None
    peak_memory: int | None
    """Bytes of the device; None where that cannot be told."""


class Trial:
    """A trial from its start to its end. `files` and `columns` are empty until it has read the folder."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        """`jobs` are the same folder's job with each preset. Raises `UsageError` for none of them, or too many."""
        if not 1 <= len(jobs) <= MOST_PRESETS:
            raise UsageError(f"a trial compares 1 to {MOST_PRESETS} presets, not {len(jobs)}; choose those")
        self._jobs = dict(jobs)
        first = next(iter(self._jobs.values()))
        self.options = first.replace(output=_trial_folder(first.places.output))
        """The job in the trial's own folder, beside the one that the real run writes to."""
        self.files: tuple[Chosen, ...] = ()
        self.columns: tuple[Column, ...] = ()

    def run(
        self,
        renderer: RendererSource,
        *,
        run: RunRule | None = None,
        control: Control | None = None,
        on_event: Listener = lambda event: None,
    ) -> Summary:
        """Choose the files and make them with one preset after the other; as `run_job`."""
        rule = replace(run or RunRule(), report=False)
        control = control or Control()
        # one renderer for all presets: a model is loaded once
        build = functools.cache(renderer.build if isinstance(renderer, RendererSpec) else renderer)
        on_event(Event("planning"))
        self._lay_out(control)
        ended: list[Summary] = []
        for column in self.columns:
            if control.stopping or any(summary.stopped for summary in ended):
                break
            listen = _telling(column, ended, len(self.columns), len(self.files), on_event)
            ended.append(run_job(column.job, build, run=rule, control=control, on_event=listen))
        summary = _together(ended, missing=(len(self.columns) - len(ended)) * len(self.files), control=control)
        on_event(_counted(Event("ended", message=summary.stopped or ""), ended, len(self.columns) * len(self.files)))
        return summary

    def cells(self, column: Column) -> list[Cell]:
        """Return how a column's files stand, in the order of `files`."""
        place = Path(column.job.places.output)
        with Journal(place, memory=True) as journal:
            items = {item.source: item for item in journal.items()}
        found: list[Cell] = []
        for chosen in self.files:
            item = items.get(chosen.planned.candidate.path)
            if item is None:
                found.append(Cell("pending", place))
                continue
            peak = None if item.ran is None else item.ran.peak_memory
            found.append(Cell(item.state, place / item.output, item.seconds, peak, item.error or "; ".join(item.notes)))
        return found

    def forecast(self, column: Column, cells: Sequence[Cell]) -> Forecast:
        """Return what the whole folder would take with a column's preset, going by its finished files."""
        measured = [
            (pixels, cell.seconds / work)
            for (pixels, work), cell in zip(column.chosen, cells, strict=True)
            if cell.state == "done" and cell.seconds is not None and work
        ]
        peaks = [cell.peak_memory for cell in cells if cell.peak_memory is not None]
        return Forecast(len(column.folder), whole_seconds(measured, column.folder), max(peaks, default=None))

    def _lay_out(self, control: Control) -> None:
        columns: list[Column] = []
        for preset, job in self._jobs.items():
            check_job(job)
            planned: list[Planned] = []
            for index, candidate in enumerate(itertools.islice(walk(job.places), job.places.first)):
                if control.cancelled:
                    return
                entry = plan_file(candidate, job, index=index)
                if entry.request is not None and entry.skip is None:
                    planned.append(entry)
            if not self.files:
                detail = functools.partial(_detail_of, max_pixels=job.places.max_input_pixels)
                self.files = tuple(choose(planned, detail))
                if not self.files:
                    raise UsageError("the folder has no picture that could be made; look at its list")
            paths = tuple(chosen.planned.candidate.path for chosen in self.files)
            place = str(Path(self.options.places.output) / preset)
            own = job.replace(inputs=paths, output=place, first=None, include=())
            works = {entry.candidate.path: _work(entry) for entry in planned}
            chosen = tuple(works.get(path, (0, 0.0)) for path in paths)
            own_keys = [candidate.key for candidate in walk(own.places)]
            keys = [entry.planned.candidate.key for entry in self.files]
            columns.append(Column(preset, own, chosen, tuple(works.values()), dict(zip(own_keys, keys, strict=True))))
        self.columns = tuple(columns)


def choose(planned: Sequence[Planned], detail: Callable[[Planned], float | None]) -> list[Chosen]:
    """Return the smallest, the largest and the busiest of the others, by target pixels and `detail`; fewer where there
    are fewer. One whose detail is None cannot be read, and is left out."""
    seen = functools.cache(detail)
    by_size = sorted(range(len(planned)), key=lambda index: (_work(planned[index])[0], index))

    def first_readable(order: Sequence[int]) -> list[int]:
        found = next((index for index in order if seen(planned[index]) is not None), None)
        return [] if found is None else [found]

    smallest = first_readable(by_size)
    largest = first_readable([index for index in reversed(by_size) if index not in smallest])
    others = [index for index in range(len(planned)) if index not in (*smallest, *largest)]
    spread = others[:: -(-len(others) // _MOST_SEEN) or 1]
    busiest = sorted(spread, key=lambda index: -(seen(planned[index]) or 0.0))
    found = (("smallest", smallest), ("largest", largest), ("busiest", first_readable(busiest)))
    return [Chosen(why, planned[index]) for why, indexes in found for index in indexes]


def fine_detail(image: Image.Image) -> float:
    """Return the mean difference, 0 to 255 a pixel, between a thumbnail of the picture and the same one blurred."""
    small = image.convert("L")
    small.thumbnail((_SEEN_SIDE, _SEEN_SIDE))
    return ImageStat.Stat(ImageChops.difference(small, small.filter(ImageFilter.GaussianBlur(2)))).mean[0]


def whole_seconds(measured: Sequence[tuple[int, float]], folder: Sequence[tuple[int, float]]) -> float | None:
    """Return the seconds for a folder of (pixels, work), from measured (pixels, seconds for one of work): between two
    measured sizes by their distance, beyond them as the nearest. None where nothing was measured."""
    if not measured:
        return None
    points = sorted(measured)

    def rate(pixels: int) -> float:
        below = max((point for point in points if point[0] <= pixels), default=points[0])
        above = min((point for point in points if point[0] >= pixels), default=points[-1])
        if above[0] <= below[0]:
            return (below[1] + above[1]) / 2
        return below[1] + (above[1] - below[1]) * (pixels - below[0]) / (above[0] - below[0])

    return sum(work * rate(pixels) for pixels, work in folder)


def row_key(preset: str, key: str) -> str:
    """Return what the job's table calls a file with a preset."""
    return f"{preset}: {key}"


def _work(planned: Planned) -> tuple[int, float]:
    request = planned.request
    if request is None:
        return 0, 0.0
    pixels = request.size[0] * request.size[1]
    return pixels, pixels * max(1.0, request.steps * request.config.start)


def _detail_of(planned: Planned, *, max_pixels: int) -> float | None:
    try:
        return fine_detail(decode(read_file(planned.candidate.path), max_pixels=max_pixels).image)
    except FamError:
        return None


def _trial_folder(output: str) -> str:
    """Return a folder that is not there yet, beside the output: no run takes it for its inputs or its results."""
    beside = Path(output).with_name(f"{Path(output).name}-try")
    return next(str(one) for number in itertools.count(1) if not os.path.lexists(one := beside / str(number)))


def _telling(column: Column, ended: Sequence[Summary], columns: int, files: int, on_event: Listener) -> Listener:
    """Return the listener of one column: the trial's listener hears of all columns together."""
    before, began = tuple(ended), time.monotonic()

    def listen(event: Event) -> None:
        if event.kind in ("planning", "ended"):  # the trial's own
            return
        eta = event.eta
        if eta is not None:  # the columns that follow, as long as this one
            eta += (columns - len(before) - 1) * (time.monotonic() - began + eta)
        key, output = event.key, event.output
        if key:
            key, output = row_key(column.preset, column.keys.get(key, key)), f"{column.preset}/{output}"
        on_event(_counted(replace(event, key=key, output=output, eta=eta), before, columns * files))

    return listen


def _counted(event: Event, ended: Sequence[Summary], total: int) -> Event:
    return replace(
        event,
        done=event.done + sum(summary.done for summary in ended),
        failed=event.failed + sum(summary.failed for summary in ended),
        skipped=event.skipped + sum(summary.skipped for summary in ended),
        total=total,
    )


def _together(ended: Sequence[Summary], *, missing: int, control: Control) -> Summary:
    return Summary(
        done=sum(summary.done for summary in ended),
        failed=sum(summary.failed for summary in ended),
        skipped=sum(summary.skipped for summary in ended),
        pending=sum(summary.pending for summary in ended) + missing,
        seconds=sum(summary.seconds for summary in ended),
        stopped=next((summary.stopped for summary in ended if summary.stopped), None),
        cancelled=control.cancelled,
    )
