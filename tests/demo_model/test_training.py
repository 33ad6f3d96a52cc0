"""The training scripts on a tiny budget: they train, stop, go on, and write what the package loads."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import Latents, draw_batch, draw_close, encoded, holding
from safetensors.torch import load_file

SMALL_UNET = {
    "block_out_channels": [32, 64, 64],
    "attention_head_dim": [1, 2, 2],
    "cross_attention_dim": 32,
    "sample_size": 8,
}
SMALL_VAE = {
    "block_out_channels": [32, 32, 32, 32],
    "sample_size": 64,
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    import unet
    import vae

    monkeypatch.setattr(unet, "UNET", {**unet.UNET, **SMALL_UNET})
    monkeypatch.setattr(vae, "VAE", {**vae.VAE, **SMALL_VAE})


def train_vae(work: Path, *arguments: str) -> Path:
    import vae

    places = ["--work", str(work), "--out", str(work / "vae"), "--state", str(work / "vae.pt")]
    sizes = ["--sizes", "64", "--crop", "32", "--batch", "2", "--scale-from", "4", "--minutes", "5"]
    vae.train(vae.parse([*places, *sizes, *arguments]))
    return work / "vae"


def train_unet(work: Path, *arguments: str) -> dict[str, Any]:
    import unet

    places = ["--work", str(work), "--vae", str(work / "vae"), "--out", str(work / "model")]
    places += ["--state", str(work / "unet.pt"), "--batch", "2"]
    unet.train(unet.parse([*places, *arguments]))
    return torch.load(work / "unet.pt", weights_only=True)


def run_latents(work: Path, *arguments: str) -> None:
    import sys

    import latents

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["latents.py", "--work", str(work), "--vae", str(work / "vae"), *arguments])
        latents.main()


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
def test_vae_and_unet_train_stop_and_go_on(work: Path, small: None) -> None:
    vae = train_vae(work, "--steps", "2")
    first = load_file(vae / "diffusion_pytorch_model.safetensors")
    train_vae(work, "--steps", "2")
    again = load_file(vae / "diffusion_pytorch_model.safetensors")
    assert torch.load(work / "vae.pt", weights_only=True)["step"] == 4
    assert any(not torch.equal(first[key], again[key]) for key in first)
    assert json.loads((vae / "config.json").read_text())["scaling_factor"] != 0.18215

    state = train_unet(work, "--stages", "64:5", "--steps", "2")
    assert (state["step"], state["stage"]) == (2, 0)
    state = train_unet(work, "--stages", "64:5", "--steps", "1")
    assert (state["step"], state["stage"]) == (3, 0)
    # the time of a stage is up: the next start goes to the next size
    state["spent"] = 301.0
    torch.save(state, work / "unet.pt")
    state = train_unet(work, "--stages", "64:5", "128:5", "--steps", "1")
    assert (state["step"], state["stage"]) == (4, 1)
    run_latents(work, "--size", "256", "--count", "1")
    state = train_unet(work, "--stages", "64:5", "128:5", "--steps", "1", "--close", "0.5")
    assert (state["step"], state["stage"]) == (5, 1)
    assert json.loads((work / "model" / "unet" / "config.json").read_text())["sample_size"] == 16
    assert all(
        value.dtype == torch.float16 for value in load_file(next((work / "model").glob("unet/*.safetensors"))).values()
    )

    renders_a_picture(work / "model")
    ships(work / "model", work / "shipped")


def renders_a_picture(model: Path, *, side: int = 64) -> None:
    from fam_ext import hires
    from fam_ext.standalone import load_pipeline

    host = load_pipeline(model)
    sampling = hires.Sampling(prompt="a cook, medium skin, emoji", steps=2, cfg_scale=3)
    assert hires.generate_native(host, size=(64, 64), sampling=sampling).image.size == (side, side)


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
def test_a_starting_model_keeps_its_weights_nearly(work: Path, small: None) -> None:
    train_vae(work, "--steps", "1")
    train_unet(work, "--stages", "64:5", "--steps", "1")
    start = work / "model"
    before = load_file(next(start.glob("unet/*.safetensors")))
    import unet

    arguments = ["--work", str(work), "--start", str(start), "--out", str(work / "more"), "--rate", "1e-5"]
    unet.train(
        unet.parse([*arguments, "--state", str(work / "more.pt"), "--batch", "2", "--stages", "64:5", "--steps", "1"])
    )
    after = load_file(next((work / "more").glob("unet/*.safetensors")))
    assert before.keys() == after.keys()
    assert max((before[key].float() - after[key].float()).abs().max().item() for key in before) < 1e-3


def test_captions_and_pictures_of_a_step_are_the_same_again(work: Path) -> None:
    import unet
    from data import Collection

    collection = Collection(work)
    options = unet.parse(["--work", str(work), "--batch", "16"])
    pool = collection.names
    first = draw_batch(collection, options, 5, pool=pool)
    assert first == draw_batch(collection, options, 5, pool=pool)
    assert first != draw_batch(collection, options, 6, pool=pool)
    turned = [collection.emojis[index].name for index, mirrored in first[0] if mirrored]
    assert "left-arrow" not in turned


def test_a_merged_model_lies_between_two(toy_model: Path, tmp_path: Path) -> None:
    import shutil

    from merge import merge
    from safetensors.torch import save_file

    other = tmp_path / "other"
    shutil.copytree(toy_model, other)
    place = next(other.glob("unet/*.safetensors"))
    one = load_file(place)
    moved = {key: value + 0.5 for key, value in one.items()}
    save_file(moved, place, metadata={"format": "pt"})
    merge(toy_model, other, tmp_path / "out", share=0.25)
    mean = load_file(tmp_path / "out" / "unet" / place.name)
    for key, value in one.items():
        torch.testing.assert_close(mean[key], value + 0.125, atol=1e-3, rtol=0)
    same = ("text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors")
    for name in same:
        before, after = load_file(toy_model / name), load_file(tmp_path / "out" / name)
        assert all(torch.equal(before[key], after[key]) for key in before)

    with pytest.raises(SystemExit, match="between 0"):
        merge(toy_model, other, tmp_path / "none", share=1.5)
    odd = min(moved)
    save_file({key: value for key, value in moved.items() if key != odd}, place, metadata={"format": "pt"})
    with pytest.raises(SystemExit, match=odd):
        merge(toy_model, other, tmp_path / "none", share=0.5)
    shutil.rmtree(other / "vae")
    shutil.copytree(toy_model / "vae", other / "vae")
    vae = next(other.glob("vae/*.safetensors"))
    save_file({key: value + 1 for key, value in load_file(vae).items()}, vae, metadata={"format": "pt"})
    with pytest.raises(SystemExit, match="different VAEs"):
        merge(toy_model, other, tmp_path / "none", share=0.5)
    assert not list(tmp_path.glob("none*"))


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
        vae.parse(["--sizes", "256", "64", "--crop", "96"])
    assert "--crop 96 is larger than the smallest of --sizes, 64" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        vae.parse(["--decoder-only", "--free"])
    assert "--decoder-only needs" in capsys.readouterr().err


def test_latents_of_a_wrong_scale_are_refused_before_they_are_kept(work: Path) -> None:
    from types import SimpleNamespace

    from data import Collection, Renders

    class Coder:
        device, config = torch.device("cpu"), SimpleNamespace(scaling_factor=1.0)
        wide = 6.0

        def encode(self, images: torch.Tensor) -> Any:
            values = torch.randn(len(images), 4, 8, 8, generator=torch.Generator().manual_seed(0)) * self.wide
            return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: values))

    coder = Coder()
    latents = Latents(Renders(Collection(work), 64), coder, tag="toy")
    with pytest.raises(SystemExit, match=r"spread of [56]\.\d, not about 1; run align\.py"):
        latents.get([(0, False)])
    assert not latents.done.any()
    coder.wide = 1.0
    assert latents.get([(0, False)]).shape == (1, 4, 8, 8) and latents.done[0, 0]


def test_names_with_a_word_are_found_to_be_drawn_more() -> None:
    names = ["a scaly fox", "a fox", "a scaly mug"]
    assert holding(names, ["scaly"]) == ["a scaly fox", "a scaly mug"] and holding(names, []) == []
    with pytest.raises(SystemExit, match="--more scale: no name"):
        holding(names, ["scale"])


def test_only_what_is_encoded_is_drawn_when_asked_for(work: Path) -> None:
    from data import Collection, Renders

    collection = Collection(work)
    latents = Latents(Renders(collection, 64), None, tag="toy")
    with pytest.raises(SystemExit, match=r"run latents\.py"):
        encoded(collection, latents, collection.names)
    latents.done[collection.variants["red-circle"], 0] = 1
    latents.done[collection.variants["cook"][:2], 0] = 1  # of six
    assert encoded(collection, latents, collection.names) == ["red-circle"]


@pytest.mark.parametrize("share", ["1", "0.1", "-0.5"])
def test_closer_views_leave_whole_pictures_in_a_step_and_are_some(share: str, capsys: pytest.CaptureFixture) -> None:
    import unet

    with pytest.raises(SystemExit):
        unet.parse(["--batch", "4", "--close", share])
    assert "one closer view and one whole picture" in capsys.readouterr().err
    assert unet.parse(["--batch", "4", "--close", "0.5"]).close == 0.5


def test_a_closer_view_is_a_window_of_a_larger_render_at_its_place(work: Path) -> None:
    import unet
    from data import Collection, Renders

    collection = Collection(work)
    larger = Latents(Renders(collection, 64), None, tag="toy")  # what is encoded needs no VAE
    options = unet.parse(["--work", str(work), "--close", "0.5", "--drop", "0"])
    with pytest.raises(SystemExit, match=r"latents\.py --size 64"):
        draw_close(collection, options, 0, latents=larger, count=4)
    larger.values[2, 0] = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    larger.done[2, 0] = 1
    windows, captions = draw_close(collection, options, 0, latents=larger, count=4)
    again, same = draw_close(collection, options, 0, latents=larger, count=4)
    torch.testing.assert_close(windows, again, atol=0, rtol=0)
    assert captions == same and all(captions)
    whole = larger.get([(2, False)])[0]
    half = whole.shape[-1] // 2
    assert windows.shape == (4, 4, half, half)
    places = [(top, left) for top in range(half + 1) for left in range(half + 1)]
    for window in windows:
        assert any(torch.equal(whole[:, top : top + half, left : left + half], window) for top, left in places)
    assert len({window.numpy().tobytes() for window in windows}) > 1


@pytest.mark.slow
def test_the_new_tokenizer_reads_alike_slow_and_fast(tmp_path: Path) -> None:
    """The slow rule of CLIP, written out here, is what the WebUI's transformers uses; the fast one is ours."""
    import unet
    from transformers import CLIPTokenizer

    captions = ["a red circle, emoji", "a cook, medium dark skin, emoji", "a red apple, emoji"] * 3
    unet.train_tokenizer(captions, tmp_path, vocabulary=560)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    merges = (tmp_path / "merges.txt").read_text(encoding="utf-8").strip().split("\n")[1:]
    assert len(vocabulary) <= 560 and ",</w>" in vocabulary and "emoji</w>" in vocabulary
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    for text in [*captions[:3], "A Red cook-apple!!", "a café, emoji"]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == [vocabulary[token] for word in split_words(text) for token in merge(word, merges)], text


