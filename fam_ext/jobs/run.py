"""Running a job: plan, then a pipeline of read | render | save, with events out and a control in. No torch, no UI."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from fam_ext.errors import (
    AlreadyGuidedError,
    Cancelled,
    ConfigError,
    FamError,
    LoadError,
    NonFiniteLatentError,
    OutOfMemoryError,
    OutputError,
    PictureError,
    Skipped,
    UnsupportedModelError,
    UnsupportedSamplerError,
    UsageError,
)
from fam_ext.jobs import make
from fam_ext.jobs.contract import Progress, Renderer
from fam_ext.jobs.journal import MAX_DEATHS, POISON, Item, Journal, PlanCounts
from fam_ext.jobs.plan import check_job, plan_file
from fam_ext.jobs.walk import left_out_line, walk
from fam_ext.options.job import Job, RunRule

log = logging.getLogger(__name__)


# further tries would end the same way
_FINAL = (
    PictureError,
    ConfigError,
    UnsupportedSamplerError,
    UnsupportedModelError,
    NonFiniteLatentError,
    OutOfMemoryError,
    UsageError,
)
_ARGUMENTS = frozenset(("model", "device", "dtype", "loras", "offload", "clip_l_skip"))
_SAVERS = 4
_SAVE_AHEAD = 6
_LARGE_PIXELS = 4_000_000
_POLL_SECONDS = 0.2


REPORT_DUE = "report_due"
"""Name in a journal for whether the reports are older than it: a process may be stopped before it writes them."""
RENDERERS: Mapping[str, str] = {"standalone": "fam_ext.standalone:load_renderer"}
"""Name in a journal -> "module:function". A journal may be a stranger's: nothing that it names is ever imported."""


IN_HOST = "webui"
"""Name in a journal for a renderer that lives in its host's process and that no other can build."""


@dataclass(frozen=True)
class RendererSpec:
    """A renderer by its name in RENDERERS, so that other processes can build it, and its keyword arguments."""

    name: str = "standalone"
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def build(self) -> Renderer:
        """Import and call. Nothing is imported before. Raises `UsageError` for a name that is not ours."""
        if self.name not in RENDERERS:
            raise UsageError(f"renderer is {self.name!r}; choose {', '.join(RENDERERS)}")
        module, _, function = RENDERERS[self.name].partition(":")
        return getattr(importlib.import_module(module), function)(**self.arguments)


class Control:
    """What a user may say while a job runs; safe from any thread."""

    def __init__(self) -> None:
        self._cancel = threading.Event()
        self._stop = threading.Event()
        self._going = threading.Event()
        self._going.set()

    def cancel(self) -> None:
        """Stop now: the picture under way is dropped and stays in the queue."""
        self._cancel.set()
        self._going.set()

    def stop_after_this(self) -> None:
        """Finish the picture under way, then stop."""
        self._stop.set()
        self._going.set()

    def pause(self) -> None:
        """Hold before the next picture."""
        self._going.clear()

    def resume(self) -> None:
        """Go on after a pause."""
        self._going.set()

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled."""
        return self._cancel.is_set()

    @property
    def stopping(self) -> bool:
        """Whether no further picture is to begin."""
        return self._stop.is_set() or self._cancel.is_set()

    @property
    def paused(self) -> bool:
        """Whether the job holds before the next picture."""
        return not self._going.is_set()

    def wait(self) -> None:
        """Return when the job is not paused."""
        self._going.wait()


@dataclass(frozen=True)
class Event:
    """Something happened. `kind`: planning, planned, started, step, retry, finished, failed, skipped, paused, resumed,
    ended."""

    kind: str
    key: str = ""
    output: str = ""
    message: str = ""
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    total: int = 0
    done_before: int = 0
    """Done by an earlier run with the same settings."""
    kept: int = 0
    """Made by an earlier run with other settings."""
    eta: float | None = None
    """Seconds left for the whole job; None while nothing is known."""
    notes: tuple[str, ...] = ()
    program: str = ""
    """Which program wrote the picture's metadata; "" where it does not tell."""


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Summary:
    """How a job ended. `done` counts this run, `done_before` earlier ones; `stopped` says why it ended early."""

    done: int = 0
    done_before: int = 0
    kept: int = 0
    failed: int = 0
    unusable: int = 0
    """Failed that no try can help: their file, or where its output would go, must be mended."""
    poisoned: int = 0
    """Failed because the process ended twice during them."""
    skipped: int = 0
    pending: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    cancelled: bool = False
    left_out: str = ""
    """What the input folders held that was not taken, on one line."""

    @property
    def exit_code(self) -> int:
        """0 when every picture is done or validly skipped, 1 when some failed or wait, 130 when cancelled."""
        if self.cancelled:
            return 130
        return 1 if self.failed or self.pending or self.stopped else 0


