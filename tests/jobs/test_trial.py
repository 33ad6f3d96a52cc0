"""A trial: which files it takes, what it makes and leaves, what it says of the whole folder."""

import time

import pytest
from PIL import Image

from fam_ext.errors import OutOfMemoryError, UsageError
from fam_ext.jobs.batches import Batches
from fam_ext.jobs.events import Control
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.trial import Trial, choose, fine_detail, whole_seconds
from fam_ext.jobs.walk import walk
from tests.jobs.fakes import Fast, make_folder, make_picture, page_job


def planned(folder):
    options = page_job({"input": str(folder)})
    return [plan_file(candidate, options) for candidate in walk(options.places)]


def names(chosen):
    return [(one.why, one.planned.candidate.key) for one in chosen]


def mixed_folder(folder):
    for name, size in (("b", (48, 32)), ("a", (48, 32)), ("small", (20, 20)), ("large", (96, 64)), ("c", (48, 32))):
        make_picture(folder / f"{name}.png", name, size=size)
    return folder


def test_the_three_differ_and_are_the_same_each_time(tmp_path):
    files = planned(mixed_folder(tmp_path))
    detail = {"a.png": 1.0, "b.png": 9.0, "c.png": 2.0, "small.png": 50.0, "large.png": 60.0}
    expected = [("smallest", "small.png"), ("largest", "large.png"), ("busiest", "b.png")]
    for _ in range(2):
        assert names(choose(files, lambda entry: detail[entry.candidate.key])) == expected
    # of equal ones the first
    assert names(choose(files, lambda entry: 1.0))[2] == ("busiest", "a.png")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_files_give_fewer(tmp_path, count):
    files = planned(make_folder(tmp_path, count)) if count else []
    found = names(choose(files, lambda entry: 1.0))
    assert [why for why, _ in found] == ["smallest", "largest"][:count]
    assert len({key for _, key in found}) == count


def test_one_that_cannot_be_read_is_left_out(tmp_path):
    files = planned(mixed_folder(tmp_path))
    bad = {"small.png": None, "large.png": None}
    found = choose(files, lambda entry: bad.get(entry.candidate.key, 1.0))
    assert {key for _, key in names(found)} == {"a.png", "b.png", "c.png"}
    assert choose(files, lambda entry: None) == []


def test_a_large_folder_is_not_decoded_whole(tmp_path):
    files = planned(make_folder(tmp_path, 1)) * 1000
    seen = []
    choose(files, lambda entry: seen.append(entry) or 1.0)
    assert len(seen) <= 42


def test_detail_is_of_the_picture_and_not_of_its_size():
    flat = Image.new("RGB", (300, 200), "red")
    fine = Image.effect_noise((300, 200), 60).convert("RGB")
    soft = Image.radial_gradient("L").resize((300, 200)).convert("RGB")
    assert fine_detail(flat) == 0 < fine_detail(soft) < fine_detail(fine)
    doubled = Image.new("RGB", (600, 200))
    for left in (0, 300):
        doubled.paste(soft, (left, 0))
    assert fine_detail(doubled) < 3 * fine_detail(soft)


def test_the_whole_folder_is_told_from_what_was_measured():
    assert whole_seconds([], [(100, 1000.0)]) is None
    # 0.1 s for one of work at 100 px, 0.3 s at 300 px: in between 0.2 s, beyond as the nearest
    measured = [(300, 0.3), (100, 0.1)]
    for pixels, seconds in ((100, 1.0), (200, 2.0), (300, 3.0), (50, 1.0), (900, 3.0)):
        assert whole_seconds(measured, [(pixels, 10.0)]) == pytest.approx(seconds)
    assert whole_seconds([(100, 0.1), (100, 0.3)], [(100, 10.0), (100, 10.0)]) == pytest.approx(4.0)


def jobs(folder, **presets):
    return {name: page_job({"input": str(folder), **words}) for name, words in presets.items()}


def over(batch):
    deadline = time.monotonic() + 30
    while not batch.over:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return batch.to_json()


