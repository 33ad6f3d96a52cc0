"""What a run tells of itself: the control, the events' counts, and the exit code."""

import threading
from pathlib import Path

import pytest

from fam_ext.errors import Skipped
from fam_ext.jobs.events import Control, Event, Summary
from fam_ext.jobs.run import run_job
from fam_ext.options.parts import RunRule
from tests.jobs.fakes import Fast, make_folder, options


def test_nothing_has_happened_at_first() -> None:
    assert not any(vars(Summary()).values())
    assert not any(value for name, value in vars(Event("planning")).items() if name != "kind")


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        ({}, 0),
        ({"done": 3, "done_before": 2, "kept": 1, "skipped": 4}, 0),
        ({"failed": 1}, 1),
        ({"pending": 1}, 1),
        ({"stopped": "the disk is full"}, 1),
        ({"cancelled": True}, 130),
        ({"cancelled": True, "failed": 1}, 130),
    ],
)
def test_the_exit_code_says_how_it_ended(ended: dict, code: int) -> None:
    assert Summary(**ended).exit_code == code


@pytest.mark.parametrize(("ask", "cancelled"), [("cancel", True), ("stop_after_this", False)])
def test_an_end_is_the_end_of_a_pause(ask: str, cancelled: bool) -> None:
    control = Control()
    assert (control.paused, control.stopping, control.cancelled) == (False, False, False)
    control.pause()
    assert control.paused and not control.stopping
    getattr(control, ask)()
    control.wait()
    assert (control.paused, control.stopping, control.cancelled) == (False, True, cancelled)


def test_events_count_this_run_and_earlier_ones_apart(tmp_path: Path) -> None:
    class Chooses(Fast):
        def render(self, image, request, progress):
            if request.seed == 0:
                raise ValueError("no")
            if request.seed == 1:
                raise Skipped("left out")
            return super().render(image, request, progress)

    source = make_folder(tmp_path / "in", 4)
    (source / "torn.png").write_bytes(b"\x89PNG")
    job = options(source, tmp_path / "out", first=4)
    events: list[Event] = []
    run_job(job, Chooses, run=RunRule(retries=0), on_event=events.append)
    last = events[-1]
    assert (last.kind, last.done, last.failed, last.skipped, last.total) == ("ended", 2, 1, 1, 4)
    assert (last.done_before, last.kept) == (0, 0)
    run_job(job.replace(first=None, scale=3), Chooses, run=RunRule(retries=0), on_event=events.append)
    last = events[-1]
    assert (last.done, last.failed, last.skipped, last.total) == (0, 2, 1, 5)  # one is torn
    assert (last.done_before, last.kept) == (0, 2)


def test_what_a_pause_took_is_no_part_of_the_time_left(tmp_path: Path) -> None:
    control, events = Control(), list[Event]()

    def listen(event: Event) -> None:
        events.append(event)
        if event.kind == "started" and len(events) < 6:
            control.pause()
        elif event.kind == "paused":
            threading.Timer(1, control.resume).start()

    run_job(options(make_folder(tmp_path / "in", 4), tmp_path / "out"), Fast, control=control, on_event=listen)
    assert "resumed" in [event.kind for event in events]
    assert all(event.eta < 0.9 for event in events if event.eta is not None)


def test_a_listeners_fault_ends_nothing(tmp_path: Path, caplog) -> None:
    def fault(event: Event) -> None:
        if event.kind == "step":
            raise ValueError("the listener")

    assert run_job(options(make_folder(tmp_path / "in", 1), tmp_path / "out"), Fast, on_event=fault).done == 1
    assert "a listener of the job failed" in caplog.text
