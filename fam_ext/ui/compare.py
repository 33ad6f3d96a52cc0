"""Before and after on the page. No gradio, no host."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from fam_ext.jobs import compare
from fam_ext.ui.thumbnails import seen, upright

MOST = 4096
"""Longest side in pixels of the pictures of a comparison that was asked for."""
MOST_LIVE = 1600
"""The same while a job runs, where each finished file sends one."""


def compare_html(before: Image.Image, after: Image.Image, *, most: int = MOST) -> str:
    """Return the element that compares two pictures, both as people see them."""
    return compare.compare_html(upright(before), upright(after), most=most)


def files_compared(before: Path, after: Path, *, most: int = MOST) -> str:
    """Return `compare_html` of two files, "" where one of them cannot be shown."""
    shown = seen(before), seen(after)
    return compare_html(shown[0][0], shown[1][0], most=most) if shown[0] and shown[1] else ""


def compare_script() -> str:
    """Return its script as inert HTML; javascript/fam_hires.js runs it, for a page never runs what it is sent later."""
    return f'<script type="text/plain">{compare.script()}</script>'
