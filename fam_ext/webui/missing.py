"""What a generation asked for and the WebUI went on without: nobody reads that in its console."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from modules import extra_networks, sd_hijack, sd_vae, shared
from PIL import Image

from fam_ext.hosts.base import replaced
from fam_ext.webui.known import upscalers

FALLBACK_UPSCALER = "Lanczos"
"""What the WebUI resizes with where its upscaler gave nothing."""


def has_vae(name: str | None) -> bool:
    """Return whether `name` is a VAE of this WebUI, or one of the words of its settings."""
    return name in ("None", "Automatic", "auto", *sd_vae.vae_dict)


def missing_vae() -> list[str]:
    """Return a sentence where the settings in force name a VAE that this WebUI has not."""
    name = shared.opts.sd_vae
    used = sd_vae.get_loaded_vae_name() or "the checkpoint's own"
    return [] if has_vae(name) else [f"VAE {name} is not in this WebUI; {used} was used"]


def missing_networks(asked: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return a sentence for each network of the prompt that does nothing, once the WebUI has loaded them.

    `asked` is its own reading of the prompt: the parameters of each <kind:name:...> by kind.
    """
    known = {**extra_networks.extra_network_registry, **extra_networks.extra_network_aliases}
    said = [f"{kind} is no kind of network that this WebUI has" for kind in asked if kind not in known]
    said += [comment for comment in sd_hijack.model_hijack.comments if comment.startswith("Lora not found")]
    by_kind = [(getattr(known.get(kind), "name", kind), entry) for kind, entries in asked.items() for entry in entries]
    hypernetworks = [entry.items[0] for kind, entry in by_kind if kind == "hypernet"]
    said += [f"Hypernetwork not found: {name}" for name in hypernetworks if name not in shared.hypernetworks]
    found = {one.mentioned_name: one for one in getattr(sys.modules.get("networks"), "loaded_networks", [])}
    for name in [entry.items[0] for kind, entry in by_kind if kind == "lora"]:
        if name in found and not (found[name].modules or found[name].bundle_embeddings):
            said.append(f"Lora does not fit this checkpoint: {name}")
        elif name not in found and not any(name in words for words in said):
            said.append(f"Lora cannot be loaded: {name}; see the WebUI's console")
    return said


@contextmanager
def watched_upscaler(name: str, failed: Callable[[], None]) -> Generator[None, None, None]:
    """Call `failed` where the WebUI has no upscaler of that name, or it hands its picture back: its model cannot be
    loaded."""
    scaler = next((entry.scaler for entry in shared.sd_upscalers if entry.name == name), None)
    if name not in upscalers():
        failed()
    if name == "None" or not hasattr(scaler, "do_upscale"):
        yield
        return

    def watching(previous: Callable[..., Image.Image]) -> Callable[..., Image.Image]:
        def do_upscale(image: Image.Image, *args: Any, **kwargs: Any) -> Image.Image:  # noqa: ANN401
            made = previous(image, *args, **kwargs)
            if made is image:
                failed()
            return made

        return do_upscale

    with replaced(scaler, "do_upscale", watching):
        yield
