"""In this process: read the next picture ahead | draw one | save the last ones."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from fam_ext.errors import FamError, OutputError
from fam_ext.escapes import sentence
from fam_ext.jobs import make
from fam_ext.jobs.contract import Progress, Renderer
from fam_ext.jobs.executors.base import Savers, timed_out
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.outcomes import Outcomes
from fam_ext.jobs.renderers import RendererSource, RendererSpec

log = logging.getLogger(__name__)

_Got = TypeVar("_Got")
_SLICE_SECONDS = 0.25


class Local:
    """The executor that draws here, with one renderer."""

    def __init__(self, outcomes: Outcomes, renderer: RendererSource) -> None:
        build = renderer.build if isinstance(renderer, RendererSpec) else renderer
        self._outcomes = outcomes
        self._journal = outcomes.journal
        self._box = _RendererBox(lambda: make.ready(build))

    def run(self) -> None:
        """Make what the journal hands out, until nothing is left or the run is ending."""
        first = self._journal.claim()
        if first is not None:
            self._run_ahead(first)
        # alone, so that a second death is surely theirs; last, so that the others are made
        while not self._outcomes.ending and (item := self._journal.claim(suspect=True)) is not None:
            self._outcomes.hold()
            picture = self._load(item)
            drawn = None if picture is None else self._draw(item, picture)
            if picture is not None and drawn is not None:
                self._save(item, picture, drawn)

    def _run_ahead(self, first: Item) -> None:
        loaded: queue.Queue[tuple[Item, make.Loaded] | None] = queue.Queue(maxsize=1)
        over = threading.Event()
        reader = threading.Thread(target=self._read_ahead, args=(first, loaded, over), name="fam-read", daemon=True)
        savers = Savers()
        reader.start()
        try:
            while (entry := self._next(loaded)) is not None:
                item, picture = entry
                drawn = self._draw(item, picture)
                if drawn is not None:
                    savers.submit(item, self._save, item, picture, drawn)
        finally:
            over.set()
            savers.close()
            self._give_back(reader, loaded)

    def _next(self, loaded: queue.Queue[tuple[Item, make.Loaded] | None]) -> tuple[Item, make.Loaded] | None:
        self._outcomes.hold()
        if self._outcomes.ending:
            return None
        entry = _get(loaded)
        if entry is not None and self._outcomes.ending:
            self._journal.release(entry[0])
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
                    self._journal.release(entry[0])

    def _read_ahead(
        self, first: Item, loaded: queue.Queue[tuple[Item, make.Loaded] | None], over: threading.Event
    ) -> None:
        """Decode the next picture while the last one is rendered; one waits, no more."""
        item: Item | None = first
        try:
            while item is not None:
                if over.is_set() or self._outcomes.ending:
                    self._journal.release(item)
                    break
                picture = self._load(item)
                if picture is not None:
                    self._journal.risk(item, False)
                    loaded.put((item, picture))
                item = None if over.is_set() or self._outcomes.ending else self._journal.claim()
        except OutputError as error:
            self._outcomes.stop(str(error))
        except Exception as error:
            log.exception("reading ahead failed")
            self._outcomes.stop(sentence(error))
        loaded.put(None)

    def _load(self, item: Item) -> make.Loaded | None:
        """Return the decoded picture; None when it failed, whatever its file did to the decoder."""
        try:
            return make.load(item, self._outcomes.options)
        except OutputError:
            raise
        except Exception as error:
            if not isinstance(error, FamError):
                log.debug("reading %s failed", item.key, exc_info=True)
            self._outcomes.failed(item, error)
            return None

    def _draw(self, item: Item, picture: make.Loaded) -> make.Drawn | None:
        while True:
            self._outcomes.started(item)
            try:
                self._box.ready()  # a death while the model loads is not the picture's
                self._journal.risk(item, True)
                return self._box.draw(item, picture, self._outcomes.progress(item), self._outcomes.run.timeout)
            except _TimedOut as error:
                self._outcomes.failed(item, str(error))
                return None
            except OutputError as error:
                self._journal.release(item)
                self._outcomes.stop(str(error))
                return None
            except Exception as error:
                if not isinstance(error, FamError):
                    log.debug("the renderer failed on %s", item.key, exc_info=True)
                if not self._outcomes.render_failed(item, error):
                    return None
                if self._outcomes.ending:
                    self._journal.release(item)
                    return None

    def _save(self, item: Item, picture: make.Loaded, drawn: make.Drawn) -> None:
        self._outcomes.save(item, lambda: make.pack(picture, drawn, item, self._outcomes.options))


def _get(box: queue.Queue[_Got], seconds: float = math.inf) -> _Got:
    """As the queue's own, in slices: on Windows Ctrl-C is answered only between two of its waits."""
    until = time.monotonic() + seconds
    while True:
        left = until - time.monotonic()
        try:
            return box.get(timeout=max(0.0, min(_SLICE_SECONDS, left)))
        except queue.Empty:
            if left <= _SLICE_SECONDS:
                raise


class _TimedOut(Exception):  # noqa: N818  # an outcome, with its sentence
    """The renderer took too long on one picture."""


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
            result = _get(answer, timeout)
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
