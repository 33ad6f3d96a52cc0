"""Which picture formats there are: by suffix, read by a plugin, written by this Pillow."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from fam_ext.options.parts import FORMATS as FORMATS

log = logging.getLogger(__name__)

SUFFIXES: Mapping[str, str] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".pjpeg": "JPEG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".jxl": "JXL",
}
PLUGINS: Mapping[str, tuple[str, str]] = {
    "HEIF": ("pillow_heif", "pillow-heif"),
    "JXL": ("pillow_jxl", "pillow-jxl-plugin"),
}
"""Formats that are read where their Pillow plugin is installed: its module and package. They are not written."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
JXL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
PREFERRED_SUFFIX: Mapping[str, str] = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "TIFF": ".tif",
    "BMP": ".bmp",
}
MAX_SIDE: Mapping[str, int] = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}


def format_of(name: str | Path) -> str | None:
    """Return the format that a file name's suffix stands for, None for any other suffix."""
    text = str(name)
    return SUFFIXES.get(text[text.rfind(".") :].lower()) if "." in text else None


@functools.lru_cache(maxsize=16)
def can_write(picture_format: str) -> str | None:
    """Return None when this Pillow writes the format, else the sentence that says what to do."""
    Image.init()
    if picture_format in Image.SAVE:
        return None
    if picture_format == "AVIF":
        return "this Pillow has no AVIF; install Pillow 11.3 or newer (or pillow-avif-plugin), or choose another format"
    return f"this Pillow cannot write {picture_format}; choose another format"


def has_plugin(picture_format: str) -> bool:
    """Return whether Pillow opens the format, having loaded its plugin where that is installed."""
    Image.init()
    if picture_format not in Image.OPEN:
        try:
            module = importlib.import_module(PLUGINS[picture_format][0])
            getattr(module, "register_heif_opener", lambda: None)()  # the other registers itself
        except Exception:  # a plugin that cannot be loaded is none
            log.debug("no plugin for %s", picture_format, exc_info=True)
    return picture_format in Image.OPEN
