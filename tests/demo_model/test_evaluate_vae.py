"""What a VAE keeps of true pictures, with stand-ins whose loss is known."""

from __future__ import annotations

from pathlib import Path

import evaluate_vae
import pytest
import torch
from data import Scenes


def test_a_known_error_is_found_in_every_row(shapes: Path) -> None:
    scenes = Scenes(shapes, variants=1)

    def darker(picture: torch.Tensor) -> torch.Tensor:
        return (picture - 10 / 255).clamp(0, 1)

    rows = evaluate_vae.rows_of(darker, scenes, size=128, count=2, seed=0)
    assert len(rows) == 12 and rows[1].startswith("| 128 px, knitted | ")
    assert all(float(row.split("|")[2].split(" dB")[0]) == pytest.approx(28.1, abs=0.2) for row in rows[:-1])
    *_, period, contrast, _ = rows[1].split("|")
    assert period.startswith(" 1.000 (") and float(contrast.split()[0]) == pytest.approx(1, abs=0.05)  # as it was

    def smooth(picture: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(picture[None], 3, stride=1, padding=1, count_include_pad=False)[0]

    *_, period, contrast, _ = evaluate_vae.rows_of(smooth, scenes, size=128, count=1, seed=0)[1].split("|")
    assert float(period.split()[0]) == pytest.approx(1, abs=0.1) and float(contrast.split()[0]) < 0.8
    assert float(rows[-1].split("mean ")[1].split(",")[0]) == pytest.approx(10, abs=0.3) and "(n 22)" in rows[-1]


@pytest.mark.slow
def test_a_freed_vae_is_measured_from_its_own_weights(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import norms

    from .test_train_materials import toy_start

    folder = toy_start(shapes / "start") / "vae"
    evaluate = ["--work", str(shapes), "--sizes", "128", "--count", "1"]
    evaluate_vae.main([str(folder), *evaluate])
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    norms.write_freed(norms.free(AutoencoderKL.from_pretrained(folder)), folder)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    evaluate_vae.main([str(folder), *evaluate])
    assert capsys.readouterr().out.count("| 128 px, coarse colours off |") == 2
