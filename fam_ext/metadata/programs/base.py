"""What every program's reader gives back, and small helpers for values that strangers wrote."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fam_ext.metadata.infotext import Infotext, number
from fam_ext.samplers import names

_MAX_PROMPT = 1 << 20
_MAX_LORAS = 32
_MAX_CFG = 30.0
_NO_FILE = ("none", "default", "automatic", "default (model)", "baked vae")
_LORA = re.compile(r"<lora:([^:<>\n]{1,200}):([^:<>\n]{1,40})[^<>\n]{0,80}>")
_SEED = re.compile(r"\s*(-?[0-9]{1,400}|0x[0-9a-f]{1,32})(?:\.0{1,8})?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """What a picture's metadata says about its making. None = the program did not say."""

    program: str
    prompt: str | None = None
    negative: str | None = None
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    """In the WebUI's spelling where the table of names has it."""
    schedule: str | None = None
    cfg: float | None = None
    size: tuple[int, int] | None = None
    """(height, width) in px."""
    model: str | None = None
    vae: str | None = None
    clip_skip: int | None = None
    loras: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    place: str = ""
    """The text that was read, as "PNG parameters"."""
    infotext: str | None = None
    """The WebUI's infotext as it stands, where the program wrote one."""
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    """The infotext's own keys, FAM's among them."""

    def as_infotext(self) -> Infotext:
        """Return prompt, negative prompt and settings in the WebUI's keys, as the plan resolves them."""
        params: dict[str, str] = dict(self.params)
        values = {
            "Steps": self.steps,
            "Sampler": self.sampler,
            "Schedule type": self.schedule,
            "CFG scale": None if self.cfg is None else number(self.cfg),
            "Seed": self.seed,
            "Model": self.model,
            "VAE": self.vae,
            "Clip skip": self.clip_skip,
        }
        for key, value in values.items():
            if value is not None:
                params[key] = str(value)
            elif key in params:
                del params[key]
        return Infotext(self.prompt or "", self.negative or "", params)


def text(value: object) -> str | None:
    """Return a text, cut to a megabyte and without lone surrogates; None for anything else."""
    if not isinstance(value, str):
        return None
    return value[:_MAX_PROMPT].encode("utf-8", "replace").decode("utf-8").strip()


def whole(value: object, most: int = 2**64 - 1) -> int | None:
    """Return a whole number of 0 to `most`, also where it is written as text; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,20}(\.0{1,8})?\s*", value):
        value = int(value.partition(".")[0])
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


def real(value: object) -> float | None:
    """Return a finite number, also where it is written as text; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,12}(\.[0-9]{1,20})?\s*", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e6 < value < 1e6:
        return None
    return float(value)


def last_layer(value: object) -> int | None:
    """Return the clip skip of a layer that is counted from the end, -1 the last; None for anything else."""
    return -value if isinstance(value, int) and not isinstance(value, bool) and -100 < value < 0 else None


def seed(value: object) -> tuple[int | None, tuple[str, ...]]:
    """Return the seed within 0 to 2^64 and a note when it was wrapped, or is none; -1 was drawn by the program and
    not kept."""
    if isinstance(value, str):
        digits = _SEED.fullmatch(value)
        if digits is not None:
            value = int(digits.group(1), 16 if "x" in digits.group(1).casefold() else 10)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        said = value not in (None, "", [])
        return None, (f"seed {str(value)[:24]!r} is no whole number, another is used",) if said else ()
    if 0 <= value < 2**64:
        return value, ()
    if value < 0:
        return None, (f"seed {str(value)[:24]} says that it was drawn at random, another is used",)
    return value % 2**64, (f"seed {str(value)[:24]} is outside 0 to 2^64, {value % 2**64} is used",)


def named(sampler: object, schedule: object = None) -> tuple[str | None, str | None]:
    """Return sampler and schedule in their usual spelling."""
    own, plan = text(sampler), text(schedule)
    if not own or own.casefold() in ("none", "default"):
        return None, (names.schedule(plan) or plan if plan else None)
    return names.usual(own[:80], plan[:80] if plan else None)