def test_a_trial_is_a_job_and_leaves_the_real_run_alone(tmp_path):
    source = mixed_folder(tmp_path / "in")
    make_picture(source / "broken.png", size=(16, 16))  # its header is whole, so it is planned; the smallest of all
    (source / "broken.png").write_bytes((source / "broken.png").read_bytes()[:60])
    trial = Trial(jobs(source, fast={"preset": "fast"}, paper={"preset": "paper"}))
    renderer = Fast(seconds=0.02)
    batches = Batches(lambda options: renderer)
    job = over(batches.start(trial.options, trial))
    assert (job["state"], job["done"], job["total"], job["failed"]) == ("done", 6, 6, 0), job
    assert job["rows"][0]["key"].startswith("fast: ")
    assert names(trial.files)[:2] == [("smallest", "small.png"), ("largest", "large.png")]
    for column, steps in zip(trial.columns, (20, 50), strict=True):
        cells = trial.cells(column)
        assert [cell.state for cell in cells] == ["done"] * 3
        for chosen, cell in zip(trial.files, cells, strict=True):
            height, width = chosen.planned.request.size
            with Image.open(cell.output) as made:
                assert made.size == (width, height)
        said = trial.forecast(column, cells)
        assert said.files == 6 and said.seconds > 0 and said.peak_memory is None
        assert {request.steps for request in renderer.seen} >= {steps}
    # beside the output, which the real run then makes whole
    assert (tmp_path / "in-fam-try" / "1" / "fast" / "large.png").exists() and not (tmp_path / "in-fam").exists()
    real = over(batches.start(page_job({"input": str(source), "preset": "fast"})))
    assert (real["done"], real["done_before"], real["kept"], real["failed"]) == (5, 0, 0, 1)
    # a second trial overwrites nothing
    again = Trial(jobs(source, fast={"preset": "fast"}))
    assert over(batches.start(again.options, again))["done"] == 3
    assert (tmp_path / "in-fam-try" / "2" / "fast" / "large.png").exists()


def test_a_trial_is_of_the_files_that_the_job_takes(tmp_path):
    for folder in ("a", "b"):
        make_folder(tmp_path / "in" / folder, 3)
    words = {"preset": "fast", "recursive": True, "pattern": "b/*", "first": 2}
    trial = Trial(jobs(tmp_path / "in", fast=words))
    assert over(Batches(lambda options: Fast()).start(trial.options, trial))["done"] == 2
    assert [len(column.folder) for column in trial.columns] == [2]


def test_files_of_one_name_in_two_folders_stay_apart(tmp_path):
    for number in (1, 2, 3):
        make_picture(tmp_path / "in" / f"sub {number}" / "a.png", f"a {number}", number, size=(16 * number, 32))
    trial = Trial(jobs(tmp_path / "in", fast={"preset": "fast", "recursive": True}))
    batches = Batches(lambda options: Fast())
    batch = batches.start(trial.options, trial)
    rows = {row["key"]: row for row in over(batch)["rows"]}
    assert len(rows) == 3
    for number in (1, 2, 3):
        row = rows[f"fast: sub {number}/a.png"]
        assert batch.source(row) == tmp_path / "in" / f"sub {number}" / "a.png"
        with Image.open(batch.result(row)) as made:
            assert made.size == (32 * number, 64)


def test_a_trial_is_stopped_between_its_pictures(tmp_path):
    trial = Trial(jobs(make_folder(tmp_path / "in", 4), fast={"preset": "fast"}, paper={"preset": "paper"}))
    control = Control()
    seen = []

    def listen(event):
        seen.append(event)
        if event.kind == "finished":
            control.stop_after_this()

    summary = trial.run(lambda: Fast(0.05), control=control, on_event=listen)
    assert summary.done < 6 and summary.done + summary.pending == 6 and not summary.cancelled
    assert seen[-1].kind == "ended" and seen[-1].total == 6
    assert all(cell.state == "pending" for cell in trial.cells(trial.columns[1]))


def test_a_preset_that_fails_says_so_and_the_others_are_made(tmp_path):
    class Full(Fast):
        def render(self, image, request, progress):
            if request.steps == 50:
                raise OutOfMemoryError("out of memory; use a smaller size")
            return super().render(image, request, progress)

    trial = Trial(jobs(mixed_folder(tmp_path / "in"), paper={"preset": "paper"}, fast={"preset": "fast"}))
    summary = trial.run(Full)
    assert (summary.done, summary.failed) == (3, 3)
    failed = trial.cells(trial.columns[0])
    assert all(cell.state == "failed" and "out of memory" in cell.message for cell in failed)
    assert trial.forecast(trial.columns[0], failed).seconds is None


def test_what_cannot_be_tried_is_one_sentence(tmp_path):
    many = {name: {"preset": "fast"} for name in "abcd"}
    for presets in (many, {}):
        with pytest.raises(UsageError, match="1 to 3 presets"):
            Trial(jobs(make_folder(tmp_path / "in", 1), **presets))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no picture that could be made"):
        Trial(jobs(empty, fast={"preset": "fast"})).run(Fast)
    trial = Trial(jobs(make_folder(tmp_path / "in", 1), fast={"preset": "fast"}))
    with pytest.raises(UsageError, match="does not exist"):
        gone = Trial(jobs(tmp_path / "gone", fast={"preset": "fast"}))
        gone.run(Fast)
    assert trial.columns == ()