def run_job(
    options: Job,
    renderer: RendererSpec | Callable[[], Renderer],
    *,
    run: RunRule | None = None,
    control: Control | None = None,
    on_event: Listener = lambda event: None,
) -> Summary:
    """Plan and run a job, resuming what an earlier run left. The same call again does only what is missing.

    Raises `UsageError` and `ConfigError` before anything is written, `UnsupportedModelError` when the model cannot be
    used. A full or read-only output ends the job cleanly: `Summary.stopped` says why.
    """
    run = run or RunRule()
    control = control or Control()
    check_job(options)
    with Journal(options.places.output, join=run.join) as journal:
        if journal.joined:
            counts = PlanCounts()
            # what is shared is the other process's job, with its options
            while journal.get("planning", False) and journal.others_at_work() and not control.stopping:
                time.sleep(_POLL_SECONDS)
            if journal.get("options") is not None:
                options = stored_options(journal)
        else:
            on_event(Event("planning"))
            left_out: Counter[str] = Counter()
            counts = journal.plan(
                walk(options.places, left_out),
                options,
                plan_file,
                on_count=lambda counts: on_event(Event("planning", total=counts.files)),
                cancelled=lambda: control.cancelled,
            )
            counts.left_out = left_out_line(left_out)
            _keep_renderer(journal, renderer)
        return _Job(journal, options, renderer, run, control, on_event, counts).run()


def retry_failed(
    output: str,
    renderer: RendererSpec | Callable[[], Renderer] | None = None,
    *,
    run: RunRule | None = None,
    control: Control | None = None,
    on_event: Listener = lambda event: None,
) -> Summary:
    """Run the failed files of an output folder again, with the settings kept in its journal; and what is pending.

    A file whose header could not be read is not planned here: run the job's own command for that.
    """
    check_journal(output)
    with Journal(output) as journal:
        options = stored_options(journal)
        renderer = renderer or kept_renderer(journal.get("renderer"))
        journal.retry_failed()
        job = _Job(journal, options, renderer, run or RunRule(), control or Control(), on_event, PlanCounts())
        return job.run()


def check_journal(output: str) -> None:
    """Raise `UsageError` when the folder holds no journal."""
    from pathlib import Path

    from fam_ext.jobs.journal import FILE_NAME
    from fam_ext.jobs.walk import STATE_FOLDER

    if not (Path(output) / STATE_FOLDER / FILE_NAME).is_file():
        raise UsageError(f"{output} holds no journal of a job; give the output folder of fam-hires upscale")


def stored_options(journal: Journal) -> Job:
    """Return the options that the journal's job was run with. Raises `UsageError`."""
    values = journal.get("options")
    if not isinstance(values, dict):
        raise UsageError("the journal holds no job that was planned to its end; run the command again")
    return Job.from_json(cast("dict[str, Any]", values))


def kept_renderer(kept: object) -> RendererSpec:
    """Return the renderer that a journal names; an older journal names it by our own import path. Raises `UsageError`
    for any other name: a journal is data, and runs nothing."""
    values = cast("dict[str, object]", kept) if isinstance(kept, dict) else {}
    name = values.get("name")
    if name == IN_HOST or not {"name", "target"} & set(values):
        raise UsageError(
            "the job was drawn in the WebUI, or the journal names no renderer; start the same folders there again, "
            "which tries the failed files too"
        )
    if name is None:
        by_path = {path: known for known, path in RENDERERS.items()}
        path = values.get("target", RENDERERS["standalone"])
        name = by_path.get(path, path) if isinstance(path, str) else path
    if not isinstance(name, str) or name not in RENDERERS:
        raise UsageError(
            f"the journal names the renderer {str(name)[:60]!a}, which is not one of ours "
            f"({', '.join(RENDERERS)}); run the job's own command again"
        )
    arguments = values.get("arguments", {})
    if not isinstance(arguments, dict) or not _ARGUMENTS.issuperset(cast("dict[str, object]", arguments)):
        raise UsageError(
            f"the journal's arguments for the renderer are not {', '.join(sorted(_ARGUMENTS))}; "
            "run the job's own command again"
        )
    return RendererSpec(name, cast("dict[str, Any]", arguments))


