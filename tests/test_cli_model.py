"""The commands that need a model: generate, compare, demo, bench. Toy models where the picture does not matter."""

import pytest
from PIL import Image

from fam_ext import cli
from fam_ext.jobs.walk import natural_key
from fam_ext.metadata.infotext import from_fields, parse

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run


def run(*arguments):
    """Return the exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code


def test_generate_writes_a_picture_that_says_how_it_was_made_and_replaces_none(model, tmp_path, capsys):
    command = ["generate", "a cat, red", "-o", tmp_path / "out", "--model", model, "--size", "128x96", "--steps", 3]
    command += ["--seed", 7, "--negative", "blurry", "--keep-native", "--cutoff", 0.4, "--device", "cpu"]
    assert run(*command) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["7-a-cat-red-native.png", "7-a-cat-red.png"]
    with Image.open(tmp_path / "out" / "7-a-cat-red.png") as made:
        assert made.size == (128, 96)
        found = parse(made.info["parameters"])
    assert (found.prompt, found.negative_prompt) == ("a cat, red", "blurry")
    assert found.params["Seed"] == "7" and found.params["FAM method"] == "fam"
    assert from_fields(found.params).cutoff == 0.4
    line = {
        "Steps": "3",
        "Sampler": "DDIM",
        "Schedule type": "Uniform",
        "CFG scale": "7",
        "Seed": "7",
        "Size": "128x96",
    }
    assert dict(list(found.params.items())[:6]) == line  # as it ran: Automatic is what was asked
    assert (
        not {"FAM steps", "FAM sampler", "FAM schedule", "FAM CFG scale", "FAM seed", "FAM size"} & found.params.keys()
    )
    before = (tmp_path / "out" / "7-a-cat-red.png").read_bytes()
    assert run(*command) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*names, "7-a-cat-red-2.png", "7-a-cat-red-native-2.png"]
    )
    assert (tmp_path / "out" / "7-a-cat-red.png").read_bytes() == before
    assert (tmp_path / "out" / "7-a-cat-red-2.png").read_bytes() == before  # the same seed, the same file
    assert "128x96" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--sampler", "PLMS"], "sampler 'PLMS' is refused"),
        (["--sampler", "DDIM", "--schedule", "Karras"], "does not go with sampler DDIM"),
        (["--method", "magic"], "method is 'magic'"),
        (["--attention", "1.5"], "attention is 1.5; choose 0 to 1"),
        (["--count", "0"], "--count is 0; choose at least 1"),
        (["--device", "tpu"], "device is 'tpu'; choose one that this machine has: cpu"),
        (["--preset", "nope"], "nope"),
        (["--method", "upscaler", "--upscaler", "gone.pth"], "gone.pth cannot be read"),
    ],
)
def test_generate_answers_bad_input_with_one_sentence_and_writes_nothing(model, tmp_path, capsys, options, sentence):
    assert run("generate", "a cat", "-o", tmp_path / "out", "--model", model, "--steps", 2, *options) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "256x256"], "256x256 is smaller than the picture's 512x512"),
        (["--am-sites", "nowhere"], "nowhere"),
    ],
)
def test_generate_finds_what_cannot_be_before_it_draws(model, tmp_path, capsys, monkeypatch, options, sentence):
    monkeypatch.setattr("fam_ext.hires.native_size", lambda host, size: (512, 512))
    monkeypatch.setattr("fam_ext.hires.generate_native", None)
    assert run("generate", "a cat", "-o", tmp_path / "out", "--model", model, *options) == 2
    assert sentence in capsys.readouterr().err


def test_generate_rounds_a_size_as_upscale_does(model, tmp_path, capsys):
    words = ["--size", "100x130", "--steps", 1, "--device", "cpu", "--method", "resize"]
    assert run("generate", "a cat", "-o", tmp_path / "out", "--model", model, *words) == 0
    assert "(104x128)" in capsys.readouterr().out


def test_generate_notes_a_part_that_does_not_act(model, tmp_path, capsys):
    words = ["--size", "128x128", "--steps", 1, "--device", "cpu", "--start", 0.35]
    assert run("generate", "a cat", "-o", tmp_path / "out", "--model", model, *words) == 0
    assert "AM does not act: its window ends at rho 0.4" in capsys.readouterr().err


def test_a_demo_that_ends_early_is_no_wrong_usage(tmp_path, capsys, monkeypatch):
    from fam_ext.errors import RenderError

    for cancel, code in ((False, 1), (True, 130)):

        def fail(*_, control, cancel=cancel, **more):
            if cancel:
                control.cancel()
            raise RenderError("the demo ended early")

        monkeypatch.setattr("fam_ext.demo.run.run_demo", fail)
        assert run("demo", "run", "--out", tmp_path) == code


def test_compare_puts_methods_side_by_side(model, tmp_path, capsys):
    picture, sheet = tmp_path / "native.png", tmp_path / "sheet.png"
    Image.effect_noise((64, 64), 60).convert("RGB").save(picture)
    command = ["compare", picture, "-o", sheet, "--model", model, "--methods", "direct,skip-residual,fam"]
    assert run(*command, "--prompt", "a cat") == 0
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines()[:3]] == ["direct", "skip-residual", "fam"]
    with Image.open(sheet) as made:
        assert made.width > 5 * 128
    assert run(*command) == 1
    assert "exists; choose another --out" in capsys.readouterr().err
    assert run("compare", picture, "-o", tmp_path / "x.png", "--methods", "magic") == 2


def test_bench_cost_prints_ratios(model, capsys):
    assert run("bench", "cost", "--model", model, "--scales", "2", "--steps", 1, "--repeats", 1, "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "direct inference" in lines[1] and lines[1].endswith("x 1.000")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cost", "--scales", "two"], "--scales is 'two'; write numbers from 1 to 16"),
        (["cost", "--scales", ","], "--scales is ','"),
        (["cost", "--steps", 0], "--steps is 0"),
        (["cost", "--repeats", 0], "--repeats 0"),
        (["jobs", "--files", 0], "--files is 0"),
    ],
)
def test_a_bench_of_nothing_is_one_sentence_before_a_model_is_loaded(capsys, monkeypatch, words, sentence):
    monkeypatch.setattr("fam_ext.cli.bench.load_renderer", None)
    assert run("bench", *words) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_demo_export_names_what_is_no_webui(tmp_path, capsys):
    assert run("demo", "export", "--webui", tmp_path) == 2
    assert "is no WebUI folder" in capsys.readouterr().err


@pytest.mark.slow
def test_demo_makes_a_contact_sheet_from_real_pictures_with_the_real_model(tmp_path, capsys, monkeypatch):
    assert run("demo", "run", "--out", tmp_path, "--pictures", 1) == 0
    out = capsys.readouterr().out
    fam, direct = (
        float(line.split("kept ")[1].split(" dB")[0]) for line in out.splitlines() if "structure kept" in line
    )
    assert fam > direct + 5  # one thing where direct inference repeats its parts
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.width > 4 * 304
    assert (tmp_path / "contact-sheet.png").stat().st_size < 4e6

    # a later version's samples have the same names: what the sheet would show beside them is not theirs
    from fam_ext.demo import run as demo

    newer = tmp_path / "newer"
    newer.mkdir()
    first = min(demo.samples().iterdir(), key=lambda path: natural_key(path.name))
    with Image.open(first) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(newer / first.name)
    monkeypatch.setattr(demo, "samples", lambda: newer)
    before = {path.name: path.read_bytes() for path in (tmp_path / "fam").iterdir() if path.suffix == ".png"}
    assert run("demo", "run", "--out", tmp_path, "--pictures", 1) == 1
    assert "made from other samples" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "fam").iterdir() if path.suffix == ".png"}


def test_demo_names_lists_what_the_shipped_model_knows(capsys):
    from fam_ext.demo.names import names

    assert run("demo", "names") == 0
    said = capsys.readouterr().out
    assert f'A prompt is "{names().form}"' in said and "teapot" in said
    assert all(f"{len(words)} {title}:" in said for title, words in names().lists.items())


def test_generate_says_before_it_draws_what_the_shipped_model_was_not_taught(tmp_path, capsys, monkeypatch):
    from fam_ext import standalone
    from fam_ext.errors import UsageError

    def no_model(*_, **__):
        raise UsageError("stop here")

    monkeypatch.setattr(standalone, "load_pipeline", no_model)
    for options, noted in (([], True), (["--model", "mine"], False)):
        assert run("generate", "a tepot", "-o", tmp_path, *options) == 2
        assert ("near: teapot" in capsys.readouterr().err) == noted
