"""The command: options reach the plan, exit codes, progress views, interrupt, presets. The renderer is a fast fake."""

import json
import os
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from fam_ext import __version__, cli
from fam_ext.cli.progress import failed_line
from fam_ext.core.config import FamConfig
from fam_ext.jobs.events import Summary
from fam_ext.jobs.journal.store import POISON
from fam_ext.jobs.renderers import RendererSpec, kept_renderer
from fam_ext.metadata.infotext import parse
from fam_ext.metadata.pictures import read_header
from fam_ext.options.presets import BUILTIN
from fam_ext.options.resolve import unread
from tests.jobs.fakes import FakeSpec, make_folder, make_picture, outputs

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fast(monkeypatch, tmp_path: Path) -> None:
    """Put the fast renderer where the command would load diffusers, and user presets into a folder of the test."""

    def build(self: RendererSpec):
        return FakeSpec("Odd").build()

    monkeypatch.setattr(RendererSpec, "build", build)
    monkeypatch.setenv("FAM_HIRES_HOME", str(tmp_path / "home"))


def run(capsys, *words: object) -> tuple[int, str, str]:
    try:
        cli.main([str(word) for word in words])
    except SystemExit as end:
        code = end.code
    else:
        code = 0
    captured = capsys.readouterr()
    return int(code or 0), captured.out, captured.err


