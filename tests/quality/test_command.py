"""`fam-hires bench quality` from the command line: bad input is one sentence, a run goes on, settings never mix."""

import contextlib
import errno
import json
import os
import re
import shutil
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fam_ext
from fam_ext import cli, hires
from fam_ext.cli.progress import Interrupted
from fam_ext.quality import protocol, setting, statistics

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(statistics, "FRECHET_DRAWS", 4)  # two hundred take ten seconds on a busy core


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "quality", *map(str, arguments)])
    return ended.value.code


def options(model, out, *more, methods="fam,direct,upscaler"):
    return ["--model", model, "--device", "cpu", "--out", out, "--methods", methods, "--count", 2, "--steps", 2, *more]


@contextlib.contextmanager
def counted(monkeypatch, *, stop_at=None):
    """Count the pictures that are drawn; stop as by Ctrl+C before the one of a number."""
    made, real = [], hires.upscale

    def upscale(*arguments, **words):
        if len(made) + 1 == stop_at:
            raise Interrupted
        made.append(words["method"])
        return real(*arguments, **words)

    with monkeypatch.context() as patched:
        patched.setattr(hires, "upscale", upscale)
        yield made


def kept(out):
    with contextlib.closing(sqlite3.connect(out / "results.sqlite")) as rows:
        return rows.execute("SELECT method, height, width, seed FROM rows ORDER BY seed, method").fetchall()


def truths(folder, *, size=(128, 128), count=2):
    for case in protocol.cases([(size, size)], protocol.DEFAULT_PROMPTS, count=count, seed=0):
        path = protocol.truth_file(folder, case)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(case.seed).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(noise).save(path)
    return folder


def test_a_run_makes_rows_pictures_tables_and_a_rerun_makes_none(model, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    with counted(monkeypatch) as made:
        assert run(*options(model, out)) == 0
    assert made == ["fam", "direct", "upscaler"] * 2
    assert kept(out) == [(name, 128, 128, seed) for seed in (0, 1) for name in ("direct", "fam", "upscaler")]
    said = capsys.readouterr().out
    assert "1 of 6: fam, 128x128, 0-a-knitted-shoe" in said and "0:00 left" in said
    names = sorted(path.name for path in out.iterdir())
    assert names == ["pareto.svg", "pictures", "results.csv", "results.sqlite", "table.md", "table.tex"]
    assert len(list((out / "pictures").glob("*.png"))) == 8  # six, and two native ones
    table = (out / "table.md").read_text()
    assert "(n = 2)" in table and "2 steps" in table
    assert "FID" not in table and "KID" not in table and "CLIP" not in table and "KD" not in table
    before = {path: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()}
    with counted(monkeypatch) as made:
        assert run(*options(model, out)) == 0
    assert made == []
    assert before == {path: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()}
    assert (out / "table.md").read_text() == table

    # a picture that was taken away is made again, and no other
    next((out / "pictures").glob("1-*-direct-*.png")).unlink()
    with counted(monkeypatch) as made:
        assert run(*options(model, out)) == 0
    assert made == ["direct"]

    # a variant is a row more
    with counted(monkeypatch) as made:
        assert run(*options(model, out, "--variant", "FM only=fam:am=false,cutoff=0.4")) == 0
    assert made == ["fam"] * 2
    assert "| FM only |" in (out / "table.md").read_text()

    # with true pictures the same ones are measured anew
    with counted(monkeypatch) as made:
        assert run(*options(model, out, "--truth", truths(tmp_path / "truth"))) == 0
    assert made == []
    table = (out / "table.md").read_text()
    assert "KD (demo-net), crops" in table and "off the true period" in table and "FID" not in table

    # other settings are other rows, and the tables hold them alone
    with counted(monkeypatch) as made:
        assert run(*options(model, out, "--cfg-scale", 3, methods="fam")) == 0
    assert made == ["fam"] * 2 and len(kept(out)) == 10
    assert "CFG 3" in (out / "table.md").read_text() and "direct" not in (out / "table.md").read_text()
    assert len((out / "results.csv").read_text().splitlines()) == 3

    # and so are those of other code
    monkeypatch.setattr(setting, "code_hash", lambda: "mended")
    with counted(monkeypatch) as made:
        assert run(*options(model, out, "--cfg-scale", 3, methods="fam")) == 0
    assert made == ["fam"] * 2


def test_a_model_whose_settings_were_changed_has_other_rows(model, tmp_path, monkeypatch):
    folder, config, out = tmp_path / "model", tmp_path / "config", tmp_path / "out"
    for copy in (folder, config):
        shutil.copytree(model, copy)
    words = options(folder, out, "--model-config", config, "--count", 1, methods="direct")
    assert run(*words) == 0
    for changed in (folder, config):
        file = changed / "scheduler" / "scheduler_config.json"
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({**settings, "prediction_type": "v_prediction"}))
        for expected in (["direct"], []):
            with counted(monkeypatch) as made:
                assert run(*words) == 0
            assert made == expected


