"""In other processes: one item at a time to each worker, what they say back into the run. The driver alone writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from fam_ext.errors import LoadError, OutputError, RenderError, UsageError
from fam_ext.escapes import sentence
from fam_ext.jobs import make
from fam_ext.jobs.contract import Progress, Renderer
from fam_ext.jobs.executors.base import Savers, timed_out
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.outcomes import Outcomes
from fam_ext.jobs.renderers import RendererSource, RendererSpec
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule

START_SECONDS = 600.0
"""How long a worker may take to start and to load its model, beside a picture's own time limit."""
_POLL_SECONDS = 0.2


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


class Workers:
    """The executor that draws in the workers which `start` makes."""

    def __init__(
        self,
        outcomes: Outcomes,
        renderer: RendererSource,
        *,
        start: Callable[[RendererSpec, Job, RunRule], Slots],
    ) -> None:
        self._outcomes = outcomes
        self._journal = outcomes.journal
        self._renderer = renderer
        self._start = start
        self._waiting: list[Item] = []

    def run(self) -> None:
        """Make what the journal hands out, until nothing is left or the run is ending."""
        first = self._claim()
        if first is None:
            return
        self._waiting.append(first)
        if not isinstance(self._renderer, RendererSpec):
            raise UsageError("workers need a renderer that other processes can build; give a RendererSpec")
        slots = self._start(self._renderer, self._outcomes.options, self._outcomes.run)
        savers = Savers()
        control = self._outcomes.control
        asked_to_cancel = False
        try:
            while True:
                if not slots.busy():
                    self._outcomes.hold()
                self._hand_out(slots)
                if not slots.busy():
                    break
                if control.cancelled and not asked_to_cancel:
                    asked_to_cancel = True
                    slots.cancel()
                for said in slots.poll(_POLL_SECONDS):
                    self._hear(savers, *said)
                self._end_late(slots)
        finally:
            savers.close()
            slots.close()
            for item in self._waiting:
                with contextlib.suppress(OutputError):
                    self._journal.release(item)

    def _claim(self) -> Item | None:
        return self._journal.claim(at_risk=False) or self._journal.claim(suspect=True, at_risk=False)

    def _hand_out(self, slots: Slots) -> None:
        while not self._outcomes.ending and not self._outcomes.control.paused and slots.idle():
            item = self._waiting.pop(0) if self._waiting else self._claim()
            if item is None:
                break
            self._outcomes.started(item)
            slots.submit(item)

    def _hear(self, savers: Savers, kind: str, item: Item, value: Any) -> None:  # noqa: ANN401  # by kind: see `Slots`
        again = False
        if kind == "step":
            self._outcomes.emit("step", item, step=value[0], steps=value[1])
        elif kind == "made":
            savers.submit(item, self._outcomes.save, item, lambda: value)
        elif kind == "failed":
            again = self._outcomes.render_failed(item, value)
        else:
            again = self._outcomes.lost(item, value)
        if again:
            self._waiting.append(item)

    def _end_late(self, slots: Slots) -> None:
        timeout = self._outcomes.run.timeout
        if timeout is None:
            return
        for item, began in slots.busy():
            if time.monotonic() - began > timeout:
                slots.kill(item)
                self._outcomes.failed(item, timed_out(timeout))


# --- in the worker


def work_on(
    renderer: Renderer, item: Item, options: Job, progress: Progress, *, data: bytes | None = None
) -> make.Packed:
    """Return one item's finished bytes: the whole way but the writing, which is the driver's. `data` is the source's
    bytes where they came along."""
    loaded = make.load(item, options) if data is None else make.load_bytes(data, item, options)
    return make.pack(loaded, make.draw(renderer, loaded, item, progress), item, options)


def portable(error: BaseException) -> BaseException:
    """Return an error that another process can read: its module may not exist there, or not be picklable."""
    if type(error).__module__ in ("fam_ext.errors", "builtins") and len(error.args) <= 1:
        return error
    return RenderError(sentence(error))


def died_loading(reason: str) -> LoadError:
    """Return the error of a worker that ended before its model was ready: every picture would end it again."""
    return LoadError(
        f"{reason} while it loaded the model; check the model, the memory and the device, or choose fewer --workers"
    )
