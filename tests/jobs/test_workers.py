"""The executor over workers, which here are this process and say what the test tells them to."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fam_ext.errors import Cancelled, PictureError, RenderError, UsageError
from fam_ext.jobs import make
from fam_ext.jobs.contract import Progress
from fam_ext.jobs.events import Control, Event
from fam_ext.jobs.executors.workers import Workers, portable, work_on
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.rows import Item, PlanCounts
from fam_ext.jobs.journal.store import POISON
from fam_ext.jobs.outcomes import Outcomes
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.walk import walk
from fam_ext.options.parts import RunRule
from tests.jobs.fakes import SPEC, Fast, make_folder, options

Said = list[tuple[str, Any]]


class Here:
    """Slots of this process: `says` gives what a worker has to say of its item, in turn."""

    def __init__(self, count: int, says: Callable[[Item], Said]) -> None:
        self.count, self.says = count, says
        self.held: list[tuple[Item, float]] = []
        self.log: list[tuple[str, str]] = []
        self.cancels, self.closed = 0, False
        self.began = lambda item: time.monotonic()
        self.on_submit = lambda item: None

    def idle(self) -> int:
        return self.count - len(self.held)

    def busy(self) -> list[tuple[Item, float]]:
        return list(self.held)

    def submit(self, item: Item) -> None:
        assert self.idle() > 0
        self.log.append(("submit", item.key))
        self.held.append((item, self.began(item)))
        self.on_submit(item)

    def poll(self, seconds: float) -> Iterator[tuple[str, Item, Any]]:
        item, _ = self.held[0]
        for kind, value in self.says(item):
            if kind != "step":
                self.kill(item)
            self.log.append((kind, item.key))
            yield kind, item, value

    def cancel(self) -> None:
        self.cancels += 1

    def kill(self, item: Item) -> None:
        self.held = [entry for entry in self.held if entry[0].id != item.id]

    def close(self) -> None:
        self.closed = True


class Job:
    """A planned folder with its workers, and what the run told."""

    def __init__(self, tmp_path: Path, says: Callable[[Item], Said] | None = None, **more: Any) -> None:
        self.options = options(make_folder(tmp_path / "in", more.pop("files", 3)), tmp_path / "out")
        self.output = tmp_path / "out"
        self.slots = Here(more.pop("count", 1), says or self.made)
        self.control = Control()
        self.events: list[Event] = []
        self.rule = RunRule(**more)

    def made(self, item: Item) -> Said:
        return [("made", work_on(Fast(), item, self.options, Progress()))]

    def listen(self, event: Event) -> None:
        self.events.append(event)
        if event.kind == "paused":
            self.control.resume()

    def run(self, renderer: object = SPEC) -> list[tuple[str, str, int, str | None]]:
        """Return (key, state, attempts, error) of each row afterwards."""
        with Journal(self.output) as journal:
            journal.plan(walk(self.options.places), self.options, plan_file)
            outcomes = Outcomes(
                journal,
                self.options,
                run=self.rule,
                control=self.control,
                listener=self.listen,
                counts=PlanCounts(),
            )
            Workers(outcomes, renderer, start=lambda *_: self.slots).run()
            return [(item.key, item.state, item.attempts, item.error) for item in journal.items()]

    def kinds(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


def test_every_picture_is_made_told_and_written_before_the_end(tmp_path: Path, monkeypatch) -> None:
    real = make.write
    monkeypatch.setattr(make, "write", lambda *arguments: (time.sleep(0.1), real(*arguments)))
    job = Job(tmp_path, lambda item: [("step", (1, 4)), *job.made(item)], count=2)
    assert [row[1:] for row in job.run()] == [("done", 1, None)] * 3
    assert [(event.step, event.steps) for event in job.kinds("step")] == [(1, 4)] * 3
    assert [len(job.kinds(kind)) for kind in ("started", "finished", "retry", "failed")] == [3, 3, 0, 0]
    assert job.slots.closed and job.slots.cancels == 0


@pytest.mark.parametrize(
    ("kind", "value", "tries", "says"),
    [
        ("failed", PictureError("it is torn"), 1, "it is torn"),
        ("failed", RenderError("it fell over"), 3, "it fell over"),
        ("lost", "a worker ended", 2, f"a worker ended: {POISON}"),
    ],
)
def test_a_picture_that_fails_or_ends_its_worker_fails_alone(
    tmp_path: Path, kind: str, value: object, tries: int, says: str
) -> None:
    job = Job(tmp_path, lambda item: [(kind, value)] if item.key == "picture 0.png" else job.made(item), retries=2)
    assert job.run() == [
        ("picture 0.png", "failed", tries, says),
        ("picture 1.png", "done", 1, None),
        ("picture 2.png", "done", 1, None),
    ]
    assert len(job.kinds("retry")) == tries - 1


def test_cancel_is_passed_on_once_and_gives_all_back(tmp_path: Path) -> None:
    polls = iter(([], [], [("failed", Cancelled("cancelled"))]))
    job = Job(tmp_path, lambda item: next(polls))
    job.slots.on_submit = lambda item: job.control.cancel()
    assert [row[1:] for row in job.run()] == [("pending", 0, None)] * 3
    assert job.slots.cancels == 1 and job.slots.closed


def test_what_waits_for_another_try_is_given_back_at_the_end(tmp_path: Path) -> None:
    def says(item: Item) -> Said:
        job.control.stop_after_this()
        return [("lost", "a worker ended")]

    job = Job(tmp_path, says)
    assert [row[1:3] for row in job.run()] == [("pending", 1), ("pending", 0), ("pending", 0)]


def test_a_pause_holds_what_has_not_begun(tmp_path: Path) -> None:
    job = Job(tmp_path, count=2)
    job.slots.on_submit = lambda item: job.control.pause() if item.key == "picture 0.png" else None
    job.run()
    assert job.slots.log[:3] == [("submit", "picture 0.png"), ("made", "picture 0.png"), ("submit", "picture 1.png")]
    assert [event.kind for event in job.events if event.kind in ("paused", "resumed")] == ["paused", "resumed"]


def test_a_late_picture_is_ended_and_one_in_time_is_not(tmp_path: Path) -> None:
    asked: list[str] = []

    def says(item: Item) -> Said:
        asked.append(item.key)
        return [] if item.key == "picture 1.png" or asked.count(item.key) == 1 else job.made(item)

    job = Job(tmp_path, says, timeout=60.0)
    job.slots.began = lambda item: time.monotonic() - (61 if item.key == "picture 1.png" else 1)
    rows = {key: (state, error) for key, state, _, error in job.run()}
    assert rows["picture 1.png"] == ("failed", "the picture took more than 60 s; raise --timeout or lower --scale")
    assert rows["picture 0.png"] == rows["picture 2.png"] == ("done", None)


def test_no_worker_is_started_without_work_or_for_a_renderer_of_this_process(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a RendererSpec"):
        Job(tmp_path).run(Fast)
    nothing = Job(tmp_path / "empty", files=0)
    (tmp_path / "empty" / "in").mkdir(parents=True)
    assert nothing.run() == [] and not nothing.slots.closed


@pytest.mark.parametrize(
    ("error", "same"),
    [
        (PictureError("torn"), True),
        (ValueError("one"), True),
        (ValueError("one", "two"), False),
        (type("Strange", (Exception,), {})("x"), False),
    ],
)
def test_only_errors_that_any_process_knows_travel_as_they_are(error: Exception, same: bool) -> None:
    sent = portable(error)
    assert (sent is error) == same
    assert same or (isinstance(sent, RenderError) and type(error).__name__ in str(sent))
