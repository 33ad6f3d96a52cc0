"""Teaching the text encoder the pictures' cells, and the UNet where to read them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from .test_training import renders_a_picture, small, train_unet, train_vae

__all__ = ["small"]


def test_a_cell_holds_its_part_of_the_latent() -> None:
    from text import SHIFTS, TEXTURE, cells_of

    latents = torch.zeros(1, 4, 64, 64)
    latents[0, 2, 8:16, 40:48] = 1.0  # row 1, column 5 of the 8x8 grid
    latents[0, 3, 0:2, 2:4] = 5.0  # the second of cell 0's 4x4 values
    cells = cells_of(latents)
    assert cells.shape == (1, 64, 64 + 4 * len(SHIFTS))
    colours, texture = cells[..., :64], cells[..., 64:]
    assert (colours[0, 13, 32:48] == 1).all() and colours[0, 13].sum() == 16
    assert colours[0, 0, 49] == 5 and colours.sum() == 21
    # stripes in one cell, two values wide and upright: moving them down changes nothing
    latents = torch.zeros(1, 4, 64, 64)
    latents[0, 1, 16:24, :8] = torch.tensor([1.0, 1, -1, -1, 1, 1, -1, -1])
    texture = cells_of(latents)[0, 16, 64:].reshape(len(SHIFTS), 4) / TEXTURE
    said = dict(zip(SHIFTS, texture[:, 1].tolist(), strict=True))
    assert said[0, 2] == 1.75 and said[0, 1] == 0.875 and said[1, 0] == 0.125
    assert (texture[:, [0, 2, 3]] == 0).all()
    # stripes that fall to the left are alike along themselves
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    slanted = ((rows + columns) % 4).float().expand(1, 4, -1, -1)
    texture = cells_of(slanted)[0, 16, 64:].reshape(len(SHIFTS), 4) / TEXTURE
    said = dict(zip(SHIFTS, texture[:, 1].tolist(), strict=True))
    assert said[1, -1] == 0 and said[1, 1] == 2


def test_cells_of_an_earlier_kind_are_refused_in_a_sentence(toy_model: Path, tmp_path: Path) -> None:
    from unet import Model

    torch.save({"head": {"weight": torch.zeros(64, 128), "bias": torch.zeros(64)}}, tmp_path / "old.pt")
    with pytest.raises(SystemExit, match=r"holds cells of 64 values, not 88; run text\.py anew"):
        Model(toy_model).hold_cells(tmp_path / "old.pt")


def test_each_query_reads_the_cell_it_lies_in() -> None:
    from reading import cell_tokens
    from text import FIRST

    assert cell_tokens(64).tolist() == list(range(FIRST, FIRST + 64))
    fine = cell_tokens(256).reshape(16, 16)
    assert (fine[2:4, 10:12] == FIRST + 13).all() and fine[15, 15] == FIRST + 63


def test_guided_reading_attends_as_ever_and_pulls_the_maps_to_the_cells(toy_model: Path) -> None:
    from reading import guide, mean_of, release
    from unet import Model

    unet = Model(toy_model).unet
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    tokens = torch.randn(2, 77, 64, generator=generator)

    def denoise() -> torch.Tensor:
        return unet(latents, torch.tensor([500, 20]), encoder_hidden_states=tokens).sample

    with torch.no_grad():
        plain = denoise()
    noted = guide(unet)
    guided = denoise()
    torch.testing.assert_close(guided, plain, atol=1e-5, rtol=1e-5)
    assert len(noted) == sum("attn2" in name for name in unet.attn_processors)
    keys = [value for name, value in unet.named_parameters() if name.endswith("attn2.to_k.weight")]
    queries = [value for name, value in unet.named_parameters() if name.endswith("attn2.to_q.weight")]
    optimizer = torch.optim.Adam([*keys, *queries], lr=1e-2)
    first = mean_of(noted)
    first.backward()
    for _ in range(20):
        optimizer.step()
        optimizer.zero_grad()
        denoise()
        last = mean_of(noted)
        last.backward()
    assert not noted and last.item() < first.item() - 0.5

    release(unet)
    with torch.no_grad():
        denoise()
    assert not noted


@pytest.mark.slow
def test_a_taught_encoder_knows_its_pictures_and_the_unet_goes_on_from_it(
    work: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import text
    import unet
    from data import Collection, Renders
    from training import tag_of

    monkeypatch.setattr(text, "WIDE", 64)
    monkeypatch.setattr(text, "LAYERS", 2)
    # all six names are drawn: the held-out list is chosen by hash and may hold some of them
    monkeypatch.setattr(Collection, "training_names", lambda self: self.names)
    train_vae(work, "--steps", "2")
    train_unet(work, "--stages", "64:5", "--steps", "1")
    start = work / "model"
    collection = Collection(work)
    latents = unet.Latents(Renders(collection, 64), unet.Model(start).fixed["vae"], tag=tag_of(start / "vae"))
    latents.get([(index, False) for index in range(len(collection.emojis))])

    def teach(*arguments: str) -> dict[str, Any]:
        places = ["--work", str(work), "--start", str(start), "--out", str(work / "taught")]
        places += ["--state", str(work / "taught.pt"), "--size", "64", "--batch", "6", "--minutes", "1"]
        text.teach(text.parse([*places, "--rate", "3e-3", *arguments]))
        return torch.load(work / "taught.pt", weights_only=True)

    assert teach("--steps", "2")["step"] == 2
    state = teach("--steps", "398")
    assert state["step"] == 400
    model = unet.Model(work / "taught")
    model.hold_cells(work / "taught.pt")
    plain = [(index, False) for index, emoji in enumerate(collection.emojis) if emoji.skin in (None, "default")]
    captions = [collection.emojis[index].caption for index, _ in plain]

    def unexplained(captions: list[str]) -> float:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return model.loss(latents.get(plain), captions, high_noise=1.0, generator=generator)[1].item()

    assert unexplained(captions) < 0.5 < unexplained([*captions[1:], captions[0]])
    assert unexplained([""] * len(captions)) == 0  # nothing is asked of the empty caption

    before, after = (load_file(next(folder.glob("unet/*.safetensors"))) for folder in (start, work / "taught"))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and all(key.endswith(unet.READING) for key in changed)

    more = ["--start", str(work / "taught"), "--cells", str(work / "taught.pt"), "--guide", "0.5"]
    more += ["--state", str(work / "more.pt"), "--out", str(work / "more"), "--stages", "64:5", "--lessons", "4"]
    train_unet(work, *more, "--steps", "2")
    state = torch.load(work / "more.pt", weights_only=True)
    assert state["step"] == 2 and "head.weight" in state["model"]
    state["spent"] = 200.0  # past the part of the stage in which reading is guided
    torch.save(state, work / "more.pt")
    train_unet(work, *more, "--steps", "1")
    state = torch.load(work / "more.pt", weights_only=True)
    assert state["step"] == 3
    # a later start learns at the rates asked for now, not at the state's
    train_unet(work, *more, "--text", "0", "--steps", "1")
    later = torch.load(work / "more.pt", weights_only=True)["model"]
    still = {key for key, value in state["model"].items() if torch.equal(value, later[key])}
    assert still == {key for key in later if key.startswith(("text.", "head."))}
    # and its encoder alone can be taught further
    (work / "taught.pt").unlink()
    teach("--carry", str(work / "more.pt"), "--steps", "3")
    taught, carried = torch.load(work / "taught.pt", weights_only=True), torch.load(work / "more.pt", weights_only=True)
    assert all(torch.equal(value, carried["average"][f"text.{key}"]) for key, value in taught["text"].items())
    assert any(not torch.equal(value, carried["model"][key]) for key, value in later.items() if key.startswith("text."))
    train_unet(work, *more, "--steps", "1")
    assert torch.load(work / "more.pt", weights_only=True)["step"] == 5
    renders_a_picture(work / "more")
    # or, with more neurons, for a model that goes on from a folder
    (work / "taught.pt").unlink()
    start = work / "more"
    teach("--carry", str(work / "more.pt"), "--wide", "96", "--steps", "3")
    grown = unet.Model(work / "taught")
    assert grown.text.config.intermediate_size == 96
    ours, theirs = (load_file(next(folder.glob("unet/*.safetensors"))) for folder in (work / "taught", start))
    assert all(torch.equal(value, ours[key]) for key, value in theirs.items())  # cross-attention is kept
    renders_a_picture(work / "taught")


def test_a_wider_encoder_says_what_it_said_and_learns_with_its_new_neurons(
    toy_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import text
    from transformers import CLIPTextModel

    old: Any = CLIPTextModel.from_pretrained(toy_model / "text_encoder").float()
    more = 2 * old.config.intermediate_size
    monkeypatch.setattr(text, "LAYERS", old.config.num_hidden_layers)
    wide = text.fresh_text(toy_model, wide=more)
    wide.load_state_dict(text.widened(old.state_dict(), wide.state_dict()))
    tokens = torch.arange(77)[None] % old.config.vocab_size
    said = wide(tokens).last_hidden_state
    torch.testing.assert_close(said, old(tokens).last_hidden_state, atol=1e-5, rtol=1e-5)
    said[:, :, 0].sum().backward()
    written = {key: value.grad for key, value in wide.named_parameters() if key.endswith("fc2.weight")}
    assert len(written) == old.config.num_hidden_layers
    for gradient in written.values():
        assert gradient is not None and gradient.shape[1] == more and (gradient[:, more // 2 :] != 0).any()


def test_an_encoder_keeps_its_neurons_and_loses_none() -> None:
    import text

    held = {"layers.0.mlp.fc1.bias": torch.zeros(96)}
    assert text.neurons(None, None) == text.WIDE
    assert text.neurons(None, held) == 96 and text.neurons(128, held) == 128
    with pytest.raises(SystemExit, match="96 neurons"):
        text.neurons(64, held)


def test_a_state_without_cells_has_no_encoder_to_teach_further(tmp_path: Path) -> None:
    import text

    torch.save({"average": {"text.weight": torch.zeros(1)}}, tmp_path / "unet.pt")
    with pytest.raises(SystemExit, match="without --cells"):
        text.carried(tmp_path / "unet.pt")


def test_lessons_need_cells(capsys: pytest.CaptureFixture[str]) -> None:
    import unet

    with pytest.raises(SystemExit):
        unet.parse(["--lessons", "24"])
    assert "--lessons 24" in capsys.readouterr().err


def test_the_error_counts_at_every_scale() -> None:
    from unet import weighted_error

    generator = torch.Generator().manual_seed(0)
    white = torch.randn(1, 4, 64, 64, generator=generator) * 0.1
    flat = torch.full((1, 4, 64, 64), 0.1)
    noisy, clean = torch.tensor([0.005]), torch.tensor([100.0])
    # where noise is low every scale is capped alike; where it is high a cast costs far more than white noise
    assert weighted_error(flat, clean) == pytest.approx(0.05 * 0.01 * (1 + 6 * 0.3), rel=1e-3)
    assert weighted_error(flat, noisy) > 100 * weighted_error(white, noisy)
    # each scale is capped like min-SNR-5 at its own SNR
    assert weighted_error(flat, noisy) == pytest.approx(0.01 * (1 + 0.3 * (4 + 16 + 64 + 256 + 1000 + 1000)), rel=1e-3)


def test_noise_stronger_or_weaker_than_its_timestep_is_to_be_guessed_as_it_is(toy_model: Path) -> None:
    import types

    from unet import Model

    model = Model(toy_model)
    spreads: list[torch.Tensor] = []

    class Exact(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, **_: Any) -> types.SimpleNamespace:
            noise = noisy / (1 - model.alphas[timesteps])[:, None, None, None].sqrt()  # the latents are 0
            spreads.append(noise.std(dim=(1, 2, 3)))
            return types.SimpleNamespace(sample=noise)

    model.unet = Exact()
    for noise_spread in (0.0, 0.3):
        generator = torch.Generator().manual_seed(0)
        zeros = torch.zeros(8, 4, 64, 64)
        loss, _ = model.loss(zeros, [""] * 8, high_noise=1.0, generator=generator, noise_spread=noise_spread)
        assert loss.item() < 1e-6
    plain, strong = spreads
    torch.testing.assert_close(plain, torch.ones(8), atol=0.03, rtol=0)
    assert strong.min() < 0.9 and strong.max() > 1.1


def test_closer_views_are_drawn_at_timesteps_that_show_the_layout(toy_model: Path) -> None:
    import types

    from unet import CLOSE_BELOW, Model

    model = Model(toy_model)
    drawn: list[torch.Tensor] = []

    class Note(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, **_: Any) -> types.SimpleNamespace:
            drawn.append(timesteps)
            return types.SimpleNamespace(sample=noisy)

    model.unet = Note()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        model.loss(torch.zeros(8, 4, 16, 16), [""] * 8, high_noise=1.0, generator=generator, close=3)
    timesteps = torch.stack(drawn)
    assert timesteps[:, 5:].max() < CLOSE_BELOW * 1000 < 950 < timesteps[:, :5].max()


def test_centring_moves_the_latents_and_no_picture(toy_model: Path) -> None:
    from center import shift
    from unet import Model

    vae = Model(toy_model).fixed["vae"]
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean = torch.tensor([-0.4, 0.5, 0.1, -1.4])
    with torch.no_grad():
        before = vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor
        picture = vae.decode(before / vae.config.scaling_factor).sample
        shift(vae, mean)
        after = vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor
        again = vae.decode(after / vae.config.scaling_factor).sample
    torch.testing.assert_close(after, before - mean[:, None, None], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, picture, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_the_cache_is_carried_over_to_the_centred_vae(work: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import center
    import numpy as np
    import unet
    from data import Collection, Renders
    from training import tag_of

    monkeypatch.setattr(unet, "autocast", lambda _: nullcontext())  # bf16's latents depend on the number of threads
    train_vae(work, "--steps", "1")
    train_unet(work, "--stages", "64:5", "--steps", "1")
    options = center.parse([str(work / "model"), str(work / "centred"), "--work", str(work), "--size", "64"])
    known = int(np.load(work / "latents" / f"{tag_of(work / 'vae')}-64-done.npy").sum())
    assert known
    collection = Collection(work)
    vae = unet.Model(work / "model").fixed["vae"]
    unet.Latents(Renders(collection, 64), vae, tag=tag_of(work / "vae")).get([(0, False), (1, False)])
    center.center(options)
    tag = tag_of(work / "centred" / "vae")
    assert tag != tag_of(work / "vae")
    done = np.load(work / "latents" / f"{tag}-64-done.npy")
    moved = np.load(work / "latents" / f"{tag}-64.npy").astype(np.float32)
    unturned = moved[done[:, 0] == 1, 0]
    assert len(unturned) >= 2 and np.abs(unturned.mean(axis=(0, 2, 3))).max() < 1e-3
    # what the centred VAE encodes itself is what was carried over
    fresh = unet.Model(work / "centred").fixed["vae"]
    again = unet.Latents(Renders(collection, 64), fresh, tag="again").get([(0, False)])
    assert np.abs(again[0].numpy() - moved[0, 0]).max() < 0.02
    np.save(work / "latents" / f"{tag}-64-done.npy", np.zeros_like(done))
    with pytest.raises(SystemExit, match=r"latents\.py"):
        center.center(center.parse([str(work / "centred"), str(work / "x"), "--work", str(work), "--size", "64"]))
