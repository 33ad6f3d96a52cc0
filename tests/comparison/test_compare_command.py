"""What `fam-hires compare` is asked for, and what it refuses before a model is loaded."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image

from fam_ext.cli.compare import _kind
from fam_ext.cli.options import parse_scales
from fam_ext.comparison.plan import rows_of_prompts
from fam_ext.errors import UsageError
from fam_ext.options.job import Job
from fam_ext.options.parts import Places
from tests.comparison.test_compare_page import files, noise, run


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a.png", "--scales", "2", "--methods", "fam,magic"], "--methods has 'magic'; choose from fam, direct"),
        (["a.png", "--scales", "2", "--methods", ","], "--methods is ','; choose from"),
        (["a.png", "--scales", "two"], "--scales is 'two'; write numbers from 1 to 16"),
        (["a.png", "--scales", "0.5"], "--scales has 0.5; choose 1 to 16"),
        (["a.png", "--scales", "2,99"], "--scales has 99; choose 1 to 16"),
        (["a.png", "--scales", "nan"], "--scales has nan"),
        (["a.png", "--scales", "1"], "a.png at 1x: 64 x 64 px is as large as the size asked for"),
        (["a.png", "--scales", "2", "--scale", "2"], "--scale and --scales are given"),
        (["--scales", "2"], "nothing is given to compare"),
        ([], "nothing is given to compare"),
        (["gone.png", "--scales", "2"], "gone.png does not exist"),
        (["empty", "--scales", "2"], "hold no picture"),
        (["empty"], "empty hold no picture"),
        (["folder"], "bad.png at 2x:"),
        (["folder", "--out", "x.png"], "give a folder as --out"),
        (["gone"], "input gone does not exist; check the path"),
        (["bad.png", "--scales", "2"], "bad.png at 2x:"),
        (["a.png", "--out", "x.png", "--sampler", "foo"], "sampler 'foo' is unknown"),
        (["--prompt", "x", "--sampler", "DDIM", "--schedule", "Karras"], "does not go with sampler DDIM"),
        (["a.png", "--prompts", "p.txt"], "pictures and --prompts are given"),
        (["--prompt", "x", "--prompts", "p.txt"], "--prompt and --prompts are given"),
        (["--prompts", "gone.txt"], "cannot be read"),
        (["--prompts", "blank.txt"], "has no line with a prompt"),
        (["--prompts", "bad.png"], "no text in UTF-8"),
        (["a.png", "--scales", "2", "--out", "x.html"], "give a folder as --out"),
        (["a.png", "--scales", "2", "--overwrite"], "give a folder as --out"),
        (["--prompts", "many.txt", "--scales", "2,3"], "choose at most 256"),
        (["a.png", "torn.png", "--scales", "2"], "torn.png: the file is truncated"),
        (["a.png", "--out", "x.html"], "--out is x.html, and a sheet of one picture is a PNG"),
        (["a.png", "--methods", "fam", "--out", "x.JPG"], "a sheet of one picture is a PNG; name a .png file"),
        (["a.png", "--prompts", "p.txt", "--out", "x.webp"], "give a folder as --out"),
        (
            ["a.png", "--scales", "2", "--methods", "tiled", "--start", "1"],
            "--start is given, and tiled never reads it",
        ),
        (["a.png", "--methods", "tiled,direct", "--no-am"], "--no-am is given, and tiled, direct never reads it"),
        (["large.png", "--scales", "2,9"], "large.png at 9x is 81 MP; a page takes pictures of at most 64 MP"),
    ],
)
def test_bad_input_is_one_sentence_before_a_model_is_loaded(tmp_path, capsys, monkeypatch, words, sentence):
    noise(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "torn.png").write_bytes((tmp_path / "a.png").read_bytes()[:-99])
    Image.new("RGB", (1000, 1000)).save(tmp_path / "large.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "bad.png").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "p.txt").write_text("a cat\n")
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "many.txt").write_text("\n".join(map(str, range(100))))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fam_ext.cli.compare.load_renderer", None)
    before = files(tmp_path)
    code, _, err = run(capsys, *words)
    assert code == 2 and sentence in err and err.count("\n") == 1
    assert files(tmp_path) == before and not Path("compare").exists()


@pytest.mark.parametrize(
    ("inputs", "output", "more", "kind"),
    [
        ([], None, {}, "page"),
        (["a.png"], None, {}, "sheet"),
        (["a.png"], "x.png", {"methods": "fam"}, "sheet"),
        (["a.png"], "x.jpg", {}, None),
        (["a.png"], "x", {}, "page"),
        (["a.png"], "folder.png", {}, "page"),  # a folder that has such a name
        (["a.png"], None, {"scales": "2"}, "page"),
        (["a.png"], None, {"scales": ""}, "page"),
        (["a.png"], "x.html", {"scales": "2"}, None),
        (["folder.png"], None, {}, "page"),
        (["folder.png"], "x.png", {}, None),
        (["a.png", "b.png"], None, {}, "pair"),
        (["a.png", "b.png"], "x.htm", {}, "pair"),
        (["a.png", "b.png"], "x.png", {}, None),
        (["a.png", "b.png"], "x", {}, None),
        (["a.png", "b.png"], "x", {"methods": "fam"}, "page"),
        (["a.png", "b.png"], "x", {"said": {"steps": 3}}, "page"),
        (["a.png", "b.png"], None, {"methods": "fam"}, None),
        (["folder.png", "folder.png"], None, {}, "pair"),
        (["a.png", "b.png", "c.png"], None, {}, "page"),
        ([], None, {"prompts": "p.txt"}, "page"),
    ],
)
def test_what_is_asked_for(tmp_path, monkeypatch, inputs, output, more, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    words = {"methods": None, "scales": None, "prompts": None, "said": {}, **more}
    with nullcontext() if kind else pytest.raises(UsageError):
        assert _kind(inputs, output, **words) == kind


def test_keys_are_names_anywhere_and_labels_are_short(tmp_path):
    job = Job(Places(inputs=(str(tmp_path),), output=str(tmp_path / "out")))
    rows = rows_of_prompts(["CON", "con", "nul.", "Lpt1", "console", 3000 * "a"], job)
    assert [row.key for row in rows[:5]] == ["_CON", "_con-2", "_nul", "_Lpt1", "console"]
    assert rows[5].label == 67 * "a" + "..." and rows[5].title == 3000 * "a" and rows[0].label == "CON"


def test_a_scale_said_twice_is_one():
    assert parse_scales("2,1.5,2.0,1.5000001,") == [2, 1.5]


def test_help_names_the_defaults(capsys):
    """Rich swallows what stands in brackets."""
    code, said, _ = run(capsys, "--help")
    said = " ".join(said.replace("│", " ").split())
    assert code == 0 and "(default: direct,fam)" in said and "(default: 2)" in said and "compare.html" in said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "cannot be read as a comparison's results"),
        ('{"format": 1, "machine": {}, "rows": [], "cells": [{"size": [1, 1], "scale": 2, "row": "a", "method": "fam",'
         ' "digest": "d", "file": "../../etc/passwd"}]}', "cannot be read as a comparison's results"),
        (None, "is not of a comparison"),
    ],
)  # fmt: skip
def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys, monkeypatch, text, sentence):
    monkeypatch.setattr("fam_ext.cli.compare.load_renderer", None)
    (tmp_path / ("compare.html" if text is None else "results.json")).write_text(text or "mine")
    before = files(tmp_path)
    code, _, err = run(capsys, "--prompt", "a cat", "--scales", "2", "--out", tmp_path)
    assert code == 1 and sentence in err and err.count("\n") == 1
    assert files(tmp_path) == before
