"""SwarmUI, and StableSwarmUI before it: `sui_image_params` in `parameters` or the EXIF comment."""

from __future__ import annotations

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, first, from_values, inner


def read(texts: Texts) -> Settings | None:
    """Return SwarmUI's settings, None when the file is not its."""
    for key in ("parameters", "UserComment"):
        values = inner((texts.json(key) or {}).get("sui_image_params"))
        if values:
            return from_values(
                "SwarmUI",
                key,
                values,
                prompt=values.get("prompt"),
                negative=first(values, "negativeprompt", "negative_prompt"),
                cfg=first(values, "cfgscale", "cfg_scale"),
                sampler=first(values, "sampler", "comfyuisampler", "autowebuisampler"),
                schedule=first(values, "scheduler", "comfyuischeduler"),
                model=values.get("model"),
                vae=values.get("vae"),
            )
    return None