def test_every_method_begins_from_the_same_native_picture_and_its_record(model, tmp_path, monkeypatch):
    natives, real = [], hires.upscale

    def upscale(host, native, **words):
        natives.append(native)
        return real(host, native, **words)

    monkeypatch.setattr(hires, "upscale", upscale)
    assert run(*options(model, tmp_path, "--scales", "1.5,2", "--count", 1)) == 0
    assert len(natives) == 6 and all(native is natives[0] for native in natives)
    assert len(natives[0].record) == 2


def test_ctrl_c_loses_the_picture_under_way_alone(model, tmp_path, capsys, monkeypatch):
    with counted(monkeypatch, stop_at=3):
        assert run(*options(model, tmp_path)) == 130
    assert [row[0] for row in kept(tmp_path)] == ["direct", "fam"]
    assert not list(tmp_path.rglob("*.part"))
    dead, alive = (tmp_path / "pictures" / f".{name}.part" for name in ("dead", "alive"))
    for path, age in ((dead, 7200), (alive, 0)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    with counted(monkeypatch) as made:
        assert run(*options(model, tmp_path)) == 0
    assert made == ["upscaler", "fam", "direct", "upscaler"]
    assert [path.name for path in tmp_path.rglob("*.part")] == [alive.name]


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(model, tmp_path, capsys, monkeypatch):
    words, real = options(model, tmp_path, "--count", 1, methods="resize,direct"), os.fsync

    def full(file):
        if len(list((tmp_path / "pictures").glob("*-resize-*.png"))) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert run(*words) == 1
    error = capsys.readouterr().err
    assert "-direct-" in error and "(No space left on device); free space" in error and error.count("\n") == 1
    assert kept(tmp_path) == [("resize", 128, 128, 0)] and not list(tmp_path.rglob("*.part"))
    with counted(monkeypatch) as made:
        assert run(*words) == 0
    assert made == ["direct"]


def test_a_size_said_twice_is_made_and_written_once(model, tmp_path, capsys):
    words = ["--scales", "2,2", "--sizes", "128x128,192x96,128x128", "--count", 1]
    assert run(*options(model, tmp_path, *words, methods="resize")) == 0
    assert "1 of 2: resize" in capsys.readouterr().out and len(kept(tmp_path)) == 2
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3


def test_a_variants_value_may_have_commas(model, tmp_path):
    words = ["--variant", "early = fam : am_window=1,0.4, am_sites=up*,mid*, cutoff=0.4,", "--count", 1]
    assert run(*options(model, tmp_path, *words, methods="resize")) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "results.sqlite")) as rows:
        (settings,) = rows.execute("SELECT settings FROM rows WHERE method = 'early'").fetchone()
    config = json.loads(settings)["config"]
    assert (config["am_window"], config["am_sites"], config["cutoff"]) == ([1.0, 0.4], "up*,mid*", 0.4)


def test_a_long_prompt_of_long_letters_has_a_name_that_a_disk_takes(model, tmp_path):
    (tmp_path / "p.txt").write_text("\U0001d49c" * 80, encoding="utf-8")
    words = ["--prompts", tmp_path / "p.txt", "--count", 1, "--seed", 2**64 - 1]
    assert run(*options(model, tmp_path / "out", *words, methods="resize,hidiffusion+fam")) == 0


def test_sizes_of_another_aspect(model, tmp_path):
    assert run(*options(model, tmp_path, "--sizes", "192x96", "--count", 1, methods="fam,tiled")) == 0
    assert kept(tmp_path) == [("fam", 96, 192, 0), ("tiled", 96, 192, 0)]


