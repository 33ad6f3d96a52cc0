"""The embedded model as one A1111 checkpoint: the weights under ldm's names, the yaml that describes them, and the
tokenizer beside them. Everything is read from the model's own configs; no hub is asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fam_ext.demo.sdxl import sdxl_config, sdxl_state_dict
from fam_ext.errors import UnsupportedModelError, UsageError
from fam_ext.placing import replace, write_whole

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

NAMES = {"sd": "fluent-tiny", "sdxl": "fluent-tiny-xl"}
EMBEDDED_MODEL = Path(__file__).parent / "model"
WEBUI_CHECKPOINTS = Path("models") / "Stable-diffusion"
NORM_GROUPS = 32  # ldm's code fixes it for the UNet and the VAE alike

Config = Mapping[str, Any]


def export_webui(folder: str | Path, *, model: str | Path | None = None, layout: str = "sd") -> list[Path]:
    """Write `fluent-tiny.safetensors`, its `.yaml` and its tokenizer folder where the WebUI in `folder` finds them.

    Returns the written files. `folder` is a WebUI's own folder; `model` a diffusers folder, None = the embedded model;
    `layout` "sd" (the WebUI runs it as SD1.5) or "sdxl" (as SDXL, named `fluent-tiny-xl`). Files of an earlier export
    are replaced. The yaml names the tokenizer's folder by its absolute path: export again after moving the WebUI.
    Raises `UsageError` when `folder` is no WebUI or the layout unknown and `UnsupportedModelError` when the WebUI's
    code cannot hold the model.
    """
    folder = Path(folder).expanduser().resolve()
    if not (folder / WEBUI_CHECKPOINTS).is_dir():
        raise UsageError(
            f"{folder} is no WebUI folder; give the one that holds {WEBUI_CHECKPOINTS.as_posix()}"
            " (where webui.py or launch.py lies)"
        )
    return export_checkpoint(folder / WEBUI_CHECKPOINTS, model=model, layout=layout)


def export_checkpoint(
    folder: str | Path, *, model: str | Path | None = None, name: str | None = None, layout: str = "sd"
) -> list[Path]:
    """Write `name`.safetensors, `name`.yaml and the tokenizer folder `name`-text into `folder`; return the files.

    Raises as `export_webui` does; nothing is written then.
    """
    from safetensors.torch import save_file

    if layout not in NAMES:
        raise UsageError(f"layout is {layout!r}; choose one of {', '.join(NAMES)}")
    source = Path(model) if model is not None else EMBEDDED_MODEL
    folder, name = Path(folder).resolve(), name or NAMES[layout]
    state = ldm_state_dict(source)
    text_folder = folder / f"{name}-text"
    config = ldm_config(source, text_folder=text_folder)
    if layout == "sdxl":
        state, config = sdxl_state_dict(state), sdxl_config(config)

    text_folder.mkdir(parents=True, exist_ok=True)
    written = [_write(text_folder / file, text) for file, text in _text_files(source).items()]
    yaml = "\n".join(_yaml_lines(config)) + "\n"
    written.insert(0, _write(folder / f"{name}.yaml", yaml))
    checkpoint = folder / f"{name}.safetensors"
    # one entry only: safetensors writes several in random order, and the WebUI's hash of the file would not repeat
    metadata = {"modelspec.title": f"{name} (MIT; artwork: Microsoft Fluent Emoji, MIT)"}
    partial = checkpoint.with_name(f"{checkpoint.name}.part")  # the WebUI lists *.safetensors: never a half one
    partial.touch()
    rights = partial.stat().st_mode & 0o777  # those of any new file; safetensors' are its maker's alone
    save_file(state, partial, metadata=metadata)
    partial.chmod(rights)
    replace(partial, checkpoint)
    logger.info("exported %s to %s", source, checkpoint)
    return [checkpoint, *written]


def ldm_state_dict(model: str | Path) -> dict[str, torch.Tensor]:
    """Return the weights of the diffusers folder `model` under ldm's names, in their own dtype."""
    from safetensors.torch import load_file

    model = Path(model)
    unet, vae = _read_config(model, "unet"), _read_config(model, "vae")
    _check_unet(unet)
    _check_vae(vae)
    parts = (
        ("unet", "diffusion_pytorch_model", "model.diffusion_model.", unet_key_map(unet)),
        ("vae", "diffusion_pytorch_model", "first_stage_model.", vae_key_map(vae)),
        ("text_encoder", "model", "cond_stage_model.transformer.", text_key),
    )
    state: dict[str, torch.Tensor] = {}
    for part, stem, prefix, rename in parts:
        path = model / part / f"{stem}.safetensors"
        if not path.is_file():
            raise UnsupportedModelError(f"{path} is missing; give a diffusers folder whose weights are .safetensors")
        for key, tensor in load_file(path).items():
            name = rename(key)
            if name is None:
                raise UnsupportedModelError(f"{part} has a weight {key} that ldm's code has no place for")
            if ".mid.attn_1." in name and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]  # ldm's VAE attends by 1x1 convolutions
            state[prefix + name] = tensor.contiguous()
    return state


