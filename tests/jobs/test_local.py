"""The executor of this process: who is at risk, who is late, and how many pictures wait."""

import queue
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from fam_ext.errors import Cancelled
from fam_ext.jobs import make
from fam_ext.jobs.events import Control, Event
from fam_ext.jobs.executors.base import Savers
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.run import run_job
from fam_ext.options.parts import RunRule
from fam_ext.options.request import HiresRequest
from tests.jobs.fakes import Fast, make_folder, options


def database(output: Path, statement: str) -> list[tuple]:
    path = output / ".fam-hires" / "journal.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as journal:
        return journal.execute(statement).fetchall()


def wait_for(met) -> None:
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_ctrl_c_is_never_waited_for_long_on_windows(tmp_path: Path, monkeypatch) -> None:
    """There no wait for a lock, as a queue's, ends for Ctrl-C: until the time limit it was not heard."""
    waits, real = [], queue.Queue.get

    def get(self, block=True, timeout=None):
        if threading.current_thread() is threading.main_thread():
            waits.append(timeout)
        return real(self, block, timeout)

    monkeypatch.setattr(queue.Queue, "get", get)
    job = options(make_folder(tmp_path / "in", 2), tmp_path / "out")
    assert run_job(job, lambda: Fast(0.1, 5), run=RunRule(timeout=60)).done == 2
    assert len(waits) > 4 and all(wait is not None and wait < 1 for wait in waits)


class Built(Fast):
    """Counts how often it is built."""

    count = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).count += 1


@pytest.mark.parametrize(("asks", "built"), [(True, 1), (False, 2)])
def test_a_late_picture_costs_the_renderer_only_where_it_does_not_listen(
    tmp_path: Path, asks: bool, built: int
) -> None:
    over = threading.Event()

    class Slow(Built):
        def render(self, image, request, progress):
            while request.prompt == "picture 0" and not over.is_set():
                if asks and progress.cancelled():
                    raise Cancelled("late")
                time.sleep(0.005)
            return super().render(image, request, progress)

    try:
        summary = run_job(options(make_folder(tmp_path / "in", 2), tmp_path / "out"), Slow, run=RunRule(timeout=0.2))
    finally:
        over.set()
    assert (summary.done, summary.failed, summary.stopped, Slow.count) == (1, 1, None, built)


def test_cancel_reaches_a_renderer_that_has_a_time_limit(tmp_path: Path) -> None:
    control = Control()

    class Endless(Fast):
        def render(self, image, request, progress):
            control.cancel()
            deadline = time.monotonic() + 10
            while not progress.cancelled():
                assert time.monotonic() < deadline
            raise Cancelled("cancelled")

    run = RunRule(timeout=60)
    summary = run_job(options(make_folder(tmp_path / "in", 2), tmp_path / "out"), Endless, run=run, control=control)
    assert (summary.cancelled, summary.pending, summary.failed) == (True, 2, 0)


def test_only_a_picture_that_is_read_or_drawn_is_at_risk(tmp_path: Path, monkeypatch) -> None:
    read, drawn = [], []
    real = make.load

    def at_risk(key: str) -> tuple[str, int]:
        return database(tmp_path / "out", f"SELECT state, at_risk FROM items WHERE key = '{key}'")[0]

    def load(item: Item, *more):
        read.append(at_risk(item.key))
        return real(item, *more)

    class Looks(Fast):
        def render(self, image, request, progress):
            drawn.append(at_risk(f"{request.prompt}.png"))
            if request.prompt == "picture 0":  # the next one waits in memory
                wait_for(lambda: at_risk("picture 1.png") == ("running", 0))
            return super().render(image, request, progress)

    monkeypatch.setattr(make, "load", load)
    summary = run_job(options(make_folder(tmp_path / "in", 2), tmp_path / "out"), Looks)
    assert (summary.done, read, drawn) == (2, [("running", 1)] * 2, [("running", 1)] * 2)


def test_suspects_are_drawn_last_and_one_that_cannot_be_read_fails_once(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 4)
    job = options(source, tmp_path / "out")
    control = Control()
    control.stop_after_this()
    run_job(job, Fast, control=control)  # plans
    database(tmp_path / "out", "UPDATE items SET deaths = 1 WHERE key IN ('picture 0.png', 'picture 1.png')")
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if event.kind == "planned":
            (source / "picture 0.png").unlink()

    run_job(job, Fast, on_event=listen)
    begun = [(event.kind, event.key) for event in events if event.kind in ("started", "failed", "retry")]
    assert begun == [
        ("started", "picture 2.png"),
        ("started", "picture 3.png"),
        ("failed", "picture 0.png"),
        ("started", "picture 1.png"),
    ]


def test_a_stop_between_two_suspects_leaves_the_second(tmp_path: Path) -> None:
    job = options(make_folder(tmp_path / "in", 2), tmp_path / "out")
    control = Control()
    control.stop_after_this()
    run_job(job, Fast, control=control)
    database(tmp_path / "out", "UPDATE items SET deaths = 1")
    control = Control()

    def listen(event: Event) -> None:
        if event.kind == "started":
            control.stop_after_this()

    summary = run_job(job, Fast, control=control, on_event=listen)
    assert (summary.done, summary.pending) == (1, 1)
    assert database(tmp_path / "out", "SELECT state, attempts, deaths, at_risk FROM items ORDER BY id") == [
        ("done", 1, 0, 0),
        ("pending", 0, 1, 0),
    ]


def test_a_fault_of_the_reader_stops_the_run_with_its_sentence(tmp_path: Path, monkeypatch) -> None:
    def fault(self: Journal, item: Item, at_risk: bool) -> None:
        raise ZeroDivisionError("the reader")

    monkeypatch.setattr(Journal, "risk", fault)
    summary = run_job(options(make_folder(tmp_path / "in", 2), tmp_path / "out"), Fast)
    assert (summary.stopped, summary.pending) == ("ZeroDivisionError: the reader", 2)


def test_the_executor_needs_no_work(tmp_path: Path) -> None:
    def never() -> Fast:
        raise AssertionError("built")

    (tmp_path / "in").mkdir()
    assert run_job(options(tmp_path / "in", tmp_path / "out"), never).done == 0


@pytest.mark.parametrize(("size", "ahead"), [((64, 64), 6), ((2000, 2000), 6), ((2000, 2008), 2), (None, 2)])
def test_few_large_pictures_wait_for_a_slow_disk(size: tuple[int, int] | None, ahead: int) -> None:
    request = None if size is None else HiresRequest(size)
    item = Item(1, "a", "a", request, (32, 32), "PNG", "a")
    savers, disk, given = Savers(), threading.Event(), []

    def draw() -> None:
        for number in range(ahead + 2):
            savers.submit(item, disk.wait)
            given.append(number)

    drawing = threading.Thread(target=draw)
    drawing.start()
    wait_for(lambda: len(given) >= ahead)
    drawing.join(0.1)
    waiting = len(given)
    disk.set()
    drawing.join()
    savers.close()
    assert (waiting, len(given)) == (ahead, ahead + 2)


def test_savers_end_when_all_is_written() -> None:
    savers, written = Savers(), []
    item = Item(1, "a", "a", None, (32, 32), "PNG", "a")
    for name in ("a", "b"):
        savers.submit(item, lambda name: (time.sleep(0.05), written.append(name)), name)
    savers.close()
    assert sorted(written) == ["a", "b"]
