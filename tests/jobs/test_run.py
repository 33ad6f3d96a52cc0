"""The batch: what it makes, resumes, isolates, stops and reports."""

import csv
import json
import os
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.errors import UsageError
from fam_ext.jobs import make
from fam_ext.jobs.events import Control
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.run import retry_failed, run_job
from fam_ext.metadata.formats import SUFFIXES
from fam_ext.metadata.infotext import from_fields, parse, undo
from fam_ext.metadata.pictures import can_write, decode, read_header
from fam_ext.options.parts import RunRule
from fam_ext.options.renderer import STANDALONE, RendererChoice
from tests.jobs.fakes import SPEC, Fast, Odd, infotext, make_folder, make_picture, options, outputs, strays

QUICK = RunRule(retries=0)


def test_a_folder_is_upscaled_with_each_files_own_settings(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 3)
    renderer = Fast()
    config = FamConfig(start=0.7)
    summary = run_job(options(source, tmp_path / "out", config=config), lambda: renderer)
    assert (summary.done, summary.failed, summary.exit_code) == (3, 0, 0)
    assert [request.seed for request in renderer.seen] == [0, 1, 2]
    assert renderer.seen[1].prompt == "picture 1"
    assert renderer.seen[1].negative_prompt == "dark"
    assert (renderer.seen[1].steps, renderer.seen[1].sampler, renderer.seen[1].cfg_scale) == (20, "Euler a", 6.5)
    header = read_header(tmp_path / "out" / "picture 1.png")
    assert header.size == (64, 96)
    assert undo(header.infotext) == infotext("picture 1", 1)
    assert from_fields(parse(header.infotext).params) == config
    assert strays(tmp_path / "out") == []
    assert {"report.csv", "report.json", "report.html"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_the_same_command_again_does_nothing(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 3)
    run_job(options(source, tmp_path / "out"), Fast)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*") if path.is_file()}
    renderer = Fast()
    summary = run_job(options(source, tmp_path / "out"), lambda: renderer)
    assert (summary.done, summary.done_before, summary.exit_code) == (0, 3, 0)
    assert renderer.seen == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*") if path.is_file()} == before


def test_only_what_changed_is_made_again(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 3)
    run_job(options(source, tmp_path / "out"), Fast)
    (tmp_path / "out" / "picture 0.png").unlink()
    make_picture(source / "picture 9.png", "new", 9)
    touched = source / "picture 2.png"
    touched.write_bytes(touched.read_bytes())  # a new time, the same content
    renderer = Fast()
    summary = run_job(options(source, tmp_path / "out"), lambda: renderer)
    assert {request.prompt for request in renderer.seen} == {"picture 0", "new"}
    assert (summary.done, summary.done_before, summary.kept) == (2, 2, 0)


def test_other_settings_keep_the_outputs_unless_overwrite(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 2)
    run_job(options(source, tmp_path / "out"), Fast)
    first = outputs(tmp_path / "out")
    summary = run_job(options(source, tmp_path / "out", scale=3), Fast)
    assert (summary.done, summary.done_before, summary.kept, summary.exit_code) == (0, 0, 2, 0)
    assert outputs(tmp_path / "out") == first
    summary = run_job(options(source, tmp_path / "out", scale=3, overwrite=True), Fast)
    assert summary.done == 2
    assert read_header(tmp_path / "out" / "picture 0.png").size == (96, 144)
    again = Fast()
    run_job(options(source, tmp_path / "out", scale=3, overwrite=True), lambda: again)
    assert again.seen == []


@pytest.mark.parametrize("content", [b"", b"\x89PNG and then nothing", None])
def test_an_output_that_was_changed_is_kept_and_not_done(tmp_path: Path, content: bytes | None) -> None:
    source, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    run_job(options(source, output), Fast)
    first = outputs(output)
    changed = output / "picture 0.png"
    changed.write_bytes(first[changed.name] + b"more" if content is None else content)
    for _ in range(2):
        kept = outputs(output)
        summary = run_job(options(source, output), Fast)
        assert (summary.done, summary.done_before, summary.kept, summary.exit_code) == (0, 1, 1, 0)
        assert outputs(output) == kept
    summary = run_job(options(source, output, overwrite=True), Fast)
    assert (summary.done, summary.done_before, summary.kept) == (1, 1, 0)
    assert outputs(output) == first


def test_a_foreign_output_is_kept_unless_overwrite(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "picture 0.png").write_bytes(b"mine")
    summary = run_job(options(source, tmp_path / "out"), Fast)
    assert (summary.done, summary.skipped, summary.exit_code) == (1, 1, 0)
    assert (tmp_path / "out" / "picture 0.png").read_bytes() == b"mine"
    summary = run_job(options(source, tmp_path / "out", overwrite=True), Fast)
    assert (summary.done, summary.skipped) == (1, 0)


def test_one_bad_file_fails_alone_and_is_retried(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 2)
    make_picture(source / "bad.png", "please raise", 5)
    (source / "empty.png").write_bytes(b"")
    summary = run_job(options(source, tmp_path / "out"), Odd, run=QUICK)
    assert (summary.done, summary.failed, summary.exit_code) == (2, 2, 1)
    with Journal(tmp_path / "out") as journal:
        errors = {item.key: item.error for item in journal.items(state="failed")}
    assert errors["bad.png"] == "ValueError: the renderer fell over"
    assert "empty" in errors["empty.png"]
    (source / "empty.png").unlink()
    again = retry_failed(str(tmp_path / "out"), Fast)
    assert (again.done, again.failed) == (1, 1)


def test_retries_have_a_limit(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "raise", 1)
    events = []
    run_job(options(tmp_path / "in", tmp_path / "out"), Odd, run=RunRule(retries=2), on_event=events.append)
    assert [event.kind for event in events].count("retry") == 2
    assert [event.kind for event in events].count("failed") == 1


def test_stop_on_error_leaves_the_rest_in_the_queue(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "raise", 1)
    make_picture(tmp_path / "in" / "b.png", "fine", 2)
    run = RunRule(retries=0, stop_on_error=True)
    summary = run_job(options(tmp_path / "in", tmp_path / "out"), Odd, run=run)
    assert (summary.done, summary.failed, summary.pending) == (0, 1, 1)
    assert run_job(options(tmp_path / "in", tmp_path / "out"), Fast).done == 2


def test_out_of_memory_goes_down_the_chain_and_says_so(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "oom", 1)
    make_picture(tmp_path / "in" / "b.png", "hopeless", 2)
    summary = run_job(options(tmp_path / "in", tmp_path / "out"), Odd)
    assert (summary.done, summary.failed) == (1, 1)
    params = parse(read_header(tmp_path / "out" / "a.png").infotext).params
    assert params["FAM notes"] == (
        "out of memory: guidance in halves, native queries and keys in main memory; out of memory: FM only"
    )
    assert params["FAM no AM"] == "True"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    notes = {Path(file["source"]).name: file["notes"] for file in report["files"]}
    assert "FM only" in notes["a.png"]


def test_a_comparison_method_is_not_labelled_fam(tmp_path: Path) -> None:
    make_folder(tmp_path / "in", 1)
    run_job(options(tmp_path / "in", tmp_path / "out", method="direct"), Fast)
    params = parse(read_header(tmp_path / "out" / "picture 0.png").infotext).params
    assert "FAM version" not in params
    assert params["FAM method"] == "direct"


def test_cancel_drops_the_picture_under_way_and_resumes(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 4)
    control = Control()
    seen = []

    def listen(event) -> None:
        seen.append(event)
        if event.kind == "step" and event.key == "picture 1.png":
            control.cancel()

    summary = run_job(options(source, tmp_path / "out"), Fast, control=control, on_event=listen)
    assert summary.cancelled
    assert (summary.done, summary.pending, summary.exit_code) == (1, 3, 130)
    assert list(outputs(tmp_path / "out")) == ["picture 0.png"]
    assert strays(tmp_path / "out") == []
    assert run_job(options(source, tmp_path / "out"), Fast).done == 3


def test_stop_after_this_finishes_the_picture(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 4)
    control = Control()
    summary = run_job(
        options(source, tmp_path / "out"),
        Fast,
        control=control,
        on_event=lambda event: control.stop_after_this() if event.kind == "step" else None,
    )
    assert (summary.done, summary.pending, summary.cancelled) == (1, 3, False)


def test_pause_holds_until_resume(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 3)
    control = Control()
    paused = threading.Event()

    def listen(event) -> None:
        if event.kind == "started" and event.key == "picture 0.png":
            control.pause()
        if event.kind == "paused":
            paused.set()

    results = []
    thread = threading.Thread(
        target=lambda: results.append(
            run_job(options(source, tmp_path / "out"), Fast, control=control, on_event=listen)
        )
    )
    thread.start()
    assert paused.wait(10)
    assert results == []
    for _ in range(100):
        control.resume()
        thread.join(0.1)
        if not thread.is_alive():
            break
    assert results[0].done == 3


def test_timeout_fails_the_hanging_picture_alone(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "hang", 1)
    make_picture(tmp_path / "in" / "b.png", "fine", 2)
    summary = run_job(options(tmp_path / "in", tmp_path / "out"), Odd, run=RunRule(timeout=0.5))
    assert (summary.done, summary.failed) == (1, 1)
    with Journal(tmp_path / "out") as journal:
        assert "more than 0.5 s" in next(journal.items(state="failed")).error


def test_no_renderer_is_built_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    make_folder(tmp_path / "in", 2)
    run_job(options(tmp_path / "in", tmp_path / "out"), Fast)

    def never() -> Fast:
        raise AssertionError("built")

    assert run_job(options(tmp_path / "in", tmp_path / "out"), never).done_before == 2


def test_a_second_process_is_refused_and_may_join(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 6)
    summaries = []
    renderers = [Fast(0.05), Fast(0.05)]
    joined = threading.Event()

    def second() -> None:
        summaries.append(run_job(options(source, tmp_path / "out"), lambda: renderers[1], run=RunRule(join=True)))

    thread = threading.Thread(target=second)

    def listen(event) -> None:
        if event.kind == "started" and not joined.is_set():
            joined.set()
            with pytest.raises(UsageError, match="--join"):
                run_job(options(source, tmp_path / "out"), Fast)
            thread.start()

    summaries.append(run_job(options(source, tmp_path / "out"), lambda: renderers[0], on_event=listen))
    thread.join()
    prompts = [request.prompt for renderer in renderers for request in renderer.seen]
    assert sorted(prompts) == [f"picture {number}" for number in range(6)]
    assert sum(summary.done for summary in summaries) == 6
    assert all(renderer.seen for renderer in renderers)
    for path in outputs(tmp_path / "out"):
        header = read_header(tmp_path / "out" / path)
        assert (header.size, parse(header.infotext).params["FAM method"]) == ((64, 96), "fam")
    assert strays(tmp_path / "out") == []


def test_worker_processes_share_the_work(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 5)
    run_job(options(source, tmp_path / "one"), Fast)
    summary = run_job(options(source, tmp_path / "two"), SPEC, run=RunRule(workers=2))
    assert summary.done == 5
    assert outputs(tmp_path / "two") == outputs(tmp_path / "one")
    assert strays(tmp_path / "two") == []


@pytest.mark.slow
def test_a_lost_worker_and_a_hanging_one_are_replaced(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FAM_TEST_MARKER", str(tmp_path / "marker"))
    source = tmp_path / "in"
    for number, prompt in enumerate(["die once", "fine", "die always", "hang", "raise"]):
        make_picture(source / f"{number}.png", prompt, number)
    spec = type(SPEC)("Odd")
    summary = run_job(options(source, tmp_path / "out"), spec, run=RunRule(workers=2, timeout=3))
    assert (summary.done, summary.failed) == (2, 3)
    with Journal(tmp_path / "out") as journal:
        errors = {item.key: item.error for item in journal.items(state="failed")}
    assert "exit code 9" in errors["2.png"]
    assert "more than 3 s" in errors["3.png"]
    assert errors["4.png"] == "the renderer fell over" or "fell over" in errors["4.png"]


def test_times_are_kept_when_asked(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 2)
    os.utime(source / "picture 0.png", (1_000_000_000, 1_000_000_000))
    run_job(options(source, tmp_path / "out", keep_times=True), Fast)
    assert (tmp_path / "out" / "picture 0.png").stat().st_mtime == 1_000_000_000


def test_the_reports_say_what_happened_and_are_safe_to_open(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "<script>alert(1)<.png".replace("/", ""), "=cmd('x')", 1)
    make_picture(tmp_path / "in" / "bad.png", "raise", 2)
    run_job(options(tmp_path / "in", tmp_path / "out"), Odd, run=QUICK)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>alert" not in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert "the renderer fell over" in page
    with (tmp_path / "out" / "report.csv").open(newline="") as file:
        rows = {row["state"]: row for row in csv.DictReader(file)}
    assert rows["done"]["prompt"] == "'=cmd('x')"
    assert "fell over" in rows["failed"]["error"]
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["counts"]["done"] == data["counts"]["failed"] == 1
    assert {file["state"] for file in data["files"]} == {"done", "failed"}


def test_reading_and_saving_overlap_with_rendering(tmp_path: Path, monkeypatch) -> None:
    source = make_folder(tmp_path / "in", 8)
    load, pack = make.load, make.pack

    def slow(function):
        def call(*arguments, **named):
            time.sleep(0.05)
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(make, "load", slow(load))
    monkeypatch.setattr(make, "pack", slow(pack))
    events = []
    run_job(
        options(source, tmp_path / "out"),
        lambda: Fast(0.15),
        run=RunRule(report=False),
        on_event=lambda event: events.append((time.monotonic(), event.kind)),
    )
    began = next(when for when, kind in events if kind == "started")
    ended = next(when for when, kind in events if kind == "ended")
    # one after the other it would be 8 x 0.25 s = 2 s
    assert ended - began < 8 * 0.15 + 0.5


def test_every_format_with_alpha_and_rotation(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, suffix in enumerate(["png", "jpg", "webp", "avif", "tif", "bmp"]):
        if can_write(SUFFIXES["." + suffix]) is not None:
            continue
        alpha = suffix not in ("jpg", "bmp")
        image = Image.new("RGBA" if alpha else "RGB", (48, 32), (200, 40 * number, 30, 120)[: 4 if alpha else 3])
        image.save(source / f"a{number}.{suffix}", **({} if suffix == "bmp" else {"exif": exif.tobytes()}))
        (source / f"a{number}.txt").write_text(infotext("a sidecar", number))
    renderer = Fast()
    summary = run_job(options(source, tmp_path / "out"), lambda: renderer)
    assert summary.failed == 0
    assert summary.done >= 5
    assert read_header(source / "a1.jpg").size == (48, 32)
    for path in outputs(tmp_path / "out"):
        made = decode((tmp_path / "out" / path).read_bytes())
        header = made.header
        height, width = read_header(source / path).size
        assert header.size == (2 * height, 2 * width), path
        assert header.orientation == 1
        assert (made.alpha is not None) == (not path.endswith((".jpg", ".bmp"))), path
        if not path.endswith(".bmp"):
            assert parse(header.infotext).prompt == "a sidecar"
            assert undo(header.infotext) == infotext("a sidecar", int(path[1]))


def model(name: str) -> RendererChoice:
    return RendererChoice(STANDALONE, f"{name}.safetensors")


def test_another_model_is_another_picture(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 1)
    run_job(options(source, tmp_path / "out", renderer=model("one")), Fast)
    again = Fast()
    kept = run_job(options(source, tmp_path / "out", renderer=model("two")), lambda: again)
    assert (kept.done, kept.kept) == (0, 1) and again.seen == []
    made = run_job(options(source, tmp_path / "out", renderer=model("two"), overwrite=True), Fast)
    assert made.done == 1


@pytest.mark.parametrize("fate", ["raise", "skip"])
def test_the_time_left_counts_no_picture_that_failed_or_was_left_out(tmp_path: Path, fate: str) -> None:
    source = tmp_path / "in"
    make_picture(source / "a.png", "slow", 1)
    for number in range(3):
        make_picture(source / f"b {number}.png", fate, number)
    make_picture(source / "c.png", "slow", 2)
    began, seen = time.monotonic(), []

    def listen(event):  # type: ignore[no-untyped-def]
        if event.kind == "step" and event.key == "c.png":
            seen.append((event.eta, time.monotonic() - began))

    run_job(options(source, tmp_path / "out"), Odd, run=QUICK, on_event=listen)
    eta, elapsed = seen[0]
    assert 0 < eta < 2 * elapsed  # one picture is made and one is left; with the failed ones it would be four


@pytest.mark.parametrize("retries", [0, 3])
def test_a_worker_that_dies_while_loading_ends_the_job_once(tmp_path: Path, retries: int) -> None:
    source = make_folder(tmp_path / "in", 6)
    events = []
    with pytest.raises(UsageError, match=r"exit code 9\) while it loaded the model; check the model"):
        run_job(
            options(source, tmp_path / "out"),
            type(SPEC)("DiesLoading"),
            run=RunRule(workers=2, retries=retries),
            on_event=events.append,
        )
    assert not [event for event in events if event.kind in ("failed", "retry")]
    with Journal(tmp_path / "out") as journal:
        assert [(item.state, item.attempts, item.deaths) for item in journal.items()] == [("pending", 0, 0)] * 6
    assert strays(tmp_path / "out") == []
    assert run_job(options(source, tmp_path / "out"), Fast).done == 6
