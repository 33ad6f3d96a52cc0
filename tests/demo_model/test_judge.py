"""The judge of things and materials, and what is measured with it, on pictures whose answer is known."""

from __future__ import annotations

import json
import random
from pathlib import Path

import evaluate_materials as measured
import judge
import numpy as np
import pytest
import torch
from data import Scenes, compose, drawing_of, truth
from things import THINGS, Scene

from fam_ext.demo.demo_net import load_demo_net
from fam_ext.quality.detail import texture_period

from .conftest import drawing


def picture_of(shapes: Path, prompt: str, size: int = 256, seed: int = 0) -> torch.Tensor:
    return measured.as_values(truth(prompt, size, seed, work=shapes))


def test_views_are_repeatable_and_stay_pictures(shapes: Path) -> None:
    body = '<circle cx="16" cy="16" r="11" fill="#d04060"/>'
    (shapes / "fluent" / "icons" / "modern" / "owl.svg").write_text(drawing(body))
    drawn = [compose(drawing_of("owl", 128, work=shapes), Scene("owl", kind), 0) for kind in judge.KINDS]
    pictures = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)

    def views(seed: int, plain: float = 0.0) -> torch.Tensor:
        return judge.augment(pictures, 64, generator=torch.Generator().manual_seed(seed), plain=plain)

    first = views(1)
    assert first.shape == (11, 3, 64, 64) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, views(1)) and not torch.equal(first, views(2))
    assert (first.mean(dim=(1, 2, 3)) < 0.97).all()  # no drawing was lost
    # the toy's drawings have white corners: only what is plain keeps them, and half of a half is between
    several = (views(1, 1.0), views(1, 0.5), first)
    white = [(view[:, 0, :3, :3] > 0.999).all(dim=(1, 2)).float().mean() for view in several]
    assert white[0] == 1 and white[2] < white[1] < 1


def test_a_new_judge_begins_with_what_the_shipped_one_tells_apart(shapes: Path) -> None:
    begun, shipped = judge.begun(), load_demo_net()
    assert begun.things == ("owl", "teapot") and begun.whole.head.out_features == 2
    picture = torch.rand(3, 128, 128)
    assert torch.equal(begun.eval().whole_features([picture]), shipped.whole_features([picture]))
    assert torch.equal(begun.texture.material.weight, shipped.texture.material.weight)


def test_training_crops_show_the_thing_and_an_enlarged_texture_is_twice_as_coarse(shapes: Path) -> None:
    scenes = Scenes(shapes, variants=1)
    scenes.pairs = [("owl", "striped"), ("teapot", "striped")]
    rng = random.Random(0)
    periods = [
        float(np.median([texture_period(judge.textured(scenes, rng, size=256, enlarged=large)[0]) for _ in range(8)]))
        for large in (False, True)
    ]
    assert periods[1] == pytest.approx(2 * periods[0], rel=0.2)
    crops, materials, larger = judge.crop_views(scenes, rng, 6, size=256)
    assert crops.shape == (6, 3, 128, 128) and larger.tolist() == [0, 0, 1, 0, 0, 1]
    assert set(materials.tolist()) == {judge.KINDS.index("striped")}


def test_disturbing_a_crop_keeps_its_size(shapes: Path) -> None:
    crop = picture_of(shapes, "a dotted owl")[None, :, 64:192, 64:192]
    many = judge.disturbed(crop.expand(12, -1, -1, -1), torch.Generator().manual_seed(0))
    assert many.shape == (12, 3, 128, 128) and many.min() >= 0 and many.max() <= 1
    wanted = texture_period(measured.as_picture(crop[0]))
    found = [texture_period(measured.as_picture(one)) for one in many]
    assert wanted and np.median([value for value in found if value]) == pytest.approx(wanted, rel=0.25)


@pytest.mark.slow
def test_the_judge_trains_stops_goes_on_and_is_read_again(shapes: Path) -> None:
    options = ["--work", str(shapes), "--out", str(shapes / "judge"), "--size", "128", "--batch", "4", "--steps", "2"]
    for _ in range(2):
        judge.train(judge.parse([*options, "--check", "4"]))
    assert torch.load(shapes / "judge.pt", weights_only=True)["step"] == 4
    card = json.loads((shapes / "judge" / "demo_net.json").read_text())["checked"]
    assert card["native or enlarged, n"] >= 8 and 0 <= card["native or enlarged"] <= 1
    known = measured.judge_in(shapes / "judge")
    picture = picture_of(shapes, "a knitted teapot")
    assert known.thing_of(picture) in THINGS and known.material_of(picture) in judge.KINDS
    text = (shapes / "judge" / "demo_net.json").read_text().replace("owl", "elk")
    (shapes / "judge" / "demo_net.json").write_text(text)
    with pytest.raises(SystemExit, match="does not know owl; train it anew"):
        measured.judge_in(shapes / "judge")


def test_a_mean_comes_with_its_interval_and_n() -> None:
    assert measured.share([True, True, True, True]) == "100.0 % (n 4)"
    assert measured.with_interval([1.0], " dB") == "1.00 dB (n 1)" and measured.with_interval([]) == "n 0"
    text = measured.with_interval([1.0, 3.0], " dB", digits=1)
    assert text.startswith("2.0 dB (1.0 to 3.0, n 2)")


def test_more_pictures_at_2x_than_natives_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        measured.parse(["--count", "8", "--hires", "9"])
    assert "--hires 9 is more than --count 8" in capsys.readouterr().err


def test_a_grid_has_each_row_over_the_one_it_is_compared_with() -> None:
    first, second = ([torch.full((1,), sign * number) for number in range(1, 4)] for sign in (1, -1))
    assert [int(one) for one in measured.beside(first, second, across=2)] == [1, 2, -1, -2, 3, -3]
