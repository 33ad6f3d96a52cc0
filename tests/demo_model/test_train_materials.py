"""Every stage of the materials model on a tiny budget, in one go and again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import evaluate_materials
import pytest
import torch
import train_materials

from .conftest import VAE, build_model


def toy_start(folder: Path) -> Path:
    """Write a random model whose VAE is 8x and has channels enough to be freed."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    build_model(folder)
    shutil.rmtree(folder / "vae")
    torch.manual_seed(0)
    narrow = {**VAE, "block_out_channels": [64] * 4, "scaling_factor": 0.5, "sample_size": 128}
    kind.from_config(narrow).save_pretrained(folder / "vae")
    return folder


def test_the_unet_learns_at_half_the_size_first_and_sees_larger_pictures_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    monkeypatch.setattr(train_materials.unet, "train", said.append)
    words = ["--work", str(tmp_path), "--size", "512", "--scale", "0.1", "--processes", "1"]
    making = train_materials.Making(train_materials.parse(words), "cpu")
    making.half()
    making.whole()
    assert [(each.stages, each.close, each.start.name, each.out.name) for each in said] == [
        ([(256, 5.5)], 0, "taught", "halfway"),
        ([(512, 12.0)], 0.17, "halfway", "model"),
    ]
    for device, settings in train_materials.SETTINGS.items():
        whole = train_materials.unet.parse([*settings["whole"], "--start", "model", "--close", train_materials.CLOSE])
        assert whole.close
        assert bool(whole.fresh) == (device == "cuda") and whole.encoded == (device == "cpu")


@pytest.mark.parametrize("stage", ["latents", "half"])
def test_a_process_that_fails_ends_the_stage(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LATENTS", "UNET"):
        monkeypatch.setattr(train_materials, name, tmp_path / "failing.py")
    (tmp_path / "failing.py").write_text("import sys; sys.exit('--part' not in sys.argv or sys.argv[-1] == '0/2')")
    words = ["--work", str(tmp_path), "--processes", "2"]
    making = train_materials.Making(train_materials.parse(words), "cpu")
    with pytest.raises(SystemExit, match=r"(latents|unet)\.py failed, as it says above"):
        train_materials.STAGES[stage](making)


@pytest.mark.slow
def test_one_command_makes_all_of_it_and_goes_on(shapes: Path) -> None:
    start = toy_start(shapes / "start")
    tiny = [
        "--work",
        str(shapes),
        "--start",
        str(start),
        "--vae",
        str(start / "vae"),
        "--steps",
        "1",
        "--size",
        "128",
        "--variants",
        "1",
        "--processes",  # others would not know the toy's two things
        "1",
    ]
    last = ["--close-count", "2", "--vae-settings", "--crop", "32"]
    train_materials.make(train_materials.parse([*tiny, "--skip", "whole", "judge", *last]))
    folder = shapes / "materials"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    model = train_materials.make(train_materials.parse([*tiny, *last]))
    config = json.loads((model / "unet" / "config.json").read_text())
    assert config["sample_size"] == 16 and config["down_block_types"][-1] == "DownBlock2D"
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert all(after[name] == before[name] for name in ("vae.done", "latents.done", "text.done", "half.done"))
    assert {"whole.done", "judge.done"} <= after.keys() - before.keys()

    options = ["--work", str(shapes), "--model", str(model), "--judge", str(folder / "judge"), "--steps", "2"]
    few = ["--count", "2", "--unseen", "1", "--hires", "2", "--methods", "fam-c0.5"]
    table = evaluate_materials.Evaluation(evaluate_materials.parse([*options, *few])).run()
    assert "2x fam-c0.5: texture period" in table and "2x resize: crop FD" in table and "nan" not in table
    # what was asked for anew runs anew, and all that follows
    train_materials.make(train_materials.parse([*tiny, "--again", "whole", *last]))
    again = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert again["half.done"] == after["half.done"] and again["whole.done"] != after["whole.done"]
