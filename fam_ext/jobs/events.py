"""What a running job tells and takes: events out, a control in, a summary at its end. Standard library only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


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
    source: str = ""
    """The file itself."""
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
    """Made by an earlier run with other settings, or changed since."""
    eta: float | None = None
    """Seconds left for the whole job; None while nothing is known."""
    notes: tuple[str, ...] = ()
    program: str = ""
    """Which program wrote the picture's metadata; "" where it does not tell."""


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Summary:
    """How a job ended. `done` counts this run, `done_before` earlier ones with the same settings, `kept` those with
    others, or changed since; `stopped` says why it ended early."""

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
    unreported: str = ""
    """Which reports could not be written, and why."""

    @property
    def exit_code(self) -> int:
        """0 when every picture is done or validly skipped, 1 when some failed or wait, 130 when cancelled."""
        if self.cancelled:
            return 130
        return 1 if self.failed or self.pending or self.stopped else 0
