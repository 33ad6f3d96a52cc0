"""One output folder, several commands: each makes the files that it names, and no others."""

from pathlib import Path
from typing import Any

import pytest

from fam_ext.errors import OutputError
from fam_ext.jobs.batches import Batches
from fam_ext.jobs.events import Control, Event, Summary
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.enter import EXISTS
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.preview import previews
from fam_ext.jobs.run import retry_failed, run_job
from fam_ext.jobs.walk import walk
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule
from tests.jobs.fakes import SPEC, Fast, Odd, make_folder, make_picture, options, outputs

NAMES = [f"picture {number}.png" for number in range(6)]


def interrupted(plan: Job, after: int = 2) -> Summary:
    """Run a job that ends after its first files; the rest is pending."""
    control, started = Control(), []

    def listen(event: Event) -> None:
        started.extend([event.key] * (event.kind == "started"))
        if len(started) == after:
            control.stop_after_this()

    return run_job(plan, Fast, control=control, on_event=listen)


def drawn(plan: Job) -> tuple[Summary, list[str]]:
    renderer = Fast()
    summary = run_job(plan, lambda: renderer)
    return summary, [request.prompt for request in renderer.seen]


@pytest.fixture
def plan(tmp_path: Path) -> Job:
    """Return a job over six pictures, of which an interrupted run made two."""
    made = options(make_folder(tmp_path / "in", 6), tmp_path / "out")
    assert (interrupted(made).done, len(outputs(tmp_path / "out"))) == (2, 2)
    return made


@pytest.mark.parametrize(
    ("limits", "made"),
    [
        ({"first": 3}, [2]),
        ({"exclude": ("*4.png",)}, [2, 3, 5]),
        ({"include": ("*1.png", "*5.png")}, [5]),
        ({"first": 3, "exclude": ("*2.png",)}, [3]),
    ],
)
def test_a_later_command_makes_its_own_files_only(tmp_path: Path, plan: Job, limits: dict[str, Any], made) -> None:
    summary, prompts = drawn(plan.replace(**limits))
    assert prompts == [f"picture {number}" for number in made]
    assert (summary.done, summary.pending, summary.exit_code) == (len(made), 0, 0)
    summary, prompts = drawn(plan)  # the first command resumes
    assert (summary.done, summary.done_before, sorted(outputs(tmp_path / "out"))) == (
        4 - len(made),
        2 + len(made),
        NAMES,
    )


def test_another_folders_job_leaves_what_waits_for_the_first_command(tmp_path: Path, plan: Job) -> None:
    for number in range(2):
        make_picture(tmp_path / "other" / f"{number}.png", f"other {number}", number)
    other = options(tmp_path / "other", tmp_path / "out", scale=3, format="JPEG")
    assert previews_total(other) == (2, 2, 0)
    summary, prompts = drawn(other)
    assert prompts == ["other 0", "other 1"]
    assert (summary.done, summary.done_before, summary.pending) == (2, 0, 0)
    with Journal(tmp_path / "out", memory=True) as journal:
        assert (journal.counts()["done"], journal.counts(whole=True)["done"]) == (2, 4)
        assert journal.counts(whole=True)["pending"] == 4 and journal.pending_pixels() == 0
    assert drawn(plan)[1] == [f"picture {number}" for number in range(2, 6)]


def previews_total(job: Job) -> tuple[int, int, int]:
    *_, last = previews(job)
    assert last.totals is not None
    return last.totals.files, last.totals.waiting, last.totals.done


def test_a_file_that_is_gone_is_neither_pending_nor_failed(tmp_path: Path, plan: Job) -> None:
    (tmp_path / "in" / "picture 5.png").unlink()
    summary, prompts = drawn(plan)
    assert prompts == [f"picture {number}" for number in range(2, 5)]
    assert (summary.failed, summary.pending, summary.exit_code) == (0, 0, 0)


def test_a_bad_file_that_is_gone_ends_no_further_run_with_an_error(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 2)
    (source / "bad.png").write_bytes(b"no picture")
    job = options(source, tmp_path / "out")
    first = run_job(job, Fast)
    assert (first.done, first.failed, first.unusable, first.exit_code) == (2, 1, 1, 1)
    (source / "bad.png").unlink()
    lines = []
    summary = run_job(job, Fast, on_event=lambda event: lines.append(event.kind))
    assert (summary.failed, summary.unusable, summary.exit_code, "failed" in lines) == (0, 0, 0, False)
    batch = Batches(lambda _: Fast()).start(job)
    assert batch.thread is not None
    batch.thread.join()
    assert (batch.state, batch.rows, batch.to_json()["failed"]) == ("done", {}, 0)


