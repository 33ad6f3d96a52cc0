"""What the tab asks of the program around it, and what it shows to it. No torch and no host: see `TabHost`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.options.job import Job
from fam_ext.options.presets import PresetStore
from fam_ext.options.request import HiresRequest

TAB_ID = "fam_hires"


@dataclass(frozen=True)
class Made:
    """A picture from the tab's Picture mode: the images, their infotext, the host's comments."""

    images: list[Any]
    infotext: str
    comments: str = ""


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
    config: FamConfig = field(default_factory=FamConfig)
    check_places: Callable[[Job], Job] = lambda options: options
    """Returns the job with its folders in full; raises a `FamError` where the server does not let the page run it."""
    folders_note: str = ""
    """Why folders cannot be chosen freely; empty where they can."""
    default_output: Callable[[str], str] = lambda source: ""
    interrupt: Callable[[], None] = lambda: None
    skip: Callable[[], None] = lambda: None
    gpu_call: Callable[[Callable[..., Any], list[Any]], Callable[..., Any]] = _pass_through
    """Wraps a function of (task id, ...) that renders; on an error it returns the extra outputs and the sentence."""
    send_buttons: Callable[[Any, Any, Any], None] = lambda gallery, infotext, image: None
    """Builds the buttons that send a result elsewhere."""
    paste_fields: Callable[[Any, list[tuple[Any, Callable[[Mapping[str, Any]], Any]]]], None] = lambda image, fields: (
        None
    )


@dataclass
class TabParts:
    """The tab's components that the program around it binds to."""

    image: Any
    infotext: Any
    gallery: Any
    texts: Any
    """The infotexts of the gallery's pictures, kept on the server."""
    result_infotext: Any
    """That of the picture which the buttons send."""
