"""Which WebUI this process is, by what it can import. Imports none of it."""

from __future__ import annotations

from importlib.util import find_spec

A1111, FORGE, REFORGE, SDNEXT = "A1111", "Forge", "reForge", "SD.Next"
SUPPORTED = (A1111,)
"""WebUIs that have an adapter."""


def detect() -> str | None:
    """Return the name of the WebUI that runs this process, None where there is none."""
    if not _has("modules.sd_samplers_common") and not _has("modules.sd_samplers"):
        return None
    # order matters: reForge keeps Forge's folders, and SD.Next A1111's names
    if _has("modules.sd_samplers_diffusers"):
        return SDNEXT
    if _has("backend.patcher"):
        return FORGE
    if _has("ldm_patched"):
        return REFORGE
    return A1111


def _has(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a parent package is missing, or half-made
        return False
