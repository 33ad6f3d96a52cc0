"""What an executor is, and what all of them share: threads that save, and the sentence for one that is late."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from fam_ext.jobs.journal.rows import Item

_SAVERS = 4
_SAVE_AHEAD = 6
_LARGE_PIXELS = 4_000_000


class Executor(Protocol):
    """Makes the pictures of a run, somewhere. It is built from the run's `Outcomes` and its renderer."""

    def run(self) -> None:
        """Make what the journal hands out, until nothing is left or the run is ending."""
        ...


class Savers:
    """Threads that encode and write finished pictures while the next is drawn."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_SAVERS, thread_name_prefix="fam-save")
        self._saves: set[Future[None]] = set()

    def submit(self, item: Item, save: Callable[..., None], *args: Any) -> None:  # noqa: ANN401  # of `save`
        """Call `save(*args)` soon. Waits while too many pictures wait for the disk."""
        self._saves = {save for save in self._saves if not save.done()}
        while len(self._saves) >= _ahead(item):
            self._saves = set(wait(self._saves, return_when="FIRST_COMPLETED").not_done)
        self._saves.add(self._pool.submit(save, *args))

    def close(self) -> None:
        """Return when all is written."""
        self._pool.shutdown()


def _ahead(item: Item) -> int:
    """Return how many finished pictures may wait for the disk: few large ones, more small ones."""
    large = item.request is None or item.request.size[0] * item.request.size[1] > _LARGE_PIXELS
    return 2 if large else _SAVE_AHEAD


def timed_out(seconds: float) -> str:
    """Return the sentence for a picture that took too long."""
    return f"the picture took more than {seconds:g} s; raise --timeout or lower --scale"
