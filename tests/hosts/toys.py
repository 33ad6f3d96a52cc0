"""Small random-weight models of the true layouts. diffusers is imported when one is made: it takes seconds."""

from __future__ import annotations

import torch

from fam_ext.standalone import demo_model

TRAINING = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def training(**changes):
    """Scheduler settings of SD models."""
    return TRAINING | {"prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1} | changes


def tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(demo_model() / "tokenizer")


def _text_config(width):
    from transformers import CLIPTextConfig

    vocabulary = len(tokenizer())
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )


def vae():
    from diffusers import AutoencoderKL

    torch.manual_seed(1)
    block = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(
        down_block_types=block[0],
        up_block_types=block[1],
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.18215,
    )


def sd_unet(context=32, **changes):
    """SD1.5's blocks at toy width: up_blocks.0 has no attention, 1-3 have three layers each."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(2)
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16, 16, 16),
            "norm_num_groups": 4,
            "cross_attention_dim": context,
            "attention_head_dim": 2,
            "layers_per_block": 2,
        }
        | changes
    )


def sdxl_unet(**changes):
    """SDXL's blocks at toy width: up_blocks.0 is the first with attention."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(3)
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16, 32),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 3),
            "norm_num_groups": 4,
            "cross_attention_dim": 80,  # 32 + 48, as 768 + 1280
            "attention_head_dim": (2, 4, 4),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 48 + 6 * 8,
            "layers_per_block": 2,
        }
        | changes
    )


def sd_pipeline(**scheduler):
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(4)
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(_text_config(32)).eval(),
        tokenizer=tokenizer(),
        unet=sd_unet().eval(),
        scheduler=DDIMScheduler(**training(**scheduler), clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline():
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(5)
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(_text_config(32)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(48)).eval(),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=sdxl_unet().eval(),
        scheduler=DDIMScheduler(**training(), clip_sample=False, set_alpha_to_one=False),
    )
