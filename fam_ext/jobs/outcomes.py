"""What becomes of each picture of a run: counted, journalled and told, and whether the run goes on."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

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
    UnknownSitesError,
    UnsupportedModelError,
    UnsupportedSamplerError,
    UnsupportedScheduleError,
    UsageError,
)
from fam_ext.escapes import sentence
from fam_ext.jobs import make
from fam_ext.jobs.contract import Progress
from fam_ext.jobs.events import Control, Event, Listener, Summary
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.rows import Item, PlanCounts
from fam_ext.jobs.journal.store import MAX_DEATHS, POISON
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule

log = logging.getLogger(__name__)

# further tries would end the same way
_FINAL = (
    PictureError,
    Skipped,
    ConfigError,
    UnsupportedSamplerError,
    UnsupportedModelError,
    NonFiniteLatentError,
    OutOfMemoryError,
    UsageError,
)


class Outcomes:
    """One run over a planned journal, as its executor sees it. Usable from several threads."""

    def __init__(
        self,
        journal: Journal,
        options: Job,
        *,
        run: RunRule,
        control: Control,
        listener: Listener,
        counts: PlanCounts,
    ) -> None:
        self.journal = journal
        self.options = options
        self.run = run
        self.control = control
        self.fatal: BaseException | None = None
        """What no picture of the run can escape: raised at its end."""
        self.stopped: str | None = None
        """Why the run ends early."""
        self._listener = listener
        self._kept = counts.kept
        self._left_out = counts.left_out
        self._mutex = threading.Lock()
        self._began = time.monotonic()
        self._held = 0.0
        """Seconds in which a pause held the run."""
        self._done = 0
        self._failed = 0
        self._made_pixels = 0
        self._tries: dict[int, int] = {}
        before = journal.counts()
        self._failed_before = before["failed"]
        self._skipped = before["skipped"]
        self._total = sum(before.values())
        self._done_before = before["done"]
        self._pending_pixels = journal.pending_pixels()

    # --- what is told ---------------------------------------------------------------------------------------------

    def emit(self, kind: str, item: Item | None = None, **more: Any) -> None:  # noqa: ANN401  # fields of Event
        """Tell the listener, with the counts as they are. A listener's own fault ends nothing."""
        with self._mutex:
            event = Event(
                kind,
                key=item.key if item is not None else "",
                source=item.source if item is not None else "",
                output=item.output if item is not None else "",
                program=(item.program or "") if item is not None else "",
                done=self._done,
                failed=self._failed + self._failed_before,
                skipped=self._skipped,
                total=self._total,
                done_before=self._done_before - self._kept,
                kept=self._kept,
                eta=self._eta(),
                **more,
            )
            try:
                self._listener(event)
            except Exception:
                log.exception("a listener of the job failed")

    def started(self, item: Item) -> None:
        """Say that a picture is under way."""
        self.emit("started", item, steps=item.request.steps if item.request is not None else 0)

    def progress(self, item: Item) -> Progress:
        """Return what travels down to the renderer with a picture."""
        return Progress(
            step=lambda done, total: self.emit("step", item, step=done, steps=total),
            cancelled=lambda: self.control.cancelled,
        )

    def hold(self) -> None:
        """Return at once, or when a pause is over."""
        if self.control.paused and not self.ending:
            self.emit("paused")
            began = time.monotonic()
            self.control.wait()
            self._held += time.monotonic() - began
            self.emit("resumed")

    def _eta(self) -> float | None:
        if not self._made_pixels:
            return None
        left = max(0, self._pending_pixels - self._made_pixels)
        return left * (time.monotonic() - self._began - self._held) / self._made_pixels

    def summary(self) -> Summary:
        """Return how the run stands, or how it ended."""
        counts = self.journal.counts()
        unusable, poisoned = self.journal.hopeless()
        return Summary(
            done=self._done,
            done_before=self._done_before - self._kept,
            kept=self._kept,
            failed=counts["failed"],
            unusable=unusable,
            poisoned=poisoned,
            skipped=counts["skipped"],
            pending=counts["pending"] + counts["running"] + counts["saving"],
            seconds=time.monotonic() - self._began,
            stopped=self.stopped,
            cancelled=self.control.cancelled,
            left_out=self._left_out,
        )

    # --- what ends a picture --------------------------------------------------------------------------------------

    def save(self, item: Item, pack: Callable[[], make.Packed]) -> None:
        """Write one finished picture and say so."""
        try:
            packed = pack()
            make.write(self.journal, item, packed, self.options)
            self._finished(item, packed)
        except OutputError as error:
            self.stop(str(error))
            self._release_safely(item)
        except Exception as error:
            if not isinstance(error, FamError):
                log.exception("saving %s failed", item.key)
            self._failed_safely(item, error)

    def _finished(self, item: Item, packed: make.Packed) -> None:
        with self._mutex:
            self._done += 1
            if item.request is not None:
                self._made_pixels += item.request.size[0] * item.request.size[1]
        self.emit("finished", item, seconds=packed.seconds, notes=packed.notes)

    def failed(self, item: Item, error: BaseException | str) -> None:
        """Record a failure, or that the picture is left out; the rest goes on."""
        if isinstance(error, Skipped):
            return self.skip(item, sentence(error))
        text = error if isinstance(error, str) else sentence(error)
        self.journal.fail(item, text)
        with self._mutex:
            self._failed += 1
            if item.request is not None:
                self._pending_pixels -= item.request.size[0] * item.request.size[1]
        self.emit("failed", item, message=text)
        if self.run.stop_on_error:
            self.stop("a picture failed and --stop-on-error was given")

    def _failed_safely(self, item: Item, error: BaseException) -> None:
        """Record a failure, also when the journal's own disk is the fault."""
        try:
            self.failed(item, error)
        except OutputError as fault:
            self.stop(str(fault))

    def _release_safely(self, item: Item) -> None:
        with contextlib.suppress(OutputError):
            self.journal.release(item)

    def skip(self, item: Item, reason: str) -> None:
        """Record that a picture is left out; the rest goes on."""
        self.journal.skip(item, reason)
        with self._mutex:
            self._skipped += 1
            if item.request is not None:
                self._pending_pixels -= item.request.size[0] * item.request.size[1]
        self.emit("skipped", item, message=reason)

    def render_failed(self, item: Item, error: BaseException) -> bool:
        """Answer an exception of the renderer; return whether the item is to be tried again."""
        if isinstance(error, Cancelled) or (isinstance(error, LoadError) and self.control.cancelled):
            self.journal.release(item)
            if not self.control.cancelled:
                self.stop("the renderer was interrupted; start the job again to go on")
            return False
        shared = isinstance(error, UnsupportedModelError | AlreadyGuidedError | UnknownSitesError)
        at_fault = "schedule" if isinstance(error, UnsupportedScheduleError) else "sampler"
        asked_for = isinstance(error, UnsupportedSamplerError) and at_fault not in item.taken
        no_model = item.request is None or item.request.model is None
        if isinstance(error, LoadError) or asked_for or (shared and no_model):
            # not this picture's fault: every other one would end the same way
            self.journal.release(item)
            cause = error.__cause__
            self.stop(sentence(error), fatal=cause if isinstance(cause, FamError) else error)
            return False
        if isinstance(error, _FINAL):
            self.failed(item, error)
            return False
        return self._try_again(item, sentence(error))

    def lost(self, item: Item, reason: str) -> bool:
        """Return whether a picture is to be tried again after its worker has ended; in a cancelled run it
        waits in the queue."""
        if self.control.cancelled:
            self.journal.release(item)
            return False
        if self.journal.died(item) >= MAX_DEATHS and self.run.retries:
            self.failed(item, f"{reason}: {POISON}")
            return False
        return self._try_again(item, reason)

    def _try_again(self, item: Item, reason: str) -> bool:
        """Return whether the item has tries left, having said so; else record the failure."""
        tries = self._tries[item.id] = self._tries.get(item.id, 0) + 1
        if tries > self.run.retries:
            self._tries.pop(item.id, None)
            self.failed(item, reason)
            return False
        self.journal.again(item)
        self.emit("retry", item, message=reason)
        return True

    # --- what ends the run ----------------------------------------------------------------------------------------

    def stop(self, reason: str, *, fatal: BaseException | None = None) -> None:
        """Begin no further picture."""
        with self._mutex:
            if self.stopped is None:
                self.stopped = reason
            if self.fatal is None:
                self.fatal = fatal

    @property
    def touched(self) -> int:
        """How many pictures this run has made, or failed at."""
        return self._done + self._failed

    @property
    def ending(self) -> bool:
        """Whether no further picture is to begin."""
        return self.stopped is not None or self.control.stopping
