"""Running a job: plan, let an executor make what is missing, report. No torch, no UI."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

from fam_ext.errors import Cancelled, OutputError, UsageError
from fam_ext.jobs import report
from fam_ext.jobs.events import Control, Event, Listener, Summary
from fam_ext.jobs.executors.known import EXECUTORS, executor_name
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.disk import db_sentence
from fam_ext.jobs.journal.rows import PlanCounts
from fam_ext.jobs.journal.store import FILE_NAME, MAX_DEATHS
from fam_ext.jobs.outcomes import Outcomes
from fam_ext.jobs.plan import check_job, plan_file, weights_of
from fam_ext.jobs.renderers import RendererSource, kept_renderer, to_keep
from fam_ext.jobs.walk import STATE_FOLDER, left_out_line, walk
from fam_ext.options.field import options_of, said
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule
from fam_ext.options.renderer import RendererChoice

REPORT_DUE = "report_due"
"""Name in a journal for whether the reports are older than it: a process may be stopped before it writes them."""
_POLL_SECONDS = 0.2


def run_job(
    options: Job,
    renderer: RendererSource,
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
            journal.follow()
            if journal.get("options") is not None:
                shared = stored_options(journal)
                _check_joined(options, shared, journal.get("weights"))
                options = shared
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
            interrupted = "planning was interrupted, and what it had not reached is not counted"
            counts.left_out = interrupted if counts.cut_short else left_out_line(left_out)
            journal.set("renderer", to_keep(renderer))
        return _Job(journal, options, renderer, run=run, control=control, on_event=on_event, counts=counts).run()


def retry_failed(
    output: str,
    renderer: RendererSource | None = None,
    *,
    run: RunRule | None = None,
    control: Control | None = None,
    on_event: Listener = lambda event: None,
) -> Summary:
    """Run the failed files of an output folder again, with the settings kept in its journal; and what of its last job
    is pending.

    A file whose header could not be read is not planned here: run the job's own command for that.
    """
    check_journal(output)
    with Journal(output) as journal:
        options = stored_options(journal)
        renderer = renderer or kept_renderer(journal.get("renderer"))
        journal.retry_failed()
        return _Job(
            journal,
            options,
            renderer,
            run=run or RunRule(),
            control=control or Control(),
            on_event=on_event,
            counts=PlanCounts(),
        ).run()


def _check_joined(ours: Job, theirs: Job, weights: Any) -> None:  # noqa: ANN401  # whatever the journal holds
    """Raise `UsageError` where this process would draw a shared job otherwise than its owner, who draws with files of
    the marks `weights`; on another device it may, and from a copy of those files."""
    marks = weights_of(ours)
    copied = ("model", "model_config", "upscaler") if all(marks) and list(marks) == weights else ()
    for spec in options_of(RendererChoice):
        own, other = getattr(ours.renderer, spec.name), getattr(theirs.renderer, spec.name)
        if (spec.decides == "pixels" or spec.name == "name") and own != other and spec.name not in copied:
            raise UsageError(
                f"{spec.name} is {said(own)} here and {said(other)} in the job to join; give this command the same"
            )


def check_journal(output: str) -> None:
    """Raise `UsageError` when the folder holds no journal."""
    if not os.path.isfile(Path(output) / STATE_FOLDER / FILE_NAME):
        raise UsageError(f"{output} holds no journal of a job; give the output folder of fam-hires upscale")


def stored_options(journal: Journal) -> Job:
    """Return the options that the journal's job was run with. Raises `UsageError`."""
    values = journal.get("options")
    if not isinstance(values, dict):
        raise UsageError("the journal holds no job that was planned to its end; run the command again")
    return Job.from_json(cast("dict[str, Any]", values))


def wordless_line(journal: Journal) -> str:
    """Return how many of the files to make carry no prompt, as a sentence; "" when all do."""
    wordless, pending = journal.wordless()
    return f"{wordless} of {pending} carry no prompt: give --prompt, or .txt files" if wordless else ""


class _Job:
    """One run over a planned journal, from its first event to its reports."""

    def __init__(
        self,
        journal: Journal,
        options: Job,
        renderer: RendererSource,
        *,
        run: RunRule,
        control: Control,
        on_event: Listener,
        counts: PlanCounts,
    ) -> None:
        self._journal = journal
        self._renderer = renderer
        self._run = run
        self._control = control
        self._counts = counts
        self._outcomes = Outcomes(journal, options, run=run, control=control, listener=on_event, counts=counts)
        self._told: set[int] = set()

    def run(self) -> Summary:
        outcomes, journal = self._outcomes, self._journal
        outcomes.emit("planned", notes=tuple(line for line in (wordless_line(journal), self._counts.left_out) if line))
        self._tell_failed()
        try:
            if journal.pending_pixels() and not journal.joined:
                journal.set(REPORT_DUE, True)
            while True:
                EXECUTORS[executor_name(self._run)](outcomes, self._renderer).run()
                if outcomes.ending or not self._others_left_work():
                    break
        except sqlite3.Error as error:
            outcomes.stop(f"the journal cannot be written ({error}); check the disk and run the same command again")
        except OutputError as error:
            outcomes.stop(str(error))
        try:
            summary = outcomes.summary()
        except sqlite3.Error as error:  # its disk is gone
            raise OutputError(outcomes.stopped or db_sentence(journal.path, error)) from None
        if journal.joined and outcomes.touched:
            with contextlib.suppress(OutputError):
                journal.set(REPORT_DUE, True)  # the owner may have written them and gone
        if self._run.report and not journal.joined:
            unreported = self._report()
            summary = dataclasses.replace(
                summary, stopped=outcomes.stopped, cancelled=self._control.cancelled, unreported=unreported
            )
        outcomes.emit("ended", message=summary.stopped or "")
        if outcomes.fatal is not None:
            raise outcomes.fatal
        return summary

    def _tell_failed(self) -> None:
        """Say which files no run will take: those bad at planning, and those that ended the process twice."""
        for item in self._journal.items(state="failed", planned=True):
            if (item.request is None or item.deaths >= MAX_DEATHS) and item.id not in self._told:
                self._told.add(item.id)
                self._outcomes.emit("failed", item, message=item.error or "")

    def _others_left_work(self) -> bool:
        """With shared work: wait for the others, then return whether a dead one left something."""
        while self._journal.others_at_work() and not self._outcomes.ending:
            time.sleep(_POLL_SECONDS)
            if self._journal.counts()["pending"]:
                return True
        self._journal.recover()
        self._tell_failed()
        return self._journal.counts()["pending"] > 0 and not self._outcomes.ending

    def _report(self) -> str:
        """Write the reports where they are due, and return which could not be, and why; "" for none."""
        counts = self._counts
        changed = self._outcomes.touched or counts.new or counts.failed or counts.skipped
        try:
            if not changed and report.exists(self._journal.output) and not self._journal.get(REPORT_DUE, False):
                return ""
            if self._control.cancelled:  # the pictures were: what is known is written at once
                report.write_all(self._journal, thumbnails=0)
            else:
                report.write_all(self._journal, cancelled=lambda: self._control.cancelled)
            self._journal.set(REPORT_DUE, self._journal.others_at_work())  # who joined goes on, and writes none
        except Cancelled as error:
            self._outcomes.stop(str(error))
        except OutputError as error:
            return str(error)
        except sqlite3.Error as error:
            return db_sentence(self._journal.path, error)
        return ""
