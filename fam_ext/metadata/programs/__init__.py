"""One reader a program, tried in order. Each takes a file's texts and gives its settings, or None when not its own.

Reading never executes or fetches anything, and takes time linear in the texts' length.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fam_ext.metadata.containers import Text, Texts
from fam_ext.metadata.programs import comfyui, json_forms, webui
from fam_ext.metadata.programs.base import Settings

log = logging.getLogger(__name__)

Read = Callable[[Texts], "Settings | None"]
# the order says which text counts: our own and the WebUI's settings line first (Draw Things writes an
# imitation of it beside its own JSON), guesses by common names last
READERS: tuple[tuple[str, Read], ...] = (
    ("Draw Things", json_forms.draw_things),
    ("infotext", webui.read),
    ("SwarmUI", json_forms.swarm),
    ("InvokeAI", json_forms.invoke),
    ("NovelAI", json_forms.novelai),
    ("Fooocus", json_forms.fooocus),
    ("ComfyUI", comfyui.read),
    ("Mochi Diffusion", json_forms.mochi),
    ("Easy Diffusion", json_forms.easy_diffusion),
    ("JSON", json_forms.plain_object),
)


def read(texts: Texts) -> Settings | None:
    """Return the settings of the program that wrote them, None when no text says any. Never raises.

    A text with settings beats one without, wherever it stands.
    """
    spare: Settings | None = None
    for name, reader in READERS:
        try:
            found = reader(texts)
        except (ValueError, TypeError, KeyError, RecursionError):
            log.debug("reading as %s failed", name, exc_info=True)
            continue
        if found is None:
            continue
        if found.steps is not None or found.sampler is not None or found.seed is not None:
            return found
        spare = spare or found
    return spare


def read_text(text: str) -> Settings | None:
    """Return the settings in a text that stands beside a picture: an infotext or a plain prompt; JSON is neither."""
    return webui.read(Texts([Text(".txt", "parameters", text)]))


__all__ = ["READERS", "Settings", "read", "read_text"]
