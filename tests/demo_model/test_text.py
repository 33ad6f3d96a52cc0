"""Teaching the text encoder the pictures' cells, and the UNet's loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from data import Renders, Scenes
from safetensors.torch import load_file
from training import tag_of

from .test_train_materials import toy_start
from .test_training import renders_a_picture, train_unet


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


@pytest.mark.slow
def test_a_taught_encoder_knows_its_pictures_and_the_unet_goes_on_from_it(shapes: Path) -> None:
    import text
    import unet

    start = toy_start(shapes / "start")
    scenes = Scenes(shapes, variants=1)
    latents = unet.Latents(Renders(scenes, 64), unet.Model(start).fixed["vae"], tag=tag_of(start / "vae"))
    everything = list(range(len(scenes)))
    latents.get(everything)

    def teach(*arguments: str) -> dict[str, Any]:
        places = ["--work", str(shapes), "--start", str(start), "--out", str(shapes / "taught"), "--variants", "1"]
        places += ["--state", str(shapes / "taught.pt"), "--size", "64", "--batch", "6", "--minutes", "1"]
        text.teach(text.parse([*places, "--rate", "3e-3", *arguments]))
        return torch.load(shapes / "taught.pt", weights_only=True)

    assert teach("--steps", "2")["step"] == 2
    state = teach("--steps", "398")
    assert state["step"] == 400
    model = unet.Model(shapes / "taught")
    model.hold_cells(shapes / "taught.pt")
    captions = [f"{scene.caption}, emoji" for scene in scenes.scenes]

    def unexplained(captions: list[str]) -> float:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return model.loss(latents.get(everything), captions, high_noise=1.0, generator=generator)[1].item()

    assert unexplained(captions) < 0.5 < unexplained([*captions[1:], captions[0]])
    assert unexplained([""] * len(captions)) == 0  # nothing is asked of the empty caption
    before, after = (load_file(next(folder.glob("unet/*.safetensors"))) for folder in (start, shapes / "taught"))
    assert all(torch.equal(value, after[key]) for key, value in before.items())

    more = ["--cells", str(shapes / "taught.pt"), "--stages", "64:5", "--lessons", "4", "--steps", "1"]
    train_unet(shapes, shapes / "taught", *more)
    state = train_unet(shapes, shapes / "taught", *more)
    assert state["step"] == 2 and "head.weight" in state["model"]
    # a later start learns at the rates asked for now, not at the state's
    later = train_unet(shapes, shapes / "taught", *more, "--text", "0")["model"]
    still = {key for key, value in state["model"].items() if torch.equal(value, later[key])}
    assert still == {key for key in later if key.startswith(("text.", "head."))}
    renders_a_picture(shapes / "model")


def test_lessons_need_cells(capsys: pytest.CaptureFixture[str]) -> None:
    import unet

    with pytest.raises(SystemExit):
        unet.parse(["--start", "model", "--lessons", "24"])
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
