"""Easy Diffusion: one PNG text a field, or all in one JSON object (JPEG, WebP); by the field's name or its title."""

from __future__ import annotations

from typing import Any

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, first, from_values


def read(texts: Texts) -> Settings | None:
    """Return Easy Diffusion's settings, None when the file is not its."""
    values: dict[str, Any] = texts.json("UserComment", "parameters", "Comment") or {t.key: t.value for t in texts}
    steps, cfg = first(values, "num_inference_steps", "Steps"), first(values, "guidance_scale", "Guidance Scale")
    prompt = first(values, "prompt", "Prompt")
    model = first(values, "use_stable_diffusion_model", "Stable Diffusion model")
    # pipelines of diffusers write its field names too
    ours = model is not None or first(values, "sampler_name", "Guidance Scale") is not None
    if prompt is None or steps is None or cfg is None or not ours:
        return None
    return from_values(
        "Easy Diffusion",
        "texts",
        values,
        prompt=prompt,
        negative=first(values, "negative_prompt", "Negative Prompt"),
        cfg=cfg,
        sampler=first(values, "sampler_name", "Sampler"),
        schedule=first(values, "scheduler_name", "Scheduler"),
        model=model,
        vae=first(values, "use_vae_model", "VAE model"),
        clip_skip=2 if first(values, "clip_skip", "Clip Skip") in (True, "True", "true") else None,
    )
