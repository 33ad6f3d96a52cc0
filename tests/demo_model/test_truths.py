"""True pictures lie where `fam-hires bench quality --truth` looks."""

from pathlib import Path

import numpy as np
import pytest
import truths
from data import truth
from PIL import Image
from things import MATERIALS, is_held_out, parse

from fam_ext.errors import UsageError
from fam_ext.prompt_file import read_prompts
from fam_ext.quality import protocol


def test_they_are_written_once_where_the_benchmark_looks(shapes, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a knitted teapot on a blue ground\na teapot\n")
    found = truths.write(tmp_path / "out", prompts, sizes=[64, 96], count=3, seed=4, work=shapes)
    squares = [((side, side), (side, side)) for side in (64, 96)]
    every = protocol.cases(squares, read_prompts(prompts), count=3, seed=4)
    protocol.check_truths(tmp_path / "out", every)
    assert len(found) == len(every) == 6
    with Image.open(protocol.truth_file(tmp_path / "out", every[0])) as picture:
        assert (np.asarray(picture) == truth(every[0].prompt, 64, 4, work=shapes)).all()
    before = [path.stat().st_mtime_ns for path in found]
    truths.write(tmp_path / "out", prompts, sizes=[64, 96], count=3, seed=4, work=shapes)
    assert before == [path.stat().st_mtime_ns for path in found]


def test_default_are_the_benchmarks_own_prompts(tmp_path, monkeypatch):
    monkeypatch.setattr(truths, "truth", lambda prompt, side, seed, *, work: np.zeros((side, side, 3), np.uint8))
    found = truths.write(tmp_path, Path("default"), sizes=[64], count=25, seed=0)
    every = protocol.cases([((64, 64), (64, 64))], protocol.DEFAULT_PROMPTS, count=25, seed=0)
    assert found == [protocol.truth_file(tmp_path, case) for case in every]


def test_a_prompt_that_names_nothing_is_said(shapes, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a tepot\n")
    with pytest.raises(ValueError, match="near: teapot"):
        truths.write(tmp_path / "out", prompts, sizes=[64], count=1, seed=0, work=shapes)


def test_the_samples_true_pictures_are_found_by_the_demo_and_replace_earlier_ones(shapes, tmp_path, monkeypatch):
    from fam_ext.demo import run as demo

    listed, folder = tmp_path / "samples.txt", tmp_path / "truths"
    listed.write_text("3 a teapot\n")
    truths.write_samples(folder, samples=listed, side=64, work=shapes)
    listed.write_text("5 a knitted teapot on a blue ground\n7 a brick teapot\n")
    found = truths.write_samples(folder, samples=listed, side=64, work=shapes)
    assert sorted(folder.iterdir()) == found and len(found) == 2
    monkeypatch.setattr(demo, "truths", lambda: folder)
    picture = demo.true_picture(tmp_path / "00000-5-a knitted teapot on a blue ground.jpg")
    wanted = truth("a knitted teapot on a blue ground", 64, 5, work=shapes)
    assert picture is not None and np.abs(np.asarray(picture).astype(int) - wanted).mean() < 6
    assert demo.true_picture(tmp_path / "00000-3-a teapot.png") is None


def test_samples_with_a_wrong_line_leave_the_pictures_that_are_there(shapes, tmp_path):
    listed, folder = tmp_path / "samples.txt", tmp_path / "truths"
    listed.write_text("3 a teapot\n")
    before = truths.write_samples(folder, samples=listed, side=64, work=shapes)
    for line, sentence in (("a teapot", "write a seed and a prompt"), ("4 a tepot", "near: teapot")):
        listed.write_text(f"3 a teapot\n{line}\n")
        with pytest.raises((UsageError, ValueError), match=sentence):
            truths.write_samples(folder, samples=listed, side=64, work=shapes)
    assert list(folder.iterdir()) == before


def test_the_listed_samples_are_different_things_of_materials_that_were_trained_on():
    scenes = [parse(prompt) for _, prompt, _ in truths.read_samples()]
    assert 6 <= len(scenes) <= 8
    assert len({scene.thing for scene in scenes}) == len({scene.material for scene in scenes}) == len(scenes)
    assert all(scene.material in MATERIALS and not is_held_out(scene.thing, scene.material) for scene in scenes)