def planned(capsys, *words: object) -> list[dict]:
    code, out, err = run(capsys, "upscale", *words, "--dry-run", "--plan-format", "json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_the_version_needs_no_command(capsys) -> None:
    assert run(capsys, "--version") == (0, f"{__version__}\n", "")


def test_the_main_job(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 3)
    code, out, _ = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--scale", 2)
    assert code == 0
    assert out.count(" -> ") == 3
    assert "3 done" in out
    assert len(outputs(tmp_path / "out")) == 3
    params = parse(read_header(tmp_path / "out" / "picture 1.png").infotext).params
    assert (params["FAM cutoff"], params["FAM cutoff reference"], params["FAM start"]) == ("28", "cycles", "0.7")
    code, out, _ = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--scale", 2)
    assert code == 0
    assert "3 done before" in out


def test_one_failure_is_exit_code_1_and_the_rest_is_made(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 2)
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    code, out, err = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1
    assert "2 done" in out
    assert "1 failed" in out
    assert "Traceback" not in err
    make_picture(tmp_path / "in" / "bad.png", "raise", 1)
    assert run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out")[0] == 1
    assert run(capsys, "retry-failed", tmp_path / "out")[0] == 1
    code, out, _ = run(capsys, "report", tmp_path / "out")
    assert code == 0
    assert "2 done, 1 failed" in out


def test_the_summary_says_what_helps_each_kind_of_failure(tmp_path: Path, capsys) -> None:
    source, output = make_folder(tmp_path / "in", 2), tmp_path / "my out"
    for number in range(3):
        (source / f"empty {number}.png").write_bytes(b"")
    make_picture(source / "raises.png", "raise", 1)
    make_picture(source / "poison.png", "fine", 2)
    words = ("upscale", source, "-o", output, "--retries", 0, "--progress", "plain")
    assert run(capsys, *words)[0] == 1
    # as if a process had ended twice while it drew this one
    with sqlite3.connect(output / ".fam-hires" / "journal.sqlite3") as database:
        database.execute("UPDATE items SET state = 'failed', deaths = 2, error = ? WHERE key = 'poison.png'", (POISON,))
    database.close()
    (output / "poison.png").unlink()
    code, out, _ = run(capsys, *words)
    assert code == 1
    assert (
        "2 done before, 5 failed (3 cannot be taken: mend what their lines name, then give the job's command; "
        f"1 when drawn: fam-hires retry-failed '{output}'; "
        f"1 ended the process twice: make them or --scale smaller; fam-hires retry-failed '{output}' tries once more)"
    ) in out
    assert "4 failed (3 cannot be taken" in run(capsys, "retry-failed", output)[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["upscale", "IN"], "--output"),
        (["upscale", "nowhere", "-o", "OUT"], "does not exist"),
        (["upscale", "IN", "-o", "IN"], "inside the input"),
        (["upscale", "IN", "-o", "IN/out"], "inside the input"),
        (["upscale", "IN", "-o", "OUT", "--scale", "0.5"], "scale is 0.5"),
        (["upscale", "IN", "-o", "OUT", "--method", "magic"], "method is 'magic'"),
        (["upscale", "IN", "-o", "OUT", "--preset", "none"], "preset is 'none'; choose from paper, balanced"),
        (["upscale", "IN", "-o", "OUT", "--cutoff", "-1"], "cutoff is -1"),
        (["upscale", "IN", "-o", "OUT", "--attention", "2"], "attention is 2"),
        (["upscale", "IN", "-o", "OUT", "--start", "0"], "start is 0"),
        (["upscale", "IN", "-o", "OUT", "--method", "tiled", "--start", "1"], "--start is given, and tiled never"),
        (["upscale", "IN", "-o", "OUT", "--method", "direct", "--set", "am=false"], "choose one of fam, fam-constant"),
        (["try", "IN", "-o", "OUT", "--method", "direct", "--cutoff", "0.2"], "--cutoff is given, and direct never"),
        (["generate", "a cat", "-o", "OUT", "--method", "direct", "--no-fm"], "--no-fm is given, and direct never"),
        (["upscale", "IN", "-o", "OUT", "--plan-format", "json"], "--plan-format is json; give --dry-run as well"),
        (["upscale", "IN", "-o", "OUT", "--am-source", "recorded"], "--am-source is 'recorded', and no run of ours"),
        (
            ["upscale", "IN", "-o", "OUT", "--preset", "paper", "--upscaler", "x.pth"],
            "--upscaler is given, and upsample is latent_bicubic; give --upsample as auto, or leave upscaler out",
        ),
        (["generate", "a cat", "-o", "OUT", "--upsample", "pixel_lanczos", "--upscaler", "x"], "--upscaler is given"),
        (["upscale", "IN/picture 0.png", "-o", "OUT", "--include", "*.jpg"], "--include is *.jpg, which no picture"),
        (["upscale", "IN", "-o", "OUT", "--size", "big"], "--size is 'big'"),
        (["upscale", "IN", "-o", "OUT", "--format", "gif"], "--format is 'GIF'; choose PNG"),
        (["upscale", "IN", "-o", "OUT", "--rule", "seed"], "FIELD=RULE"),
        (["upscale", "IN", "-o", "OUT", "--rule", "seed=prefix"], "does not fit seed"),
        (["upscale", "IN", "-o", "OUT", "--prompt-rule", "prefix"], "--prompt-rule is prefix; give --prompt or --"),
        (["upscale", "IN", "-o", "OUT", "--negative-rule", "prefix"], "give --negative as well"),
        (["upscale", "IN", "-o", "OUT", "--rule", "seed=override"], "--seed is left out, and its rule is override"),
        (["upscale", "IN", "-o", "OUT", "--rule", "model=take"], "--rule is model=take; one model draws"),
        (["upscale", "IN", "-o", "OUT", "--rule", "vae=take"], "--rule is vae=take; one model draws"),
        (["upscale", "IN", "-o", "OUT", "--sampler", "Eular a"], "sampler 'Eular a' is unknown; choose one of DDIM"),
        (["upscale", "IN", "-o", "OUT", "--sampler", "plms", "--dry-run"], "sampler 'PLMS' is refused"),
        (
            ["upscale", "IN", "-o", "OUT", "--sampler", "Euler a CFG++"],
            "choose DDIM CFG++, whose cfg_scale is 12.5 times",
        ),
        (["upscale", "IN", "-o", "OUT", "--schedule", "Karrass"], "schedule 'Karrass' is unknown"),
        (["upscale", "IN", "-o", "OUT", "--sampler", "DDIM", "--schedule", "karras"], "does not go with sampler DDIM"),
        (["upscale", "IN", "-o", "OUT", "--sampler", "LCM Karras"], "does not go with sampler LCM; choose Uniform"),
        (["upscale", "IN", "-o", "OUT", "--sampler", "lcm", "--steps", "60"], "--steps is 60, and sampler LCM takes"),
        (["upscale", "IN", "-o", "OUT", "--scale", "abc"], "--scale is 'abc'; write a number"),
        (["upscale", "IN", "-o", "OUT", "--steps", "2.5"], "--steps is '2.5'; write a whole number"),
        (["upscale", "IN", "-o", "OUT", "--set", "am=1"], "--set is 'am=1'; choose am=true or am=false"),
        (["upscale", "IN", "-o", "OUT", "--no-fm", "--set", "fm=true"], "give it as --no-fm or with --set"),
        (["upscale", "IN", "-o", "OUT", "--cutoff", "32"], "or give --cutoff-reference as well"),
        (["upscale", "IN", "-o", "", "--dry-run"], "--output is empty; name a folder"),
        (["upscale", "IN", "-o", "OUT", "--dry-run", "--lora", "gone.safetensors:2"], "and nothing is there"),
        (["upscale", "IN", "-o", "OUT", "--dry-run", "--upscaler", "gone"], "gone, and nothing is there"),
        (["upscale", "IN", "-o", "OUT", "--dry-run", "--model", "gone"], "gone, and nothing is there"),
        (["demo", "run", "--pictures", "0", "-o", "OUT"], "--pictures is 0"),
        (["presets", "import", "gone.json"], "gone.json is no file"),
        (["upscale", "IN", "-o", "OUT", "--rule", "prompt=override"], "--prompt is left out, and its rule is override"),
        (["upscale", "IN", "-o", "OUT", "--set", "colour=red"], "--set is"),
        (["upscale", "IN", "-o", "OUT", "--name", "{prompt}"], "name pattern"),
        (["upscale", "IN", "-o", "OUT", "--timeout", "0"], "timeout is 0"),
        (["upscale", "IN", "-o", "OUT", "--max-input-megapixels", "inf"], "--max-input-megapixels is inf; choose"),
        (["upscale", "IN", "-o", "OUT", "--max-input-megapixels", "nan"], "--max-input-megapixels is nan; choose"),
        (["upscale", "IN", "-o", "OUT", "--max-input-megapixels", "-1"], "--max-input-megapixels is -1"),
        (["upscale", "IN", "-o", "OUT", "--max-input-megapixels", "0"], "--max-input-megapixels is 0"),
        (["upscale", "IN", "-o", "OUT", "--max-megapixels", "inf"], "--max-megapixels is inf"),
        (["upscale", "IN", "-o", "OUT", "--max-megapixels", "nan"], "--max-megapixels is nan"),
        (["upscale", "IN", "-o", "OUT", "--scale", "nan"], "scale is nan"),
        (["upscale", "IN", "-o", "OUT", "--scale", "inf"], "scale is inf"),
        (["upscale", "IN", "-o", "OUT", "--timeout", "inf"], "timeout is inf"),
        (["upscale", "IN", "-o", "OUT", "--timeout", "nan"], "timeout is nan"),
        (["upscale", "IN", "-o", "OUT", "--workers", "-1"], "workers is -1"),
        (["upscale", "IN", "-o", "OUT", "--workers", "100000"], "workers is 100000"),
        (["upscale", "IN", "-o", "OUT", "--ray-gpus", "nan"], "--ray-gpus is nan"),
        (["upscale", "IN", "-o", "OUT", "--ray-gpus", "-1"], "--ray-gpus is -1"),
        (["upscale", "IN", "-o", "OUT", "--retries", "-1"], "retries is -1"),
        (["upscale", "IN", "-o", "OUT", "--lora", "a.safetensors:nan"], "--lora is"),
        (["upscale", "IN", "-o", "OUT", "--lora", "a.safetensors:inf"], "--lora is"),
        (["upscale", "IN", "-o", "OUT", "--cutoff", "nan"], "cutoff is nan"),
        (["upscale", "IN", "-o", "OUT", "--cfg-scale", "inf"], "--cfg-scale is inf"),
        (["upscale", "IN", "-o", "OUT", "--size", "0x99999999999"], "--size is 0x99999999999"),
        (["upscale", "IN", "-o", "OUT", "--max-side", "3"], "--max-side is 3"),
        (["upscale", "IN", "-o", "OUT", "--first", "-1"], "--first is -1"),
        (["upscale", "IN", "-o", "OUT", "--progress", "loud"], "loud"),
        (["retry-failed", "IN"], "no journal"),
        (["report", "IN"], "no journal"),
        (["presets", "show", "none"], "preset is 'none'"),
        (["unknown"], "unknown"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_sentence(tmp_path: Path, capsys, words: list[str], says: str) -> None:
    make_folder(tmp_path / "IN", 1)
    places = {name: str(tmp_path / name) for name in ("IN", "IN/picture 0.png")}
    places |= {"IN/out": str(tmp_path / "IN" / "out"), "OUT": str(tmp_path / "OUT")}
    code, _, err = run(capsys, *[places.get(word, word) for word in words])
    assert code == 2
    assert says in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert not (tmp_path / "OUT").exists()
    assert len(list((tmp_path / "IN").iterdir())) == 1


def test_options_reach_the_plan(tmp_path: Path, capsys) -> None:
    make_picture(tmp_path / "in" / "a.png", "a cat", 7, size=(64, 32))
    base = [tmp_path / "in", "-o", tmp_path / "out"]
    (row,) = planned(capsys, *base)
    assert (row["prompt"], row["seed"], row["steps"], row["target"]) == ("a cat", 7, 20, "128x64")
    (row,) = planned(capsys, *base, "--steps", 9, "--sampler", "Heun", "--cfg-scale", 3, "--seed", 5, "--scale", 3)
    assert (row["steps"], row["sampler"], row["cfg_scale"], row["seed"]) == (9, "Heun", 3.0, 5)
    assert row["target"] == "192x96"
    (row,) = planned(capsys, *base, "--preset", "paper", "--sampler", "Euler a Karras")
    assert (row["sampler"], row["schedule"], row["steps"]) == ("Euler a", "Karras", 50)
    for start, notes in ((0.35, "AM does not act: its window ends at rho 0.4, and the pass begins at 0.35"), (0.4, "")):
        assert planned(capsys, *base, "--start", start)[0]["notes"] == notes
    assert not planned(capsys, *base, "--method", "skip-residual", "--start", 0.3)[0]["notes"]
    network = ("--upscaler", __file__)  # which upsample has no say in
    assert planned(capsys, *base, "--preset", "paper", "--method", "upscaler", *network)
    (row,) = planned(capsys, *base, "--steps", 9, "--rule", "steps=take")
    assert row["steps"] == 20
    (row,) = planned(capsys, *base, "--prompt", "new")
    assert row["prompt"] == "a cat"
    (row,) = planned(capsys, *base, "--prompt", "new", "--prompt-rule", "override")
    assert row["prompt"] == "new"
    (row,) = planned(capsys, *base, "--prompt", "cat=>dog", "--prompt-rule", "replace", "--format", "webp")
    assert (row["prompt"], row["output"]) == ("a dog", "a.webp")
    (row,) = planned(capsys, *base, "--size", "150x150")
    assert row["target"] == "144x72"
    (row,) = planned(capsys, *base, "--size", "104x96", "--exact-size")
    assert row["target"] == "104x96"
    (row,) = planned(capsys, *base, "--preset", "paper")
    assert (row["steps"], row["sampler"], row["cfg_scale"]) == (50, "DDIM", 7.5)
    assert not (tmp_path / "out").exists()


BALANCED = BUILTIN["balanced"].config


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--preset", "paper"], FamConfig(upsample="latent_bicubic")),
        (["--preset", "paper", "--no-am", "--no-fm"], FamConfig(upsample="latent_bicubic", fm=False, am=False)),
        (["--preset", "paper", "--cutoff", "0.3"], FamConfig(upsample="latent_bicubic", cutoff=0.3)),
        (
            ["--cutoff", "0.5", "--attention", "0.2", "--start", "1"],
            BALANCED.replace(cutoff=0.5, cutoff_reference="native", attention=0.2, start=1.0),
        ),
        (
            ["--cutoff", "16", "--cutoff-reference", "cycles", "--set", "am_window=1 to 0.5"],
            BALANCED.replace(cutoff=16, am_window=(1.0, 0.5)),
        ),
        (
            ["--set", "am=false", "--cutoff-reference", "target"],
            BALANCED.replace(cutoff=0.5, cutoff_reference="target", am=False),
        ),
    ],
)
def test_fam_options_reach_the_config(tmp_path: Path, capsys, monkeypatch, words, expected) -> None:
    make_folder(tmp_path / "in", 1)
    seen = []
    monkeypatch.setattr("fam_ext.cli.upscale.run_job", lambda options, *a, **k: seen.append(options) or Summary())
    run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", *words)
    assert seen[0].picture.config == expected


