"""The export inside the WebUI's own code: the same words, the same noise, the same latents. Skipped without one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fam_ext.demo.export import EMBEDDED_MODEL, export_checkpoint

WEBUI = Path(os.environ.get("FAM_WEBUI_DIR", "~/stable-diffusion-webui")).expanduser()
PYTHON = WEBUI / "venv" / "bin" / "python"
PROMPTS = ["", "a teapot, woven, on a blue ground"]
STEPS, CFG_SCALE = 20, 5.0


@pytest.mark.webui
@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="no WebUI here")
@pytest.mark.parametrize("layout", ["sd", "sdxl"])
def test_same_noise_gives_the_same_latents(toy_model: Path, tmp_path: Path, layout: str) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers import CLIPTextModel, CLIPTokenizer

    model = EMBEDDED_MODEL if EMBEDDED_MODEL.is_dir() else toy_model
    checkpoint, config, *_ = export_checkpoint(tmp_path, model=model, layout=layout)
    unet: Any = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32).eval()
    vae: Any = AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32).eval()
    text: Any = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32).eval()
    tokenizer: Any = CLIPTokenizer.from_pretrained(model / "tokenizer")
    scheduler: Any = DDIMScheduler.from_pretrained(model / "scheduler")
    side = unet.config.sample_size
    latent = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(1))
    scheduler.set_timesteps(STEPS)
    case, out = tmp_path / "case.npz", tmp_path / "out.npz"
    np.savez(case, prompts=PROMPTS, noise=latent, timesteps=scheduler.timesteps, cfg_scale=CFG_SCALE)
    script = Path(__file__).with_name("ldm_latents.py")
    command = [PYTHON, script, WEBUI, config, checkpoint, case, out]
    subprocess.run([str(part) for part in command], check=True, cwd=tmp_path, timeout=300)
    theirs = {key: torch.from_numpy(value) for key, value in np.load(out).items()}

    tokens = tokenizer(PROMPTS, truncation=True, max_length=77, padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(tokens, theirs["tokens"])
    with torch.no_grad():
        context = text(tokens).last_hidden_state
        for timestep in scheduler.timesteps:
            epsilon = unet(latent.repeat(2, 1, 1, 1), timestep, encoder_hidden_states=context).sample
            epsilon = epsilon[:1] + CFG_SCALE * (epsilon[1:] - epsilon[:1])
            latent = scheduler.step(epsilon, timestep, latent).prev_sample
        image = vae.decode(latent / vae.config.scaling_factor).sample
        encoded = vae.encode(image).latent_dist.mode()
    assert (context - theirs["context"]).abs().max() < 1e-4
    assert (latent - theirs["latent"]).abs().max() < 1e-3
    assert (image - theirs["image"]).abs().max() < 1e-3
    assert (encoded - theirs["encoded"]).abs().max() < 1e-2 * encoded.abs().max()
