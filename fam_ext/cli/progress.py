"""How a job's progress is shown: plain lines, JSON lines, or live bars; and Ctrl-C or a terminal that is closed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

from fam_ext.escapes import shown
from fam_ext.jobs.events import Control, Event, Listener, Summary
from fam_ext.terminal import plain, say


class View(str, Enum):
    """How progress is shown."""

    auto = "auto"
    plain = "plain"
    json = "json"
    live = "live"


def clock(seconds: float) -> str:
    """Return a duration as 1:02:03 or 2:03."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


KEPT = (
    "kept as they are (made from another picture or other settings, or changed since; a folder holds one output of "
    "each picture: --overwrite makes it anew, another --output makes one more)"
)
Finish = Callable[[Summary, str], None]


@contextmanager
def watched(view: View) -> Iterator[tuple[Control, Listener, Finish]]:
    """Yield a control tied to Ctrl-C, a listener that shows progress, and what prints the end."""
    control = Control()
    if view is View.auto:
        view = View.live if sys.stdout.isatty() else View.plain
    if view is View.json:
        show: Any = _JsonView()
    else:
        show = _LiveView() if view is View.live else _PlainView()

    def interrupt(number: int, _frame: object) -> None:
        if control.cancelled:
            raise Interrupted
        control.cancel()
        with contextlib.suppress(OSError):  # nobody reads
            show.note("stopping: what is under way is dropped, and the same command resumes (again to quit at once)")

    with handling(interrupt), show:
        yield control, _while_open(show.event), _while_open(show.finish)


class Interrupted(BaseException):
    """Ctrl-C, under a name that typer leaves to us."""


def interrupted(number: int, frame: object) -> None:
    raise Interrupted


_HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""The terminal was closed, or its connection lost."""


def stopping_signals() -> list[int]:
    """Return the signals that ask a command to end; not a closed terminal's where we are to outlive it (nohup)."""
    numbers = [signal.SIGINT, signal.SIGTERM, _HANGUP, getattr(signal, "SIGBREAK", None)]
    return [
        number
        for number in numbers
        if number is not None and not (number == _HANGUP and signal.getsignal(number) == signal.SIG_IGN)
    ]