@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_offload_reaches_the_renderer(tmp_path: Path, capsys, monkeypatch, offload: str) -> None:
    make_folder(tmp_path / "in", 1)
    seen = []
    monkeypatch.setattr(
        "fam_ext.cli.upscale.run_job", lambda options, spec, **k: seen.append(spec.arguments) or Summary()
    )
    words = [] if offload == "none" else ["--offload", offload]
    run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", *words)
    assert seen[0]["offload"] == offload
    json.dumps(seen[0])  # a journal keeps it


def test_the_settings_of_a_single_file_reach_the_renderer(tmp_path: Path, capsys, monkeypatch) -> None:
    make_folder(tmp_path / "in", 1)
    seen = []
    monkeypatch.setattr("fam_ext.cli.upscale.run_job", lambda options, spec, **k: seen.append(spec) or Summary())
    monkeypatch.chdir(tmp_path)
    run(capsys, "upscale", "in", "-o", "out", "--model", "x.safetensors", "--model-config", "settings")
    assert seen[0].arguments["config"] == str(tmp_path / "settings")
    kept = kept_renderer({"name": seen[0].name, "arguments": json.loads(json.dumps(seen[0].arguments))})
    assert kept.arguments == seen[0].arguments


def test_an_unknown_offload_is_wrong_usage(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 1)
    code, _, err = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--offload", "all")
    assert code == 2
    assert "sequential" in err
    assert not (tmp_path / "out").exists()


