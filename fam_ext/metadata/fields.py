"""The one table of FAM's fields. UI, infotext, API schema, XYZ axes, presets and docs are all drawn from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fam_ext.core.config import (
    AM_INTERPS,
    AM_SOURCES,
    CUTOFF_REFERENCES,
    MAX_CYCLES,
    REFERENCES,
    UPSAMPLES,
    FamConfig,
)
from fam_ext.samplers.names import MOST_STEPS

VERSION_KEY = "FAM version"
METHOD_CHOICES = ("fam", "direct", "direct-from-native", "skip-residual")


@dataclass(frozen=True)
class Field:
    """One field: where it lives, how it is labelled, checked, written and read."""

    name: str
    """Attribute of FamConfig (owner "config") or of HiresRequest (owner "request"); also its name in the API."""
    owner: str
    kind: str
    """"float", "int", "bool", "choice", "text", "window" (start, end in rho) or "size" (height, width in px)."""
    label: str
    """What people see, with the unit. Labels are an API: `ui-config.json` pins defaults by label."""
    help: str
    key: str
    """Infotext key: `FAM ` and then only word characters, space, - and /."""
    default: Any = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    host_key: str | None = None
    """The WebUI's own infotext key for the same thing, read where ours is absent."""
    inverted: bool = False
    """A boolean that is true by default: its key is written only when it is off ("FAM no FM: True")."""


_CONFIG = FamConfig()


def _config(name: str, kind: str, label: str, text: str, key: str, **more: Any) -> Field:  # noqa: ANN401
    return Field(name, "config", kind, label, text, key, default=getattr(_CONFIG, name), **more)


def _request(name: str, kind: str, label: str, text: str, key: str, **more: Any) -> Field:  # noqa: ANN401
    return Field(name, "request", kind, label, text, key, **more)


FIELDS: tuple[Field, ...] = (
    _config(
        "cutoff",
        "float",
        "Cutoff c",
        "How far the pinned low band reaches at the end, as a share of the side named by the cutoff reference. "
        "Higher keeps more of the native structure; too high blurs.",
        "FAM cutoff",
        low=0.0,
        high=MAX_CYCLES,
        step=0.05,
    ),
    _config(
        "attention",
        "float",
        "Native attention share",
        "Lambda of Eq. 7: share of the native attention map in the blend, 0 (off) to 1 (native map only). "
        "Higher keeps textures consistent; too high softens them.",
        "FAM attention",
        low=0.0,
        high=1.0,
        step=0.05,
    ),
    _config("fm", "bool", "Frequency Modulation", "Keeps the native picture's structure.", "FAM no FM", inverted=True),
    _config(
        "am",
        "bool",
        "Attention Modulation",
        "Keeps local textures consistent; costs one truncated native pass a step.",
        "FAM no AM",
        inverted=True,
    ),
    _config(
        "fm_window",
        "window",
        "FM window (rho)",
        "Start and end of Frequency Modulation in rho; 1 is pure noise, 0 the finished picture.",
        "FAM FM window",
        low=0.0,
        high=1.0,
        step=0.05,
    ),
    _config(
        "am_window",
        "window",
        "AM window (rho)",
        "Start and end of Attention Modulation in rho; a shorter window is faster.",
        "FAM AM window",
        low=0.0,
        high=1.0,
        step=0.05,
    ),
    _config(
        "am_sites",
        "text",
        "AM sites",
        'Attention layers to steer: "auto" is every self-attention of the first up-block that has attention; or '
        "layer name patterns separated by commas.",
        "FAM AM sites",
    ),
    _config(
        "am_interp",
        "choice",
        "AM interpolation",
        'How native attention maps are spread to the target\'s grid: "bilinear" is smooth, "nearest" blocky.',
        "FAM AM interpolation",
        choices=AM_INTERPS,
    ),
    _config(
        "am_source",
        "choice",
        "AM source",
        'Where native attention comes from: "recorded" latents of our own native run, "replay" of the diffused native '
        'picture, or "auto": recorded when there is a record.',
        "FAM AM source",
        choices=AM_SOURCES,
    ),
    _config(
        "cutoff_reference",
        "choice",
        "Cutoff reference",
        'What the cutoff is a share of: the "native" latent side (the paper), the "target" latent side, or "cycles" '
        "per picture (SDXL with c = 0.5 reaches 32).",
        "FAM cutoff reference",
        choices=CUTOFF_REFERENCES,
    ),
    _config(
        "reference",
        "choice",
        "Reference",
        '"diffused": the upsampled latent at the current noise level (the paper); "constant": clean at every step '
        "(the paper's ablation).",
        "FAM reference",
        choices=REFERENCES,
    ),
    _config(
        "start",
        "float",
        "Start (rho)",
        "Where the hires pass begins: 1 is pure noise (the paper); lower is faster and stays nearer to the native "
        "picture.",
        "FAM start",
        low=0.0,
        high=1.0,
        step=0.05,
    ),
    _config(
        "upsample",
        "choice",
        "Upsampling",
        'How the native picture reaches the target\'s size: in latent space (the paper: bicubic) or in pixels; "auto" '
        "is pixel_bicubic, or the host's own upscaler.",
        "FAM upsample",
        choices=UPSAMPLES,
    ),
    _config(
        "step_invariant",
        "bool",
        "Same pull for any step count",
        "Makes the total pull of FM independent of the number of steps; meant for few-step models.",
        "FAM step invariant",
    ),
    _request("size", "size", "Size (px)", "Target width x height in pixels, multiples of 8.", "FAM size"),
    _request("prompt", "text", "Prompt", "What the picture shows.", "FAM prompt", default="", host_key="Prompt"),
    _request(
        "negative_prompt",
        "text",
        "Negative prompt",
        "What the picture must not show.",
        "FAM negative prompt",
        default="",
        host_key="Negative prompt",
    ),
    _request(
        "seed", "int", "Seed", "Equal seeds give equal pictures.", "FAM seed", default=0, low=0, step=1, host_key="Seed"
    ),
    _request(
        "steps",
        "int",
        "Steps",
        "Sampler steps of the whole schedule.",
        "FAM steps",
        default=30,
        low=1,
        high=MOST_STEPS,
        step=1,
        host_key="Steps",
    ),
    _request(
        "sampler",
        "text",
        "Sampler",
        "Sampler by its usual name.",
        "FAM sampler",
        default="DDIM",
        host_key="Sampler",
    ),
    _request(
        "schedule",
        "text",
        "Schedule type",
        "Noise schedule by its usual name.",
        "FAM schedule",
        default="Automatic",
        host_key="Schedule type",
    ),
    _request(
        "cfg_scale",
        "float",
        "CFG scale",
        "Guidance scale; 1 is unguided.",
        "FAM CFG scale",
        default=7.0,
        low=1.0,
        high=30.0,
        step=0.5,
        host_key="CFG scale",
    ),
    _request(
        "method",
        "choice",
        "Method",
        "FAM, or one of the paper's comparison rows: direct inference, direct from the diffused native picture, skip "
        "residual.",
        "FAM method",
        default="fam",
        choices=METHOD_CHOICES,
    ),
    _request("model", "text", "Model", "Checkpoint by name, hash or path.", "FAM model", host_key="Model"),
    _request("vae", "text", "VAE", "VAE by name or path.", "FAM VAE", host_key="VAE"),
    _request(
        "clip_skip",
        "int",
        "Clip skip",
        "Layers left off the text encoder's end, as the WebUI counts them.",
        "FAM clip skip",
        low=1,
        high=12,
        step=1,
        host_key="Clip skip",
    ),
    _request(
        "tile",
        "int",
        "VAE tile (px)",
        "Side of the VAE's tiles; empty is automatic, 0 never tiles. Smaller needs less memory.",
        "FAM tile",
        low=0,
        high=4096,
        step=64,
    ),
    _request(
        "low_memory",
        "bool",
        "Low memory",
        "Trades speed for memory: attention in chunks, models off the device while they rest.",
        "FAM low memory",
        default=False,
    ),
)