def ldm_config(model: str | Path, *, text_folder: str | Path) -> dict[str, Any]:
    """Return the content of the yaml for the diffusers folder `model`; its text encoder reads `text_folder`."""
    model = Path(model)
    unet, vae = _read_config(model, "unet"), _read_config(model, "vae")
    scheduler = _read_config(model, "scheduler", file="scheduler_config.json")
    _check_unet(unet)
    _check_vae(vae)
    _check_scheduler(scheduler)
    widths = unet["block_out_channels"]
    attending = [2**i for i, block in enumerate(unet["down_block_types"]) if block == "CrossAttnDownBlock2D"]
    unet_params = {
        "image_size": unet["sample_size"] or 64,
        "in_channels": unet["in_channels"],
        "out_channels": unet["out_channels"],
        "model_channels": widths[0],
        "attention_resolutions": attending,
        "num_res_blocks": unet["layers_per_block"],
        "channel_mult": [width // widths[0] for width in widths],
        "num_head_channels": _head_dim(unet),
        "use_spatial_transformer": True,
        "use_linear_in_transformer": bool(unet.get("use_linear_projection")),
        "transformer_depth": 1,
        "context_dim": unet["cross_attention_dim"],
        "use_checkpoint": False,
        "legacy": False,
    }
    dd_params = {
        "attn_type": "vanilla" if vae.get("mid_block_add_attention", True) else "none",
        "double_z": True,
        "z_channels": vae["latent_channels"],
        "resolution": vae["sample_size"],
        "in_channels": vae["in_channels"],
        "out_ch": vae["out_channels"],
        "ch": vae["block_out_channels"][0],
        "ch_mult": [width // vae["block_out_channels"][0] for width in vae["block_out_channels"]],
        "num_res_blocks": vae["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    params: dict[str, Any] = {
        "linear_start": scheduler["beta_start"],  # ldm's "linear" is linear in sqrt(beta): diffusers' scaled_linear
        "linear_end": scheduler["beta_end"],
        "num_timesteps_cond": 1,
        "log_every_t": 200,
        "timesteps": scheduler["num_train_timesteps"],
        "parameterization": "v" if scheduler["prediction_type"] == "v_prediction" else "eps",
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": unet["sample_size"] or 64,
        "channels": unet["in_channels"],
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "scale_factor": vae["scaling_factor"],
        "use_ema": False,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet_params},
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {
                "embed_dim": vae["latent_channels"],
                "ddconfig": dd_params,
                "lossconfig": {"target": "torch.nn.Identity"},
            },
        },
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
            "params": {"version": str(text_folder)},
        },
    }
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