def test_json_progress_is_one_object_a_line(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 2)
    code, out, _ = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--progress", "json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    kinds = [event["kind"] for event in events]
    assert kinds.count("finished") == 2
    assert kinds.count("step") == 4
    assert kinds[-1] == "summary"
    assert events[-1]["done"] == 2


def test_live_progress_ends_with_the_summary(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 2)
    code, out, _ = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--progress", "live")
    assert code == 0
    assert "2 done" in out


@pytest.mark.parametrize(("view", "last"), [("plain", "[5/5]"), ("live", "5/5")])
def test_progress_counts_what_was_done_before(tmp_path: Path, capsys, view: str, last: str) -> None:
    words = ("upscale", make_folder(tmp_path / "in", 5), "-o", tmp_path / "out", "--progress", view)
    run(capsys, *words, "--first", 3)
    assert last in run(capsys, *words)[1]


def test_a_dry_run_estimates_from_history(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 1)
    assert "once this folder holds" in run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--dry-run")[1]
    run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out")
    make_folder(tmp_path / "in", 3)
    code, out, _ = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--dry-run")
    assert code == 0
    assert "history" in out and "no target is larger than 64 MP (--max-megapixels)" in out
    uncapped = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "o", "--dry-run", "--max-megapixels", "0")[1]
    assert "no target is larger" not in uncapped
    code, out, _ = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--dry-run", "--plan-format", "csv")
    assert out.splitlines()[0].startswith("state,source,output")
    assert len(out.splitlines()) == 4


