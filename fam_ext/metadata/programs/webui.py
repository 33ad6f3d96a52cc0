"""Infotext: AUTOMATIC1111, Forge, SD.Next, Civitai, stable-diffusion.cpp, prompt savers, and FAM Hires itself."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fam_ext.metadata.containers import Text, Texts
from fam_ext.metadata.dissect import MARKERS, Infotext, dissect
from fam_ext.metadata.programs.base import (
    Settings,
    base_name,
    first,
    guided,
    loras_of,
    named,
    own_prompt,
    real,
    seed,
    size_of,
    text,
    whole,
)
from fam_ext.options.table import VERSION_KEY
from fam_ext.samplers import names

_MAX_TOGETHER = 2 << 20
"""Characters of a file's texts that are searched for a settings line, the likeliest first."""
_KEYS = (
    *("parameters", "Parameters", "UserComment", "exif:UserComment", "Comment", "Description"),
    *("ImageDescription", "XPComment", "dc:description", "prompt"),
)


def read_ours(texts: Texts) -> Settings | None:
    """Return the settings of a text with our own line, None when we did not make the file."""
    found = read(texts) if any(map(_is_marked, texts)) else None
    return None if found is None or found.params.keys().isdisjoint(MARKERS) else found


def read(texts: Texts) -> Settings | None:
    """Return the settings of the last text that has a settings line, else those of a `parameters` without one."""
    last = {(item.place, item.key): item for item in texts}  # of equal keys the last
    ordered = [item for key in _KEYS for item in last.values() if item.key == key]
    ordered += [item for item in last.values() if item.key not in _KEYS]
    # what we wrote counts before what we found: a JPEG's comment stays beside our EXIF comment
    ordered.sort(key=lambda item: not _is_marked(item))
    plain: Settings | None = None
    left = _MAX_TOGETHER
    for item in ordered:
        if item.is_json or left <= 0:
            continue
        left -= len(item.value)
        found, trailing, has_settings = dissect(item.value)
        if has_settings:
            return from_infotext(item, found, trailing)
        if item.value.lstrip().startswith('{"'):
            continue  # another program's, cut short
        known = item.key.casefold() == "parameters" or found.negative_prompt
        if plain is None and known and item.key in _KEYS:
            plain = from_infotext(item, found, ())
    return plain


def _is_marked(item: Text) -> bool:
    return any(f"{key}: " in item.value for key in MARKERS)


def from_infotext(item: Text, found: Infotext, trailing: tuple[str, ...]) -> Settings:
    """Return the settings in an infotext that was taken apart."""
    params = found.params
    number, notes = seed(params.get("Seed"))
    sampler, schedule = _names(params)
    cfg, rescaled = guided(params.get("Sampler"), real(first(params, "CFG scale", "Guidance Scale", "Guidance scale")))
    prompt, negative = own_prompt(found.prompt), own_prompt(found.negative_prompt)
    if item.key == "dc:description" and negative == "" and prompt is not None and "\n-" in prompt:
        prompt, _, negative = prompt.rpartition("\n-")  # Draw Things
    return Settings(
        _program(params),
        prompt,
        negative,
        number,
        whole(params.get("Steps", "").split("/")[0], 100_000),
        sampler,
        schedule,
        cfg,
        size_of(params.get("Size")),
        base_name(first(params, "Model", "Stable Diffusion model")),
        text(first(params, "VAE", "VAE model")),
        whole(params.get("Clip skip"), 100),
        loras_of(prompt),
        (*notes, *rescaled, *(f"not used: {line[:200]}" for line in trailing[:4])),
        f"{item.place} {item.key}",
        item.value,
        params,
    )


def _names(params: Mapping[str, str]) -> tuple[str | None, str | None]:
    scheduler = params.get("Scheduler", "")
    # SD.Next's is diffusers' class for a sampler, and its schedule has a key of its own
    is_sampler = names.sampler(scheduler) is not None
    sigmas = names.schedule(params["Sampler sigma"]) if "Sampler sigma" in params else None
    schedule = params.get("Schedule type") or (sigmas if is_sampler or not scheduler else scheduler)
    return named(params.get("Sampler") or (scheduler if is_sampler else None), schedule)


def _program(params: Mapping[str, str]) -> str:
    version = params.get("Version", "")
    if "Civitai resources" in params:
        return "Civitai"
    for name in ("stable-diffusion.cpp", "ComfyUI", "Fooocus"):
        if name in version:
            return name
    if params.get("App") == "SD.Next" or "Operations" in params or "Parser" in params:
        return "SD.Next"
    if version in ("neo", "classic") or re.match(r"f\d", version) is not None:
        return "Forge"
    if "Stable Diffusion model" in params:
        return "Easy Diffusion"
    return "FAM Hires" if VERSION_KEY in params else "A1111"
