"""What ran is a record: the renderer makes it, files, journal and reports repeat it, and nobody else's is trusted."""

import dataclasses
import json
import sqlite3
from pathlib import Path

import pytest

from fam_ext import __version__
from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, OutOfMemoryError
from fam_ext.jobs import ran_text, report
from fam_ext.jobs.contract import Ran, Rendered
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.rows import ran_of
from fam_ext.jobs.ran_text import dials, fields
from fam_ext.jobs.run import run_job
from fam_ext.metadata.infotext import from_fields, parse, request_value
from fam_ext.metadata.pictures import read_header
from fam_ext.methods.catalog import METHODS
from fam_ext.options.field import options_of
from fam_ext.options.parts import Rule, RunRule
from fam_ext.options.request import MAX_SEED
from fam_ext.options.table import VERSION_KEY
from tests.jobs.fakes import SPEC, Fast, Odd, make_folder, make_picture, options

QUICK = RunRule(retries=0)
FULL = Ran(
    config=FamConfig(am=False, start=0.6),
    upscaler="Lanczos",
    method="fam",
    steps=20,
    sampler="DPM++ 2M",
    schedule="Karras",
    cfg_scale=6.5,
    seed=MAX_SEED,
    model="a model",
    vae="None",
    clip_skip=2,
    timestep_spacing="trailing",
    model_hash="0123456789",
    loras="detail:0.5, style:1",
    size=(64, 96),
    steps_taken=12,
    fm_calls=12,
    am_calls=0,
    peak_memory=2**63 - 1,
    seconds=1.5,
    given_up=("out of memory: FM only",),
    notes=("out of memory: FM only", "left out of the prompt: lora x"),
)


class Knows(Fast):
    """Says itself what ran, as a renderer with a model does; Frequency Modulation alone acted."""

    def render(self, image, request, progress):
        made = super().render(image, request, progress)
        ran = dataclasses.replace(FULL, size=request.size, seed=request.seed, notes=("no such VAE",), given_up=())
        return Rendered(made.image, ran)


def rows(output: Path) -> dict[str, dict[str, object]]:
    files = json.loads((output / "report.json").read_text())["files"]
    return {Path(file["source"]).name: file for file in files}


def test_a_picture_made_without_am_is_not_called_plain_fam(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "oom", 1)
    make_picture(tmp_path / "in" / "b.png", "fine", 2)
    make_picture(tmp_path / "in" / "c.png", "hopeless", 3)
    config = FamConfig(attention=0.4, am_window=(1.0, 0.5), start=0.6)
    run_job(options(tmp_path / "in", tmp_path / "out", config=config), Odd, run=QUICK)
    found = rows(tmp_path / "out")
    assert found["a.png"]["fam"] == f"FAM version: {__version__}, FAM no AM: True, FAM start: 0.6"
    assert str(found["a.png"]["given_up"]).endswith("; out of memory: FM only")
    # as asked, where all of it ran and where nothing did
    for name in ("b.png", "c.png"):
        assert (
            found[name]["fam"]
            == f"FAM version: {__version__}, FAM attention: 0.4, FAM AM window: 1 to 0.5, FAM start: 0.6"
        )
        assert found[name]["given_up"] == ""
    assert "FAM no AM: True" in (tmp_path / "out" / "report.html").read_text()


def test_the_report_says_what_ran_not_what_was_asked(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "x", 1, Sampler="LMS")
    make_picture(tmp_path / "in" / "b.png", "x", 2)
    run_job(options(tmp_path / "in", tmp_path / "out"), Odd, run=QUICK)
    found = rows(tmp_path / "out")
    assert [found[name]["sampler"] for name in ("a.png", "b.png")] == ["DPM++ 2M", "Euler a"]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_what_the_renderer_says_reaches_file_journal_and_report(tmp_path: Path, workers: int) -> None:
    source = make_folder(tmp_path / "in", 1)
    spec = dataclasses.replace(SPEC, name="Fast")
    run_job(options(source, tmp_path / "out"), spec if workers else Knows, run=RunRule(retries=0, workers=workers))
    with Journal(tmp_path / "out") as journal:
        ran = next(journal.items()).ran
    assert ran is not None and (ran.size, ran.seed) == ((64, 96), 0) and ran.seconds > 0
    if workers:
        assert (ran.method, ran.steps, ran.sampler) == ("fam", 20, "Euler a")
        return
    assert dataclasses.replace(ran, seconds=0) == dataclasses.replace(
        FULL, seed=0, seconds=0, notes=("no such VAE",), given_up=()
    )
    row = rows(tmp_path / "out")["picture 0.png"]
    for name in ("sampler", "schedule", "model", "model_hash", "steps_taken", "fm_calls", "am_calls", "peak_memory"):
        assert row[name] == getattr(FULL, name)
    params = parse(read_header(tmp_path / "out" / "picture 0.png").infotext).params
    assert (params["FAM sampler"], params["FAM model hash"]) == ("DPM++ 2M", "0123456789")
    assert from_fields(params) == FULL.config and params["FAM notes"] == "no such VAE"


def test_a_record_is_read_as_it_was_written() -> None:
    stored = json.loads(json.dumps(FULL.to_json()))
    assert Ran.from_json({**stored, "of a later version": 1}) == FULL
    assert Ran.from_json(json.loads(json.dumps(Ran().to_json()))) == Ran()
    assert Ran.from_json({"method": None, "peak_memory": None, "config": None}) == Ran()


