"""demo-net, and what it reads in a prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from materials import shade as shade_of
from things import MATERIALS, THINGS, is_held_out, parse

from fam_ext.demo import demo_net
from fam_ext.demo.demo_net import DemoNet, Judge, at_net_size, crops_of
from fam_ext.errors import UsageError
from fam_ext.quality.protocol import DEFAULT_PROMPTS


def test_padding_looks_like_the_white_ground() -> None:
    net = DemoNet(4).eval()
    white = torch.ones(1, 3, 64, 64)
    features = net.features(white)
    larger = net.features(torch.ones(1, 3, 96, 128))
    assert torch.allclose(features, larger, atol=1e-6)


def test_pictures_come_to_the_nets_size() -> None:
    assert at_net_size(torch.rand(2, 3, 200, 100)).shape == (2, 3, 128, 128)


def test_crops_lie_on_the_thing_and_are_not_resized() -> None:
    picture = torch.zeros(3, 256, 256)
    picture[:, 140:, 140:] = torch.rand(3, 116, 116, generator=torch.Generator().manual_seed(0)) + 0.1
    crops = crops_of(picture)
    assert crops.shape == (1, 3, 128, 128) and torch.equal(crops[0], picture[:, 128:, 128:])
    empty = crops_of(torch.zeros(3, 256, 256))
    assert len(empty) == 9  # nothing stands out: all of them are looked at
    small = torch.rand(3, 72, 300)
    assert torch.equal(crops_of(small)[0], small[:, :, :72])


@pytest.mark.parametrize(
    ("prompt", "thing", "material"),
    [
        ("a knitted teapot on a blue ground", "teapot", "knitted"),
        ("Car, (scaly:1.2), on navy", "car", "scaly"),
        ("a racing car", "racing car", None),
        ("a cartoon of a brick teddy-bear", "teddy bear", "brick"),
        ("a bricklayer's hut", "hut", None),
    ],
)
def test_a_prompt_names_a_thing_and_a_material_in_whole_words(prompt: str, thing: str, material: str | None) -> None:
    judge = Judge(["car", "hut", "racing car", "teapot", "teddy bear"], ["brick", "knitted", "scaly"])
    assert judge.asked_for(prompt) == (thing, material)


def test_a_prompt_that_names_no_thing_is_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="'a brick sea' names no thing that demo-net knows; name one of its 2"):
        Judge(["car", "hut"], ["brick"]).asked_for("a brick sea")


def test_the_shipped_net_is_small_and_knows_what_the_model_draws() -> None:
    assert (demo_net.FOLDER / demo_net.WEIGHTS).stat().st_size <= 8e6
    judge = demo_net.load_demo_net()
    assert (judge.things, judge.kinds) == (tuple(THINGS), (None, *MATERIALS))
    features = judge.whole_features([torch.rand(3, 64, 64), torch.rand(3, 256, 256)])
    assert features.shape == (2, 256) and features.isfinite().all()
    assert judge.thing_of(torch.rand(3, 64, 64)) in THINGS
    for prompt in DEFAULT_PROMPTS:  # the benchmark's: each of a pair that was trained on
        scene = parse(prompt)
        assert judge.asked_for(prompt) == (scene.thing, scene.material)
        assert not is_held_out(scene.thing, scene.material)


@pytest.mark.parametrize("material", [None, *MATERIALS])
def test_the_shipped_net_tells_materials_and_whether_they_are_enlarged(material: str | None) -> None:
    judge = demo_net.load_demo_net()
    shade = shade_of(material, 256, 5) if material else np.ones((256, 256))
    picture = torch.from_numpy(shade * np.array([0.75, 0.45, 0.35])[:, None, None]).float().clamp(0, 1)
    assert judge.material_of(picture) == material
    if material:
        crops = crops_of(picture)
        larger = F.interpolate(crops, scale_factor=2, mode="bicubic").clamp(0, 1)[:, :, :128, :128]
        with torch.no_grad():
            said = [judge.texture(each)[1].mean(dim=0).argmax().item() for each in (crops, larger)]
        assert said == [0, 1]
