"""Things made of materials: textures of one period in px at every size, prompts, the pairs never trained on."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import materials
import numpy as np
import pytest
import things
import torch
from data import Renders, Scenes, drawing_of, truth
from things import MATERIALS, THINGS, Scene

from .conftest import VAE, drawing


def row_period(shade: np.ndarray) -> float:
    """Return the period in px of the strongest wave in a texture, whichever way it runs."""
    size = len(shade)
    power = np.abs(np.fft.rfft2((shade - shade.mean()) * np.outer(np.hanning(size), np.hanning(size)))) ** 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    power[frequency < 1 / 64] = 0
    return float(1 / frequency.flat[power.argmax()])


@pytest.mark.parametrize("material", MATERIALS)
def test_a_texture_has_one_period_in_pixels_at_every_size(material: str) -> None:
    small, large = materials.shade(material, 256, 3), materials.shade(material, 512, 3)
    assert np.array_equal(large[:256, :256], small)  # more of it, not bigger
    assert 16 <= materials.TEXTURES[material][1] <= 28
    if material not in ("furry", "crystalline", "mosaic"):  # those have no one wave
        assert 12 <= row_period(large) <= 28.5
    assert 0.4 < large.min() < 0.7 and 1 < large.max() < 1.25 and large.std() > 0.1


@pytest.mark.parametrize("material", MATERIALS)
def test_another_seed_moves_the_texture(material: str) -> None:
    first = materials.shade(material, 64, 1)
    assert np.array_equal(first, materials.shade(material, 64, 1))
    assert np.abs(first - materials.shade(material, 64, 2)).mean() > 0.02


def test_the_true_picture_keeps_the_shape_and_shows_more_texture(shapes: Path) -> None:
    small, large = (truth("a knitted teapot on a navy ground", size, 0, work=shapes) for size in (64, 128))
    assert small.shape == (64, 64, 3) and large.shape == (128, 128, 3)
    ground = things.GROUNDS["navy"]
    for picture in (small, large):
        assert tuple(picture[1, 1]) == ground and tuple(picture[len(picture) // 2, len(picture) // 2]) != ground
    # the same 40 px of texture, in twice as large a picture
    assert np.abs(large[20:60, 20:60].astype(int) - small[20:60, 20:60]).max() <= 1
    assert np.array_equal(small, truth("a knitted teapot on a navy ground", 64, 0, work=shapes))
    assert not np.array_equal(small, truth("a knitted teapot on a navy ground", 64, 1, work=shapes))


def test_a_caption_is_also_what_people_type(shapes: Path) -> None:
    scenes, rng = Scenes(shapes, variants=1), random.Random(0)
    whole = scenes.scenes[1].caption
    bare = whole.split(" ", 1)[1]
    said = [scenes.loose_caption(rng, 1) for _ in range(400)]
    assert {*said} == {f"{whole}, emoji", whole, bare, f"{bare}, emoji"}
    assert 250 < said.count(f"{whole}, emoji") < 310


def test_names_are_drawn_evenly(shapes: Path) -> None:
    scenes = Scenes(shapes, variants=2)
    drawn = Counter(scenes.draw(random.Random(0), 4000, names=scenes.names[:4]))
    assert len(drawn) == 8 and min(drawn.values()) > 400


def test_a_narrow_drawing_stands_in_the_middle(shapes: Path) -> None:
    body = '<rect x="4" y="2" width="8" height="28" fill="brown"/>'
    (shapes / "fluent" / "icons" / "modern" / "owl.svg").write_text(drawing(body, width=16))
    opacity = drawing_of("owl", 64, work=shapes)[..., 3]
    assert opacity.shape == (64, 64) and (opacity[32, 16:48] > 0).any()
    assert not opacity[:, :16].any() and not opacity[:, -16:].any()


def test_a_render_is_kept(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = Scenes(shapes, variants=1)
    picture = Renders(scenes, 32)[1].copy()
    monkeypatch.setattr(Scenes, "picture", None)
    assert np.array_equal(Renders(scenes, 32)[1], picture)


def test_drawings_that_were_not_fetched_are_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"modern is missing; run python tools/demo_model/data\.py first"):
        Scenes(tmp_path)


def test_a_plain_thing_is_its_drawing(shapes: Path) -> None:
    picture = truth("a teapot", 64, 0, work=shapes)
    assert tuple(picture[32, 32]) == (0xD0, 0x40, 0x60) and tuple(picture[1, 1]) == (255, 255, 255)


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [
        ("a knitted teapot", Scene("teapot", "knitted")),
        ("A Woven Owl on a pink ground", Scene("owl", "woven", "pink")),
        ("owl, wooden, on blue", Scene("owl", "wooden", "blue")),
        ("a furry leafy tree, emoji", Scene("leafy tree", "furry")),
        ("a racing car", Scene("racing car")),
        ("the plain car", Scene("car")),
    ],
)
def test_a_prompt_is_read_in_any_wording(prompt: str, scene: Scene) -> None:
    assert things.parse(prompt) == scene


def test_every_caption_is_read_as_itself() -> None:
    for thing in THINGS:
        for ground in things.GROUNDS:
            scene = Scene(thing, "striped", ground)
            assert things.parse(scene.caption) == scene
    assert Scene("owl", "knitted").caption == "a knitted owl" and Scene("owl").caption == "an owl"
    assert Scene("unicorn", None, "blue").caption == "a unicorn on a blue ground"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a knited teapot", "has knited, which the model was not taught; near: knitted"),
        ("a wooden castel", "near: castle"),
        ("a teapot and an owl", "has and"),
        ("a knitted", "names knitted; name one thing"),
        ("an owl teapot", "name one thing"),
        ("", "names nothing"),
    ],
)
def test_what_was_not_taught_is_named_with_what_is_near(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        things.parse(prompt)


def test_some_pairs_are_never_drawn_and_every_thing_and_material_is() -> None:
    trained, held = things.pairs(), things.pairs(held_out=True)
    assert not set(trained) & set(held)
    assert 0.08 < len(held) / len(trained + held) < 0.16
    for thing in THINGS:
        assert (thing, None) in trained and sum(name == thing for name, _ in trained) >= 6
    for material in MATERIALS:
        assert sum(name == material for _, name in held) >= 5
    assert 120 <= len(THINGS) <= 160
    drawn = {(scene.thing, scene.material) for scene in things.draw_scenes(random.Random(0), 300)}
    assert not drawn & set(held)


def test_rounds_of_scenes_differ_and_more_rounds_keep_the_first(shapes: Path) -> None:
    few, many = Scenes(shapes, variants=1), Scenes(shapes, variants=3)
    assert many.scenes[: len(few)] == few.scenes and len(many) == 3 * len(few)
    name = few.names[1]
    indices = many.variants[name]
    assert len({many.scenes[index].thing for index in indices}) == 1
    renders = Renders(many, 32)
    assert not np.array_equal(renders[indices[0]], renders[indices[1]])
    assert np.array_equal(Renders(few, 32).pictures[0].shape, (32, 32, 3))
    renders.render_all(range(len(many)), workers=2)  # other processes write to the same pictures
    assert renders.done.all() and np.array_equal(renders[3], truth(many.scenes[3], 32, 3, work=shapes))


@pytest.mark.slow
def test_a_vae_is_trained_without_groupnorms_statistics_on_scenes(shapes: Path) -> None:
    import vae
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    kind: Any = AutoencoderKL
    small = {**VAE, "block_out_channels": [64] * 3, "sample_size": 64, "scaling_factor": 0.5}
    small |= {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    kind.from_config(small).save_pretrained(shapes / "old")
    places = ["--work", str(shapes), "--start", str(shapes / "old"), "--out", str(shapes / "vae")]
    sizes = ["--sizes", "32", "--crop", "16", "--batch", "2", "--colour", "2", "--steps", "2"]
    for _ in range(2):  # stopped, it goes on
        vae.train(vae.parse([*places, *sizes, "--state", str(shapes / "vae.pt")]))
    written = AutoencoderKL.from_pretrained(shapes / "vae")
    assert written.config.scaling_factor == 0.5  # what starts from a VAE keeps its scale
    assert torch.load(shapes / "vae.pt", weights_only=True)["step"] == 4
    assert type(written.encoder.conv_norm_out) is torch.nn.GroupNorm
    # another training goes on from the weights that can be trained, and needs no others
    (shapes / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    places[3] = str(shapes / "vae")
    vae.train(vae.parse([*places, *sizes, "--state", str(shapes / "more.pt"), "--rate", "0"]))
    held = [torch.load(shapes / name, weights_only=True)["average"] for name in ("vae.pt", "more.pt")]
    for key, value in held[0].items():
        torch.testing.assert_close(held[1][key], value, atol=2e-3, rtol=2e-3)


def test_a_piece_is_a_part_of_a_true_picture(shapes: Path) -> None:
    scenes = Scenes(shapes, variants=1)
    scenes.pairs = [("owl", None)]
    rng = random.Random(0)
    pieces = [scenes.piece(rng, size=96, side=48) for _ in range(40)]
    whole = {ground: truth(f"an owl on a {ground} ground", 96, 0, work=shapes) for ground in things.GROUNDS}
    places = [(top, left) for top in range(49) for left in range(49)]
    for piece in pieces[:6]:
        assert any(
            np.array_equal(piece, picture[top : top + 48, left : left + 48])
            for picture in whole.values()
            for top, left in places
        )
    assert len({piece.tobytes() for piece in pieces}) > 10
    scenes.pairs = [("owl", "knitted")]
    first, second = (scenes.piece(rng, size=96, side=96) for _ in range(2))
    assert not np.array_equal(first[24:72, 24:72], second[24:72, 24:72])  # a texture of its own
