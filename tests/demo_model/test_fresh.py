"""Pictures drawn anew for a GPU: what they are of, where windows come last, and that training takes them."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import fresh
import numpy as np
import pytest
import torch
import unet
from batches import encode
from data import Scenes
from fresh import Fresh
from training import Ranks

from .test_train_materials import toy_start

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run


def options(**changed: float) -> argparse.Namespace:
    return argparse.Namespace(**{"fresh": 24, "batch": 6, "close": 0.17, "drop": 0.0, "seed": 3, **changed})


@pytest.fixture
def pool(shapes: Path, tmp_path: Path) -> Fresh:
    model = unet.Model(toy_start(tmp_path / "model"))
    scenes = Scenes(shapes, variants=1)
    return Fresh(scenes, model.fixed["vae"], scenes.names, options(), size=64, ranks=Ranks())


def test_windows_come_last_and_all_are_of_one_size(pool: Fresh) -> None:
    values, captions = pool.draw(random.Random(0), 6, close=2)
    assert values.shape == (6, 4, 8, 8) and values.dtype == torch.float32 and len(captions) == 6
    whole, close = (pool.pools[near] for near in (False, True))
    assert len(whole) == 5 * len(close)  # one of six
    held = {id(latent): near for near, kept in pool.pools.items() for latent, _ in kept}
    assert len(held) == len(whole) + len(close)
    for value in values[4:]:
        assert any(torch.equal(value.half(), latent) for latent, _ in close)


def test_a_window_is_encoded_with_what_lies_around_it(shapes: Path, tmp_path: Path) -> None:
    model = unet.Model(toy_start(tmp_path / "model"))
    scenes = Scenes(shapes, variants=1)
    picture, caption = scenes.anew(random.Random(1), scenes.names[0], size=256, side=64 + 2 * fresh.MARGIN)
    assert picture.shape == (128, 128, 3) and scenes.scenes[0].thing in caption
    latent = encode(model.fixed["vae"], picture[None])
    alone = encode(model.fixed["vae"], picture[None, 32:-32, 32:-32])
    assert latent[..., 4:-4, 4:-4].shape == alone.shape and not torch.allclose(latent[..., 4:-4, 4:-4], alone)


def test_new_ones_take_the_place_of_old_ones(pool: Fresh) -> None:
    for _ in range(12):
        pool.grow(random.Random(0))
    assert len(pool.pools[False]) == 24  # and no more
    before = [latent for latent, _ in pool.pools[False]]
    pool.grow(random.Random(0))
    after = [latent for latent, _ in pool.pools[False]]
    assert len(after) == 24 and any(one is not other for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_the_share_of_empty_captions_is_what_guidance_is_given(shapes: Path, tmp_path: Path, drop: float) -> None:
    scenes = Scenes(shapes, variants=1)
    vae = unet.Model(toy_start(tmp_path / "model")).fixed["vae"]
    pool = Fresh(scenes, vae, scenes.names, options(drop=drop), size=64, ranks=Ranks())
    _, captions = pool.draw(random.Random(0), 6, close=2)
    assert all(bool(caption) == (drop == 0.0) for caption in captions)


def test_training_takes_them(shapes: Path, tmp_path: Path) -> None:
    words = ["--work", str(shapes), "--start", str(toy_start(tmp_path / "model")), "--variants", "1"]
    words += ["--stages", "64:1", "--steps", "2", "--batch", "6", "--fresh", "12", "--close", "0.17"]
    unet.train(unet.parse([*words, "--out", str(tmp_path / "out"), "--state", str(tmp_path / "state.pt")]))
    before, after = (unet.Model(tmp_path / name).unet.state_dict() for name in ("model", "out"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not any(np.load(path).any() for path in (shapes / "latents").glob("*-done.npy"))  # no file was read


def test_fewer_than_a_batch_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        unet.parse(["--start", "model", "--batch", "8", "--fresh", "4"])
    assert "--fresh is 4; give at least the batch, 8, or leave it out" in capsys.readouterr().err