def test_retry_failed_takes_every_failed_file_and_what_the_last_command_left(tmp_path: Path) -> None:
    make_picture(tmp_path / "one" / "bad.png", "please raise", 5)
    assert run_job(options(tmp_path / "one", tmp_path / "out"), Odd, run=RunRule(retries=0)).failed == 1
    interrupted(options(make_folder(tmp_path / "two", 3), tmp_path / "out"), after=1)
    interrupted(options(make_folder(tmp_path / "three", 9), tmp_path / "out", include=("*7.png", "*8.png")), after=1)
    renderer = Fast()
    summary = retry_failed(str(tmp_path / "out"), lambda: renderer)
    assert sorted(request.prompt for request in renderer.seen) == ["picture 8", "please raise"]
    assert (summary.done, summary.pending, summary.exit_code) == (2, 0, 0)


def test_workers_make_the_plans_files_only(tmp_path: Path, plan: Job) -> None:
    summary = run_job(plan.replace(first=3), SPEC, run=RunRule(workers=1))
    assert (summary.done, sorted(outputs(tmp_path / "out"))) == (1, NAMES[:3])


def test_who_joins_works_on_the_plan_that_it_joined(tmp_path: Path, plan: Job) -> None:
    first = plan.replace(first=3)
    with Journal(tmp_path / "out") as owner:
        owner.plan(walk(first.places), first, plan_file)
        renderer = Fast()
        run_job(plan, lambda: renderer, run=RunRule(join=True))
    assert [request.prompt for request in renderer.seen] == ["picture 2"]


@pytest.mark.parametrize("number", ['"much"', "-1", "1e400", "9" * 30, "null", "[]"])
def test_a_journal_whose_plan_has_no_number_resumes(tmp_path: Path, plan: Job, number: str) -> None:
    with Journal(tmp_path / "out") as journal:
        journal._db.execute("UPDATE meta SET value = ? WHERE name = 'plan'", (number,))
    assert run_job(plan, Fast).done == 4


def test_a_file_that_waited_to_replace_its_output_is_not_drawn_in_vain(tmp_path: Path) -> None:
    job = options(make_folder(tmp_path / "in", 5), tmp_path / "out")
    run_job(job, Fast)
    larger = job.replace(scale=3)
    assert interrupted(larger.replace(overwrite=True)).pending == 3
    before = outputs(tmp_path / "out")
    for _ in range(2):
        summary, prompts = drawn(larger)
        assert (prompts, outputs(tmp_path / "out")) == ([], before)
        assert (summary.done_before, summary.skipped, summary.failed, summary.exit_code) == (2, 3, 0, 0)
    summary, prompts = drawn(larger.replace(overwrite=True))
    assert (len(prompts), summary.done, summary.done_before) == (3, 3, 2)


@pytest.mark.parametrize("run", [RunRule(), RunRule(workers=1)])
def test_an_output_that_comes_after_the_plan_stays_and_nothing_is_drawn(tmp_path: Path, run: RunRule) -> None:
    job = options(make_folder(tmp_path / "in", 2), tmp_path / "out")

    def listen(event: Event) -> None:
        if event.kind == "planned":
            (tmp_path / "out" / "picture 0.png").write_bytes(b"mine")
        assert event.kind != "step" or event.key == "picture 1.png"
        lines.extend([event.message] * (event.kind == "failed"))

    lines: list[str] = []
    summary = run_job(job, SPEC, run=run, on_event=listen)
    assert (summary.done, summary.failed, lines) == (1, 1, [EXISTS])
    assert (tmp_path / "out" / "picture 0.png").read_bytes() == b"mine"


def test_a_picture_that_stands_but_could_not_be_journalled_is_done(tmp_path: Path, monkeypatch) -> None:
    job = options(make_folder(tmp_path / "in", 3), tmp_path / "out")

    def full(self: Journal, item: Item) -> None:
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "done", full)
        assert run_job(job, Fast).stopped == "the disk is full"
    there = len(outputs(tmp_path / "out"))
    summary, prompts = drawn(job)
    assert 0 < there == summary.done_before
    assert (len(prompts), summary.skipped, summary.exit_code) == (3 - there, 0, 0)
