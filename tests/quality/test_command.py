"""`fam-hires bench quality` from the command line: bad input is one sentence, a run goes on, settings never mix."""

import contextlib
import errno
import json
import os
import re
import shutil
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fam_ext
from fam_ext import cli, hires, standalone, upscalers
from fam_ext.cli.progress import Interrupted
from fam_ext.core.config import FamConfig
from fam_ext.jobs.lock import alone_in
from fam_ext.methods.catalog import METHODS
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


def test_one_folder_serves_runs_with_and_without_an_upscaler(model, tmp_path, capsys, monkeypatch):
    def twice(pixels):
        return pixels.repeat_interleave(2, -1).repeat_interleave(2, -2)

    network = upscalers.Upscaler("twice", 2, twice, torch.device("cpu"))
    monkeypatch.setattr(standalone.upscalers, "load", lambda file, **_: network)
    (tmp_path / "twice.pth").write_bytes(b"weights")
    out, words = tmp_path / "out", ["--upsample", "pixel_bicubic"]
    assert run(*options(model, out, *words, methods="fam,direct,tiled")) == 0
    note = "no --upscaler: Lanczos enlarges in tiled"
    assert note in capsys.readouterr().out and note in (out / "table.md").read_text()
    natives = sorted((out / "pictures").glob("*-native-*"))
    monkeypatch.setattr(setting, "libraries", lambda: "torch 99")
    words += ["--upscaler", tmp_path / "twice.pth"]
    with counted(monkeypatch) as made:
        assert run(*options(model, out, *words, methods="fam,direct,upscaler")) == 0
    assert made == ["upscaler"] * 2 and sorted((out / "pictures").glob("*-native-*")) == natives
    table = (out / "table.md").read_text()
    assert "Less FAM's" in table and table.count("| upscaler | ") == table.count("| direct | ") > 1
    assert "no --upscaler" not in table and re.search(r"\(fam, direct\); torch 99 \(upscaler\)", table)
    with counted(monkeypatch) as made:  # another network: its own rows alone
        (tmp_path / "twice.pth").write_bytes(b"others")
        assert run(*options(model, out, *words, "--count", 1, methods="upscaler")) == 0
    assert made == ["upscaler"] and "--upsample is given, and upscaler never reads it" in capsys.readouterr().err


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


def test_a_second_run_in_a_folder_is_refused(model, tmp_path, capsys, monkeypatch):
    with alone_in(tmp_path, ".fam-bench.lock"), counted(monkeypatch) as made:
        assert run(*options(model, tmp_path)) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} is being filled by another run; wait for it" in error and error.count("\n") == 1
    assert made == [] and not list(tmp_path.iterdir())


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


def test_times_of_another_machine_are_left_out_by_name(model, tmp_path, capsys, monkeypatch):
    words = options(model, tmp_path, "--count", 1, methods="resize,upscaler")
    assert run(*words) == 0
    here = setting.machine(standalone.load_pipeline(model, device="cpu"))
    assert here in (tmp_path / "table.md").read_text()
    monkeypatch.setattr(setting, "machine", lambda host: "a faster one")
    next((tmp_path / "pictures").glob("*-resize-*.png")).unlink()
    assert run(*words, "--crop", 32) == 0  # measured again: the time stays its machine's
    sentence = f"times are left out, since they are of different machines: {'; '.join(sorted([here, 'a faster one']))}"
    assert sentence in capsys.readouterr().err and sentence in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("place", ["pictures", "table.md", "pareto.svg"])
def test_a_place_that_cannot_be_written_is_said_before_anything_runs(model, tmp_path, capsys, monkeypatch, place):
    if place == "pictures":
        (tmp_path / place).write_text("mine")
    else:
        (tmp_path / place).mkdir()
    with counted(monkeypatch) as made:
        assert run(*options(model, tmp_path)) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / place) in error and "choose another --out" in error and error.count("\n") == 1
    assert made == [] and not list(tmp_path.rglob("*.png"))


