"""Worker processes as the driver sees them; the test is the worker: it holds the other end of the pipe."""

import contextlib
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest

from fam_ext.errors import LoadError
from fam_ext.jobs.executors import process
from fam_ext.jobs.executors.process import ProcessSlots, devices
from fam_ext.jobs.executors.workers import START_SECONDS
from fam_ext.jobs.journal.rows import Item
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule
from tests.jobs.fakes import SPEC

JOB = Job.of(("a",), "b")


def item(number: int) -> Item:
    return Item(number, f"{number}.png", f"{number}.png", None, (0, 0), "PNG", f"{number}.png")


class Process:
    """A process that only stands there until it is killed."""

    made: list["Process"]

    def __init__(self, *, args: tuple, **more: object) -> None:
        self.theirs, self.visible = args[0], args[4]
        self.exitcode: int | None = None
        self.closed = False

    def start(self) -> None:
        self.pipe = Connection(os.dup(self.theirs.fileno()))
        self.made.append(self)

    def end(self, code: int) -> None:
        self.exitcode = code
        self.pipe.close()

    def is_alive(self) -> bool:
        return self.exitcode is None

    def kill(self) -> None:
        self.end(-9)

    def join(self, timeout: float | None = None) -> None:
        assert self.exitcode is not None

    def close(self) -> None:
        assert self.exitcode is not None
        self.closed = True


@pytest.fixture
def made(monkeypatch) -> list[Process]:
    Process.made = []
    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Process)
    monkeypatch.setattr(process.multiprocessing, "get_context", lambda method: context)
    monkeypatch.setattr(process, "_terminal_held", contextlib.nullcontext)
    return Process.made


def said(slots: ProcessSlots) -> list[tuple]:
    return list(slots.poll(5))


def begun(slots: ProcessSlots, worker: Process) -> None:
    """Let a worker say that its model is loaded."""
    worker.pipe.send(("began", None))
    assert said(slots) == []


def test_an_item_goes_to_a_waiting_worker_and_comes_back_made(made: list[Process]) -> None:
    slots = ProcessSlots(SPEC, JOB, RunRule(workers=2))
    assert (slots.idle(), slots.busy()) == (2, [])
    for number in (1, 2):
        slots.submit(item(number))
    assert [worker.pipe.recv() for worker in made] == [item(1), item(2)]
    assert (slots.idle(), [one for one, _ in slots.busy()]) == (0, [item(1), item(2)])
    begun(slots, made[0])
    made[0].pipe.send(("step", (1, 4)))
    assert said(slots) == [("step", item(1), (1, 4))] and slots.idle() == 0
    made[0].pipe.send(("made", "packed"))
    assert said(slots) == [("made", item(1), "packed")]
    assert (slots.idle(), [one for one, _ in slots.busy()]) == (1, [item(2)])
    slots.close()


def test_a_pictures_time_begins_when_its_model_is_loaded(made: list[Process]) -> None:
    slots = ProcessSlots(SPEC, JOB, RunRule(workers=1))
    slots.submit(item(1))
    ((_, began),) = slots.busy()
    assert 0 < began - time.monotonic() <= START_SECONDS
    begun(slots, made[0])
    ((_, began),) = slots.busy()
    assert time.monotonic() - 5 < began <= time.monotonic()
    slots.close()


def test_a_worker_that_ends_is_replaced_and_gives_its_item_back(made: list[Process]) -> None:
    slots = ProcessSlots(SPEC, JOB, RunRule(workers=1))
    slots.submit(item(1))
    made[0].end(9)
    ((kind, lost, error),) = said(slots)  # its model was not loaded
    assert (kind, lost) == ("failed", item(1)) and isinstance(error, LoadError) and "exit code 9" in str(error)
    slots.submit(item(2))
    assert made[1].pipe.recv() == item(2)
    begun(slots, made[1])
    made[1].end(7)
    assert said(slots) == [("lost", item(2), "a worker process ended (exit code 7)")]
    assert slots.idle() == 1 and len(made) == 3
    made[2].end(1)  # while it waits: only the next item shows it
    slots.submit(item(3))
    assert made[3].pipe.recv() == item(3) and [one for one, _ in slots.busy()] == [item(3)]
    slots.close()
    assert all(worker.closed for worker in made)


def test_a_picture_that_takes_too_long_costs_its_worker_alone(made: list[Process]) -> None:
    slots = ProcessSlots(SPEC, JOB, RunRule(workers=3))
    slots.submit(item(1))
    slots.submit(item(2))
    slots.kill(item(2))
    assert [worker.is_alive() for worker in made] == [True, False, True, True]
    assert [one for one, _ in slots.busy()] == [item(1)] and slots.idle() == 2
    slots.close()
    assert not any(worker.is_alive() for worker in made)


def test_cancel_asks_those_that_listen_and_ends_those_that_still_load(made: list[Process]) -> None:
    slots = ProcessSlots(SPEC, JOB, RunRule(workers=3))
    for number in range(3):
        slots.submit(item(number))
        made[number].pipe.recv()
    begun(slots, made[0])
    begun(slots, made[2])
    made[2].end(9)  # gone, which is no reason not to ask the others
    slots.cancel()
    assert made[0].pipe.recv() is None and made[0].is_alive()
    assert not made[1].is_alive()
    slots.close()


@pytest.mark.parametrize(
    ("found", "given"), [([], [None] * 3), (["0"], [None] * 3), (["0", "GPU-a"], ["0", "GPU-a", "0"])]
)
def test_each_worker_has_a_gpu_of_its_own_where_there_are_several(
    made: list[Process], monkeypatch, found: list[str], given: list[str | None]
) -> None:
    monkeypatch.setattr(process, "devices", lambda: found)
    slots = ProcessSlots(SPEC, JOB, RunRule(workers=3))
    assert [worker.visible for worker in made] == given
    slots.close()


@pytest.mark.parametrize(("visible", "found"), [("1,GPU-a", ["1", "GPU-a"]), (" 1, ", [" 1"]), ("", []), (None, [])])
def test_devices_are_those_that_the_variable_names(monkeypatch, visible: str | None, found: list[str]) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices() == found


def test_a_real_worker_ends_with_its_driver_and_none_is_left_at_the_end() -> None:
    slots = ProcessSlots(SPEC, JOB, RunRule(workers=2))
    alone, other = slots._workers
    number = other.process.pid
    alone.connection.close()  # as when the driver is gone
    alone.process.join(120)
    assert alone.process.exitcode == 0
    slots.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
