"""Run with a WebUI's own Python: python tiny_checkpoints.py WEBUI TEXT_FOLDER OUT. Writes random checkpoints of the
SD1.5, the SD2.1 (v-prediction) and the SDXL layout, small enough for a CPU, with their yaml."""

import sys
from pathlib import Path

import torch

WEBUI, TEXT, OUT = (Path(argument) for argument in sys.argv[1:4])
for repository in ("stable-diffusion-stability-ai", "generative-models"):
    sys.path.insert(0, str(WEBUI / "repositories" / repository))

from ldm.util import instantiate_from_config as ldm_model  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from sgm.util import instantiate_from_config as sgm_model  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402


def weights(prefix, model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():  # zero_module: the prompt would have no effect
            scale = 0.5 / parameter[0].numel() ** 0.5
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return {prefix + name: value.contiguous() for name, value in model.state_dict().items()}


def write(name, config, parts):
    OmegaConf.save(config, OUT / f"{name}.yaml")
    save_file({key: value for part in parts for key, value in part.items()}, OUT / f"{name}.safetensors")


def ldm_parts(params, seed):
    return [
        weights("model.diffusion_model.", ldm_model(params.unet_config), seed),
        weights("first_stage_model.", ldm_model(params.first_stage_config), 2),
        weights("cond_stage_model.transformer.", text, 3),
    ]


torch.manual_seed(0)
text = CLIPTextModel(CLIPTextConfig.from_pretrained(TEXT))
width = text.config.hidden_size

config = OmegaConf.load(WEBUI / "configs" / "v1-inference.yaml")
params = config.model.params
params.unet_config.params.update({"model_channels": 32, "num_heads": 4, "context_dim": width})
params.first_stage_config.params.ddconfig.ch = 32
params.cond_stage_config.params = {"version": str(TEXT)}
write("tiny-sd15", config, ldm_parts(params, 1))

# SD2.1's network (heads of fixed width, linear projections) and its v-prediction, with this text encoder
params.unet_config.params.update({"num_heads": -1, "num_head_channels": 8, "use_linear_in_transformer": True})
params.parameterization = "v"
write("tiny-sd21-v", config, ldm_parts(params, 7))

config = OmegaConf.load(WEBUI / "repositories" / "generative-models" / "configs" / "inference" / "sd_xl_base.yaml")
params = config.model.params
params.network_config.params.update(
    {
        "model_channels": 32,
        "num_head_channels": 8,
        "context_dim": width,
        "adm_in_channels": 1536,
        "use_checkpoint": False,
        "spatial_transformer_attn_type": "softmax",
    }
)
# one text encoder and the three size embedders
embedders = params.conditioner_config.params.emb_models
embedders[0].params = {"layer": "last", "version": str(TEXT)}
params.conditioner_config.params.emb_models = [embedders[0], *embedders[2:]]
params.first_stage_config.params.ddconfig.update({"ch": 32, "attn_type": "vanilla"})
write(
    "tiny-sdxl",
    config,
    [
        weights("model.diffusion_model.", sgm_model(params.network_config), 4),
        weights("first_stage_model.", sgm_model(params.first_stage_config), 5),
        weights("conditioner.embedders.0.transformer.", text, 6),
        # the WebUI looks for this one to see that the checkpoint brings its text encoder
        {"conditioner.embedders.1.model.ln_final.weight": torch.zeros(width)},
    ],
)