def test_references_are_held_against_in_the_place_of_true_pictures(model, tmp_path):
    truths(tmp_path / "real", count=3)
    assert run(*options(model, tmp_path / "out", "--references", tmp_path / "real" / "128x128", methods="fam")) == 0
    assert "Distance to the reference pictures (3 of them) (n = 2)" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "magic"], "method is 'magic'; choose one of fam"),
        (["--methods", " , "], "--methods is empty"),
        (["--variant", "fam:am=false"], "--variant is 'fam:am=false'; write LABEL=METHOD:FIELD=VALUE"),
        (["--variant", "direct=fam:am=false"], "with a label of its own"),
        (["--variant", "x=magic:am=false"], "method is 'magic'"),
        (["--variant", "x=fam:am=perhaps"], "am is 'perhaps'"),
        (["--variant", "x=fam:nope=1"], "--variant is 'nope=1'; write FIELD=VALUE"),
        (["--variant", "x=fam:am_window=1"], "FAM AM window is '1'"),
        (["--variant", "tiled=fam:am=false"], "with a label of its own"),  # though no row of tiled's is asked for
        (["--variant", "a\nb=fam:am=false"], "with a label of its own"),
        (["--variant", "a\udcff=fam:am=false"], "with a label of its own"),
        (["--am-sites", "nowhere"], "--am-sites is 'nowhere'"),
        (["--count", 10**9], "are 3000000000 pictures; choose at most 100000"),
        (["--crops", 10**9], "at most 1000 crops"),
        (["--seed", 2**64 - 1], "--seed is 18446744073709551615 and --count 2"),
        (["--scales", ","], "give one size or more"),
        (["--sizes", " , "], "give one size or more"),
        (["--sizes", "128"], "--sizes is '128'; write WIDTHxHEIGHT"),
        (["--truth", "torn"], "--truth picture torn/128x128/1-a-brick-castle.png: the file is truncated"),
        (["--sampler", "PLMS"], "sampler 'PLMS' is refused"),
        (["--count", 0], "--count is 0"),
        (["--scales", "two"], "--scales has 'two'"),
        (["--scales", "nan"], "--scales has nan; choose 1 to 8"),
        (["--sizes", "100x128"], "--sizes has 100x128; choose multiples of 8"),
        (["--crop", 512], "--crop is 512; choose 16 to 128 px"),
        (["--crop", 0], "--crop is 0"),
        (["--prompts", "gone.txt"], "gone.txt, which cannot be read"),
        (["--prompts", "empty.txt"], "empty.txt, which has no line with a prompt"),
        (["--truth", "gone"], "--truth has no picture"),
        (["--truth", "small"], "is 64x64; give it at 128x128"),
        (["--references", "gone"], "--references gone is no folder"),
        (["--inception", "gone.pth"], "--inception gone.pth is no file"),
        (["--inception", "empty.txt"], "--inception needs torch-fidelity"),
        (["--clip", "gone"], "--clip gone has no config.json"),
        (["--model", "empty.txt"], "empty.txt"),
        (["--upscaler", "empty.txt"], "super-resolution"),
        (["--cutoff", 7], "--cutoff is 7"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_runs(model, tmp_path, capsys, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    for case in protocol.cases([((64, 64), (128, 128))], protocol.DEFAULT_PROMPTS, count=2, seed=0):
        path = protocol.truth_file(tmp_path / "small", case)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(path)
    (torn := truths(tmp_path / "torn") / "128x128" / "1-a-brick-castle.png").write_bytes(torn.read_bytes()[:-99])
    with counted(monkeypatch) as made:
        assert run(*options(model, "out"), *words) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert made == [] and not (tmp_path / "out" / "pictures").exists()


def test_a_file_that_is_no_database_is_left_alone(model, tmp_path, capsys):
    (tmp_path / "results.sqlite").write_bytes(b"mine, and long enough to be none" * 40)
    assert run(*options(model, tmp_path)) == 2
    assert "is no database of results" in capsys.readouterr().err
    assert (tmp_path / "results.sqlite").read_bytes().startswith(b"mine")


@pytest.mark.parametrize("table", ["photos (name)", "rows (a, b)"])
def test_a_database_of_another_program_is_left_alone(model, tmp_path, capsys, monkeypatch, table):
    with contextlib.closing(sqlite3.connect(tmp_path / "results.sqlite")) as rows:
        rows.execute(f"CREATE TABLE {table}")
    before = (tmp_path / "results.sqlite").read_bytes()
    with counted(monkeypatch) as made:
        assert run(*options(model, tmp_path)) == 2
    error = capsys.readouterr().err
    assert "is no database of results; move it away" in error and error.count("\n") == 1
    assert made == [] and (tmp_path / "results.sqlite").read_bytes() == before


def test_a_damaged_database_is_one_sentence_about_itself(model, tmp_path, capsys):
    assert run(*options(model, tmp_path, "--count", 1, methods="resize")) == 0
    path = tmp_path / "results.sqlite"
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(len(data) - 4096))  # the first page, with the tables' names, is whole
    capsys.readouterr()
    assert run(*options(model, tmp_path, "--count", 1, methods="resize")) == 1
    error = capsys.readouterr().err
    assert "results.sqlite is damaged" in error and "move it away" in error and error.count("\n") == 1


def test_a_picture_that_was_damaged_is_named_when_it_is_measured_again(model, tmp_path, capsys):
    assert run(*options(model, tmp_path, "--count", 1, methods="resize")) == 0
    path = next((tmp_path / "pictures").glob("*-resize-*.png"))
    path.write_bytes(path.read_bytes()[:-99])
    capsys.readouterr()
    assert run(*options(model, tmp_path, "--count", 1, "--crop", 32, methods="resize")) == 2
    error = capsys.readouterr().err
    assert f"{path}: the file is truncated" in error and error.count("\n") == 1


def test_weights_that_measure_are_known_by_what_they_hold(tmp_path):
    (tmp_path / "clip").mkdir()
    file, inside = tmp_path / "inception.pth", tmp_path / "clip" / "model.safetensors"
    file.write_bytes(b"one")
    inside.write_bytes(b"two")
    before = setting.measuring_weights(str(file), str(tmp_path / "clip"))
    inside.write_bytes(b"another")
    after = setting.measuring_weights(str(file), str(tmp_path / "clip"))
    assert len(before) == 2 and before[0] == after[0] and before[1] != after[1]
    assert setting.measuring_weights(None, None) == []


def test_code_that_draws_imports_none_that_is_not_in_the_hash():
    """Beside what reads settings and weights, whose values are in the rows' fingerprints themselves."""
    home = Path(fam_ext.__file__).parent
    files = [path for part in setting.CODE for path in (sorted((home / part).rglob("*.py")) or [home / part])]
    lines = re.findall(
        r"^ *(?:from fam_ext\.(\w+)|from fam_ext import (.+)$)", "\n".join(map(Path.read_text, files)), re.M
    )
    imported = {name.strip() for module, names in lines for name in (module or names).split(",")}
    drawing = {Path(part).stem for part in setting.CODE}
    assert drawing <= imported | {"standalone"}  # the regular expression finds them
    assert imported - drawing == {"errors", "jobs", "options", "weights"}


def test_a_mended_method_has_other_rows(tmp_path, monkeypatch):
    home = tmp_path / "fam_ext"
    shutil.copytree(Path(fam_ext.__file__).parent, home, ignore=shutil.ignore_patterns("demo", "__pycache__"))
    monkeypatch.setattr(fam_ext, "__file__", str(home / "__init__.py"))
    before = setting.code_hash()
    (home / "cli" / "report.py").write_text("# draws nothing")
    assert setting.code_hash() == before
    for drawing in ("methods/demofusion.py", "hosts/diffusers/host.py", "recipe.py"):
        (home / drawing).write_text(f"# {drawing}, mended")
        after = setting.code_hash()
        assert after != before
        before = after


@pytest.mark.parametrize("drawing", ["generate_native", "upscale"])
def test_memory_that_runs_out_is_one_sentence(model, tmp_path, capsys, monkeypatch, drawing):
    def full(*_, **__):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(hires, drawing, full)
    assert run(*options(model, tmp_path)) == 2
    error = capsys.readouterr().err
    assert "the memory ran out (CUDA out of memory); use a smaller size" in error and error.count("\n") == 1
