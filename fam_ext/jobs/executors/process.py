"""Renderer processes: each loads its model once, gets one item at a time, and may be killed and replaced."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from fam_ext.errors import Cancelled
from fam_ext.jobs import make
from fam_ext.jobs.contract import WORKER_VARIABLE, Progress, Renderer
from fam_ext.jobs.executors.workers import START_SECONDS, died_loading, portable, work_on
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.renderers import RendererSpec
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule

log = logging.getLogger(__name__)

_BY_TERMINAL = {getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGBREAK") if hasattr(signal, name)}
"""What a terminal sends to all of a job's processes: Ctrl-C, and when it is closed."""


def devices() -> list[str]:
    """Return the CUDA devices that CUDA_VISIBLE_DEVICES names; without it none: each worker counts them itself."""
    return [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]


def _worker(connection: Connection, spec: RendererSpec, options: Job, number: int, visible: str | None) -> None:
    """The worker's main loop. Ends when the driver's end of the pipe closes, whatever it is doing."""
    for sent in _BY_TERMINAL:
        signal.signal(sent, signal.SIG_IGN)  # the driver answers
    os.environ[WORKER_VARIABLE] = str(number)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    cancelled = threading.Event()
    wake = threading.Condition()
    inbox: list[Item] = []

    def listen() -> None:
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # the driver is gone: nothing that we could finish would be journalled
            if message is None:
                cancelled.set()
            else:
                with wake:
                    inbox.append(message)
                    wake.notify()

    threading.Thread(target=listen, name="fam-listen", daemon=True).start()
    renderer: Renderer | None = None
    while True:
        with wake:
            while not inbox:
                wake.wait()
            item = inbox.pop(0)
        progress = Progress(lambda done, total: connection.send(("step", (done, total))), cancelled.is_set)
        try:
            if cancelled.is_set():
                raise Cancelled("the job was cancelled")
            if renderer is None:
                renderer = make.ready(spec.build)
            connection.send(("began", None))
            answer: tuple[str, Any] = ("made", work_on(renderer, item, options, progress))
        except BaseException as error:
            answer = ("failed", portable(error))
        try:
            connection.send(answer)
        except OSError:
            os._exit(0)


@dataclass
class _Worker:
    number: int
    process: Any
    connection: Connection
    item: Item | None = None
    began: float = 0.0
    warm: bool = False
    """Whether its model is loaded."""


@contextlib.contextmanager
def _terminal_held() -> Generator[None]:
    """Let processes start that what a terminal sends to all does not reach; ours comes when this is over."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # by itself it would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BY_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ProcessSlots:
    """`Slots` over local processes, one a GPU where there are several."""

    def __init__(self, spec: RendererSpec, options: Job, run: RunRule) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._spec = spec
        self._options = options
        self._devices = devices()
        self._workers = [self._start(number) for number in range(run.workers)]

    def _start(self, number: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        visible = self._devices[number % len(self._devices)] if len(self._devices) > 1 else None
        process = self._context.Process(
            target=_worker,
            args=(theirs, self._spec, self._options, number, visible),
            name=f"fam-worker-{number}",
            daemon=True,
        )
        with _terminal_held():
            process.start()
        theirs.close()
        return _Worker(number, process, ours)

    def idle(self) -> int:
        """Return how many workers wait for an item."""
        return sum(worker.item is None for worker in self._workers)

    def busy(self) -> list[tuple[Item, float]]:
        """Return the items under way with the time (monotonic) they began."""
        return [(worker.item, worker.began) for worker in self._workers if worker.item is not None]

    def submit(self, item: Item) -> None:
        """Give an item to a waiting worker."""
        worker = next(worker for worker in self._workers if worker.item is None)
        try:
            worker.connection.send(item)
        except OSError:
            worker = self._replace(worker)
            worker.connection.send(item)
        # until the worker says that it has begun it starts up and loads its model: not the picture's time
        worker.item, worker.began = item, time.monotonic() + START_SECONDS

    def poll(self, seconds: float) -> Iterator[tuple[str, Item, Any]]:
        """Yield what the workers say within `seconds`."""
        by_connection = {worker.connection: worker for worker in self._workers if worker.item is not None}
        for ready in wait(list(by_connection), timeout=seconds):
            worker = by_connection[ready]  # pyright: ignore[reportArgumentType]
            item = worker.item
            if item is None:
                continue
            try:
                kind, value = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join(5)
                code = worker.process.exitcode
                self._replace(worker)
                reason = f"a worker process ended (exit code {code})"
                yield ("lost", item, reason) if worker.warm else ("failed", item, died_loading(reason))
                continue
            if kind == "began":
                worker.warm, worker.began = True, time.monotonic()
                continue
            if kind != "step":
                worker.item = None
            yield kind, item, value

    def cancel(self) -> None:
        """Ask every worker to drop its item; one that still loads its model would not hear, and ends."""
        for worker in self._workers:
            if not worker.warm:
                worker.process.kill()
                continue
            try:
                worker.connection.send(None)
            except OSError:
                log.debug("worker %d is gone", worker.number)

    def kill(self, item: Item) -> None:
        """End the worker that holds an item, and replace it."""
        for worker in list(self._workers):
            if worker.item is not None and worker.item.id == item.id:
                self._replace(worker)

    def _replace(self, worker: _Worker) -> _Worker:
        self._end(worker)
        fresh = self._start(worker.number)
        self._workers[self._workers.index(worker)] = fresh
        return fresh

    @staticmethod
    def _end(worker: _Worker) -> None:
        worker.connection.close()
        if worker.process.is_alive():
            worker.process.kill()
        worker.process.join(10)
        worker.process.close()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self._end(worker)
        self._workers = []
