"""Run by the WebUI's own Python: sample one exported checkpoint with the WebUI's ldm code, or its sgm code where the
yaml says so, and save what came out.

usage: python ldm_latents.py WEBUI YAML CHECKPOINT CASE.npz OUT.npz
"""

import sys

import numpy as np
import torch


def main() -> None:
    webui, config_path, checkpoint, case_path, out_path = sys.argv[1:]
    for repository in ("stable-diffusion-stability-ai", "generative-models"):
        sys.path.insert(0, f"{webui}/repositories/{repository}")
    from ldm.models.autoencoder import AutoencoderKL
    from ldm.modules.diffusionmodules.openaimodel import UNetModel
    from ldm.modules.diffusionmodules.util import make_beta_schedule
    from omegaconf import OmegaConf
    from safetensors.torch import load_file
    from sgm.util import instantiate_from_config as sgm_model
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.set_num_threads(1)
    params = OmegaConf.load(config_path).model.params
    state = load_file(checkpoint)
    is_sdxl = "network_config" in params
    if is_sdxl:
        embedders = params.conditioner_config.params.emb_models
        text_folder, text_prefix = embedders[0].params.version, "conditioner.embedders.0.transformer."
        unet, vae = sgm_model(params.network_config), sgm_model(params.first_stage_config)
        sizes = [sgm_model(embedder) for embedder in embedders[1:]]
        schedule = 1000, 0.00085, 0.012  # what the WebUI gives every model of this layout
    else:
        text_folder, text_prefix = params.cond_stage_config.params.version, "cond_stage_model.transformer."
        unet = UNetModel(**params.unet_config.params)
        vae = AutoencoderKL(**params.first_stage_config.params)
        schedule = params.timesteps, params.linear_start, params.linear_end
    text = CLIPTextModel(CLIPTextConfig.from_pretrained(text_folder))
    prefixes = {"model.diffusion_model.": unet, "first_stage_model.": vae, text_prefix: text}
    for prefix, module in prefixes.items():
        part = {key[len(prefix) :]: value.float() for key, value in state.items() if key.startswith(prefix)}
        missing, unexpected = module.load_state_dict(part, strict=False)
        # transformers before 4.31 saved this buffer and makes it itself
        assert not unexpected and set(missing) <= {"text_model.embeddings.position_ids"}, (missing, unexpected)
        module.eval()

    case = np.load(case_path)
    tokenizer = CLIPTokenizer.from_pretrained(text_folder)
    prompts = [str(prompt) for prompt in case["prompts"]]
    tokens = tokenizer(prompts, truncation=True, max_length=77, padding="max_length", return_tensors="pt").input_ids
    betas = make_beta_schedule("linear", *schedule)
    alphas = torch.from_numpy(np.cumprod(1 - betas)).float()
    timesteps = [int(t) for t in case["timesteps"]]
    latent, scale = torch.from_numpy(case["noise"]), float(case["cfg_scale"])
    with torch.no_grad():
        context = text(tokens).last_hidden_state
        step = schedule[0] // len(timesteps)
        options = {}
        if is_sdxl:
            numbers = [torch.tensor([[1024.0, 768.0]] * 2), torch.tensor([[8.0, 0.0]] * 2), torch.ones(2, 2)]
            options["y"] = torch.cat([embed(size) for embed, size in zip(sizes, numbers, strict=True)], dim=1)
        for timestep in timesteps:
            t = torch.full((2,), timestep)
            epsilon = unet(latent.repeat(2, 1, 1, 1), t, context=context, **options)
            epsilon = epsilon[:1] + scale * (epsilon[1:] - epsilon[:1])
            now, then = alphas[timestep], alphas[max(timestep - step, 0)]
            clean = (latent - (1 - now).sqrt() * epsilon) / now.sqrt()
            latent = then.sqrt() * clean + (1 - then).sqrt() * epsilon
        image = vae.decode(latent / params.scale_factor)
        encoded = vae.quant_conv(vae.encoder(image)).chunk(2, dim=1)[0]  # the mean; sgm's wrapper draws around it
    np.savez(out_path, tokens=tokens, context=context, latent=latent, image=image, encoded=encoded)


main()