def _keep_renderer(journal: Journal, renderer: RendererSpec | Callable[[], Renderer]) -> None:
    if isinstance(renderer, RendererSpec):
        journal.set("renderer", {"name": renderer.name, "arguments": dict(renderer.arguments)})
    else:
        journal.set("renderer", {"name": IN_HOST})


def wordless_line(journal: Journal) -> str:
    """Return how many of the files to make carry no prompt, as a sentence; "" when all do."""
    wordless, pending = journal.wordless()
    return f"{wordless} of {pending} carry no prompt: give --prompt, or .txt files" if wordless else ""


class Slots(Protocol):
    """Workers outside this process: each holds one item at a time."""

    def idle(self) -> int:
        """Return how many workers wait for an item."""
        ...

    def busy(self) -> list[tuple[Item, float]]:
        """Return the items under way with the time (monotonic) they began."""
        ...

    def submit(self, item: Item) -> None:
        """Give an item to a waiting worker."""
        ...

    def poll(self, seconds: float) -> Iterator[tuple[str, Item, Any]]:
        """Yield ("step", item, (done, total)), ("made", item, Packed), ("failed", item, exception) or
        ("lost", item, sentence)."""
        ...

    def cancel(self) -> None:
        """Ask every worker to drop its item."""
        ...

    def kill(self, item: Item) -> None:
        """End the worker that holds an item, and replace it."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class _Job:
    """One run over a planned journal."""

    def __init__(
        self,
        journal: Journal,
        options: Job,
        renderer: RendererSpec | Callable[[], Renderer],
        run: RunRule,
        control: Control,
        on_event: Listener,
        counts: PlanCounts,
    ) -> None:
        self.journal = journal
        self.options = options
        self.run_options = run
        self.control = control
        self.counts = counts
        self._renderer_source = renderer
        self._listener = on_event
        self._mutex = threading.Lock()
        self._began = time.monotonic()
        self._done = 0
        self._failed = 0
        self._made_pixels = 0
        self._tries: dict[int, int] = {}
        self._told: set[int] = set()
        self._stopped: str | None = None
        self._fatal: BaseException | None = None
        before = journal.counts()
        self._failed_before = before["failed"]
        self._skipped = before["skipped"]
        self._total = sum(before.values())
        self._done_before = before["done"]
        self._pending_pixels = journal.pending_pixels()

    # --- events ---------------------------------------------------------------------------------------------------

    def emit(self, kind: str, item: Item | None = None, **more: Any) -> None:  # noqa: ANN401  # fields of Event
        with self._mutex:
            event = Event(
                kind,
                key=item.key if item is not None else "",
                output=item.output if item is not None else "",
                program=(item.program or "") if item is not None else "",
                done=self._done,
                failed=self._failed + self._failed_before,
                skipped=self._skipped,
                total=self._total,
                done_before=self._done_before - self.counts.kept,
                kept=self.counts.kept,
                eta=self._eta(),
                **more,
            )
            try:
                self._listener(event)
            except Exception:
                log.exception("a listener of the job failed")

    def _eta(self) -> float | None:
        if not self._made_pixels:
            return None
        left = max(0, self._pending_pixels - self._made_pixels)
        return left * (time.monotonic() - self._began) / self._made_pixels

    # --- outcomes -------------------------------------------------------------------------------------------------

    def finished(self, item: Item, packed: make.Packed) -> None:
        with self._mutex:
            self._done += 1
            if item.request is not None:
                self._made_pixels += item.request.size[0] * item.request.size[1]
        self.emit("finished", item, seconds=packed.seconds, notes=packed.notes)

    def failed(self, item: Item, error: BaseException | str) -> None:
        """Record a failure; the rest goes on."""
        text = error if isinstance(error, str) else make.sentence(error)
        self.journal.fail(item, text)
        with self._mutex:
            self._failed += 1
            if item.request is not None:
                self._pending_pixels -= item.request.size[0] * item.request.size[1]
        self.emit("failed", item, message=text)
        if self.run_options.stop_on_error:
            self.stop("a picture failed and --stop-on-error was given")

    def skip(self, item: Item, reason: str) -> None:
        """Record that the user left a picture out; the rest goes on."""
        self.journal.skip(item, reason)
        with self._mutex:
            self._skipped += 1
            if item.request is not None:
                self._pending_pixels -= item.request.size[0] * item.request.size[1]
        self.emit("skipped", item, message=reason)

    def stop(self, reason: str, *, fatal: BaseException | None = None) -> None:
        """Begin no further picture."""
        with self._mutex:
            if self._stopped is None:
                self._stopped = reason
            if self._fatal is None:
                self._fatal = fatal

    @property
    def ending(self) -> bool:
        return self._stopped is not None or self.control.stopping

    def render_failed(self, item: Item, error: BaseException) -> bool:
        """Answer an exception of the renderer; return whether the item is to be tried again."""
        if isinstance(error, Cancelled) or (isinstance(error, LoadError) and self.control.cancelled):
            self.journal.release(item)
            if not self.control.cancelled:
                self.stop("the renderer was interrupted")
            return False
        if isinstance(error, Skipped):
            self.skip(item, make.sentence(error))
            return False
        shared = isinstance(error, UnsupportedModelError | AlreadyGuidedError)
        asked_for = isinstance(error, UnsupportedSamplerError) and not {"sampler", "schedule"} & set(item.taken)
        no_model = item.request is None or item.request.model is None
        if isinstance(error, LoadError) or asked_for or (shared and no_model):
            # not this picture's fault: every other one would end the same way
            self.journal.release(item)
            cause = error.__cause__
            self.stop(make.sentence(error), fatal=cause if isinstance(cause, FamError) else error)
            return False
        if isinstance(error, _FINAL):
            self.failed(item, error)
            return False
        return self.try_again(item, make.sentence(error))

    def try_again(self, item: Item, reason: str) -> bool:
        """Return whether the item has tries left, having said so; else record the failure."""
        tries = self._tries[item.id] = self._tries.get(item.id, 0) + 1
        if tries > self.run_options.retries:
            self._tries.pop(item.id, None)
            self.failed(item, reason)
            return False
        self.journal.again(item)
        self.emit("retry", item, message=reason)
        return True

    # --- run ------------------------------------------------------------------------------------------------------

    def run(self) -> Summary:
        self.emit("planned", notes=tuple(line for line in (wordless_line(self.journal), self.counts.left_out) if line))
        self._tell_failed()
        try:
            if self._pending_pixels and not self.journal.joined:
                self.journal.set(REPORT_DUE, True)
            while True:
                if self.run_options.ray is not None or self.run_options.workers > 0:
                    self._run_slots()
                else:
                    self._run_here()
                if self.ending or not self._others_left_work():
                    break
        except sqlite3.Error as error:
            self.stop(f"the journal cannot be written ({error}); check the disk and run the same command again")
        except OutputError as error:
            self.stop(str(error))
        summary = self._summary()
        if self.run_options.report and not self.journal.joined:
            self._report()
            summary = dataclasses.replace(summary, stopped=self._stopped, cancelled=self.control.cancelled)
        self.emit("ended", message=summary.stopped or "")
        if self._fatal is not None:
            raise self._fatal
        return summary

    def _tell_failed(self) -> None:
        """Say which files no run will take: those bad at planning, and those that ended the process twice."""
        for item in self.journal.items(state="failed"):
            if (item.request is None or item.deaths >= MAX_DEATHS) and item.id not in self._told:
                self._told.add(item.id)
                self.emit("failed", item, message=item.error or "")

    def _others_left_work(self) -> bool:
        """With shared work: wait for the others, then return whether a dead one left something."""
        while self.journal.others_at_work() and not self.ending:
            time.sleep(_POLL_SECONDS)
            if self.journal.counts()["pending"]:
                return True
        self.journal.recover()
        self._tell_failed()
        return self.journal.counts()["pending"] > 0 and not self.ending

    def _summary(self) -> Summary:
        counts = self.journal.counts()
        unusable, poisoned = self.journal.hopeless()
        return Summary(
            done=self._done,
            done_before=self._done_before,
            kept=self.counts.kept,
            failed=counts["failed"],
            unusable=unusable,
            poisoned=poisoned,
            skipped=counts["skipped"],
            pending=counts["pending"] + counts["running"] + counts["saving"],
            seconds=time.monotonic() - self._began,
            stopped=self._stopped,
            cancelled=self.control.cancelled,
            left_out=self.counts.left_out,
        )

    def _report(self) -> None:
        from fam_ext.jobs import report

        changed = self._done or self._failed or self.counts.new or self.counts.failed or self.counts.skipped
        try:
            if not changed and report.exists(self.journal.output) and not self.journal.get(REPORT_DUE, False):
                return
            if self.control.cancelled:  # the pictures were: what is known is written at once
                report.write_all(self.journal, thumbnails=0)
            else:
                report.write_all(self.journal, cancelled=lambda: self.control.cancelled)
            self.journal.set(REPORT_DUE, False)
        except Cancelled as error:
            self.stop(str(error))
        except (OSError, OutputError) as error:
            log.warning("the report could not be written: %s", error)

    def _build(self) -> Renderer:
        source = self._renderer_source
        return make.ready(source.build if isinstance(source, RendererSpec) else source)

    # --- in this process ------------------------------------------------------------------------------------------

    def _run_here(self) -> None:
        box = _RendererBox(self._build)
        first = self.journal.claim()
        if first is not None:
            self._run_ahead(box, first)
        # alone, so that a second death is surely theirs; last, so that the others are made
        while not self.ending and (item := self.journal.claim(suspect=True)) is not None:
            self._hold()
            picture = self._load(item)
            drawn = None if picture is None else self._draw(box, item, picture)
            if picture is not None and drawn is not None:
                self._save(item, picture, drawn)

    def _run_ahead(self, box: _RendererBox, first: Item) -> None:
        loaded: queue.Queue[tuple[Item, make.Loaded] | None] = queue.Queue(maxsize=1)
        over = threading.Event()
        reader = threading.Thread(target=self._read_ahead, args=(first, loaded, over), name="fam-read", daemon=True)
        with ThreadPoolExecutor(_SAVERS, thread_name_prefix="fam-save") as savers:
            saves: set[Future[None]] = set()
            reader.start()
            try:
                while (entry := self._next(loaded)) is not None:
                    item, picture = entry
                    drawn = self._draw(box, item, picture)
                    if drawn is not None:
                        saves = {save for save in saves if not save.done()}
                        while len(saves) >= _ahead(item):
                            saves = set(wait(saves, return_when="FIRST_COMPLETED").not_done)
                        saves.add(savers.submit(self._save, item, picture, drawn))
            finally:
                over.set()
                wait(saves)
                self._give_back(reader, loaded)

    def _hold(self) -> None:
        if self.control.paused and not self.ending:
            self.emit("paused")
            self.control.wait()
            self.emit("resumed")

    def _next(self, loaded: queue.Queue[tuple[Item, make.Loaded] | None]) -> tuple[Item, make.Loaded] | None:
        self._hold()
        if self.ending:
            return None
        entry = loaded.get()
        if entry is not None and self.ending:
            self.journal.release(entry[0])
            return None
        return entry

    def _give_back(self, reader: threading.Thread, loaded: queue.Queue[tuple[Item, make.Loaded] | None]) -> None:
        while reader.is_alive() or not loaded.empty():
            try:
                entry = loaded.get(timeout=0.05)
            except queue.Empty:
                continue
            if entry is not None:
                with contextlib.suppress(OutputError):
                    self.journal.release(entry[0])

    def _read_ahead(
        self, first: Item, loaded: queue.Queue[tuple[Item, make.Loaded] | None], over: threading.Event
    ) -> None:
        """Decode the next picture while the last one is rendered; one waits, no more."""
        item: Item | None = first
        try:
            while item is not None:
                if over.is_set() or self.ending:
                    self.journal.release(item)
                    break
                picture = self._load(item)
                if picture is not None:
                    self.journal.risk(item, False)
                    loaded.put((item, picture))
                item = None if over.is_set() or self.ending else self.journal.claim()
        except OutputError as error:
            self.stop(str(error))
        except Exception as error:
            log.exception("reading ahead failed")
            self.stop(make.sentence(error))
        loaded.put(None)

    def _load(self, item: Item) -> make.Loaded | None:
        """Return the decoded picture; None when it failed, whatever its file did to the decoder."""
        try:
            return make.load(item, self.options)
        except OutputError:
            raise
        except Exception as error:
            if not isinstance(error, FamError):
                log.debug("reading %s failed", item.key, exc_info=True)
            self.failed(item, error)
            return None

    def _draw(self, box: _RendererBox, item: Item, picture: make.Loaded) -> make.Drawn | None:
        while True:
            self.emit("started", item, steps=item.request.steps if item.request is not None else 0)
            try:
                box.ready()  # a death while the model loads is not the picture's
                self.journal.risk(item, True)
                return box.draw(item, picture, self._progress(item), self.run_options.timeout)
            except _TimedOut as error:
                self.failed(item, str(error))
                return None
            except OutputError as error:
                self.journal.release(item)
                self.stop(str(error))
                return None
            except Exception as error:
                if not isinstance(error, FamError):
                    log.debug("the renderer failed on %s", item.key, exc_info=True)
                if not self.render_failed(item, error):
                    return None
                if self.ending:
                    self.journal.release(item)
                    return None

    def _progress(self, item: Item) -> Progress:
        return Progress(
            step=lambda done, total: self.emit("step", item, step=done, steps=total),
            cancelled=lambda: self.control.cancelled,
        )

    def _save(self, item: Item, picture: make.Loaded, drawn: make.Drawn) -> None:
        try:
            self.place(item, make.pack(picture, drawn, item, self.options))
        except OutputError as error:
            self._give_up(item, str(error))
        except FamError as error:
            self.failed_safely(item, error)
        except Exception as error:
            log.exception("saving %s failed", item.key)
            self.failed_safely(item, error)

    def place(self, item: Item, packed: make.Packed) -> None:
        """Write one finished picture and say so."""
        make.write(self.journal, item, packed, self.options)
        self.finished(item, packed)

    def failed_safely(self, item: Item, error: BaseException) -> None:
        """Record a failure, also when the journal's own disk is the fault."""
        try:
            self.failed(item, error)
        except OutputError as fault:
            self.stop(str(fault))

    def _give_up(self, item: Item, reason: str) -> None:
        self.stop(reason)
        with contextlib.suppress(OutputError):
            self.journal.release(item)

    # --- in other processes ---------------------------------------------------------------------------------------

    def _slots(self) -> Slots:
        if not isinstance(self._renderer_source, RendererSpec):
            raise UsageError("workers need a renderer that other processes can build; give a RendererSpec")
        if self.run_options.ray is not None:
            from fam_ext.jobs.ray_workers import RaySlots

            return RaySlots(self._renderer_source, self.options, self.run_options)
        from fam_ext.jobs.workers import ProcessSlots

        return ProcessSlots(self._renderer_source, self.options, self.run_options.workers)

    def _run_slots(self) -> None:
        waiting: list[Item] = []
        first = self._claim_for_worker()
        if first is None:
            return
        waiting.append(first)
        slots = self._slots()
        asked_to_cancel = False
        with ThreadPoolExecutor(_SAVERS, thread_name_prefix="fam-save") as savers:
            saves: set[Future[None]] = set()
            try:
                while True:
                    if self.control.paused and not self.ending and not slots.busy():
                        self.emit("paused")
                        self.control.wait()
                        self.emit("resumed")
                    while not self.ending and not self.control.paused and slots.idle():
                        item = waiting.pop(0) if waiting else self._claim_for_worker()
                        if item is None:
                            break
                        self.emit("started", item, steps=item.request.steps if item.request is not None else 0)
                        slots.submit(item)
                    if not slots.busy():
                        break
                    if self.control.cancelled and not asked_to_cancel:
                        asked_to_cancel = True
                        slots.cancel()
                    for kind, item, value in slots.poll(_POLL_SECONDS):
                        if kind == "step":
                            self.emit("step", item, step=value[0], steps=value[1])
                        elif kind == "made":
                            saves = {save for save in saves if not save.done()}
                            while len(saves) >= _ahead(item):
                                saves = set(wait(saves, return_when="FIRST_COMPLETED").not_done)
                            saves.add(savers.submit(self._place, item, value))
                        elif kind == "failed":
                            if self.render_failed(item, value):
                                waiting.append(item)
                        elif self.control.cancelled:
                            self.journal.release(item)
                        elif self._lost(item, value):
                            waiting.append(item)
                    self._end_late(slots)
            finally:
                wait(saves)
                slots.close()
                for item in waiting:
                    with contextlib.suppress(OutputError):
                        self.journal.release(item)

    def _claim_for_worker(self) -> Item | None:
        return self.journal.claim(at_risk=False) or self.journal.claim(suspect=True, at_risk=False)

    def _lost(self, item: Item, reason: str) -> bool:
        """Return whether a picture is to be tried again after its worker has ended."""
        if self.journal.died(item) >= MAX_DEATHS and self.run_options.retries:
            self.failed(item, f"{reason}: {POISON}")
            return False
        return self.try_again(item, reason)

    def _place(self, item: Item, packed: make.Packed) -> None:
        try:
            self.place(item, packed)
        except OutputError as error:
            self._give_up(item, str(error))
        except Exception as error:
            self.failed_safely(item, error)

    def _end_late(self, slots: Slots) -> None:
        timeout = self.run_options.timeout
        if timeout is None:
            return
        for item, began in slots.busy():
            if time.monotonic() - began > timeout:
                slots.kill(item)
                self.failed(item, timed_out(timeout))