def test_a_dry_run_says_what_is_kept_and_what_is_asked_for_now(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 2)
    job = (tmp_path / "in", "-o", tmp_path / "out")
    assert run(capsys, "upscale", *job)[0] == 0
    [first, _] = planned(
        capsys, *job, "--scale", 3, "--name", "{stem}-{scale}", "--schedule", "Karras", "--sampler", "Heun"
    )
    assert (first["state"], first["sampler"]) == ("kept", "Heun")
    assert int(first["target"].split("x")[0]) == 3 * int(first["native"].split("x")[0])
    _, out, _ = run(capsys, "upscale", *job, "--steps", 9, "--rule", "steps=override", "--dry-run")
    assert "2 files: 2 kept" in out and "to 9 (2 pictures)" in out and "another --output makes one more" in out
    _, out, _ = run(capsys, "upscale", *job, "--steps", 9, "--overwrite", "--dry-run")
    assert "2 files: 2 pending" in out and "going by this folder's history" in out
    _, out, _ = run(capsys, "upscale", *job, "--exact-size", "--size", "504x304", "--max-megapixels", 0.01, "--dry-run")
    assert "no target is larger" not in out


def test_a_rule_keeps_the_presets_value(tmp_path: Path, capsys) -> None:
    make_picture(tmp_path / "in" / "a.png")
    for words in ([], ["--rule", "steps=take"], ["--rule", "steps=override"], ["--rule", "clip_skip=override"]):
        assert planned(capsys, tmp_path / "in", "-o", tmp_path / "out", "--preset", "fast", *words)[0]["steps"] == 20


