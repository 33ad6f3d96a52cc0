"""The training scripts on a tiny budget: they train, stop, go on, and write what the package loads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import Latents, draw_batch, draw_close, encoded, holding
from data import Renders, Scenes
from safetensors.torch import load_file

from .test_train_materials import toy_start


def train_unet(work: Path, start: Path, *arguments: str) -> dict[str, Any]:
    import unet

    places = ["--work", str(work), "--start", str(start), "--out", str(work / "model")]
    places += ["--state", str(work / "unet.pt"), "--batch", "2", "--variants", "1"]
    options = unet.parse([*places, *arguments])
    unet.train(options)
    return torch.load(options.state, weights_only=True)


def test_the_clock_and_the_rate() -> None:
    from training import Clock, cosine

    assert Clock(10, spent=20).done() and Clock(10, spent=20).share() == 1
    assert cosine(0.0) < 0.1 and cosine(0.02) == pytest.approx(1) and cosine(1.0) == pytest.approx(0.02)


def test_a_classifier_learns_stops_goes_on_and_is_averaged(tmp_path: Path) -> None:
    from training import teach

    values = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    wanted = (values[:, 0] > 0).long()
    state = tmp_path / "new" / "net.pt"
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    seen: list[int] = []

    def loss_of(step: int) -> torch.Tensor:
        seen.append(step)
        return torch.nn.functional.cross_entropy(net(values), wanted)

    how = {"state": state, "minutes": 5.0, "rate": 2.0, "decay": 0.5}  # the rate starts at a twentieth
    assert teach(net, loss_of, steps=20, **how)[0] == 20
    held = torch.load(state, weights_only=True)
    assert torch.equal(net.weight, held["average"]["weight"])
    assert not torch.equal(net.weight, held["net"]["weight"]) and not net.training
    net = torch.nn.Linear(3, 2)
    assert teach(net, loss_of, steps=20, **how)[0] == 40 and seen == list(range(40))
    assert (net(values).argmax(dim=1) == wanted).float().mean() > 0.9
    assert teach(net, loss_of, steps=-1, **{**how, "minutes": 0.0})[0] == 40  # the time is up


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_made_ahead_comes_in_order(workers: int) -> None:
    import itertools

    from training import ahead

    secret = 5  # the workers hold what the caller holds
    made = ahead(lambda number: number * secret, range(20), workers=workers)
    assert list(made) == [number * secret for number in range(20)]
    endless = ahead(lambda number: number, itertools.count(7), workers=workers)
    assert [next(endless), next(endless)] == [7, 8]
    endless.close()


@pytest.mark.slow
def test_the_unet_trains_stops_and_goes_on(shapes: Path) -> None:
    import latents
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    start = toy_start(shapes / "start")
    AutoencoderKL.from_pretrained(start / "vae").half().save_pretrained(start / "vae")  # as it is shipped
    state = train_unet(shapes, start, "--stages", "64:5", "--steps", "2")
    assert (state["step"], state["stage"]) == (2, 0)
    state = train_unet(shapes, start, "--stages", "64:5", "--steps", "1")
    assert (state["step"], state["stage"]) == (3, 0)
    # the time of a stage is up: the next start goes to the next size
    state["spent"] = 301.0
    torch.save(state, shapes / "unet.pt")
    state = train_unet(shapes, start, "--stages", "64:5", "128:5", "--steps", "1")
    assert (state["step"], state["stage"]) == (4, 1)
    larger = ["--work", str(shapes), "--vae", str(start / "vae"), "--size", "256", "--count", "1", "--variants", "1"]
    latents.main(larger)
    state = train_unet(shapes, start, "--stages", "64:5", "128:5", "--steps", "1", "--close", "0.5")
    assert (state["step"], state["stage"]) == (5, 1)
    model = shapes / "model"
    assert json.loads((model / "unet" / "config.json").read_text())["sample_size"] == 16
    assert {value.dtype for value in load_file(next(model.glob("unet/*.safetensors"))).values()} == {torch.float16}

    renders_a_picture(model)
    ships(model, shapes / "shipped")
    state["optimizer"]["param_groups"] *= 2
    torch.save(state, shapes / "unet.pt")
    with pytest.raises(SystemExit, match=r"unet\.pt is of an earlier unet\.py; remove it or give another --state"):
        train_unet(shapes, start, "--stages", "64:5", "128:5", "--steps", "1")


def renders_a_picture(model: Path) -> None:
    from fam_ext import hires
    from fam_ext.standalone import load_pipeline

    host = load_pipeline(model)
    sampling = hires.Sampling(prompt="a knitted owl, emoji", steps=2, cfg_scale=3)
    assert hires.generate_native(host, size=(64, 64), sampling=sampling).image.size == (64, 64)


def ships(model: Path, target: Path) -> None:
    import export

    size = export.ship(model, target)
    assert size == sum(path.stat().st_size for path in target.glob("*/*"))
    assert sorted(path.name for path in target.iterdir()) == sorted(path.name for path in model.iterdir())
    # no folder of the machine that trained it goes along
    assert not any("_name_or_path" in path.read_text() for path in target.rglob("*.json"))


def test_a_model_in_float32_is_not_shipped(toy_model: Path, tmp_path: Path) -> None:
    import export

    with pytest.raises(SystemExit, match="float32"):
        export.ship(toy_model, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.slow
def test_a_starting_model_keeps_its_weights_nearly(shapes: Path) -> None:
    start = toy_start(shapes / "start")
    before = load_file(next(start.glob("unet/*.safetensors")))
    train_unet(shapes, start, "--stages", "64:5", "--steps", "1", "--rate", "1e-5")
    after = load_file(next((shapes / "model").glob("unet/*.safetensors")))
    assert before.keys() == after.keys()
    assert max((before[key].float() - after[key].float()).abs().max().item() for key in before) < 1e-3


def test_captions_and_pictures_of_a_step_are_the_same_again(shapes: Path) -> None:
    scenes = Scenes(shapes, variants=2)
    options = argparse.Namespace(batch=16, drop=0.5, seed=0)
    first = draw_batch(scenes, options, 5, pool=scenes.names)
    assert first == draw_batch(scenes, options, 5, pool=scenes.names)
    assert first != draw_batch(scenes, options, 6, pool=scenes.names)
    said = {caption for _, caption in zip(*first, strict=True)}
    assert "" in said and said <= {"", *(scenes.scenes[index].caption for index in first[0])}


def test_only_the_encoder_names_the_latents_of_a_vae_that_goes_on(tmp_path: Path) -> None:
    from norms import keep_encoder
    from training import FREED, tag_of, write_small

    weights = {"encoder.a": torch.rand(4, 4), "quant_conv.b": torch.rand(4), "decoder.a": torch.rand(4, 4)}
    tags: dict[str, str] = {}
    for name, changed in (("start", ""), ("decoder", "decoder.a"), ("encoder", "encoder.a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "diffusion_pytorch_model.safetensors").write_bytes(name.encode())
        write_small({**weights, **({changed: weights[changed] + 1} if changed else {})}, tmp_path / name / FREED)
        tags[name] = tag_of(tmp_path / name)
    assert tags["start"] == tags["decoder"] != tags["encoder"]
    keep_encoder(tmp_path / "start", tmp_path / "encoder")
    assert tag_of(tmp_path / "encoder") == tags["start"]
    (tmp_path / "encoder" / FREED).unlink()
    assert tag_of(tmp_path / "encoder") != tags["start"]


def test_a_vae_piece_has_to_fit_its_smallest_render(capsys: pytest.CaptureFixture) -> None:
    import vae

    with pytest.raises(SystemExit):
        vae.parse(["--start", "vae", "--sizes", "256", "64", "--crop", "96"])
    assert "--crop 96 is larger than the smallest of --sizes, 64" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        vae.parse(["--start", "vae", "--decoder-only"])
    assert "--decoder-only needs a --start that vae.py wrote, and vae is none" in capsys.readouterr().err


def test_latents_of_a_wrong_scale_are_refused_before_they_are_kept(shapes: Path) -> None:
    from types import SimpleNamespace

    class Coder:
        device, config = torch.device("cpu"), SimpleNamespace(scaling_factor=1.0)
        wide = 6.0

        def encode(self, images: torch.Tensor) -> Any:
            values = torch.randn(len(images), 4, 8, 8, generator=torch.Generator().manual_seed(0)) * self.wide
            return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: values))

    coder = Coder()
    latents = Latents(Renders(Scenes(shapes, variants=1), 64), coder, tag="toy")
    with pytest.raises(SystemExit, match=r"spread of [56]\.\d, not about 1; run align\.py"):
        latents.get([0])
    assert not latents.done.any()
    coder.wide = 1.0
    assert latents.get([0]).shape == (1, 4, 8, 8) and latents.done[0]


def test_names_with_a_word_are_found_to_be_drawn_more() -> None:
    names = ["a scaly fox", "a fox", "a scaly mug"]
    assert holding(names, ["scaly"]) == ["a scaly fox", "a scaly mug"] and holding(names, []) == []
    assert holding(names, ["scaly", "scaly"]) == 2 * holding(names, ["scaly"])
    with pytest.raises(SystemExit, match="--more scale: no name"):
        holding(names, ["scale"])


def test_only_what_is_encoded_is_drawn_when_asked_for(shapes: Path) -> None:
    scenes = Scenes(shapes, variants=2)
    latents = Latents(Renders(scenes, 64), None, tag="toy")
    with pytest.raises(SystemExit, match=r"run latents\.py"):
        encoded(scenes, latents, scenes.names)
    latents.done[scenes.variants[scenes.names[3]]] = 1
    latents.done[scenes.variants[scenes.names[4]][:1]] = 1  # of two
    assert encoded(scenes, latents, scenes.names) == [scenes.names[3]]


@pytest.mark.parametrize("share", ["1", "0.1", "-0.5"])
def test_closer_views_leave_whole_pictures_in_a_step_and_are_some(share: str, capsys: pytest.CaptureFixture) -> None:
    import unet

    with pytest.raises(SystemExit):
        unet.parse(["--start", "model", "--batch", "4", "--close", share])
    assert "one closer view and one whole picture" in capsys.readouterr().err
    assert unet.parse(["--start", "model", "--batch", "4", "--close", "0.5"]).close == 0.5


def test_a_closer_view_is_a_window_of_a_larger_render_at_its_place(shapes: Path) -> None:
    scenes = Scenes(shapes, variants=1)
    larger = Latents(Renders(scenes, 64), None, tag="toy")  # what is encoded needs no VAE
    options = argparse.Namespace(close=0.5, drop=0.0, seed=0)
    with pytest.raises(SystemExit, match=r"latents\.py --size 64"):
        draw_close(scenes, options, 0, latents=larger, count=4)
    larger.values[2] = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    larger.done[2] = 1
    windows, captions = draw_close(scenes, options, 0, latents=larger, count=4)
    again, same = draw_close(scenes, options, 0, latents=larger, count=4)
    torch.testing.assert_close(windows, again, atol=0, rtol=0)
    assert captions == same and all(captions)
    whole = larger.get([2])[0]
    half = whole.shape[-1] // 2
    assert windows.shape == (4, 4, half, half)
    places = [(top, left) for top in range(half + 1) for left in range(half + 1)]
    for window in windows:
        assert any(torch.equal(whole[:, top : top + half, left : left + half], window) for top, left in places)
    assert len({window.numpy().tobytes() for window in windows}) > 1


def test_small_weights_take_half_the_room_and_are_nearly_as_they_were(tmp_path: Path) -> None:
    from training import read_small, write_small

    generator = torch.Generator().manual_seed(0)
    state = {
        "wide.weight": torch.randn(64, 64, 3, 3, generator=generator) * torch.logspace(-3, 3, 64)[:, None, None, None],
        "bias": torch.randn(64, generator=generator),
        "empty": torch.zeros(4, 4),
    }
    write_small(state, tmp_path / "small.safetensors")
    again = read_small(tmp_path / "small.safetensors")
    assert again.keys() == state.keys() and (tmp_path / "small.safetensors").stat().st_size < 64 * 64 * 9 + 2000
    error = (again["wide.weight"] - state["wide.weight"]).abs().amax(dim=(1, 2, 3))
    assert (error <= 0.005 * state["wide.weight"].abs().amax(dim=(1, 2, 3))).all()
    torch.testing.assert_close(again["bias"], state["bias"], atol=1e-3, rtol=1e-3)
    assert (again["empty"] == 0).all()


def test_a_cache_grows_where_more_rounds_are_asked_for(tmp_path: Path) -> None:
    """One process asked for one round before; a later one that asks for two must find room for them."""
    from training import memmap

    path = tmp_path / "latents.npy"
    memmap(path, (3, 2), np.float16)[:] = 7
    longer = memmap(path, (5, 2), np.float16)
    longer[4] = 9
    longer.flush()
    assert np.load(path).tolist() == [[7, 7], [7, 7], [7, 7], [0, 0], [9, 9]]
    assert memmap(path, (3, 2), np.float16).shape == (5, 2)
    with pytest.raises(SystemExit, match=r"latents\.npy holds float16 of \(2,\), not of \(4,\); remove it"):
        memmap(path, (5, 4), np.float16)