def _ahead(item: Item) -> int:
    """Return how many finished pictures may wait for the disk: few large ones, more small ones."""
    large = item.request is None or item.request.size[0] * item.request.size[1] > _LARGE_PIXELS
    return 2 if large else _SAVE_AHEAD


class _TimedOut(Exception):  # noqa: N818  # an outcome, with its sentence
    """The renderer took too long on one picture."""


def timed_out(seconds: float) -> str:
    """Return the sentence for a picture that took too long."""
    return f"the picture took more than {seconds:g} s; raise --timeout or lower --scale"


class _RendererBox:
    """Holds the renderer of this process, and replaces one that hangs."""

    def __init__(self, build: Callable[[], Renderer]) -> None:
        self._build = build
        self._renderer: Renderer | None = None

    def ready(self) -> Renderer:
        """Return the renderer, loaded. Raises `LoadError`."""
        if self._renderer is None:
            self._renderer = self._build()
        return self._renderer

    def draw(self, item: Item, picture: make.Loaded, progress: Progress, timeout: float | None) -> make.Drawn:
        """Render; with a timeout in a thread of its own, which is left behind with its renderer when it hangs."""
        renderer = self.ready()
        if timeout is None:
            return make.draw(renderer, picture, item, progress)
        late = threading.Event()
        answer: queue.Queue[make.Drawn | BaseException] = queue.Queue()
        bounded = Progress(progress.step, lambda: late.is_set() or progress.cancelled())

        def work() -> None:
            try:
                answer.put(make.draw(renderer, picture, item, bounded))
            except BaseException as error:
                answer.put(error)

        threading.Thread(target=work, name="fam-render", daemon=True).start()
        try:
            result = answer.get(timeout=timeout)
        except queue.Empty:
            late.set()
            try:
                answer.get(timeout=min(5.0, max(0.5, timeout)))  # a renderer that asks between steps ends here
            except queue.Empty:
                log.warning("the renderer hangs; it is left behind and a new one is loaded")
                self._renderer = None
            raise _TimedOut(timed_out(timeout)) from None
        if isinstance(result, BaseException):
            raise result
        return result
