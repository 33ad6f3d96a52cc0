"""One output folder, several commands: each makes the files that it names, and no others."""

import os
import shutil
import sys
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
        lines.extend([event.message] * (event.kind == "skipped"))

    lines: list[str] = []
    summary = run_job(job, SPEC, run=run, on_event=listen)
    assert (summary.done, summary.skipped, summary.exit_code, lines) == (1, 1, 0, [EXISTS])
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


def several(output: Path, *inputs: Path, **more: Any) -> Job:
    return Job.of(tuple(map(str, inputs)), str(output), **more)


def test_a_folder_is_known_beside_another(tmp_path: Path) -> None:
    one, two = make_folder(tmp_path / "one", 3), tmp_path / "two"
    make_picture(two / "other.png", "other", 9)
    out = tmp_path / "out"
    interrupted(options(one, out))
    summary, prompts = drawn(several(out, one, two))
    assert (sorted(prompts), summary.done_before) == (["other", "picture 2"], 2)
    assert sorted(outputs(out)) == [*NAMES[:3], "two/other.png"]
    for again in (options(one, out), options(two, out), several(out, two, one), several(out, two / "other.png")):
        assert drawn(again)[1] == []
    summary, prompts = drawn(several(out, one, two, scale=3))
    assert (prompts, summary.kept) == ([], 4)
    summary, prompts = drawn(several(out, one, two, scale=3, overwrite=True))
    assert (len(prompts), sorted(outputs(out))) == (4, [*NAMES[:3], "two/other.png"])


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_file_that_is_named_twice_or_beside_its_folder_comes_once(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 3)
    first = source / "picture 0.png"
    (tmp_path / "way").symlink_to(source)
    for inputs in ((first, first, source), (source, first), (first, tmp_path / "way" / first.name, tmp_path / "way")):
        files = list(walk(several(tmp_path / "out", *inputs).places))
        assert sorted(Path(file.path).name for file in files) == NAMES[:3]
        assert "picture 0.png" in [file.key for file in files]
    os.link(first, tmp_path / "hard.png")  # another file to who named it
    assert len(list(walk(several(tmp_path / "out", first, tmp_path / "hard.png").places))) == 2


@pytest.mark.parametrize("more", [{}, {"overwrite": True}])
def test_files_of_one_name_in_several_folders_are_all_made_in_any_order(tmp_path: Path, more: dict[str, Any]) -> None:
    files = [tmp_path / f"day {day}" / "ComfyUI_00001_.png" for day in range(4)]
    for day, file in enumerate(files):
        make_picture(file, f"day {day}", day)
        os.utime(file, (1_700_000_000, 1_700_000_000))  # as unpacked: of one size too
    assert len({file.stat().st_size for file in files}) == 1
    out = tmp_path / "out"
    seen = []
    for inputs in ((1,), (0, 1), (3, 2, 0, 1), (2,), (0, 1, 2, 3)):
        seen.append(sorted(drawn(several(out, *(files[day] for day in inputs), **more))[1]))
    assert seen == [["day 1"], ["day 0"], ["day 2", "day 3"], [], []]
    assert len(outputs(out)) == 4
    assert b"day 1" in (out / "ComfyUI_00001_.png").read_bytes()
    for day in (0, 2):  # the same by their folders, which name them as the first one
        assert drawn(options(tmp_path / f"day {day}", out, **more))[1] == []


def test_a_folder_that_has_moved_is_known_by_its_names(tmp_path: Path) -> None:
    source, out = make_folder(tmp_path / "in", 3), tmp_path / "out"
    interrupted(options(source, out))
    moved = source.rename(tmp_path / "moved")
    assert drawn(options(moved, out))[1] == ["picture 2"]
    make_picture(moved / "picture 0.png", "painted over", 7)
    moved = moved.rename(tmp_path / "moved again")
    summary, prompts = drawn(options(moved, out))
    assert (prompts, summary.kept) == ([], 1)
    summary, prompts = drawn(options(moved, out, overwrite=True))
    assert (prompts, sorted(outputs(out))) == (["painted over"], NAMES[:3])


def test_a_copy_of_a_folder_is_made_already(tmp_path: Path) -> None:
    source, out = make_folder(tmp_path / "in", 2), tmp_path / "out"
    run_job(options(source, out), Fast)
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    assert drawn(options(tmp_path / "copy", out))[1] == []


def test_another_name_pattern_keeps_what_is_done_and_overwrite_makes_it_anew(tmp_path: Path, plan: Job) -> None:
    run_job(plan, Fast)
    again = plan.replace(name="{stem}-2x")
    summary = run_job(again, Fast)
    assert (summary.done, summary.kept, summary.done_before) == (0, 6, 0)
    assert run_job(again.replace(overwrite=True), Fast).done == 6
    assert run_job(again.replace(keep_times=True), Fast).done_before == 6
    assert run_job(plan.replace(name="{stem}-{index}"), Fast).done_before == 6, "a number changes with the folder"


def test_a_page_shows_the_file_that_it_made(tmp_path: Path) -> None:
    for day in (0, 1):
        make_picture(tmp_path / f"day {day}" / "a.png", f"day {day}", day)
    out = tmp_path / "out"
    run_job(options(tmp_path / "day 0", out), Fast)
    batch = Batches(lambda _: Fast()).start(options(tmp_path / "day 1", out))
    assert batch.thread is not None
    batch.thread.join()
    (row,) = batch.to_json()["rows"]
    assert batch.source(row) == tmp_path / "day 1" / "a.png"
    assert batch.result(row) == out / "a-2.png" and batch.result(row).is_file()


def test_a_picture_whose_output_has_come_to_exist_is_not_drawn(tmp_path: Path) -> None:
    plan, renderer = options(make_folder(tmp_path / "in", 2), tmp_path / "out"), Fast()

    def listen(event: Event) -> None:
        if event.kind == "planned":
            make_picture(tmp_path / "out" / NAMES[1], "another's")

    assert (run_job(plan, lambda: renderer, on_event=listen).skipped, len(renderer.seen)) == (1, 1)
