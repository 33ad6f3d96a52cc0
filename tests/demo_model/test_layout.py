"""The layout of the next model: attention on every level but the outermost and the innermost, in both WebUI layouts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import layout
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fam_ext.demo.export import export_checkpoint
from fam_ext.hosts.diffusers.unet import unet_blocks

from .conftest import build_model
from .ldm_shapes import checkpoint_shapes

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run


def unet_of(model: Path) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(model / "unet")


@pytest.fixture
def moved_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = build_model(tmp_path / "old")
    monkeypatch.setattr("sys.argv", ["layout.py", str(model), str(tmp_path / "new")])
    layout.main()
    return tmp_path / "new"


def test_attention_leaves_the_innermost_blocks_and_not_the_mid_block(moved_model: Path) -> None:
    unet = unet_of(moved_model)
    assert unet.config.down_block_types == ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    assert unet.config.up_block_types == ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]
    assert len(unet.mid_block.attentions) == 1


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_both_webui_layouts_hold_it(moved_model: Path, tmp_path: Path, name: str) -> None:
    checkpoint, config, *_ = export_checkpoint(tmp_path, model=moved_model, layout=name)
    said = yaml.safe_load(config.read_text())
    text = ("conditioner.", "cond_stage_model.")
    shapes = {key: tuple(value.shape) for key, value in load_file(checkpoint).items() if not key.startswith(text)}
    assert shapes == checkpoint_shapes(said)
    part = "network_config" if name == "sdxl" else "unet_config"
    assert said["model"]["params"][part]["params"]["attention_resolutions"] == [2]


def test_new_transformers_add_nothing_and_shared_weights_stay(tmp_path: Path) -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    kind: Any = UNet2DConditionModel
    config = {
        **unet_of(build_model(tmp_path / "old")).config,
        "block_out_channels": [32, 32, 64, 64],
        "attention_head_dim": [1, 1, 2, 2],
        "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    }
    torch.manual_seed(0)
    old = kind.from_config(config).eval()
    new = layout.moved(old, seed=0).eval()
    without = copy.deepcopy(old)  # the old one, its innermost transformers adding nothing either
    for block in (without.down_blocks[-1], without.up_blocks[0]):
        for transformer in block.attentions:
            torch.nn.init.zeros_(transformer.proj_out.weight)
            torch.nn.init.zeros_(transformer.proj_out.bias)
    state, context = torch.randn(1, 4, 16, 16), torch.randn(1, 5, 64)
    with torch.no_grad():
        wanted = without(state, 500, encoder_hidden_states=context).sample
        assert torch.allclose(new(state, 500, encoder_hidden_states=context).sample, wanted, atol=1e-5)
        assert not torch.allclose(old(state, 500, encoder_hidden_states=context).sample, wanted, atol=1e-3)


def test_auto_sites_are_then_in_the_second_up_block(moved_model: Path) -> None:
    blocks = unet_blocks(unet_of(moved_model))
    assert [bool(sites) for sites in blocks] == [False, True, False]
