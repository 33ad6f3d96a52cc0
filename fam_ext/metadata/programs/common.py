"""One JSON object by the names that programs share: AI Horde, Stability Matrix, Hugging Face spaces, and others."""

from __future__ import annotations

from typing import Any

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, first, from_values, inner, whole

_PROMPT = ("prompt", "positive_prompt", "Prompt", "PositivePrompt", "positivePrompt")
_STEPS = ("steps", "ddim_steps", "num_inference_steps", "numInferenceSteps", "Steps", "num_steps")
_NEGATIVE = ("negative_prompt", "negativePrompt", "negative", "uc", "NegativePrompt", "Negative Prompt")
_CFG = ("cfg_scale", "guidance_scale", "cfgScale", "CfgScale", "guidanceScale", "scale", "cfg", "guidance")
_SAMPLER = ("sampler_name", "samplerName", "sampler", "Sampler", "sampler_index")
_MODEL = ("model", "model_version", "ModelName", "Model", "sd_model_name")


def read(texts: Texts) -> Settings | None:
    """Return the settings of the first JSON object that has a prompt and steps."""
    for item in texts:
        values: dict[str, Any] = inner(item.parsed)
        values = {**values, **inner(values.get("params"))}
        prompt, steps = first(values, *_PROMPT), first(values, *_STEPS)
        if not isinstance(prompt, str) or whole(steps, 100_000) is None:
            continue
        negative = first(values, *_NEGATIVE)
        if negative is None and "###" in prompt:  # AI Horde
            prompt, _, negative = prompt.partition("###")
        schedule = "karras" if values.get("karras") is True else first(values, "schedule", "scheduler_type")
        sampler = first(values, *_SAMPLER)
        scheduler = values.get("scheduler")  # a schedule where there is a sampler, else diffusers' word for one
        return from_values(
            "JSON",
            f"{item.place} {item.key}",
            {**values, "steps": steps},
            prompt=prompt,
            negative=negative,
            cfg=first(values, *_CFG),
            sampler=scheduler if sampler is None else sampler,
            schedule=scheduler if schedule is None and sampler is not None else schedule,
            model=first(values, *_MODEL),
            clip_skip=first(values, "clip_skip", "clipSkip"),
            notes=("read by common names, the program is not known",),
        )
    return None
