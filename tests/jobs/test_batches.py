"""The jobs of a page: one at a time, and what each says of itself."""

import threading
import time
from pathlib import Path

import pytest

from fam_ext.errors import BusyError, UnsupportedModelError, UsageError
from fam_ext.jobs import batches as module
from fam_ext.jobs.batches import Batch, Batches, Row
from fam_ext.jobs.events import Event, Summary
from tests.jobs.fakes import Fast, Odd, make_folder, make_picture, page_job


def ended(batch: Batch) -> dict:
    assert batch.thread is not None
    batch.thread.join(30)
    assert batch.over
    return batch.to_json()


@pytest.mark.parametrize(
    ("known", "state"),
    [
        ({}, "planning"),
        ({"last": Event("step")}, "running"),
        ({"error": "no"}, "failed"),
        ({"summary": Summary(done=1)}, "done"),
        ({"summary": Summary(stopped="disk")}, "stopped"),
        ({"summary": Summary(pending=1)}, "stopped"),
        ({"summary": Summary(cancelled=True, pending=1)}, "cancelled"),
    ],
)
def test_a_job_says_how_it_stands(known: dict, state: str) -> None:
    batch = Batch("1", page_job({"input": "a"}), **known)
    assert (batch.state, batch.over) == (state, not state.endswith("ning"))
    batch.step = (3, 8)
    assert (batch.to_json()["step"], batch.to_json()["steps"]) == (3, 8)
    batch.control.pause()
    assert batch.state == (state if batch.over else "paused")
    batch.control.cancel()
    assert batch.state == (state if batch.over else "stopping")


def test_the_end_of_a_job_is_told(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 2)
    make_picture(source / "bad.png", "raise", 7)
    (source / "torn.png").write_bytes(b"\x89PNG")
    batches = Batches(lambda options: Odd())
    assert batches.active() is None and batches.latest() is None
    job = ended(batches.start(page_job({"input": str(source)})))
    assert [job[name] for name in ("state", "done", "failed", "skipped", "total", "kept")] == ["done", 2, 2, 0, 4, 0]
    assert (job["current"], job["error"], job["eta_seconds"]) == ("", None, None)
    assert job["elapsed_seconds"] >= 0 and (job["step"], job["steps"]) == (2, 2)
    rows = {row["key"]: row for row in job["rows"]}
    assert rows["picture 0.png"]["state"] == "done" and rows["picture 0.png"]["seconds"] > 0
    assert rows["bad.png"]["state"] == "failed" and rows["bad.png"]["seconds"] is None
    torn = rows["torn.png"]
    assert (torn["state"], torn["program"], torn["output"]) == ("failed", "", "") and torn["message"]
    assert batches.active() is None and batches.latest() is batches.get(job["id"])
    with pytest.raises(UsageError, match="there is no job 'x'"):
        batches.get("x")


def test_the_renderer_of_a_job_that_fails_is_closed_before_the_job_is_over(tmp_path: Path) -> None:
    closed: list[bool] = []

    class Refuses(Fast):
        def render(self, *_: object):
            raise UnsupportedModelError("no model of ours")

        def close(self) -> None:
            closed.append(batches.active() is not None)

    batches = Batches(lambda options: Refuses())
    job = ended(batches.start(page_job({"input": str(make_folder(tmp_path / "in", 1))})))
    assert (job["state"], job["error"], closed) == ("failed", "no model of ours", [True])


def test_one_runs_at_a_time_and_its_renderer_is_closed(tmp_path: Path) -> None:
    go, closed = threading.Event(), []

    class Waits(Fast):
        def render(self, image, request, progress):
            go.wait(20)
            return super().render(image, request, progress)

        def close(self) -> None:
            closed.append(batches.active() is not None)  # before the job is over: the next may load at once

    batches = Batches(lambda options: Waits())
    options = page_job({"input": str(make_folder(tmp_path / "in", 2))})
    first = batches.start(options)
    deadline = time.monotonic() + 20
    while first.current != "picture 0.png":
        assert time.monotonic() < deadline
        time.sleep(0.005)
    row = Row("picture 0.png", "running", output="picture 0.png", program="A1111")
    row.source = str(tmp_path / "in" / "picture 0.png")
    assert first.to_json()["rows"] == [vars(row)]
    with pytest.raises(BusyError, match=f"job {first.id} is running"):
        batches.start(options)
    first.control.cancel()
    go.set()
    job = ended(first)
    assert (job["state"], [row["state"] for row in job["rows"]], closed) == ("cancelled", ["waiting"], [True])
    assert ended(batches.start(options))["state"] == "done"


def test_a_fault_ends_the_job_with_its_sentence(tmp_path: Path) -> None:
    def fault(options) -> Fast:
        raise ValueError("no model")

    options = page_job({"input": str(make_folder(tmp_path / "in", 1))})
    job = ended(Batches(fault).start(options))
    assert job["state"] == "failed" and "ValueError: no model" in job["error"]
    with pytest.raises(UsageError, match="does not exist"):
        Batches(fault).start(page_job({"input": str(tmp_path / "none")}))


def test_few_old_jobs_and_few_rows_are_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_KEPT_JOBS", 2)
    monkeypatch.setattr(module, "MAX_ROWS", 2)
    make_folder(tmp_path / "in", 1)
    batches = Batches(lambda options: Fast())
    started = []
    for _ in range(3):
        started.append(batches.start(page_job({"input": str(tmp_path / "in")})))
        ended(started[-1])
    assert batches.get(started[1].id) and batches.get(started[2].id)
    with pytest.raises(UsageError):
        batches.get(started[0].id)
    job = ended(batches.start(page_job({"input": str(make_folder(tmp_path / "in", 4))})))
    assert (job["done"], len(job["rows"])) == (3, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"pattern": "*.webp"}, ["pattern is *.webp", "no picture in", "matches"]),
        (
            {"input": "empty"},
            ["input is", "no picture (1 left out: .psd)", "another folder, or take the folders inside"],
        ),
        ({"input": "empty", "recursive": True}, ["no picture (1 left out: .psd); choose another folder<END>"]),
    ],
)
def test_a_job_without_a_picture_is_refused_and_not_done(tmp_path: Path, words: dict, said: list) -> None:
    make_folder(tmp_path / "in", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.psd").write_text("no picture")
    source = tmp_path / words.pop("input", "in")
    with pytest.raises(UsageError) as refused:
        Batches(lambda options: Fast()).start(page_job({"input": str(source), **words}))
    assert all(part in f"{refused.value}<END>" for part in said), refused.value
    assert not Path(f"{source}-fam").exists()
