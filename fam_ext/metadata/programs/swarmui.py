"""SwarmUI, and StableSwarmUI before it: `sui_image_params` in `parameters` or the EXIF comment."""

from __future__ import annotations

import re

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, first, from_values, inner, last_layer, text

# what follows such a tag is for a part of the picture or a later model; of a base model's it is the prompt's own
_SECTION = re.compile(
    r"<(segment|object|region|clear|extend|refiner|base|videoswap|video|pixeldecoder)((?::|//cid=)[^<>]{0,1000})?>",
    re.IGNORECASE,
)
_BREAK = re.compile(r"\s{0,100}<break>\s{0,100}", re.IGNORECASE)


def read(texts: Texts) -> Settings | None:
    """Return SwarmUI's settings, None when the file is not its."""
    for key in ("parameters", "UserComment"):
        values = inner((texts.json(key) or {}).get("sui_image_params"))
        if values:
            prompt, left_out = _main(text(values.get("prompt")))
            negative, more = _main(text(first(values, "negativeprompt", "negative_prompt")))
            return from_values(
                "SwarmUI",
                key,
                values,
                prompt=prompt,
                negative=negative,
                cfg=first(values, "cfgscale", "cfg_scale"),
                sampler=first(values, "sampler", "comfyuisampler", "autowebuisampler"),
                schedule=first(values, "scheduler", "comfyuischeduler"),
                model=values.get("model"),
                vae=values.get("vae"),
                clip_skip=last_layer(values.get("clipstopatlayer")),
                notes=tuple(f"SwarmUI's words for a part are not used: {part[:120]}" for part in (left_out + more)[:4]),
            )
    return None


def _main(words: str | None) -> tuple[str | None, list[str]]:
    """Return the words that are for the whole picture, and the sections for parts of it or later models."""
    if words is None:
        return None, []
    kept, *sections = _SECTION.split(words)
    main, left_out = [kept], list[str]()
    for name, data, part in zip(sections[::3], sections[1::3], sections[2::3], strict=True):
        ends = name.casefold() == "region" and (data or "").startswith(":end")
        if ends or name.casefold() == "base":
            main.append(part)
        else:
            left_out.append(f"<{name}{data or ''}>{part}".strip())
    whole = " ".join(part.strip() for part in main if part.strip()) if sections else words
    return _BREAK.sub(" BREAK ", whole), left_out