def unet_key_map(config: Config) -> Callable[[str], str | None]:
    """Return the renaming of a UNet2DConditionModel's keys to ldm's UNetModel; None for a key that has no place."""
    layers, levels = config["layers_per_block"], len(config["block_out_channels"])
    modules = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    for level in range(levels):
        first = 1 + level * (layers + 1)
        for layer in range(layers):
            modules[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{first + layer}.0"
            modules[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{first + layer}.1"
        modules[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{first + layers}.0.op"

        first = level * (layers + 1)
        for layer in range(layers + 1):
            modules[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{first + layer}.0"
            modules[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{first + layer}.1"
        upsampler = 2 if config["up_block_types"][level] == "CrossAttnUpBlock2D" else 1
        modules[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{first + layers}.{upsampler}.conv"
    resnet = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    return _renamer(modules, inner={"resnets": resnet})


def vae_key_map(config: Config) -> Callable[[str], str | None]:
    """Return the renaming of an AutoencoderKL's keys to ldm's; None for a key that has no place."""
    layers, levels = config["layers_per_block"], len(config["block_out_channels"])
    modules = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side, blocks, count in (("encoder", "down", layers), ("decoder", "up", layers + 1)):
        modules[f"{side}.conv_in"] = f"{side}.conv_in"
        modules[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        modules[f"{side}.conv_out"] = f"{side}.conv_out"
        modules[f"{side}.mid_block.resnets.0"] = f"{side}.mid.block_1"
        modules[f"{side}.mid_block.attentions.0"] = f"{side}.mid.attn_1"
        modules[f"{side}.mid_block.resnets.1"] = f"{side}.mid.block_2"
        for level in range(levels):
            # ldm numbers the decoder's levels from the picture inwards
            place = f"{side}.{blocks}.{level if side == 'encoder' else levels - 1 - level}"
            for layer in range(count):
                modules[f"{side}.{blocks}_blocks.{level}.resnets.{layer}"] = f"{place}.block.{layer}"
            modules[f"{side}.{blocks}_blocks.{level}.{blocks}samplers.0.conv"] = f"{place}.{blocks}sample.conv"
    resnet = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"conv_shortcut": "nin_shortcut"}
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    return _renamer(modules, inner={"resnets": resnet, "attentions": attention})


def text_key(key: str) -> str | None:
    """Return the name of a CLIPTextModel's key as transformers 4 has it (`text_model.` in front); None for a buffer
    that it makes itself."""
    key = key.removeprefix("text_model.")
    return f"text_model.{key}" if key.startswith(("embeddings.", "encoder.", "final_layer_norm.")) else None


def _renamer(modules: Mapping[str, str], *, inner: Mapping[str, Mapping[str, str]]) -> Callable[[str], str | None]:
    """Return a renaming by the longest known module; below it, `inner` gives the names by the module's kind."""
    longest_first = sorted(modules, key=len, reverse=True)

    def rename(key: str) -> str | None:
        for module in longest_first:
            if not key.startswith(f"{module}."):
                continue
            rest = key.removeprefix(f"{module}.")
            kind = next((kind for kind in inner if f".{kind}." in f".{module}."), None)
            if kind is not None:
                layer, _, parameter = rest.rpartition(".")
                if layer not in inner[kind]:
                    return None
                rest = f"{inner[kind][layer]}.{parameter}"
            return f"{modules[module]}.{rest}"
        return None

    return rename


def _head_dim(unet: Config) -> int:
    """Return the one width of a head. `attention_head_dim` holds numbers of heads: diffusers keeps the old misnomer."""
    heads = unet.get("num_attention_heads") or unet["attention_head_dim"]
    widths = unet["block_out_channels"]
    counts: Iterable[int] = heads if isinstance(heads, list) else [heads] * len(widths)
    blocks = zip(widths, counts, unet["down_block_types"], strict=True)
    sizes = {width // count for width, count, block in blocks if block == "CrossAttnDownBlock2D"}
    if len(sizes) != 1:
        raise UnsupportedModelError(f"the UNet's heads are {sorted(sizes)} wide; this export needs one width for all")
    return sizes.pop()


def _check(part: str, config: Config, allowed: Mapping[str, tuple[Any, ...]]) -> None:
    for field, values in allowed.items():
        if config.get(field, values[0]) not in values:
            choices = " or ".join(repr(value) for value in values)
            raise UnsupportedModelError(f"the {part}'s {field} is {config[field]!r}; ldm's code can hold {choices}")


def _check_unet(config: Config) -> None:
    depths = (1, [1] * len(config["block_out_channels"]))
    fixed: dict[str, tuple[Any, ...]] = {
        "_class_name": ("UNet2DConditionModel",),
        "norm_num_groups": (NORM_GROUPS,),
        "act_fn": ("silu",),
        "addition_embed_type": (None,),
        "class_embed_type": (None,),
        "encoder_hid_dim": (None,),
        "transformer_layers_per_block": depths,
        "resnet_time_scale_shift": ("default",),
        "time_embedding_type": ("positional",),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "flip_sin_to_cos": (True,),
        "freq_shift": (0,),
    }
    _check("UNet", config, fixed)
    attending = [block == "CrossAttnDownBlock2D" for block in config["down_block_types"]]
    rising = [block == "CrossAttnUpBlock2D" for block in config["up_block_types"]]
    if not isinstance(config["layers_per_block"], int) or attending != rising[::-1]:
        raise UnsupportedModelError(
            "the UNet's blocks differ on the way down and up; ldm's code can hold mirrored blocks of equal depth"
        )


def _check_vae(config: Config) -> None:
    fixed: dict[str, tuple[Any, ...]] = {
        "_class_name": ("AutoencoderKL",),
        "norm_num_groups": (NORM_GROUPS,),
        "act_fn": ("silu",),
        "use_quant_conv": (True,),
        "use_post_quant_conv": (True,),
        "shift_factor": (None,),
        "latents_mean": (None,),
    }
    _check("VAE", config, fixed)


def _check_scheduler(config: Config) -> None:
    fixed: dict[str, tuple[Any, ...]] = {
        "beta_schedule": ("scaled_linear",),
        "prediction_type": ("epsilon", "v_prediction"),
        "rescale_betas_zero_snr": (False,),
        "trained_betas": (None,),
    }
    _check("scheduler", config, fixed)


def _text_files(model: Path) -> dict[str, str]:
    """Return the files from which transformers 4 builds the text encoder and its slow tokenizer."""
    config = _read_config(model, "text_encoder")
    tokenizer = _read_config(model, "tokenizer", file="tokenizer_config.json")
    keep = {key: value for key, value in config.items() if key not in ("dtype", "transformers_version", "torch_dtype")}
    tokens = {key: tokenizer[key] for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    files = {
        "config.json": json.dumps(keep, indent=2),
        "tokenizer_config.json": json.dumps(
            {**tokens, "model_max_length": config["max_position_embeddings"], "tokenizer_class": "CLIPTokenizer"},
            indent=2,
        ),
        "special_tokens_map.json": json.dumps(tokens, indent=2),
    }
    for name in ("vocab.json", "merges.txt"):
        path = model / "tokenizer" / name
        if not path.is_file():
            raise UnsupportedModelError(
                f"{path} is missing; the WebUI's CLIP tokenizer needs vocab.json and merges.txt"
            )
        files[name] = path.read_text(encoding="utf-8")
    return files


def _read_config(model: Path, part: str, *, file: str = "config.json") -> dict[str, Any]:
    path = model / part / file
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedModelError(
            f"{path} is missing; give a diffusers folder with unet, vae, text_encoder, tokenizer and scheduler"
        ) from None


def _write(path: Path, text: str) -> Path:
    write_whole(path, text.encode())
    return path


def _yaml_lines(mapping: Mapping[str, Any], depth: int = 0) -> Iterable[str]:
    """Yield a nested mapping as block yaml; scalars and lists in JSON's form, which yaml reads."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield f"{'  ' * depth}{key}:"
            yield from _yaml_lines(value, depth + 1)
        else:
            yield f"{'  ' * depth}{key}: {json.dumps(value)}"
