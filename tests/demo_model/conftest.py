"""A random model of the embedded model's kind, small enough to build in a test, with other sizes than the real one."""

from __future__ import annotations

import json
import sys
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


def _build(kind: Any, config: dict[str, Any]) -> Any:
    return kind.from_config(config)


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("toy"))


def drawing(body: str, *, width: int = 32) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 32">{body}</svg>'


DRAWINGS = {
    "red-circle": drawing('<circle cx="16" cy="16" r="10" fill="red"/>'),
    "blue-square": drawing('<rect x="6" y="6" width="20" height="20" fill="blue"/>'),
    "left-arrow": drawing('<path d="M4 16 L20 4 L20 28 Z" fill="green"/>'),
    "tall-stick": drawing('<rect x="4" y="2" width="8" height="28" fill="brown"/>', width=16),
    "police-car-light": drawing('<rect x="10" y="4" width="8" height="24" fill="orange"/>'),
    **{
        f"cook-{skin}": drawing(f'<circle cx="16" cy="16" r="12" fill="#{level:x}{level:x}0"/>')
        for level, skin in enumerate(("default", "light", "medium-light", "medium", "medium-dark", "dark"), start=4)
    },
}
WORDS = [
    {"name": "RED CIRCLE", "short_names": ["red_circle", "red_dot"]},
    {"name": "COOK", "short_names": ["cook", "chef", "x"]},
    {"name": None, "short_names": ["nothing"]},
]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder with a collection of six names, one of them in six skins."""
    pytest.importorskip("resvg_py")
    folder = tmp_path / "work"
    pictures = folder / "fluent" / "icons" / "modern"
    pictures.mkdir(parents=True)
    for stem, text in DRAWINGS.items():
        (pictures / f"{stem}.svg").write_text(text)
    (folder / "emoji-data").mkdir()
    (folder / "emoji-data" / "emoji.json").write_text(json.dumps(WORDS))
    return folder