def test_samplers_are_listed_with_their_schedules(capsys) -> None:
    out = run(capsys, "samplers")[1]
    assert "LCM: Uniform; Automatic is Uniform\nschedules: Automatic, " in out and "PLMS is refused: " in out


def test_what_a_sampler_has_not_is_replaced_with_a_word(tmp_path: Path, capsys) -> None:
    make_picture(tmp_path / "in" / "a.png")
    with Image.open(tmp_path / "in" / "a.png") as picture:
        picture.save(tmp_path / "in" / "a.png")  # without its metadata
    job = (tmp_path / "in", "-o", tmp_path / "out")
    [row] = planned(capsys, *job, "--schedule", "Karras")
    assert (row["sampler"], row["schedule"]) == ("DDIM", "Uniform") and "not Karras" in row["notes"]
    for words in (("50",), ("60", "--rule", "steps=take")):
        assert planned(capsys, *job, "--sampler", "LCM", "--steps", *words)[0]["steps"] == 50


def test_a_dial_is_said_for_those_methods_that_read_it() -> None:
    assert unread(["cutoff"], ["direct", "fam"]) is None and "tiled never" in str(unread(["cutoff"], ["tiled"]))


def test_the_help_tells_what_runs_where_nothing_is_said(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    help = run(capsys, "upscale", "--help")[1]
    for flag, value in (("--cutoff ", 28), ("--fm-edge", 1), ("--am-window", "1 to 0.4"), ("--retries", 1)):
        assert f"(default: {value})" in help.split(flag)[1].split(" --")[0]
    assert "instead of each picture's own" in help
    assert "picture's own" not in run(capsys, "generate", "--help")[1]


def test_the_hint_has_the_quotes_of_the_systems_shell(monkeypatch) -> None:
    for system, hint in (("posix", r"retry-failed 'C:\my out'"), ("nt", r'retry-failed "C:\my out"')):
        with monkeypatch.context() as patch:
            patch.setattr(os, "name", system)
            assert hint in failed_line(Summary(failed=1), r"C:\my out")


def test_a_plans_csv_has_no_line_between_two(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 2)
    _, out, _ = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--dry-run", "--plan-format", "csv")
    assert "\r" not in out and len(out.splitlines()) == 3


def test_first_n_is_a_trial(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 5)
    run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--first", 2)
    assert list(outputs(tmp_path / "out")) == ["picture 0.png", "picture 1.png"]
    run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out")
    assert len(outputs(tmp_path / "out")) == 5


def test_an_empty_folder_says_so(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    code, out, _ = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out")
    assert code == 0
    assert "no pictures were found" in out


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_pattern_that_no_picture_matches_is_wrong_usage(tmp_path: Path, capsys, dry: list[str]) -> None:
    make_folder(tmp_path / "in", 2)
    words = ("upscale", tmp_path / "in", "-o", tmp_path / "out", "-r", "--include", "*.webp,*.jpg", *dry)
    code, _, err = run(capsys, *words)
    assert code == 2 and err.startswith("error: --include is *.webp,*.jpg, which no picture in ")
    assert err.endswith("matches; choose *.png, and give it again for *.jpg\n") and not (tmp_path / "out").exists()
    assert run(capsys, *words, "--include", "*0.png")[0] == 0


def test_strip_metadata(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 1)
    run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--strip-metadata")
    assert read_header(tmp_path / "out" / "picture 0.png").texts == ()


def test_presets_are_listed_saved_and_shared(tmp_path: Path, capsys) -> None:
    code, out, _ = run(capsys, "presets", "list")
    assert code == 0
    assert out.splitlines()[0].startswith("paper")
    file = tmp_path / "balanced.json"
    assert run(capsys, "presets", "export", "balanced", file)[0] == 0
    assert run(capsys, "presets", "import", file)[0] == 2
    assert run(capsys, "presets", "import", file, "--name", "mine")[0] == 0
    assert "mine" in run(capsys, "presets", "list")[1]
    make_folder(tmp_path / "in", 1)
    run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--cutoff", "0.3", "--preset", "mine")
    picture = tmp_path / "out" / "picture 0.png"
    assert run(capsys, "presets", "from-image", picture, "from cat")[0] == 0
    shown = json.loads(run(capsys, "presets", "show", "from cat")[1])
    assert shown["fam"]["cutoff"] == 0.3
    assert shown["settings"]["steps"] == 20
    assert run(capsys, "presets", "delete", "mine")[0] == 0
    assert "mine" not in run(capsys, "presets", "list")[1]


def test_a_random_seed_resumes(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path / "in", 2)
    words = ("upscale", tmp_path / "in", "-o", tmp_path / "out", "--seed", "-1")
    first = planned(capsys, *words[1:])
    assert "2 done in" in run(capsys, *words)[1]
    assert [row["seed"] for row in planned(capsys, *words[1:])] == [row["seed"] for row in first]
    for more in ((), ("--overwrite",)):
        assert "0 done, 2 done before in" in run(capsys, *words, *more)[1]


def test_an_exported_preset_replaces_a_file_only_when_told(tmp_path: Path, capsys) -> None:
    file = tmp_path / "notes.json"
    file.write_text("mine")
    code, out, err = run(capsys, "presets", "export", "balanced", file)
    assert (code, out, err) == (2, "", f"error: {file} exists; choose another file, or replace it\n")
    assert (file.read_text(), [path.name for path in tmp_path.iterdir()]) == ("mine", ["notes.json"])
    assert run(capsys, "presets", "export", "balanced", file, "--replace")[0] == 0
    assert json.loads(file.read_text())["name"] == "balanced"
    (tmp_path / "folder.json").mkdir()
    code, _, err = run(capsys, "presets", "export", "balanced", tmp_path / "folder.json", "--replace")
    assert (code, err.count("\n")) == (2, 1) and not list(tmp_path.glob(".preset-*"))


def test_no_other_module_walks_folders_or_renders() -> None:
    """One engine: outside jobs nobody lists folders of pictures or renders in a loop of its own."""
    package = ROOT / "fam_ext"
    for path in package.rglob("*.py"):
        relative = path.relative_to(package).as_posix()
        words = ("os.walk(", "os.scandir(", "os.listdir(", ".render(")
        found = [word for word in words if word in path.read_text(encoding="utf-8")]
        assert relative.startswith("jobs/") or not found, relative


def test_a_method_that_is_asked_for_beats_the_preset_s(tmp_path: Path, capsys) -> None:
    from fam_ext.options.presets import Preset, PresetStore

    PresetStore().save(Preset("rows", settings={"method": "direct"}))
    make_picture(tmp_path / "in" / "a.png", "a cat", 7)
    base = [tmp_path / "in", "-o", tmp_path / "out", "--preset", "rows"]
    assert [planned(capsys, *base, *more)[0]["method"] for more in ([], ["--method", "fam"])] == ["direct", "fam"]
