"""What draws a job: the standalone renderer and its model, or the WebUI that it runs in. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fam_ext.errors import UsageError
from fam_ext.options.field import (
    API,
    CLI,
    PAGE,
    Checked,
    option,
    said,
)

WEBUI = "webui"
STANDALONE = "standalone"
LANCZOS = "Lanczos"
"""The upscaler that is no network."""


def _model(default: Any, kind: str, label: str, help: str, **more: Any) -> Any:  # noqa: ANN401
    more = {"panel": "model", "decides": "run", "doors": (CLI,), **more}
    return option(default, kind=kind, label=label, help=help, **more)


@dataclass(frozen=True)
class RendererChoice(Checked):
    """What draws: the standalone renderer and its model, or the WebUI that the job runs in."""

    name: str = _model(
        "", "name", "Renderer", "By its name in our own list; empty is one that was handed in.", doors=()
    )
    model: str | None = _model(
        None,
        "path",
        "Model",
        "Diffusers folder or .safetensors; default: the embedded model.",
        decides="pixels",
        flags=("--model", "-m"),
        optional=True,
    )
    model_config: str | None = _model(
        None,
        "path",
        "Model settings",
        "Diffusers folder of the same architecture, for a .safetensors file where no hub is reached.",
        decides="pixels",
        optional=True,
    )
    loras: tuple[str, ...] = _model(
        (), "paths", "LoRAs", "LoRA file, or FILE:WEIGHT (repeatable).", decides="pixels", flags=("--lora",)
    )
    device: str | None = _model(
        None, "name", "Device", "cpu, cuda, cuda:1, mps; default: the best there is.", optional=True
    )
    dtype: str | None = _model(
        None,
        "choice",
        "Number format",
        "Number format of the weights; default: float32 on a CPU, else float16.",
        choices=("float32", "float16", "bfloat16"),
        optional=True,
    )
    offload: str = _model(
        "none",
        "choice",
        "Offload",
        "none: the model on the device; model: one network there at a time; sequential: one layer, slowest.",
        choices=("none", "model", "sequential"),
    )
    sdxl_clip_l_skip: bool = _model(
        False,
        "bool",
        "Clip skip SDXL",
        'As the WebUI\'s "Clip skip SDXL": a clip skip acts on CLIP-L.',
        decides="pixels",
    )
    upscaler: str = _model(
        LANCZOS,
        "text",
        "Upscaler",
        "What enlarges where upsample is auto, and for the methods upscaler, upscaler+img2img and tiled: a "
        "super-resolution model file (docs/upscalers.md), in the WebUI the name of one of its upscalers.",
        decides="pixels",
        doors=(CLI, PAGE, API),
    )

    @property
    def weighted_loras(self) -> list[tuple[str, float]]:
        """Each LoRA's file and weight. Raises `UsageError` for a weight that is none."""
        return [_weighted(entry) for entry in self.loras]

    @property
    def files(self) -> list[tuple[str, str]]:
        """The files that draw, each after its option's name; a WebUI has its own."""
        upscaler = None if self.upscaler == LANCZOS else self.upscaler
        named = [("model", self.model), ("model_config", self.model_config)]
        named += [("loras", file) for file, _ in self.weighted_loras] + [("upscaler", upscaler)]
        return [(name, file) for name, file in named if file is not None] if self.name == STANDALONE else []

    @property
    def identity(self) -> str:
        """What the pixels depend on beside a request, as one text; part of the settings hash."""
        if self.name == STANDALONE:
            marks = ["clip_l_skip"] if self.sdxl_clip_l_skip else []
            marks += [f"upscaler {self.upscaler}"] if self.upscaler != LANCZOS else []
            marks += [f"settings of {self.model_config}"] if self.model_config is not None else []
            return json.dumps([self.model, self.weighted_loras, *marks])
        return f"webui upscaler {self.upscaler}" if self.name == WEBUI else self.name

    @property
    def arguments(self) -> dict[str, Any]:
        """What the standalone renderer is built with."""
        loras = [list(entry) for entry in self.weighted_loras]
        return {
            "model": self.model,
            "config": self.model_config,
            "device": self.device,
            "dtype": self.dtype,
            "loras": loras,
            "offload": self.offload,
            "clip_l_skip": self.sdxl_clip_l_skip,
            "upscaler": None if self.upscaler == LANCZOS else self.upscaler,
        }


def _weighted(entry: str) -> tuple[str, float]:
    path, separator, weight = entry.rpartition(":")
    if separator:
        try:
            number = float(weight)
        except ValueError:
            return entry, 1.0  # a drive letter or a colon in the name
        if not -100 <= number <= 100:  # not: also nan
            raise UsageError(f"loras is {said(entry)}; choose a weight from -100 to 100")
        return path, number
    return entry, 1.0
