"""What draws a job may be another than drew its files, under the same name."""

import dataclasses
import os
import shutil
import sys
from pathlib import Path

import pytest

from fam_ext.errors import UnsupportedModelError, UsageError
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.run import run_job
from fam_ext.jobs.walk import walk
from fam_ext.options.job import Job
from fam_ext.options.parts import Rule, RunRule
from fam_ext.options.renderer import RendererChoice
from fam_ext.weights import architecture, weights_mark
from tests.jobs.fakes import Fast, make_folder, options, page_job

QUICK = RunRule(report=False)


def ran(job: Job) -> tuple[int, int, int]:
    summary = run_job(job, Fast, run=QUICK)
    return summary.done, summary.done_before, summary.kept


@pytest.mark.parametrize("which", ["model", "loras", "upscaler"])
def test_a_file_that_was_replaced_draws_other_pictures(tmp_path: Path, which: str) -> None:
    file = tmp_path / "file.safetensors"
    file.write_bytes(b"A" * 100)
    chosen = RendererChoice("standalone", **{which: (str(file),) if which == "loras" else str(file)})
    job = options(make_folder(tmp_path / "in", 2), tmp_path / "out", renderer=chosen)
    assert [ran(job), ran(job)] == [(2, 0, 0), (0, 2, 0)]
    shutil.copy(file, tmp_path / "copy")
    (tmp_path / "copy").replace(file)  # the same once more
    assert ran(job) == (0, 2, 0)
    file.write_bytes(b"B" * 100)
    assert [ran(job), ran(job)] == [(0, 0, 2), (0, 0, 2)]
    assert ran(job.replace(overwrite=True)) == (2, 0, 0)
    assert ran(job) == (0, 2, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
def test_no_pipe_is_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    assert weights_mark(pipe) == ""
    with pytest.raises(UnsupportedModelError, match="not a safetensors file"):
        architecture(pipe)


def test_a_journal_that_does_not_say_what_drew_stays_valid(tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    job = options(make_folder(tmp_path / "in", 2), tmp_path / "out", renderer=RendererChoice("standalone", str(file)))
    ran(job)  # the file cannot be read
    with Journal(tmp_path / "out") as journal:
        assert journal._db.execute("SELECT DISTINCT fingerprint FROM items").fetchall() == [(job.fingerprint,)]
    file.write_bytes(b"A")
    assert ran(job) == (0, 2, 0)


def test_another_checkpoint_of_the_webui_draws_what_names_none(tmp_path: Path) -> None:
    def job(*loaded: str, **more: str) -> Job:
        return dataclasses.replace(page_job({"input": str(tmp_path / "in"), **more}), loaded=loaded)

    make_folder(tmp_path / "in", 2)
    assert [ran(job("a", "None")), ran(job("a", "None"))] == [(2, 0, 0), (0, 2, 0)]
    assert [ran(job("b", "None")), ran(job("a", "x")), ran(job())] == [(0, 0, 2), (0, 0, 2), (0, 2, 0)]
    named = {"output": str(tmp_path / "named")}
    rules = {"model": Rule("override", "a"), "vae": Rule("override", "x")}
    first, second = (job(*loaded, **named).replace(rules=rules) for loaded in ("ax", "by"))
    assert [ran(first), ran(second)] == [(2, 0, 0), (0, 2, 0)]


def test_a_marks_pieces_reach_the_whole_file(tmp_path: Path) -> None:
    file, data = tmp_path / "a", bytearray(9 << 20)
    file.write_bytes(data[1:])  # only its size is another
    marks = {weights_mark(file)}
    for place in (None, 0, 4 << 20, len(data) - 1):
        if place is not None:
            data[place] ^= 1
        file.write_bytes(data)
        marks.add(weights_mark(file))
    (tmp_path / "b" / "unet").mkdir(parents=True)
    shutil.copy(file, tmp_path / "b" / "unet" / "x.safetensors")
    for text in ("{}", "[]"):
        (tmp_path / "b" / "model_index.json").write_text(text)
        marks.add(weights_mark(tmp_path / "b"))
    assert len(marks) == 7 and weights_mark(tmp_path / "none") == ""


def test_who_joins_draws_with_the_jobs_own_model(tmp_path: Path) -> None:
    chosen = RendererChoice("standalone", "/m/sdxl.safetensors", device="cpu")
    job = options(make_folder(tmp_path / "in", 2), tmp_path / "out", renderer=chosen)
    with Journal(tmp_path / "out") as owner:
        owner.plan(walk(job.places), job, plan_file)
        for other in ({"model": None}, {"loras": ("a",)}, {"name": "webui"}):
            with pytest.raises(UsageError, match=r"here and .* in the job to join"):
                renderer = dataclasses.replace(chosen, **other)
                run_job(dataclasses.replace(job, renderer=renderer), Fast, run=RunRule(join=True))
        device = dataclasses.replace(chosen, device="cuda:1", dtype="float16")
        assert run_job(dataclasses.replace(job, renderer=device), Fast, run=RunRule(join=True)).done == 2
        (tmp_path / "a.safetensors").write_bytes(b"weights")
        shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
        own, copied = (
            dataclasses.replace(job, renderer=RendererChoice("standalone", str(tmp_path / f"{name}.safetensors")))
            for name in "ab"
        )
        owner.plan(walk(job.places), own, plan_file)
        with pytest.raises(UsageError, match=r"model is .* here"):
            run_job(job, Fast, run=RunRule(join=True))
        run_job(copied, Fast, run=RunRule(join=True))  # the same model, on another machine's disk


def test_the_webui_tries_once_more_what_ended_it_twice(tmp_path: Path) -> None:
    job = page_job({"input": str(make_folder(tmp_path / "in", 1)), "output": str(tmp_path / "out")})

    def died(owner: str, **values: object) -> None:
        with Journal(tmp_path / "out") as journal:
            journal.plan(walk(job.places), job, plan_file)
            names = ", ".join(f"{name} = ?" for name in values)
            journal._db.execute(f"UPDATE items SET owner = ?, {names}", (owner, *values.values()))

    died("1-a", state="running", at_risk=1, deaths=1)
    summary = run_job(job, Fast, run=QUICK)
    assert (summary.done, summary.poisoned) == (0, 1)  # said before it is tried
    died("1-a", state="running", at_risk=1)  # Start: one try, deaths is 1
    assert run_job(job, Fast, run=QUICK).poisoned == 1
    assert run_job(job, Fast, run=QUICK).done == 1

    died("1-a", state="running", at_risk=1, deaths=1)
    assert run_job(job, Fast, run=QUICK).poisoned == 1
    other = job.replace(scale=3.0, overwrite=True)  # begins anew
    with Journal(tmp_path / "out") as journal:
        journal.plan(walk(other.places), other, plan_file)
        assert [(item.state, item.deaths) for item in journal.items()] == [("pending", 0)]
