"""Folder jobs that run beside a page: one at a time, watched and stopped from the tab and the API. No host."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fam_ext.errors import BusyError, FamError, UsageError
from fam_ext.escapes import sentence
from fam_ext.jobs.contract import Renderer
from fam_ext.jobs.events import Control, Event, Summary
from fam_ext.jobs.plan import check_job
from fam_ext.jobs.run import run_job
from fam_ext.jobs.trial import Trial
from fam_ext.jobs.walk import check_any
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule

logger = logging.getLogger(__name__)

MAX_ROWS = 200
_KEPT_JOBS = 20
_ENDED = {"finished": "done", "failed": "failed", "skipped": "skipped"}
"""A file's state in the table by the event that ended it."""


@dataclass
class Row:
    """One file that was touched in this run."""

    key: str
    state: str
    message: str = ""
    seconds: float | None = None
    output: str = ""
    program: str = ""
    source: str = ""


@dataclass
class Batch:
    """One job and what is known of it. Written by its own thread, read from any."""

    id: str
    options: Job
    control: Control = field(default_factory=Control)
    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    last: Event = field(default_factory=lambda: Event("planning"))
    step: tuple[int, int] = (0, 0)
    current: str = ""
    summary: Summary | None = None
    error: str | None = None
    began: float = field(default_factory=time.monotonic)
    thread: threading.Thread | None = None
    trial: Trial | None = None
    """What is tried, where the job is a trial."""

    @property
    def state(self) -> str:
        """planning, running, paused, stopping, or ended: done, stopped, cancelled or failed."""
        if self.error is not None:
            return "failed"
        if self.summary is not None:
            if self.summary.cancelled:
                return "cancelled"
            return "stopped" if self.summary.stopped or self.summary.pending else "done"
        if self.control.stopping:
            return "stopping"
        if self.control.paused:
            return "paused"
        return "planning" if self.last.kind == "planning" else "running"

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.error is not None or self.summary is not None

    def source(self, row: Mapping[str, Any]) -> Path:
        """Return the file that a row is of."""
        return Path(row["source"])

    def result(self, row: Mapping[str, Any]) -> Path:
        """Return the file that a finished row was made into."""
        return Path(self.options.places.output) / row["output"]

    def last_rows(self) -> list[dict[str, Any]]:
        """Return the last rows as they are, for `source` and `result`: their names may hold what no answer can."""
        return [dict(vars(row)) for row in list(self.rows.values())[-MAX_ROWS:]]

    def to_json(self) -> dict[str, Any]:
        """Return the job as plain values: state, counts, progress, the last rows. A byte that is no text is
        an escape, which any answer takes."""
        last = self.last
        error = self.error or (self.summary.stopped if self.summary else None)
        return {
            "id": self.id,
            "state": self.state,
            "input": [_text(entry) for entry in self.options.places.inputs],
            "output": _text(self.options.places.output),
            "done": last.done,
            "failed": last.failed,
            "skipped": last.skipped,
            "done_before": last.done_before,
            "kept": last.kept,
            "total": last.total,
            "eta_seconds": None if last.eta is None or self.over else round(last.eta, 1),
            "elapsed_seconds": round((self.summary.seconds if self.summary else time.monotonic() - self.began), 1),
            "current": _text(self.current),
            "step": self.step[0],
            "steps": self.step[1],
            "error": None if error is None else _text(error),
            "rows": [
                {name: _text(value) if isinstance(value, str) else value for name, value in row.items()}
                for row in self.last_rows()
            ],
        }


def _text(value: str) -> str:
    """Return a name or sentence that every answer takes: bytes that are no text are escapes."""
    return value.encode("utf-8", "backslashreplace").decode()


class Batches:
    """The jobs of this process. One runs at a time: there is one model."""

    def __init__(self, make_renderer: Callable[[Job], Renderer]) -> None:
        self._make_renderer = make_renderer
        self._jobs: dict[str, Batch] = {}
        self._mutex = threading.Lock()

    def start(self, options: Job, trial: Trial | None = None) -> Batch:
        """Start a job, or a trial with its `options`, and return it. Raises `BusyError` where one is running,
        `UsageError` where the places cannot be used, or hold no picture."""
        check_job(options)
        check_any(options.places)
        with self._mutex:
            running = self.active()
            if running is not None:
                raise BusyError(f"job {running.id} is running; wait for its end, or stop it")
            batch = Batch(secrets.token_hex(8), options, trial=trial)
            self._jobs[batch.id] = batch
            for old in list(self._jobs)[:-_KEPT_JOBS]:
                del self._jobs[old]
            batch.thread = threading.Thread(target=self._run, args=(batch,), name="fam-batch", daemon=True)
            batch.thread.start()
        return batch

    def get(self, job_id: str) -> Batch:
        """Return a job. Raises `UsageError` when there is none of that id."""
        batch = self._jobs.get(job_id)
        if batch is None:
            raise UsageError(f"there is no job {job_id!r} since the WebUI started; its output folder holds its report")
        return batch

    def active(self) -> Batch | None:
        """Return the job that runs, None where there is none."""
        return next((batch for batch in list(self._jobs.values()) if not batch.over), None)

    def latest(self) -> Batch | None:
        """Return the job that was started last."""
        return next(reversed(list(self._jobs.values())), None)

    def _run(self, batch: Batch) -> None:
        try:
            with ExitStack() as closers:  # closed before the job is over, and the next may start

                def build() -> Renderer:
                    renderer = self._make_renderer(batch.options)
                    closers.callback(getattr(renderer, "close", lambda: None))
                    return renderer

                work = partial(run_job, batch.options) if batch.trial is None else batch.trial.run
                summary = work(
                    build,
                    run=RunRule(retries=0),
                    control=batch.control,
                    on_event=lambda event: _note(batch, event),
                )
            if summary.unreported:
                logger.warning("%s", summary.unreported)
            batch.summary = summary
        except FamError as error:
            batch.error = str(error)
        except Exception as error:
            logger.exception("the folder job failed")
            batch.error = sentence(error)


def _note(batch: Batch, event: Event) -> None:
    batch.last = event
    if event.kind == "step":
        batch.step = event.step, event.steps
    elif event.kind == "started":
        batch.current, batch.step = event.key, (0, event.steps)
        batch.rows[event.key] = Row(
            event.key, "running", output=event.output, program=event.program, source=event.source
        )
    elif event.kind in _ENDED:
        message = event.message or "; ".join(event.notes)
        batch.rows.pop(event.key, None)  # the newest last
        batch.rows[event.key] = Row(
            event.key,
            _ENDED[event.kind],
            message,
            event.seconds or None,
            event.output,
            event.program,
            event.source,
        )
    elif event.kind == "ended":
        batch.current = ""
        for row in batch.rows.values():
            if row.state == "running":
                row.state = "waiting"
