"""Run by the WebUI's own Python: sample one exported checkpoint with the WebUI's ldm code and save what came out.

usage: python ldm_latents.py WEBUI YAML CHECKPOINT CASE.npz OUT.npz
"""

import sys

import numpy as np
import torch


def main() -> None:
    webui, config_path, checkpoint, case_path, out_path = sys.argv[1:]
    sys.path.insert(0, f"{webui}/repositories/stable-diffusion-stability-ai")
    from ldm.models.autoencoder import AutoencoderKL
    from ldm.modules.diffusionmodules.openaimodel import UNetModel
    from ldm.modules.diffusionmodules.util import make_beta_schedule
    from omegaconf import OmegaConf
    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.set_num_threads(1)
    params = OmegaConf.load(config_path).model.params
    state = load_file(checkpoint)
    text_folder = params.cond_stage_config.params.version
    unet = UNetModel(**params.unet_config.params)
    vae = AutoencoderKL(**params.first_stage_config.params)
    text = CLIPTextModel(CLIPTextConfig.from_pretrained(text_folder))
    prefixes = {"model.diffusion_model.": unet, "first_stage_model.": vae, "cond_stage_model.transformer.": text}
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
    betas = make_beta_schedule("linear", params.timesteps, params.linear_start, params.linear_end)
    alphas = torch.from_numpy(np.cumprod(1 - betas)).float()
    timesteps = [int(t) for t in case["timesteps"]]
    latent, scale = torch.from_numpy(case["noise"]), float(case["cfg_scale"])
    with torch.no_grad():
        context = text(tokens).last_hidden_state
        step = params.timesteps // len(timesteps)
        for timestep in timesteps:
            t = torch.full((2,), timestep)
            epsilon = unet(latent.repeat(2, 1, 1, 1), t, context=context)
            epsilon = epsilon[:1] + scale * (epsilon[1:] - epsilon[:1])
            now, then = alphas[timestep], alphas[max(timestep - step, 0)]
            clean = (latent - (1 - now).sqrt() * epsilon) / now.sqrt()
            latent = then.sqrt() * clean + (1 - then).sqrt() * epsilon
        image = vae.decode(latent / params.scale_factor)
        encoded = vae.encode(image).mode()
    np.savez(out_path, tokens=tokens, context=context, latent=latent, image=image, encoded=encoded)


main()
