"""HiresRequest: what one picture depends on, checked once when it is built. Standard library only."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.methods.catalog import FAM, METHODS
from fam_ext.options.field import (
    API,
    CLI,
    EVERY_JOB,
    INFOTEXT,
    MOST_STEPS,
    SCRIPT,
    Checked,
    Option,
    check,
    option,
    options_of,
    said,
)

MAX_SEED = 2**64 - 1
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


def _setting(default: Any, kind: str, label: str, help: str, key: str, **more: Any) -> Any:  # noqa: ANN401
    """Return the field of a setting that a picture's own metadata may bring, or of one that it may not."""
    more = {"panel": "words", "decides": "pixels", "doors": (*EVERY_JOB, INFOTEXT), **more}
    return option(default, kind=kind, label=label, help=help, key=key, **more)


@dataclass(frozen=True)
class HiresRequest(Checked):
    """One picture to make: everything the result depends on, and nothing else. Equal requests give equal pictures.

    Building one with a value of the wrong type or out of range raises `ConfigError`, which names field, value and
    range. Names (sampler, schedule, model) are the renderer's to know.
    """

    size: tuple[int, int] = option(
        kind="size",
        label="Size (px)",
        help="Target width x height in pixels, multiples of 8.",
        key="FAM size",
        panel="size",
        decides="size",
        doors=(INFOTEXT,),
        low=8,
        step=8,
    )
    """(height, width)"""
    prompt: str = _setting(
        "",
        "text",
        "Prompt",
        "What the picture shows.",
        "FAM prompt",
        host_key="Prompt",
        own=True,
        flags=("--prompt", "-p"),
        page="Prompt (for files without, or the rule's text)",
    )
    negative_prompt: str = _setting(
        "",
        "text",
        "Negative prompt",
        "What the picture must not show.",
        "FAM negative prompt",
        host_key="Negative prompt",
        own=True,
        page="Negative prompt (for files without, or the rule's text)",
        flags=("--negative", "-n"),
    )
    seed: int = _setting(
        0,
        "int",
        "Seed",
        "Equal seeds give equal pictures. -1 is a random one; a folder's job has the same in each run into one output.",
        "FAM seed",
        low=0,
        high=MAX_SEED,
        step=1,
        host_key="Seed",
        page="Seed (-1: random)",
        own=True,
    )
    steps: int = _setting(
        30,
        "int",
        "Steps",
        "Sampler steps of the whole schedule.",
        "FAM steps",
        low=1,
        high=MOST_STEPS,
        step=1,
        host_key="Steps",
        own=True,
        preset=True,
    )
    sampler: str = _setting(
        "DDIM",
        "name",
        "Sampler",
        "Sampler by its usual name.",
        "FAM sampler",
        host_key="Sampler",
        own=True,
        preset=True,
        page="Sampling method",
    )
    schedule: str = _setting(
        "Automatic",
        "name",
        "Schedule type",
        "Noise schedule by its usual name.",
        "FAM schedule",
        host_key="Schedule type",
        own=True,
        preset=True,
    )
    cfg_scale: float = _setting(
        7.0,
        "float",
        "CFG scale",
        "Guidance scale; 1 is unguided.",
        "FAM CFG scale",
        low=1.0,
        high=30.0,
        step=0.5,
        host_key="CFG scale",
        own=True,
        preset=True,
    )
    method: str = _setting(
        FAM,
        "choice",
        "Method",
        f"How the picture is made larger: {', '.join(f'{name} ({entry.title})' for name, entry in METHODS.items())}.",
        "FAM method",
        panel="method",
        preset=True,
        doors=(CLI, API, SCRIPT, INFOTEXT),
        choices=tuple(METHODS),
    )
    config: FamConfig = field(default_factory=FamConfig)
    model: str | None = _setting(
        None,
        "name",
        "Model",
        "Checkpoint by name, hash or path; empty: the renderer's own.",
        "FAM model",
        panel="model",
        doors=(INFOTEXT,),
        optional=True,
        host_key="Model",
        own=True,
    )
    vae: str | None = _setting(
        None,
        "name",
        "VAE",
        "VAE by name or path.",
        "FAM VAE",
        panel="model",
        doors=(INFOTEXT,),
        optional=True,
        host_key="VAE",
        own=True,
    )
    clip_skip: int | None = _setting(
        None,
        "int",
        "Clip skip",
        "Layers left off the text encoder's end, as the WebUI counts them.",
        "FAM clip skip",
        doors=(CLI, API, INFOTEXT),
        low=1,
        high=12,
        step=1,
        optional=True,
        host_key="Clip skip",
        own=True,
    )
    timestep_spacing: str | None = _setting(
        None,
        "choice",
        "Timestep spacing",
        "How few steps are spread over the trained ones: leading, trailing (begins at the noisiest: Lightning, Turbo, "
        "LCM) or linspace; empty: the model's own.",
        "FAM timestep spacing",
        doors=(CLI, API, INFOTEXT),
        choices=("leading", "trailing", "linspace"),
        optional=True,
        own=True,
        preset=True,
        since=True,
    )
    tile: int | None = _setting(
        None,
        "int",
        "VAE tile (px)",
        "Largest side of the VAE's tiles; empty is automatic, 0 never tiles. Smaller needs less memory; below 1024 an "
        "upscaler's tiles of 256 become a quarter of it, too.",
        "FAM tile",
        panel="model",
        doors=(CLI, INFOTEXT),
        low=0,
        high=4096,
        step=64,
        optional=True,
    )
    low_memory: bool = _setting(
        False,
        "bool",
        "Low memory",
        "Slower: unconditional and conditional half in turn, native queries and keys in main memory.",
        "FAM low memory",
        panel="model",
        doors=(CLI, INFOTEXT),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.config, FamConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"config is {said(self.config)}; choose a FamConfig")

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain JSON values."""
        return {**self.__dict__, "config": self.config.to_dict(), "size": list(self.size)}

    def to_text(self) -> str:
        """Return the request as JSON text. A job has few configs and many requests: the config's text is made once."""
        values = {**self.__dict__, "config": None}
        for spec in options_of(HiresRequest):
            if spec.since and values[spec.name] == spec.default:
                del values[spec.name]
        return _ENCODE(values).replace('"config": null', f'"config": {_config_text(self.config)}', 1)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HiresRequest:
        """Return the request that `to_json` gave; what this version does not know is left out."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        known["config"] = FamConfig.from_dict(known.get("config", {}))
        return cls(**known)


REQUEST: Mapping[str, Option] = {spec.name: spec for spec in options_of(HiresRequest)}
OWN: tuple[str, ...] = tuple(spec.name for spec in REQUEST.values() if spec.own)
"""Settings that a picture's metadata may bring."""


def check_value(name: str, value: object) -> None:
    """Raise `ConfigError` naming field, value and range when `value` cannot stand in a request. For every door."""
    check(REQUEST[name], value)


@functools.lru_cache(maxsize=64)
def _config_text(config: FamConfig) -> str:
    values = config.to_dict()
    for spec in options_of(FamConfig):
        if spec.since and values[spec.name] == spec.default:
            del values[spec.name]
    return _ENCODE(values)