CONFIG_FIELDS: tuple[Field, ...] = tuple(field for field in FIELDS if field.owner == "config")
REQUEST_FIELDS: tuple[Field, ...] = tuple(field for field in FIELDS if field.owner == "request")
BY_NAME: Mapping[str, Field] = {field.name: field for field in FIELDS}
BY_KEY: Mapping[str, Field] = {field.key: field for field in FIELDS}

_JSON_TYPES = {"float": "number", "int": "integer", "bool": "boolean", "choice": "string", "text": "string"}


def json_schema(owner: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema of one object of named fields: all of them, or one owner's ("config", "request")."""
    properties: dict[str, Any] = {}
    for field in FIELDS:
        if owner is not None and field.owner != owner:
            continue
        entry: dict[str, Any] = {"title": field.label, "description": field.help}
        if field.kind in _JSON_TYPES:
            entry["type"] = _JSON_TYPES[field.kind]
        else:
            item = {"type": "number", "minimum": 0, "maximum": 1} if field.kind == "window" else {"type": "integer"}
            entry |= {"type": "array", "items": item, "minItems": 2, "maxItems": 2}
        if field.choices:
            entry["enum"] = list(field.choices)
        if field.kind in ("float", "int"):
            if field.low is not None:
                entry["minimum"] = field.low
            if field.high is not None:
                entry["maximum"] = field.high
        if field.default is not None:
            entry["default"] = _plain(field.default)
        properties[field.name] = entry
    return {"type": "object", "properties": properties, "additionalProperties": False}


def markdown_table() -> str:
    """Return the table for the docs: one line a field."""
    lines = ["| field | label | default | allowed | infotext | what it does |", "|---|---|---|---|---|---|"]
    for field in FIELDS:
        allowed = ", ".join(field.choices)
        if not allowed and field.low is not None:
            allowed = f"{field.low:g} to {field.high:g}" if field.high is not None else f"at least {field.low:g}"
        lines.append(
            f"| `{field.name}` | {field.label} | {'' if field.default is None else field.default} | {allowed} | "
            f"`{field.key}` | {field.help} |"
        )
    return "\n".join(lines)


def config_defaults() -> dict[str, Any]:
    """Return FamConfig's own defaults by field name."""
    return {field.name: field.default for field in dataclasses.fields(FamConfig)}


def _plain(value: Any) -> Any:  # noqa: ANN401  # fields differ in type
    return [*value] if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownVariableType]
