"""The A1111 export: every weight has one place in what ldm's code builds, and the yaml says what the weights are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fam_ext.demo.export import EMBEDDED_MODEL, export_checkpoint, export_webui, ldm_state_dict
from fam_ext.errors import UnsupportedModelError, UsageError

from .conftest import build_model
from .ldm_shapes import checkpoint_shapes

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run

XL_TEXT = "conditioner.embedders.0.transformer."
TEXT = "cond_stage_model.transformer."


def export(model: Path | None, folder: Path) -> tuple[dict[str, torch.Tensor], dict, Path]:
    folder.mkdir(exist_ok=True)
    checkpoint, config, *_ = export_checkpoint(folder, model=model)
    return load_file(checkpoint), yaml.safe_load(config.read_text()), folder / "fluent-tiny-text"


def source_size(model: Path) -> int:
    return sum(sum(t.numel() for t in load_file(path).values()) for path in model.glob("*/*.safetensors"))


@pytest.mark.parametrize(("mid_attention", "layers"), [(False, 1), (True, 2)])
def test_every_weight_has_one_place_in_ldm(tmp_path: Path, mid_attention: bool, layers: int) -> None:
    model = build_model(tmp_path / "model", mid_attention=mid_attention, layers=layers)
    state, config, _ = export(model, tmp_path / "out")
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items() if not key.startswith(TEXT)}
    assert shapes == checkpoint_shapes(config)
    assert sum(tensor.numel() for tensor in state.values()) == source_size(model)


@pytest.mark.skipif(not EMBEDDED_MODEL.is_dir(), reason="the embedded model is not in this checkout")
def test_the_embedded_model_fits_ldm(tmp_path: Path) -> None:
    state, config, _ = export(None, tmp_path)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items() if not key.startswith(TEXT)}
    assert shapes == checkpoint_shapes(config)


def test_text_weights_have_the_names_of_transformers_4(toy_model: Path) -> None:
    # 4.30 keeps them under text_model; 5 dropped that level, and both kinds of file are in the wild
    keys = {key.removeprefix(TEXT) for key in ldm_state_dict(toy_model) if key.startswith(TEXT)}
    saved = load_file(toy_model / "text_encoder" / "model.safetensors")
    assert keys == {f"text_model.{key.removeprefix('text_model.')}" for key in saved}
    assert "text_model.embeddings.token_embedding.weight" in keys  # by this one A1111 knows that no download is needed


def test_every_weight_has_one_place_in_sgm(toy_model: Path, tmp_path: Path) -> None:
    checkpoint, config, *_ = export_checkpoint(tmp_path, model=toy_model, layout="sdxl")
    assert (checkpoint.name, config.name) == ("fluent-tiny-xl.safetensors", "fluent-tiny-xl.yaml")
    state, said = load_file(checkpoint), yaml.safe_load(config.read_text())
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items() if not key.startswith("conditioner.")}
    assert shapes == checkpoint_shapes(said)
    sd = ldm_state_dict(toy_model)
    assert {key.replace(XL_TEXT, TEXT) for key in state} - set(sd) == {
        *(f"model.diffusion_model.label_emb.0.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")),
        "conditioner.embedders.1.model.ln_final.weight",  # by this one A1111 knows that no download is needed
    }
    for key, tensor in sd.items():
        assert torch.equal(state[key.replace(TEXT, XL_TEXT)], tensor), key
    embedders = said["model"]["params"]["conditioner_config"]["params"]["emb_models"]
    assert embedders[0]["params"]["version"] == str(tmp_path / "fluent-tiny-xl-text")
    numbers = sum(2 * embedder["params"]["outdim"] for embedder in embedders[1:])
    assert numbers == said["model"]["params"]["network_config"]["params"]["adm_in_channels"]


def test_a_schedule_that_the_webui_gives_no_sdxl_model_is_refused(toy_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(toy_model, model)
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "beta_end": 0.02}))
    with pytest.raises(UnsupportedModelError, match=r"linear_end is 0\.02.*layout sd"):
        export_checkpoint(tmp_path, model=model, layout="sdxl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert export_checkpoint(tmp_path, model=model)


def test_an_unknown_layout_is_refused(toy_model: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "Stable-diffusion").mkdir(parents=True)
    with pytest.raises(UsageError, match="layout is 'flux'; choose one of sd, sdxl"):
        export_webui(tmp_path, model=toy_model, layout="flux")


def test_values_go_where_their_role_is(toy_model: Path) -> None:
    state = ldm_state_dict(toy_model)
    unet = load_file(toy_model / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(toy_model / "vae" / "diffusion_pytorch_model.safetensors")
    pairs = {
        "model.diffusion_model.output_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": unet[
            "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q.weight"
        ],
        "model.diffusion_model.output_blocks.1.2.conv.weight": unet["up_blocks.0.upsamplers.0.conv.weight"],
        "model.diffusion_model.input_blocks.3.0.out_layers.3.weight": unet["down_blocks.1.resnets.0.conv2.weight"],
        "model.diffusion_model.middle_block.2.in_layers.0.bias": unet["mid_block.resnets.1.norm1.bias"],
        "first_stage_model.decoder.up.1.block.1.conv1.weight": vae["decoder.up_blocks.0.resnets.1.conv1.weight"],
        "first_stage_model.encoder.down.0.downsample.conv.weight": vae[
            "encoder.down_blocks.0.downsamplers.0.conv.weight"
        ],
    }
    for name, value in pairs.items():
        assert torch.equal(state[name], value), name


def test_the_yaml_repeats_the_configs(toy_model: Path, tmp_path: Path) -> None:
    _, config, text_folder = export(toy_model, tmp_path / "out")
    params = config["model"]["params"]
    assert params["scale_factor"] == 0.3
    assert (params["linear_start"], params["linear_end"]) == (0.00085, 0.012)
    unet = params["unet_config"]["params"]
    assert (unet["num_head_channels"], unet["context_dim"], unet["attention_resolutions"]) == (32, 64, [2, 4])
    assert params["first_stage_config"]["params"]["ddconfig"]["attn_type"] == "none"
    assert params["cond_stage_config"]["params"]["version"] == str(text_folder)


def test_the_text_folder_holds_what_transformers_4_reads(toy_model: Path, tmp_path: Path) -> None:
    from transformers import CLIPTextConfig

    _, _, text_folder = export(toy_model, tmp_path / "out")
    assert CLIPTextConfig.from_pretrained(text_folder).hidden_size == 64
    vocabulary = json.loads((text_folder / "vocab.json").read_text())
    assert ",</w>" in vocabulary  # A1111 looks it up to break long prompts at commas
    special = json.loads((text_folder / "special_tokens_map.json").read_text())
    assert all(special[name] in vocabulary for name in ("bos_token", "eos_token", "pad_token", "unk_token"))
    assert not list(text_folder.glob("*.safetensors"))  # A1111 would list it as a checkpoint


def test_export_replaces_an_earlier_one_and_leaves_nothing_half(toy_model: Path, tmp_path: Path) -> None:
    webui = tmp_path / "webui"
    (webui / "models" / "Stable-diffusion").mkdir(parents=True)
    first = export_webui(webui, model=toy_model)
    checkpoint = first[0].read_bytes()
    for _ in range(4):  # the WebUI writes the file's hash into every picture: it must not change from export to export
        assert export_webui(webui, model=toy_model) == first
        assert first[0].read_bytes() == checkpoint
    assert sorted(first) == sorted(path for path in webui.rglob("*") if path.is_file())


def test_a_folder_that_is_no_webui_is_refused(toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no WebUI folder"):
        export_webui(tmp_path, model=toy_model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("unet", "norm_num_groups", 16),
        ("unet", "addition_embed_type", "text_time"),
        ("unet", "transformer_layers_per_block", 2),
        ("unet", "attention_head_dim", [1, 1, 2]),
        ("vae", "use_quant_conv", False),
    ],
)
def test_a_model_that_ldm_cannot_hold_is_refused(
    toy_model: Path, tmp_path: Path, part: str, field: str, value: object
) -> None:
    model = tmp_path / "model"
    shutil.copytree(toy_model, model)
    config = model / part / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), field: value}))
    with pytest.raises(UnsupportedModelError):
        export_checkpoint(tmp_path, model=model)
    assert not list(tmp_path.glob("*.safetensors"))
