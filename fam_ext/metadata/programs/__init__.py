"""One reader a program, tried in order. Each takes a file's texts and gives its settings, or None when not its own.

Reading never executes or fetches anything, and takes time linear in the texts' length.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from fam_ext.escapes import listed
from fam_ext.metadata.containers import Text, Texts
from fam_ext.metadata.programs import (
    breadboard,
    civitai,
    comfyui,
    common,
    drawthings,
    easydiffusion,
    fooocus,
    invokeai,
    midjourney,
    mochi,
    novelai,
    swarmui,
    tensorart,
    webui,
)
from fam_ext.metadata.programs.base import Settings

log = logging.getLogger(__name__)

Read = Callable[[Texts], "Settings | None"]
# the order says which text counts: what we wrote first, whatever it was made from, then the WebUI's settings line
# (Draw Things writes an imitation of it beside its own JSON), guesses by common names last
READERS: tuple[tuple[str, Read], ...] = (
    ("FAM Hires", webui.read_ours),
    ("Draw Things", drawthings.read),
    ("infotext", webui.read),
    ("SwarmUI", swarmui.read),
    ("InvokeAI", invokeai.read),
    ("NovelAI", novelai.read),
    ("Tensor.Art", tensorart.read),
    ("Civitai", civitai.read),
    ("Fooocus", fooocus.read),
    ("ComfyUI", comfyui.read),
    ("Mochi Diffusion", mochi.read),
    ("Midjourney", midjourney.read),
    ("Breadboard", breadboard.read),
    ("Easy Diffusion", easydiffusion.read),
    ("JSON", common.read),
)


def read(texts: Texts) -> Settings | None:
    """Return the settings of the program that wrote them, None when no text says any. Never raises.

    A text with our own line beats all; else one with settings and a prompt one without, wherever it stands.
    """
    best: tuple[int, Settings] | None = None
    for name, reader in READERS:
        try:
            found = reader(texts)
        except (ValueError, TypeError, KeyError, RecursionError):
            log.debug("reading as %s failed", name, exc_info=True)
            continue
        if found is None:
            continue
        made = found.steps is not None or found.sampler is not None or found.seed is not None
        rank = 2 * made + bool(found.prompt)
        if best is None or rank > best[0]:
            best = rank, found
        if rank == 3 or reader is webui.read_ours:  # what ran is a record, also where it had no prompt
            break
    return _with_loras_noted(best[1]) if best is not None else None


def _with_loras_noted(found: Settings) -> Settings:
    """Return the settings with a note of LoRAs that drew the picture and that its prompt does not name."""
    beside = [lora for lora in found.loras if f"<lora:{lora.rpartition(':')[0]}:" not in (found.prompt or "")]
    note = f"LoRAs beside the prompt are not taken: {listed(beside)}; give the files with --lora, in the WebUI as "
    note += "<lora:NAME:WEIGHT>"
    return replace(found, notes=(*found.notes, note)) if beside else found


def read_text(text: str) -> Settings | None:
    """Return the settings in a text that stands beside a picture: an infotext or a plain prompt; JSON is neither."""
    return webui.read(Texts([Text(".txt", "parameters", text)]))


__all__ = ["READERS", "Settings", "read", "read_text"]