def split_words(text: str) -> list[str]:
    import re

    from .conftest import bytes_to_letters

    letters = bytes_to_letters()
    words = re.findall(r"[^\W\d_]+|\d|[^\s\w]+", text.lower())
    return ["".join(letters[byte] for byte in word.encode()) for word in words]


def merge(word: str, merges: list[str]) -> list[str]:
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(merges)}
    parts = [*word[:-1], f"{word[-1]}</w>"]
    while True:
        pairs = [(ranks[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not pairs:
            return parts
        _, place = min(pairs)
        parts[place : place + 2] = ["".join(parts[place : place + 2])]


def test_a_grown_model_keeps_its_inside_and_exports(toy_model: Path, tmp_path: Path) -> None:
    import grow
    from unet import Model

    from fam_ext.demo.export import export_checkpoint, ldm_config

    model = Model(toy_model)
    latents = torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    unet = grow.grow(model, latents, steps=150, seed=0)
    old, new = model.unet.state_dict(), unet.state_dict()
    inside = {key: place for key in old if (place := grow.inner_key(key))}
    assert all(torch.equal(old[key], new[place]) for key, place in inside.items())
    assert len(inside) > 0.8 * len(old)

    # what the inside is handed is what it knew: the timestep of the pooled latent, and its first features
    twins = grow.twin_timesteps(model.alphas)
    middle = 600
    below = model.alphas[int(twins[middle])] / (1 - model.alphas[int(twins[middle])])
    here = model.alphas[middle] / (1 - model.alphas[middle])
    assert (below / here).item() == pytest.approx(4, rel=0.02)
    with torch.no_grad():
        wanted = model.unet.time_embedding(model.unet.time_proj(twins))
        given = unet.time_embedding(unet.time_proj(torch.arange(1000)))
        plain = model.unet.time_embedding(model.unet.time_proj(torch.arange(1000)))
    assert (given - wanted).square().mean() < 0.2 * (plain - wanted).square().mean()

    grow.write(model, unet.half(), tmp_path / "grown")
    renders_a_picture(tmp_path / "grown", side=16)  # its VAE makes 2 px of a value, not 8
    (tmp_path / "webui").mkdir()
    export_checkpoint(tmp_path / "webui", model=tmp_path / "grown")
    params = ldm_config(tmp_path / "grown", text_folder=tmp_path)["model"]["params"]["unet_config"]["params"]
    assert params["channel_mult"] == [1, 1, 2, 2] and sorted(params["attention_resolutions"]) == [4, 8]


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