@contextmanager
def handling(interrupt: Callable[[int, object], None]) -> Iterator[None]:
    """Let `interrupt` answer Ctrl-C, SIGTERM and a terminal that is closed, to which then nothing is written."""
    before: dict[int, Any] = {}
    terminals = [stream for stream in (sys.stdout, sys.stderr) if stream is not None and stream.isatty()]

    def answer(number: int, frame: object) -> None:
        if number == _HANGUP:
            signal.signal(number, signal.SIG_IGN)  # the system and the shell may each send it
            silence(*terminals)
        interrupt(number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in stopping_signals():
            before[number] = signal.signal(number, answer)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _while_open(show: Callable[..., None]) -> Callable[..., None]:
    """Return `show`, which falls silent when what reads stdout is gone or full: a batch does not end for that."""

    def call(*values: Any) -> None:  # noqa: ANN401  # an event, or a summary and its folder
        try:
            show(*values)
            sys.stdout.flush()
        except OSError:
            for stream in filter(None, (sys.stdout, sys.stderr)):  # the other one may be a log
                try:
                    stream.flush()
                except OSError:
                    silence(stream)

    return call


def silence(*streams: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def summary_line(summary: Summary, output: str) -> str:
    """Return how a job ended, on one line."""
    from fam_ext.jobs import report as reports

    parts = [f"{summary.done} done"]
    if summary.done_before:
        parts.append(f"{summary.done_before} done before")
    if summary.kept:
        parts.append(f"{summary.kept} {KEPT}")
    if summary.skipped:
        parts.append(f"{summary.skipped} skipped")
    if summary.failed:
        parts.append(failed_line(summary, output))
    if summary.pending:
        parts.append(f"{summary.pending} waiting (the same command resumes)")
    if summary.left_out:
        parts.append(summary.left_out)
    line = f"{', '.join(parts)} in {clock(summary.seconds)}"
    page = reports.place(Path(output), "report.html")
    if page.is_file() and page.name not in summary.unreported:
        line += f"; report: {page}"
    return f"{line}; {summary.unreported}" if summary.unreported else line


def failed_line(summary: Summary, output: str) -> str:
    """Return how many pictures failed, and what helps each kind."""
    retry = f"fam-hires retry-failed {_quoted(output)}"
    kinds: list[str] = []
    if summary.unusable:
        kinds.append(f"{summary.unusable} cannot be taken: mend what their lines name, then give the job's command")
    if drawn := summary.failed - summary.unusable - summary.poisoned:
        kinds.append(f"{drawn} when drawn: {retry}")
    if summary.poisoned:
        kinds.append(
            f"{summary.poisoned} ended the process twice: make them or --scale smaller; {retry} tries once more"
        )
    return f"{summary.failed} failed ({'; '.join(kinds)})"


def _quoted(path: str) -> str:
    """Return a path as the system's usual shell takes it."""
    return f'"{path}"' if os.name == "nt" else shlex.quote(path)


def _ended(event: Event) -> int:
    """Return how many pictures are done, by whichever run, or failed."""
    return event.done + event.done_before + event.kept + event.failed


class _PlainView:
    """One line a file, for pipes and logs."""

    def __enter__(self) -> _PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        say(text, err=True)

    def event(self, event: Event) -> None:
        place = f"[{_ended(event)}/{event.total - event.skipped}]"
        if event.kind == "finished":
            left = "" if event.eta is None else f", {clock(event.eta)} left"
            notes = f" ({'; '.join(event.notes)})" if event.notes else ""
            say(f"{place} {shown(event.key)} -> {shown(event.output)} in {event.seconds:.1f} s{left}{notes}")
        elif event.kind == "failed":
            say(f"{place} {shown(event.key)} failed: {event.message}", err=True)
        elif event.kind == "planned":
            for note in event.notes:
                say(note, err=True)
        elif event.kind == "retry":
            say(f"{place} {shown(event.key)} again: {event.message}", err=True)

    def finish(self, summary: Summary, output: str) -> None:
        _finish(summary, output)


class _JsonView(_PlainView):
    """One JSON object a line on stdout: every event, then the summary."""

    def event(self, event: Event) -> None:
        values = {name: value for name, value in dataclasses.asdict(event).items() if value not in ("", (), None)}
        say(json.dumps(values))

    def finish(self, summary: Summary, output: str) -> None:
        say(json.dumps({"kind": "summary", "output": output, **dataclasses.asdict(summary)}))


class _LiveView(_PlainView):
    """Two bars: the folder with its ETA, the steps of the picture under way."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
        )
        self._files = self._bars.add_task("pictures", total=None, left="")
        self._steps = self._bars.add_task("", total=None, left="", visible=False)

    def __enter__(self) -> _LiveView:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        self._console.print(plain(text), markup=False)

    def event(self, event: Event) -> None:
        if event.kind == "planning":
            self._bars.update(self._files, description=f"planning {event.total}")
            return
        left = "" if event.eta is None else f"{clock(event.eta)} left"
        if event.failed:
            left += f"  {event.failed} failed"
        made = _ended(event) + event.skipped
        self._bars.update(self._files, description="pictures", completed=made, total=event.total, left=left)
        if event.kind in ("started", "step"):
            self._bars.update(
                self._steps,
                description=shown(event.key)[-40:],
                completed=event.step,
                total=event.steps or None,
                visible=True,
            )
        elif event.kind == "planned":
            for note in event.notes:
                self._console.print(plain(note), markup=False)
        elif event.kind in ("failed", "retry"):
            self._console.print(plain(f"{event.key}: {event.message}"), markup=False)

    def finish(self, summary: Summary, output: str) -> None:
        self._bars.stop()
        _finish(summary, output)


def _finish(summary: Summary, output: str) -> None:
    if summary.stopped:
        say(f"stopped: {summary.stopped}", err=True)
    nothing = not (summary.done or summary.done_before or summary.kept or summary.skipped)
    if nothing and not (summary.failed or summary.pending):
        left = f" ({summary.left_out})" if summary.left_out else ""
        say(f"no pictures were found{left}; check the folder, --exclude and --recursive (folders within folders)")
        return
    say(summary_line(summary, output))
