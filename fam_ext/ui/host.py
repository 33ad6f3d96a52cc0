"""What the tab asks of the program around it, and what it shows to it. No torch and no host: see `TabHost`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.options.job import Job
from fam_ext.options.presets import BUILTIN, DEFAULT, PresetStore
from fam_ext.options.request import HiresRequest

TAB_ID = "fam_hires"


@dataclass(frozen=True)
class Made:
    """A picture from the tab's Picture mode: the images, their infotext, the host's comments."""

    images: list[Any]
    infotext: str
    comments: str = ""
    peak_memory: int | None = None
    """The most bytes of the device that it held; None where that cannot be told."""


def _pass_through(function: Callable[..., Any], extra_outputs: list[Any]) -> Callable[..., Any]:
    return function


@dataclass(frozen=True)
class TabHost:
    """What the tab asks of the program around it."""

    store: PresetStore
    batches: Any
    """`fam_ext.jobs.batches.Batches` or its like."""
    generate: Callable[[Image.Image, HiresRequest, str], Made]
    """(native picture, request, upscaler) -> the finished pictures. Raises `FamError`s."""
    samplers: Callable[[], list[str]]
    schedules: Callable[[], list[str]]
    upscalers: Callable[[], list[str]]
    models: Callable[[], list[str]]
    rescan: Callable[[], None] = lambda: None
    """Looks for models that have come or gone since."""
    config: FamConfig = field(default_factory=lambda: BUILTIN[DEFAULT].config)
    check_places: Callable[[Job], Job] = lambda options: options
    """Returns the job with its folders in full; raises a `FamError` where the server does not let the page run it."""
    folders: bool = True
    """Whether the page may name folders at all."""
    folders_note: str = ""
    """Why folders cannot be chosen freely; empty where they can."""
    default_output: Callable[[str], str] = lambda source: ""
    memory: Callable[[], tuple[int, int] | None] = lambda: None
    """Returns (free, total) bytes of the device; None where that cannot be told."""
    interrupt: Callable[[], str] = lambda: ""
    """Stops the picture of the tab; returns a sentence where another is under way, and goes on."""
    skip: Callable[[], None] = lambda: None
    gpu_call: Callable[[Callable[..., Any], list[Any]], Callable[..., Any]] = _pass_through
    """Wraps a function of (task id, ...) that renders; on an error it returns the extra outputs and the sentence."""
    send_buttons: Callable[[Any, Any], None] = lambda gallery, said: None
    """Builds the buttons that send what the gallery shows elsewhere; `said` has the infotext of files without one."""
    paste_fields: Callable[[Any, list[tuple[Any, Callable[[Mapping[str, Any]], Any]]]], None] = lambda image, fields: (
        None
    )


@dataclass
class TabParts:
    """The tab's components that the program around it binds to."""

    image: Any
    infotext: Any
    gallery: Any
    said: Any
    """The infotext of the gallery's pictures where their files have none."""
    compare: Any
    size: Any
    """The line with the sizes."""
    outlook: Any
    """What would become of the picture."""
    status: Any
    """What would become of the folder, or its job's line."""
    files: Any
    """The table of the job's files."""
    trial: Any
    """The grid of a trial."""
    picture_names: tuple[str, ...] = ()
    """The options that the picture mode asks for."""
