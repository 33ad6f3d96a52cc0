"""What one picture would become, in words: sizes, steps, time, memory. No gradio, no host."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fam_ext.errors import FamError, UsageError
from fam_ext.jobs.settings import idle, request_for
from fam_ext.jobs.size import check_native, target_size
from fam_ext.metadata.infotext import parse
from fam_ext.options import resolve
from fam_ext.options.presets import PresetStore
from fam_ext.options.request import HiresRequest
from fam_ext.ui.pace import Pace
from fam_ext.ui.tables import duration, memory_words, sentence_html
from fam_ext.ui.titles import quoted

EMPTY = (
    "<h3>Three steps</h3><ol><li>Drop a picture in, send one from a gallery of txt2img or img2img, or open Batch "
    "folder.</li><li>Choose the scale and a preset. The folds below hold the rest; their titles say what is in force."
    "</li><li>Press Start. What will happen is said here before.</li></ol>"
)


@dataclass(frozen=True)
class Outlook:
    """What a page says of the picture that is chosen."""

    size: str
    """The sizes, on one line."""
    panel: str
    """What will happen, as HTML."""


def picture_request(
    native: tuple[int, int], infotext: str, words: Mapping[str, Any], store: PresetStore
) -> HiresRequest:
    """Return the request for one picture of `native` (height, width) px. Raises `ConfigError`, `UsageError` or
    `PictureError`, one sentence."""
    # as a folder's file, but for the settings, which are the page's: what the picture has was taken into them
    options = resolve.job({**words, "inputs": ("picture",), "own_settings": False}, preset_of=store.get)
    target, reason = target_size(native, options.size)
    check_native(native, target)
    if reason is not None:
        raise UsageError(f"{reason}; choose a larger scale or target")
    return request_for(parse(infotext), target, options.picture)[0]


def picture_outlook(
    native: tuple[int, int] | None,
    infotext: str,
    words: Mapping[str, Any],
    *,
    store: PresetStore,
    pace: Pace,
    memory: tuple[int, int] | None,
) -> Outlook:
    """Return what would become of a picture of `native` (height, width) px; None where there is none yet."""
    try:
        request = picture_request(native or (512, 512), infotext, words, store)
    except FamError as error:
        return Outlook("", sentence_html(str(error), kind="error"))
    if native is None:
        return Outlook("The size it gives is said here once there is a picture.", EMPTY)
    height, width = request.size
    steps = request.steps * request.config.start
    sizes = f"{native[1]} x {native[0]} to {width} x {height} px"
    seconds = pace.seconds(request.size, steps=steps)
    time = "how long it takes is known after the first picture" if seconds is None else f"about {duration(seconds)}"
    lines = [
        sizes,
        f"words: {quoted(request.prompt, 120) or 'none; open Words and write what the picture shows'}",
        f"{request.sampler}, about {max(1, round(steps))} of {request.steps} steps",
        time,
        *idle(request),
    ]
    if memory is not None:
        held = pace.peak(request.size)
        before = "" if held is None else f"; the last picture of this size needed {held / 2**30:.1f} GB"
        lines.append(memory_words(memory) + before)
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    line = sizes if seconds is None else f"{sizes}, about {duration(seconds)}"
    return Outlook(line, f"<h3>What Start will do</h3><ul>{items}</ul>")


def folder_size(words: Mapping[str, Any]) -> str:
    """Return how large a folder's pictures become, on one line."""
    if words.get("width") and words.get("height"):
        return f"Each picture within {words['width']:g} x {words['height']:g} px"
    return f"Each picture {words['scale']:g} times as wide and high"