def test_tables_on_a_full_disk_are_one_sentence(model, tmp_path, capsys, monkeypatch):
    words, real = options(model, tmp_path, "--count", 1, methods="resize"), os.fsync

    def full(file):
        if len(list((tmp_path / "pictures").glob("*.png"))) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    assert run(*words) == 1
    error = capsys.readouterr().err
    assert "table.md cannot be written (No space left on device)" in error and error.count("\n") == 1


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
    own = next(line for line in (tmp_path / "table.tex").read_text().splitlines() if "early = fam: " in line)
    again = own.removeprefix("% - early = fam: ")
    assert run(*options(model, tmp_path, "--variant", f"again=fam:{again}", "--count", 1, methods="resize")) == 0
    assert f"again = fam: {again}" in (tmp_path / "table.tex").read_text()  # as --variant takes them
    config = json.loads(settings)["config"]
    assert (config["am_window"], config["am_sites"], config["cutoff"]) == ([1.0, 0.4], "up*,mid*", 0.4)


def test_the_tables_say_with_what_they_were_made(model, tmp_path):
    (tmp_path / "p.txt").write_text("a red owl\n")
    words = ["--preset", "fast", "--fm-edge", 0.5, "--negative", "blur *", "--seed", 7, "--prompts", tmp_path / "p.txt"]
    words += ["--variant", "weak=fam:attention=0.3,am=true"]
    assert run(*options(model, tmp_path / "out", *words, "--count", 1, methods="resize")) == 0
    head = (tmp_path / "out" / "table.tex").read_text().split("\\begin")[0]
    said = f"preset fast with fm_edge=0.5; negative prompt 'blur *'; first seed 7; prompts {tmp_path / 'p.txt'}\n"
    assert said in head and "% - weak = fam: attention=0.3\n" in head and "resize =" not in head
    assert r"fm\_edge=0.5; negative prompt 'blur \*'" in (tmp_path / "out" / "table.md").read_text()


