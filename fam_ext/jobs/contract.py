"""What travels between a job and its renderer: progress down, the finished picture and what ran up. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.escapes import listed
from fam_ext.options.field import check, option, options_of, said
from fam_ext.options.request import REQUEST, HiresRequest

WORKER_VARIABLE = "FAM_HIRES_WORKER"
"""In the environment of a worker process: its number, 0 to N-1."""


def _of_request(name: str, **more: Any) -> Any:  # noqa: ANN401
    """Return the field of a setting, described as a request's own; None: it did not act, or goes without saying."""
    spec = dataclasses.replace(REQUEST[name], default=None, optional=True, **more)
    return dataclasses.field(default=None, metadata={"option": spec})


def _fact(kind: str, label: str, help: str, *, key: str = "", default: Any = None) -> Any:  # noqa: ANN401
    """Return the field of something that nobody asks for."""
    return option(
        default,
        kind=kind,
        label=label,
        help=help,
        key=key,
        panel="run",
        decides="run",
        low=0,
        high=2**63 - 1,
        optional=default is None,
    )


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What ran for one picture: made where it ran, and the only source of the file's infotext, the journal's outcome
    and the report. Fields with a key stand in the infotext in this order, after the dials."""

    config: FamConfig | None = None
    """The dials that acted, with a part that did not act as off; None where FAM did not."""
    upscaler: str | None = _fact(
        "name", "Upscaler", "What made the reference, where the dial leaves that to the host.", key="FAM upscaler"
    )
    method: str | None = _of_request("method")
    steps: int | None = _of_request("steps")
    """Of the whole schedule, so that they can be asked for again."""
    sampler: str | None = _of_request("sampler")
    schedule: str | None = _of_request("schedule")
    """As resolved, where the renderer knows: Automatic is what was asked, not what ran."""
    cfg_scale: float | None = _of_request("cfg_scale")
    seed: int | None = _of_request("seed")
    model: str | None = _of_request("model")
    vae: str | None = _of_request("vae")
    clip_skip: int | None = _of_request("clip_skip")
    timestep_spacing: str | None = _of_request("timestep_spacing")
    model_hash: str | None = _fact("name", "Model hash", "Of the weights' SHA-256.", key="FAM model hash")
    loras: str | None = _fact("name", "LoRAs", "Files of --lora that drew, each with its weight.", key="FAM LoRAs")
    size: tuple[int, int] | None = _of_request("size", key="")
    """(height, width)"""
    steps_taken: int | None = _fact("int", "Steps taken", "Steps of the target pass: fewer from a late start.")
    fm_calls: int | None = _fact("int", "FM calls", "Model calls that Frequency Modulation changed.")
    am_calls: int | None = _fact("int", "AM calls", "Attention calls that Attention Modulation changed, of all layers.")
    peak_memory: int | None = _fact("int", "Peak memory (bytes)", "Of the device; empty where it cannot be told.")
    seconds: float = _fact("float", "Time (s)", "From the decoded picture to the finished one.", default=0.0)
    given_up: tuple[str, ...] = _fact("texts", "Given up", "What was given up for memory, also noted.", default=())
    notes: tuple[str, ...] = _fact("texts", "Notes", "What was asked for and could not be done.", default=())
    """One sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Return what was said as plain JSON values."""
        values = {spec.name: value for spec in options_of(Ran) if (value := getattr(self, spec.name)) not in (None, ())}
        return values if self.config is None else {**values, "config": self.config.to_dict()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Ran:
        """Return the record that `to_json` gave; what this version does not know is left out. Raises `ConfigError`."""
        known: dict[str, Any] = {spec.name: spec for spec in options_of(cls) if spec.name in values}
        config = values.get("config")
        if not isinstance(config, Mapping | None):
            raise ConfigError(f"config is {said(config)}; choose a FamConfig's fields")
        return cls(
            config=None if config is None else FamConfig.from_dict(cast("Mapping[str, Any]", config)),
            **{name: check(spec, values[name]) for name, spec in known.items()},
        )


@dataclass(frozen=True)
class Rendered:
    """A finished picture and the record of what ran."""

    image: Image.Image
    ran: Ran


@dataclass(frozen=True)
class Progress:
    """Callables that travel down: `step(done, total)` after each sampler step; `cancelled()` is asked between steps."""

    step: Callable[[int, int], None] = lambda done, total: None
    cancelled: Callable[[], bool] = lambda: False


class Renderer(Protocol):
    """Turns a native picture and its request into a target picture. Models are loaded once and kept."""

    name: str
    # and, where it can: can_give_up: tuple[str, ...], what the degrade chain may take from a request ("tile",
    # "low_memory", "am"); a renderer that does not say so is not asked to

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        """Return the picture at `request.size`. `image` is RGB, upright, alpha already dealt with.

        Raises `FamError`s: `Cancelled`, `OutOfMemoryError`, `UnsupportedSamplerError`, `NonFiniteLatentError`...; other
        exceptions are the renderer's own faults and are reported with their type.
        """
        ...


def undrawn(embeddings: Sequence[str]) -> list[str]:
    """Return the note of textual inversions that a renderer loads none of, where there are any."""
    return [f"no textual inversion is loaded: {listed(embeddings)} drawn as plain words"] if embeddings else []
