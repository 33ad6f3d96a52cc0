"""Infotext: AUTOMATIC1111, Forge, SD.Next, Civitai, stable-diffusion.cpp, prompt savers, and FAM Hires itself."""

from __future__ import annotations

from collections.abc import Mapping

from fam_ext.metadata.containers import Text, Texts, is_json
from fam_ext.metadata.infotext import Infotext, dissect
from fam_ext.metadata.programs.base import Settings, base_name, named, real, seed, text, whole
from fam_ext.options.table import VERSION_KEY

_KEYS = (
    *("parameters", "Parameters", "UserComment", "exif:UserComment", "Comment", "Description"),
    *("ImageDescription", "XPComment", "dc:description", "prompt"),
)


def read(texts: Texts) -> Settings | None:
    """Return the settings of the last text that has a settings line, else those of a `parameters` without one."""
    last = {(item.place, item.key): item for item in texts}  # of equal keys the last
    ordered = [item for key in _KEYS for item in last.values() if item.key == key]
    rest = [item for item in last.values() if item.key not in _KEYS]
    plain: Settings | None = None
    for item in [*ordered, *rest]:
        if is_json(item.value):
            continue
        found, trailing, has_settings = dissect(item.value)
        if has_settings:
            return from_infotext(item, found, trailing)
        known = item.key.casefold() == "parameters" or found.negative_prompt
        if plain is None and known and item.key in _KEYS:
            plain = from_infotext(item, found, ())
    return plain


def from_infotext(item: Text, found: Infotext, trailing: tuple[str, ...]) -> Settings:
    """Return the settings in an infotext that was taken apart."""
    params = found.params
    number, notes = seed(params.get("Seed"))
    sampler, schedule = named(params.get("Sampler"), params.get("Schedule type"))
    version = params.get("Version", "")
    steps = params.get("Steps", "")
    prompt, negative = text(found.prompt), text(found.negative_prompt)
    if item.key == "dc:description" and negative == "" and prompt is not None and "\n-" in prompt:
        prompt, _, negative = prompt.rpartition("\n-")  # Draw Things
    cfg = params.get("CFG scale", params.get("Guidance Scale", params.get("Guidance scale")))
    return Settings(
        _program(params, version),
        prompt,
        negative,
        number,
        whole(steps.split("/")[0], 100_000),
        sampler,
        schedule,
        real(cfg),
        model=base_name(params.get("Model")),
        vae=text(params.get("VAE")),
        clip_skip=whole(params.get("Clip skip"), 100),
        notes=(*notes, *(f"not used: {line[:200]}" for line in trailing[:4])),
        place=f"{item.place} {item.key}",
        infotext=item.value,
        params=params,
    )


def _program(params: Mapping[str, str], version: str) -> str:
    if "Civitai resources" in params:
        return "Civitai"
    if "stable-diffusion.cpp" in version:
        return "stable-diffusion.cpp"
    if version.startswith("ComfyUI"):
        return "ComfyUI"
    if params.get("App") == "SD.Next" or "Operations" in params or "Parser" in params:
        return "SD.Next"
    if version[:1] == "f" and version[1:2].isdigit():
        return "Forge"
    if VERSION_KEY in params:
        return "FAM Hires"
    return "A1111"
