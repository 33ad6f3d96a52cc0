"""Programs that write one JSON object: SwarmUI, Fooocus, InvokeAI, NovelAI, Draw Things, Easy Diffusion, others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from fam_ext.metadata.containers import Texts, json_object
from fam_ext.metadata.programs.base import Settings, base_name, named, real, seed, text, whole


def _settings(
    program: str,
    place: str,
    values: Mapping[str, Any],
    *,
    prompt: object,
    negative: object,
    cfg: object,
    sampler: object,
    schedule: object = None,
    model: object = None,
    vae: object = None,
    clip_skip: object = None,
    notes: tuple[str, ...] = (),
) -> Settings:
    number, wrapped = seed(values.get("seed", values.get("Seed")))
    name, plan = named(sampler, schedule)
    height, width = whole(values.get("height"), 1 << 20), whole(values.get("width"), 1 << 20)
    return Settings(
        program,
        text(prompt),
        text(negative),
        number,
        whole(values.get("steps", values.get("Steps")), 100_000),
        name,
        plan,
        real(cfg),
        (height, width) if height and width else None,
        base_name(model),
        text(vae),
        whole(clip_skip, 100),
        notes=(*notes, *wrapped),
        place=place,
    )


def _first(values: Mapping[str, Any], *names: str) -> object:
    """Return the value of the first name that is there."""
    return next((values[name] for name in names if name in values), None)


def _inner(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def swarm(texts: Texts) -> Settings | None:
    """SwarmUI (and StableSwarmUI): `sui_image_params` in `parameters` or the EXIF comment."""
    whole_object = texts.json("parameters", "UserComment") or {}
    values = _inner(whole_object.get("sui_image_params"))
    if not values:
        return None
    return _settings(
        "SwarmUI",
        "parameters",
        values,
        prompt=values.get("prompt"),
        negative=values.get("negativeprompt", values.get("negative_prompt")),
        cfg=values.get("cfgscale", values.get("cfg_scale")),
        sampler=values.get("sampler", values.get("comfyuisampler")),
        schedule=values.get("scheduler", values.get("comfyuischeduler")),
        model=values.get("model"),
        vae=values.get("vae"),
    )


def fooocus(texts: Texts) -> Settings | None:
    """Fooocus and its forks: JSON with `metadata_scheme`, in `parameters` or the EXIF comment; old logs by title."""
    values = texts.json("parameters", "UserComment", "Comment") or {}
    if "base_model" not in values and "Base Model" not in values and values.get("metadata_scheme") != "fooocus":
        return None
    lowered = {str(key).casefold(): value for key, value in values.items()}
    return _settings(
        "Fooocus",
        "parameters",
        lowered,
        prompt=_first(values, "prompt", "Prompt"),
        negative=_first(values, "negative_prompt", "Negative Prompt"),
        cfg=_first(values, "guidance_scale", "Guidance Scale"),
        sampler=_first(values, "sampler", "Sampler"),
        schedule=_first(values, "scheduler", "Scheduler"),
        model=_first(values, "base_model", "Base Model"),
        vae=_first(values, "vae"),
        clip_skip=_first(values, "clip_skip"),
    )


def invoke(texts: Texts) -> Settings | None:
    """InvokeAI: `invokeai_metadata` (3 and later), `sd-metadata` (2), `Dream` (1)."""
    values = texts.json("invokeai_metadata")
    if values is not None and ("positive_prompt" in values or "generation_mode" in values):
        return _settings(
            "InvokeAI",
            "invokeai_metadata",
            values,
            prompt=values.get("positive_prompt"),
            negative=values.get("negative_prompt"),
            cfg=values.get("cfg_scale"),
            sampler=values.get("scheduler"),
            model=_inner(values.get("model")).get("name", _inner(values.get("model")).get("model_name")),
            vae=_inner(values.get("vae")).get("name"),
            clip_skip=values.get("clip_skip"),
        )
    old = texts.json("sd-metadata") or {}
    image = _inner(old.get("image"))
    if image:
        prompt: object = image.get("prompt")
        if isinstance(prompt, list):
            prompt = next((_inner(row).get("prompt") for row in cast("list[Any]", prompt)), None)
        return _invoke_prompt("sd-metadata", image, prompt, image.get("sampler"), old.get("model_weights"))
    dream = texts.get("Dream")
    if dream is not None and '"' in dream:
        end = dream.rfind('"')
        flags = dict(re.findall(r"-([sSCAWH])\s?(\S{1,40})", dream[end:][:2000]))
        image = {"steps": flags.get("s"), "seed": flags.get("S"), "cfg_scale": flags.get("C")}
        return _invoke_prompt("Dream", image, dream[dream.find('"') + 1 : end], flags.get("A"), None)
    return None


def _invoke_prompt(place: str, image: Mapping[str, Any], prompt: object, sampler: object, model: object) -> Settings:
    """Version 1 and 2 wrote the negative prompt into the prompt, in square brackets."""
    full = text(prompt) or ""
    negative = ", ".join(re.findall(r"\[([^\[\]]{0,20000})\]", full))
    positive = re.sub(r"\[[^\[\]]{0,20000}\]", "", full).strip() if negative else full
    return _settings(
        "InvokeAI",
        place,
        image,
        prompt=positive,
        negative=negative,
        cfg=image.get("cfg_scale"),
        sampler=sampler,
        model=model,
    )


def novelai(texts: Texts) -> Settings | None:
    """NovelAI, versions 1 to 4: JSON in `Comment`; version 4 holds its captions in `v4_prompt`."""
    outer = texts.json("UserComment") or {}  # its WebP files hold the chunks as one object
    inner = outer.get("Comment") if outer.get("Software") == "NovelAI" else None
    values = (json_object(inner) if isinstance(inner, str) else None) or texts.json("Comment") or {}
    if (
        inner is None
        and texts.get("Software") != "NovelAI"
        and not ({"uc", "sampler"} <= values.keys() and "request_type" in values)
    ):
        return None
    caption = _inner(_inner(values.get("v4_prompt")).get("caption"))
    against = _inner(_inner(values.get("v4_negative_prompt")).get("caption"))
    return _settings(
        "NovelAI",
        "Comment",
        values,
        prompt=_captions(caption) or values.get("prompt") or texts.get("Description") or outer.get("Description"),
        negative=_captions(against) or values.get("uc"),
        cfg=values.get("scale"),
        sampler=values.get("sampler"),
        schedule=values.get("noise_schedule"),
        model=texts.get("Source") or outer.get("Source"),
    )


def _captions(caption: Mapping[str, Any]) -> str | None:
    base = text(caption.get("base_caption"))
    if base is None:
        return None
    rows = caption.get("char_captions")
    extra = [text(_inner(row).get("char_caption")) for row in cast("list[Any]", rows)] if isinstance(rows, list) else []
    return ", ".join(part for part in (base, *extra) if part)


def draw_things(texts: Texts) -> Settings | None:
    """Draw Things: JSON with the short keys `c` and `uc` in the EXIF comment or XMP."""
    values = texts.json("UserComment", "exif:UserComment") or {}
    if not isinstance(values.get("c"), str) or "sampler" not in values:
        return None
    return _settings(
        "Draw Things",
        "UserComment",
        values,
        prompt=values.get("c"),
        negative=values.get("uc"),
        cfg=values.get("scale"),
        sampler=values.get("sampler"),
        model=values.get("model"),
        clip_skip=values.get("clip_skip"),
    )


def easy_diffusion(texts: Texts) -> Settings | None:
    """Easy Diffusion: one chunk or JSON object with its own field names."""
    values: dict[str, Any] = texts.json("UserComment", "parameters") or {item.key: item.value for item in texts}
    steps, cfg = _first(values, "num_inference_steps", "Steps"), _first(values, "guidance_scale", "Guidance Scale")
    prompt = _first(values, "prompt", "Prompt")
    if prompt is None or steps is None or cfg is None or _first(values, "metadata_scheme", "base_model") is not None:
        return None
    return _settings(
        "Easy Diffusion",
        "texts",
        {"seed": _first(values, "seed", "Seed"), "steps": steps},
        prompt=prompt,
        negative=_first(values, "negative_prompt", "Negative Prompt"),
        cfg=cfg,
        sampler=_first(values, "sampler_name", "Sampler", "scheduler"),
        model=_first(values, "use_stable_diffusion_model", "Stable Diffusion model"),
        vae=_first(values, "use_vae_model", "VAE model"),
        clip_skip=2 if _first(values, "clip_skip", "Clip Skip") in (True, "True", "true") else None,
    )


def plain_object(texts: Texts) -> Settings | None:
    """Other programs' one JSON object (AI Horde, DiffusionBee, Mochi, Tensor.Art) by the field's common names."""
    for item in texts:
        values = texts.json(item.key) if item.value.lstrip().startswith("{") else None
        if values is None:
            continue
        inner = _inner(values.get("params"))
        values = {**values, **inner}
        prompt, steps = (
            _first(values, "prompt", "positive_prompt", "Prompt", "PositivePrompt"),
            _first(values, "steps", "ddim_steps", "num_inference_steps", "Steps"),
        )
        if not isinstance(prompt, str) or whole(steps, 100_000) is None:
            continue
        negative = _first(values, "negative_prompt", "negativePrompt", "negative", "uc", "NegativePrompt")
        if negative is None and "###" in prompt:  # AI Horde
            prompt, _, negative = prompt.partition("###")
        return _settings(
            "JSON",
            f"{item.place} {item.key}",
            {**values, "steps": steps},
            prompt=prompt,
            negative=negative,
            cfg=_first(values, "cfg_scale", "guidance_scale", "cfgScale", "CfgScale", "scale", "guidance"),
            sampler=_first(values, "sampler_name", "samplerName", "sampler", "Sampler", "scheduler"),
            schedule="karras" if values.get("karras") is True else None,
            model=_first(values, "model", "model_version", "ModelName"),
            notes=("read by common names, the program is not known",),
        )
    return None


def mochi(texts: Texts) -> Settings | None:
    """Mochi Diffusion: `Include in Image: ...; Exclude from Image: ...; Steps: ...` in one text.

    Known from reports only.
    """
    for item in texts:
        before, found, rest = item.value.partition("Include in Image: ")
        if not found or before.strip():
            continue
        words, _, line = rest.rpartition("; Model: ")
        prompt, _, negative = words.partition("; Exclude from Image: ")
        pairs = (part.partition(": ") for part in f"Model: {line}".split("; ")[:40])
        values = {key.casefold(): value for key, _, value in pairs}
        if prompt and "steps" in values:
            return _settings(
                "Mochi Diffusion",
                f"{item.place} {item.key}",
                values,
                prompt=prompt,
                negative=negative,
                cfg=values.get("guidance scale"),
                sampler=values.get("scheduler"),
                model=values.get("model"),
            )
    return None
