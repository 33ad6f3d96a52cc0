"""Before and after on the page. No gradio, no host."""

from __future__ import annotations

from PIL import Image

from fam_ext.jobs import compare
from fam_ext.ui.thumbnails import upright

MOST = 4096
"""Longest side in pixels of the pictures of a comparison that was asked for."""
MOST_LIVE = 1600
"""The same while a job runs, where each finished file sends one."""


def compare_html(before: Image.Image, after: Image.Image, *, most: int = MOST) -> str:
    """Return the element that compares two pictures, both as people see them."""
    return compare.compare_html(upright(before), upright(after), most=most)


def compare_script() -> str:
    """Return its script as inert HTML; javascript/fam_hires.js runs it, for a page never runs what it is sent later."""
    return f'<script type="text/plain">{compare.script()}</script>'
