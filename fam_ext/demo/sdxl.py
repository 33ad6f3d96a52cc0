"""The same weights as a checkpoint of SDXL's layout: sgm's names and yaml around what ldm's export gives.

SDXL's UNet also reads the picture's size and crop. The model never learned from them: `label_emb`, which takes them in,
is zero here, so the checkpoint makes the pictures of the SD1.5 layout. One difference is the WebUI's: for an SDXL model
it takes zeros in place of the text encoder's answer to an empty negative prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fam_ext.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch

SIZES = ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
SIZE_WIDTH = 32  # channels of each of the two numbers of a size
VECTOR_WIDTH = 2 * SIZE_WIDTH * len(SIZES)
WEBUI_SCHEDULE = {"linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
# by this key the WebUI sees that a checkpoint of this layout brings its text encoder; nothing reads its value
HAS_TEXT_ENCODER = "conditioner.embedders.1.model.ln_final.weight"


def sdxl_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights `state` of an ldm checkpoint under the names of SDXL's layout."""
    text, unet = "cond_stage_model.transformer.", "model.diffusion_model."
    renamed = {
        f"conditioner.embedders.0.transformer.{key.removeprefix(text)}" if key.startswith(text) else key: value
        for key, value in state.items()
    }
    like = state[f"{unet}time_embed.2.weight"]
    width = like.shape[0]
    zeros = {"0.weight": (width, VECTOR_WIDTH), "0.bias": (width,), "2.weight": (width, width), "2.bias": (width,)}
    renamed |= {f"{unet}label_emb.0.{key}": like.new_zeros(shape) for key, shape in zeros.items()}
    renamed[HAS_TEXT_ENCODER] = like.new_zeros(1)
    return renamed


def sdxl_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the yaml's content for SDXL's layout from that of `ldm_config`.

    Raises `UnsupportedModelError` for a noise schedule or a prediction that the WebUI does not give such models.
    """
    params = config["model"]["params"]
    for field, value in WEBUI_SCHEDULE.items():
        if params[field] != value:
            raise UnsupportedModelError(
                f"the scheduler's {field} is {params[field]}; for the SDXL layout the WebUI knows {value} only,"
                " so export this model with layout sd"
            )
    unet = dict(params["unet_config"]["params"])
    unet["transformer_depth"] = [unet["transformer_depth"]] * len(unet["channel_mult"])
    del unet["image_size"]
    unet |= {"num_classes": "sequential", "adm_in_channels": VECTOR_WIDTH, "spatial_transformer_attn_type": "softmax"}
    diffusion = "sgm.modules.diffusionmodules"
    scaling = "VScaling" if params["parameterization"] == "v" else "EpsScaling"
    text = {
        "is_trainable": False,
        "input_key": "txt",
        "target": "sgm.modules.encoders.modules.FrozenCLIPEmbedder",
        "params": {"layer": "last", **params["cond_stage_config"]["params"]},
    }
    sizes = [
        {
            "is_trainable": False,
            "input_key": key,
            "target": "sgm.modules.encoders.modules.ConcatTimestepEmbedderND",
            "params": {"outdim": SIZE_WIDTH},
        }
        for key in SIZES
    ]
    first_stage = params["first_stage_config"]["params"]
    return {
        "model": {
            "target": "sgm.models.diffusion.DiffusionEngine",
            "params": {
                "scale_factor": params["scale_factor"],
                "disable_first_stage_autocast": True,
                "denoiser_config": {
                    "target": f"{diffusion}.denoiser.DiscreteDenoiser",
                    "params": {
                        "num_idx": params["timesteps"],
                        "weighting_config": {"target": f"{diffusion}.denoiser_weighting.EpsWeighting"},
                        "scaling_config": {"target": f"{diffusion}.denoiser_scaling.{scaling}"},
                        "discretization_config": {"target": f"{diffusion}.discretizer.LegacyDDPMDiscretization"},
                    },
                },
                "network_config": {"target": f"{diffusion}.openaimodel.UNetModel", "params": unet},
                "conditioner_config": {
                    "target": "sgm.modules.GeneralConditioner",
                    "params": {"emb_models": [text, *sizes]},
                },
                "first_stage_config": {
                    "target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper",
                    "params": {**first_stage, "monitor": "val/rec_loss"},
                },
            },
        }
    }
