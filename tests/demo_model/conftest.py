"""A random model of the embedded model's kind, small enough to build in a test, with other sizes than the real one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# the scripts import each other as they lie there
sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "demo_model"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs the toy model is slow: diffusers' networks take longer to import than a unit file may run."""
    for item in items:
        if "toy_model" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


START, END = "<|startoftext|>", "<|endoftext|>"


def bytes_to_letters() -> dict[int, str]:
    """Return CLIP's letter for each byte: itself where it prints, else a letter from 256 on."""
    prints = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in prints]
    return {byte: chr(byte) for byte in prints} | {byte: chr(256 + index) for index, byte in enumerate(others)}


def build_model(folder: Path, *, mid_attention: bool = False, layers: int = 1) -> Path:
    """Write a random diffusers folder: UNet widths 32, 64, 64; VAE 32, 64; text 64 with a vocabulary of bytes."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = {
        "sample_size": 16,
        "block_out_channels": [32, 64, 64],
        "layers_per_block": layers,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": [1, 2, 2],
        "cross_attention_dim": 64,
        "use_linear_projection": True,
    }
    _build(UNet2DConditionModel, unet).save_pretrained(folder / "unet")
    vae = {
        "block_out_channels": [32, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": layers,
        "scaling_factor": 0.3,
        "sample_size": 64,
        "mid_block_add_attention": mid_attention,
    }
    _build(AutoencoderKL, vae).save_pretrained(folder / "vae")
    letters = list(bytes_to_letters().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", START, END]
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=len(tokens) - 2,
            eos_token_id=len(tokens) - 1,
            pad_token_id=len(tokens) - 1,
        )
    ).save_pretrained(folder / "text_encoder")
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({**special, "model_max_length": 77}))
    return folder


VAE: dict[str, Any] = {
    "block_out_channels": [64, 64, 128, 128],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "mid_block_add_attention": False,
    "sample_size": 512,
}
"""The embedded model's."""


def _build(kind: Any, config: dict[str, Any]) -> Any:
    return kind.from_config(config)


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("toy"))


def drawing(body: str, *, width: int = 32) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 32">{body}</svg>'


@pytest.fixture
def shapes(tmp_path: Path) -> Iterator[Path]:
    """A work folder with the drawings of two things, which are then all there are."""
    pytest.importorskip("resvg_py")
    from things import THINGS

    folder = tmp_path / "work"
    pictures = folder / "fluent" / "icons" / "modern"
    pictures.mkdir(parents=True)
    body = '<rect x="2" y="2" width="28" height="28" fill="#d04060"/>'
    for stem in ("teapot", "owl"):
        (pictures / f"{stem}.svg").write_text(drawing(body))
    every = dict(THINGS)
    for name in every.keys() - {"teapot", "owl"}:
        del THINGS[name]
    yield folder
    THINGS.clear()
    THINGS.update(every)  # in their order, which other tests ask for