def test_start_and_upsample_are_read_where_the_docs_say_so():
    text = (Path(fam_ext.__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"`start` and `upsample` count for (.*?)\.\n", text, re.S)
    for dial, values in (("start", (0.5, 0.6)), ("upsample", ("pixel_bicubic", "pixel_lanczos"))):
        configs = [FamConfig().replace(**{dial: value}) for value in values]
        for name, entry in METHODS.items():
            one, other = (entry.load()(config).stages((128, 128), (64, 64)) for config in configs)
            assert (one != other) == (dial in entry.dials) == (f"`{name}`" in said)


def test_a_long_prompt_of_long_letters_has_a_name_that_a_disk_takes(model, tmp_path):
    (tmp_path / "p.txt").write_text("\U0001d49c" * 80, encoding="utf-8")
    words = ["--prompts", tmp_path / "p.txt", "--count", 1, "--seed", 2**64 - 1]
    assert run(*options(model, tmp_path / "out", *words, methods="resize,hidiffusion+fam")) == 0


def test_the_longest_size_is_measured(model, tmp_path):
    assert run(*options(model, tmp_path, "--sizes", "2048x128", "--count", 1, methods="resize")) == 0


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
        (["--variant", "x=direct:attention=0.3"], "direct does not read attention; it reads no dial"),
        (["--variant", "x=tiled:start=0.4,cutoff=1"], "tiled does not read start, cutoff; it reads no dial"),
        (["--variant", "x=skip-residual:am=false"], "skip-residual does not read am; it reads start, upsample"),
        (["--variant", "x=fam-swap:attention=0.3"], "fam-swap does not read attention; it reads cutoff, fm, am"),
        (["--variant", "x=fam:am=perhaps"], "--variant is 'am=perhaps'; choose am=true"),
        (["--sampler", "DDIM", "--schedule", "Karras"], "does not go with sampler DDIM"),
        (["--variant", "x=fam:nope=1"], "--variant is 'nope=1'; write FIELD=VALUE"),
        (["--variant", "x=fam:am_window=1"], "FAM AM window is '1'"),
        (["--variant", "tiled=fam:am=false"], "with a label of its own"),  # though no row of tiled's is asked for
        (["--variant", "a\nb=fam:am=false"], "with a label of its own"),
        (["--variant", "a\udcff=fam:am=false"], "with a label of its own"),
        (["--am-sites", "nowhere"], "--am-sites is 'nowhere'"),
        (["--count", 10**9], "are 3000000000 pictures; choose at most 100000"),
        (["--crops", 10**9], "at most 1000 crops"),
        (["--seed", 2**64 - 1], "--seed is 18446744073709551615 and --count 2"),
        (["--scales", ","], "--scales is ','; write numbers from 1 to 16"),
        (["--sizes", " , "], "give one size or more"),
        (["--sizes", "128"], "--sizes is '128'; write WIDTHxHEIGHT"),
        (["--truth", "torn"], "--truth picture torn/128x128/1-a-brick-castle.png: the file is truncated"),
        (["--sampler", "PLMS"], "sampler 'PLMS' is refused"),
        (["--count", 0], "--count is 0"),
        (["--scales", "two"], "--scales is 'two'; write numbers from 1 to 16"),
        (["--scales", "nan"], "--scales has nan; choose 1 to 16"),
        (["--sizes", "8192x64"], "the native picture of that aspect is 1024x8, and at least 16 px a side are measured"),
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
    monkeypatch.setitem(sys.modules, "spandrel", None)  # another test may have loaded it, with what it needs
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
    assert run(*options(model, tmp_path, "--count", 1, "--crop", 32, methods="resize")) == 1
    error = capsys.readouterr().err
    assert f"failed: {path}: the file is truncated" in error and error.count("\n") == 3


def failing(monkeypatch, drawing, fails):
    """Let the memory run out in `drawing` where `fails(words)`; return the words of each call."""
    calls, real = [], getattr(hires, drawing)

    def full(*arguments, **words):
        calls.append(words)
        if fails(words):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return real(*arguments, **words)

    monkeypatch.setattr(hires, drawing, full)
    return calls


def test_a_method_that_fails_is_left_out_and_tried_again_by_the_next_run(model, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patched:
        failing(patched, "upscale", lambda words: words["method"] == "direct")
        assert run(*options(model, tmp_path)) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 4
    assert error[0].startswith("2 of 6: direct, 128x128, 0-a-knitted-shoe")
    assert "failed: the memory ran out (CUDA out of memory); use a smaller size" in error[0]
    assert error[2:] == [
        "direct is left out of the tables at 128x128: none of its pictures could be made",
        "2 of 6 pictures could not be made; the same command tries them again",
    ]
    table = (tmp_path / "table.md").read_text()
    assert "(n = 2)" in table and "| upscaler |" in table and "direct" not in table
    with counted(monkeypatch) as made:
        assert run(*options(model, tmp_path)) == 0
    assert made == ["direct"] * 2 and "| direct |" in (tmp_path / "table.md").read_text()


def test_one_picture_that_fails_leaves_the_others_a_table(model, tmp_path, capsys, monkeypatch):
    calls = failing(monkeypatch, "upscale", lambda words: len(calls) == 1)
    assert run(*options(model, tmp_path, methods="resize,upscaler")) == 1
    assert "1 of 4 pictures could not be made" in capsys.readouterr().err
    assert "(n = 1)" in (tmp_path / "table.md").read_text()


def test_methods_that_share_no_picture_have_no_table(model, tmp_path, capsys, monkeypatch):
    calls = failing(monkeypatch, "upscale", lambda words: len(calls) in (1, 4))
    assert run(*options(model, tmp_path, "--truth", truths(tmp_path / "truth"), methods="resize,upscaler")) == 1
    assert "there is no table at 128x128: no picture was made by every method" in capsys.readouterr().err


def test_a_native_picture_that_fails_is_tried_once_and_ends_no_other(model, tmp_path, capsys, monkeypatch):
    natives = failing(monkeypatch, "generate_native", lambda words: words["sampling"].seed == 0)
    assert run(*options(model, tmp_path)) == 1
    error = capsys.readouterr().err
    assert len(natives) == 2 and "3 of 6 pictures could not be made" in error
    assert error.count("failed: the memory ran out") == 1
    assert error.count("failed: its native picture: the memory ran out") == 2
    assert "(n = 1)" in (tmp_path / "table.md").read_text()
    monkeypatch.setattr(hires, "generate_native", lambda *_, **__: 1 / 0)
    assert run(*options(model, tmp_path, "--seed", 5, methods="resize")) == 1
    error = capsys.readouterr().err
    assert "failed: ZeroDivisionError: division by zero" in error and "2 of 2 pictures could not be made" in error
