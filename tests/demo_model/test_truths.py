"""True pictures lie where `fam-hires bench quality --truth` looks."""

import numpy as np
import pytest
import truths
from data import truth
from PIL import Image

from fam_ext.prompt_file import read_prompts
from fam_ext.quality import protocol


def test_they_are_written_once_where_the_benchmark_looks(work, tmp_path):
    drawing = (work / "fluent" / "icons" / "modern" / "red-circle.svg").read_text()
    (work / "fluent" / "icons" / "modern" / "teapot.svg").write_text(drawing)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a knitted teapot on a blue ground\na teapot\n")
    found = truths.write(tmp_path / "out", prompts, sizes=[64, 96], count=3, seed=4, work=work)
    squares = [((side, side), (side, side)) for side in (64, 96)]
    every = protocol.cases(squares, read_prompts(prompts), count=3, seed=4)
    protocol.check_truths(tmp_path / "out", every)
    assert len(found) == len(every) == 6
    with Image.open(protocol.truth_file(tmp_path / "out", every[0])) as picture:
        assert (np.asarray(picture) == truth(every[0].prompt, 64, 4, work=work)).all()
    before = [path.stat().st_mtime_ns for path in found]
    truths.write(tmp_path / "out", prompts, sizes=[64, 96], count=3, seed=4, work=work)
    assert before == [path.stat().st_mtime_ns for path in found]


def test_a_prompt_that_names_nothing_is_said(work, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a tepot\n")
    with pytest.raises(ValueError, match="near: teapot"):
        truths.write(tmp_path / "out", prompts, sizes=[64], count=1, seed=0, work=work)