def test_the_infotext_says_what_ran() -> None:
    told = fields(FULL)
    assert next(iter(told)) == VERSION_KEY
    assert from_fields(told) == FULL.config
    for name in ("method", "steps", "sampler", "schedule", "cfg_scale", "seed", "model", "vae", "clip_skip"):
        assert request_value(told, name) == getattr(FULL, name)
    assert "FAM size" not in told  # the picture says it
    assert fields(Ran(method="direct")) == {"FAM method": "direct"}
    assert set(fields(FULL)) == set(fields(Ran.from_json(FULL.to_json())))


def test_every_dial_is_of_fm_of_am_or_of_both() -> None:
    both = {"fm", "am", "start", "upsample"}
    every = {spec.name for spec in options_of(FamConfig)}
    assert {*ran_text._OF_FM, *ran_text._OF_AM} == every - both
    assert set(METHODS["fam"].knobs) == every - {"start", "upsample"}  # which every pass has


def test_dials_of_a_part_that_is_off_are_not_said() -> None:
    every = FamConfig(cutoff=40, cutoff_reference="cycles", attention=0.4, am_source="replay", start=0.6)
    assert dials(None) == ""
    assert dials(every) == ", ".join(f"{key}: {value}" for key, value in fields(Ran(config=every)).items())
    assert dials(every.replace(am=False)).split(", ")[1:] == [
        "FAM cutoff: 40",
        "FAM no AM: True",
        "FAM cutoff reference: cycles",
        "FAM start: 0.6",
    ]
    assert dials(every.replace(fm=False)).split(", ")[1:] == [
        "FAM attention: 0.4",
        "FAM no FM: True",
        "FAM AM source: replay",
        "FAM start: 0.6",
    ]


BROKEN = [
    "{",
    "7",
    "[]",
    "null",
    '"method"',
    "[" * 100_000,
    '{"config": 5}',
    '{"config": {"cutoff": 9}}',
    '{"config": {"nonsense": 1}}',
    '{"method": "<b>"}',
    '{"size": [1, 2, 3]}',
    '{"seconds": NaN}',
    '{"seconds": Infinity}',
    '{"steps": 1e999}',
    '{"notes": "x"}',
    '{"given_up": [1]}',
    '{"sampler": "a\\u0000b"}',
    '{"model": ["m"]}',
    '{"fm_calls": -1}',
    '{"peak_memory": 9223372036854775808}',
    '{"peak_memory": ' + "9" * 5000 + "}",
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_record_is_none(text: str) -> None:
    assert ran_of(text) is None


def test_broken_records_fall_back_to_what_was_asked(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", len(BROKEN))
    run_job(options(source, tmp_path / "out"), Fast)
    path = tmp_path / "out" / ".fam-hires" / "journal.sqlite3"
    with sqlite3.connect(path) as database:
        for number, text in enumerate((*BROKEN[:-2], b"\xff\x00", 5)):
            database.execute("UPDATE items SET ran = ? WHERE key = ?", (text, f"picture {number}.png"))
    database.close()
    with Journal(tmp_path / "out") as journal:
        report.write_all(journal)
    found = rows(tmp_path / "out")
    assert len(found) == len(BROKEN)
    assert {(row["method"], row["steps"], row["fam"]) for row in found.values()} == {
        ("fam", 20, f"FAM version: {__version__}")
    }


def test_a_strangers_record_is_no_markup_and_no_formula(tmp_path: Path) -> None:
    run_job(options(make_folder(tmp_path / "in", 1), tmp_path / "out"), Fast)
    path = tmp_path / "out" / ".fam-hires" / "journal.sqlite3"
    live = {"method": "fam", "sampler": "<img src=x>", "model": "=cmd()", "given_up": ["=1"], "steps": 3}
    with sqlite3.connect(path) as database:
        database.execute("UPDATE items SET ran = ?", (json.dumps(live),))
    database.close()
    with Journal(tmp_path / "out") as journal:
        report.write_all(journal)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x&gt; 3" in page
    table = (tmp_path / "out" / "report.csv").read_text()
    assert "'=cmd()" in table and "'=1" in table


def test_a_picture_that_is_made_again_has_its_new_record(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "oom", 1)
    run_job(options(tmp_path / "in", tmp_path / "out"), Odd, run=QUICK)
    steps = {"steps": Rule("override", 7)}

    class Fails(Fast):
        def render(self, image, request, progress):
            raise OutOfMemoryError("out of memory")

    again = options(tmp_path / "in", tmp_path / "out", rules=steps, overwrite=True)
    run_job(again, Fails, run=QUICK)
    assert (rows(tmp_path / "out")["a.png"]["given_up"], rows(tmp_path / "out")["a.png"]["steps"]) == ("", 7)
    with Journal(tmp_path / "out") as journal:
        assert next(journal.items()).ran is None
    run_job(again, Fast, run=QUICK)
    with Journal(tmp_path / "out") as journal:
        ran = next(journal.items()).ran
    assert ran is not None and (ran.steps, ran.given_up, ran.config) == (7, (), FamConfig())


def test_the_report_has_a_column_for_all_that_a_record_says() -> None:
    said = {spec.name for spec in options_of(Ran)} - {"size"}
    assert said <= set(report.COLUMNS) and len(set(report.COLUMNS)) == len(report.COLUMNS)


def test_a_bad_value_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="fm_calls is -1; choose a whole number from 0 to"):
        Ran.from_json({"fm_calls": -1})