def guided(sampler: object, cfg: float | None) -> tuple[float | None, tuple[str, ...]]:
    """Return the CFG scale for the sampler that `named` gives, and a note where it is another than the program's."""
    name = text(sampler)
    if not name or cfg is None or (scale := min(names.asked_cfg(name, cfg), _MAX_CFG)) == cfg:
        return cfg, ()
    return scale, (f"{name[:24]} at CFG {cfg:g} is read as DDIM CFG++ at CFG scale {scale:g}",)


def base_name(value: object) -> str | None:
    """Return a model's name without its folder and a checkpoint's suffix."""
    name = file_name(value)
    if name is None:
        return None
    name = re.split(r"[\\/]", name)[-1]
    return re.sub(r"\.(safetensors|ckpt|pt|gguf|bin)$", "", name, flags=re.IGNORECASE)[:200] or None


def file_name(value: object) -> str | None:
    """Return a file's name as the program wrote it; None for a program's word for none."""
    if isinstance(value, dict):  # ComfyUI-Custom-Scripts
        value = cast("dict[str, Any]", value).get("content")
    name = text(value)
    return None if not name or name.casefold() in _NO_FILE else name


def own_prompt(value: object) -> str | None:
    """Return a prompt as `text` does; None for the word that savers write where nobody gave them one."""
    found = text(value)
    return None if found is not None and found.casefold() in ("unknown", "undefined", "null", "none") else found


def loras_of(prompt: str | None) -> tuple[str, ...]:
    """Return the LoRAs that a prompt names, as "name:strength"."""
    found = itertools.islice(_LORA.finditer(prompt or ""), _MAX_LORAS)
    return tuple(f"{match.group(1)}:{match.group(2)}" for match in found)


def listed_loras(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the LoRAs that a program lists beside the prompt, as "name:strength"."""
    rows = _rows(first(values, "loras", "lora", "use_lora_model", "LoRA model"))
    found: list[str] = []
    for name, weight in itertools.zip_longest(rows, _rows(values.get("loraweights"))):
        told, row = inner(name), _rows(name)
        if told:  # InvokeAI, Draw Things
            name, weight = first(told, "name", "file", "lora", "model"), told.get("weight")
            name = first(inner(name), "name", "model_name") or name
        elif len(row) > 1:  # Fooocus; RuinedFooocus has a hash, then both
            apart = re.fullmatch(r"(-?[\d.]{1,12}) - (.{1,300})", str(row[1]))
            weight, name = apart.groups() if apart is not None else (row[1], row[0])
        strength, own = real(weight), base_name(name)
        if own is not None and strength != 0:
            found.append(f"{own}:{1.0 if strength is None else strength:g}")
    return tuple(found)


def _rows(value: object) -> list[Any]:
    return cast("list[Any]", value)[:_MAX_LORAS] if isinstance(value, list) else [value]


def size_of(value: object) -> tuple[int, int] | None:
    """Return (height, width) of "512x768", "512 x 768" or "(512, 768)", which name the width first."""
    match = re.match(r"\s*\(?\s*([0-9]{1,6})\s{0,3}[x,]\s{0,3}([0-9]{1,6})", value) if isinstance(value, str) else None
    return (int(match.group(2)), int(match.group(1))) if match is not None else None


def first(values: Mapping[str, Any], *names: str) -> object:
    """Return the value of the first name that is there."""
    return next((values[name] for name in names if name in values), None)


def inner(value: object) -> dict[str, Any]:
    """Return an object within a JSON object; empty when it is none."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def from_values(
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
    """Return the settings in a program's values; seed, steps and size go by the names that all of them use."""
    drawn, wrapped = seed(first(values, "seed", "Seed"))
    name, plan = named(sampler, schedule)
    scale, rescaled = guided(sampler, real(cfg))
    height = whole(first(values, "height", "Height"), 1 << 20)
    width = whole(first(values, "width", "Width"), 1 << 20)
    words = own_prompt(prompt)
    return Settings(
        program,
        words,
        own_prompt(negative),
        drawn,
        whole(first(values, "steps", "Steps", "num_inference_steps"), 100_000),
        name,
        plan,
        scale,
        (height, width) if height and width else size_of(first(values, "size", "resolution")),
        base_name(model),
        file_name(vae),
        whole(clip_skip, 100),
        loras_of(words) + listed_loras(values),
        (*notes, *wrapped, *rescaled),
        place,
    )
