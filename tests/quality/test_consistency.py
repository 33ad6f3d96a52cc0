"""Texture from part to part: alike where it is one, unlike where a half of it is another."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fam_ext.quality import protocol, ruler
from fam_ext.quality.columns import GROUPS
from fam_ext.quality.consistency import places_on_thing, spread_beyond, texture_spread

Y, X = np.mgrid[0:512, 0:512]


def grey(light):
    return np.repeat(np.clip(light, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def waves(period, *, shift=0.0, slant=0.3):
    return 128 + 60 * np.sin(2 * np.pi * (X + slant * Y + shift) / period)


def halves(left, right):
    return grey(np.where(X < 256, left, right))


ONE = texture_spread(grey(waves(18)))


@pytest.mark.parametrize(
    "right",
    [
        pytest.param(waves(36), id="twice the period"),
        pytest.param(waves(18, slant=-3), id="another direction"),
        pytest.param(128 + 60 * np.sign(np.sin(X / 3) * np.sin(Y / 3)), id="another material"),
        pytest.param(128 + 6 * np.sin(X / 3), id="smoothed"),
    ],
)
def test_a_half_of_another_texture_is_unlike(right):
    assert texture_spread(halves(waves(18), right)) > ONE + 2
    assert spread_beyond(halves(waves(18), right), grey(waves(18))) > 2


def test_one_texture_is_alike_wherever_it_lies():
    assert ONE < 1
    assert texture_spread(grey(waves(18, shift=7))) == pytest.approx(ONE, abs=0.3)


def test_colour_and_brightness_do_not_count():
    light = waves(18)
    coloured = np.stack([light, light * 0.4, light * 0.1], axis=2).astype(np.uint8)
    darker = grey(light * (1 - 0.5 * X / 512))
    assert texture_spread(coloured) == pytest.approx(ONE, abs=0.6)
    assert texture_spread(darker) < ONE + 1


def test_a_picture_is_as_alike_as_the_truth_that_it_equals():
    assert spread_beyond(grey(waves(18)), grey(waves(18))) == 0


@pytest.mark.parametrize("picture", [grey(np.full((512, 512), 90)), grey(waves(18))[:128, :128], grey(waves(18))[:90]])
def test_without_two_crops_of_texture_there_is_none(picture):
    assert texture_spread(picture) is None
    assert spread_beyond(picture, picture) is None


def test_crops_lie_on_the_thing_and_the_ground_does_not_count():
    ground = np.full((512, 512, 3), (190, 216, 242), np.uint8)
    thing = ground.copy()
    thing[128:448, 128:448] = grey(waves(18))[128:448, 128:448] // 2
    assert set(places_on_thing(thing)) == {(top, left) for top in range(128, 321, 64) for left in range(128, 321, 64)}
    assert texture_spread(thing) < ONE + 0.5
    assert len(places_on_thing(grey(waves(18)))) == 49  # no plain ground: everywhere


def test_the_benchmark_measures_it_with_and_without_a_true_picture(tmp_path, monkeypatch):
    def nothing(parts):
        return np.zeros((len(parts), 1), np.float32)

    net = SimpleNamespace(name="net", whole=nothing, crops=nothing)
    monkeypatch.setattr(ruler, "demo_net", lambda: (net, lambda picture, prompt: {}))
    case = protocol.Case((256, 256), (512, 512), "a teapot", 0)
    path = protocol.truth_file(tmp_path, case)
    path.parent.mkdir()
    Image.fromarray(grey(waves(18))).save(path)
    made, native = halves(waves(18), waves(36)), grey(waves(18))[:256, :256].copy()
    values = ruler.Ruler(crop=64, crops=1, truth=tmp_path).measure(made, native, case).values
    assert values["spread_beyond"] == spread_beyond(made, grey(waves(18)))
    assert values["spread"] == texture_spread(made)
    assert "spread_beyond" not in ruler.Ruler(crop=64, crops=1).measure(made, native, case).values
    assert {"spread", "spread_beyond"} <= {column.key for column in GROUPS["Texture"]}
