"""What evaluate.py measures, on pictures whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from data import Collection
from evaluate import Evaluation, components, halo, psnr, shrunk


def blank() -> torch.Tensor:
    return torch.ones(3, 128, 128)


def test_pieces_are_counted_and_specks_are_not() -> None:
    picture = blank()
    assert components(picture) == 0
    picture[:, 10:40, 10:40] = 0.2
    picture[:, 40:60, 40:60] = 0.2  # touches by a corner: one piece
    assert components(picture) == 1
    picture[1, 80:110, 80:110] = 0.5
    picture[:, 5:8, 100:103] = 0  # 9 px of 16384
    assert components(picture) == 2


def test_a_winding_piece_is_one() -> None:
    picture = blank()
    for row in range(4, 120, 8):
        picture[:, row : row + 3, 4:124] = 0
        side = 4 if (row // 8) % 2 else 120
        picture[:, row : row + 11, side : side + 4] = 0
    assert components(picture) == 1


def test_pieces_of_a_large_picture_are_counted_at_128_px() -> None:
    picture = torch.ones(3, 512, 512)
    picture[:, 100:200, 100:200] = 0
    picture[:, 300:400, 300:400] = 0
    assert components(picture) == 2


def test_psnr() -> None:
    picture = torch.full((3, 8, 8), 0.5)
    assert psnr(picture, picture) == math.inf
    assert psnr(picture, picture + 0.1) == pytest.approx(20, abs=1e-4)


def test_halos_are_found_near_the_object_only() -> None:
    picture, decoded = blank(), blank()
    picture[:, 50:80, 50:80] = 0
    decoded[:, 47:83, 47:83] = 0.7
    decoded[:, 50:80, 50:80] = 0
    near, far = halo(picture, decoded)
    assert near == pytest.approx(0.3, abs=1e-4) and far == 0


def test_shrinking_keeps_the_mean() -> None:
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    small = shrunk(picture, (16, 16))
    assert small.shape == (3, 16, 16)
    assert small.mean().item() == pytest.approx(picture.mean().item(), abs=5e-3)


@pytest.mark.parametrize(("side", "sizes"), [(256, [256, 512]), (512, [512])])
def test_the_vae_is_measured_at_512_px_whatever_the_native_size(work: Path, side: int, sizes: list[int]) -> None:
    collection = Collection(work)
    host = SimpleNamespace(encode=lambda picture: picture, decode=lambda latent: (latent + 0.1).clamp_max(1))
    options = SimpleNamespace(vae_count=2)
    stand_in: Any = SimpleNamespace(
        side=side, collection=collection, host=host, options=options, prompts=lambda count, held_out: range(count)
    )
    rows = Evaluation.vae_rows(stand_in)
    assert [(f"at {size} px" in rows[2 * number][0], rows[2 * number][2]) for number, size in enumerate(sizes)] == [
        (True, "at least 31 dB" if size == 512 else "") for size in sizes
    ]
    assert len(rows) == 2 * len(sizes) and all(20 <= float(row[1].split()[0]) < 60 for row in rows[::2])
