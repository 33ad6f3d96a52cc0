"""What the commands that draw share: the options they take, the model these name, and a bar of its steps.

Torch is imported inside.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fam_ext.core.config import FamConfig
from fam_ext.jobs.contract import Progress
from fam_ext.options.field import CLI, options_of
from fam_ext.options.renderer import RendererChoice
from fam_ext.options.request import HiresRequest
from fam_ext.options.resolve import options_at
from fam_ext.terminal import plain

_AT_CLI = options_at(CLI)
RENDERER = [spec for spec in _AT_CLI if spec in options_of(RendererChoice)]
MADE = [spec for spec in _AT_CLI if spec in (*options_of(HiresRequest), *options_of(FamConfig))]
SIZES = [spec for spec in _AT_CLI if spec.name in ("scale", "size")]
PRESET = [spec for spec in _AT_CLI if spec.name == "preset"]


def picture_words(said: dict[str, Any]) -> dict[str, Any]:
    """Return what was said of the picture: without the renderer's options."""
    return {name: value for name, value in said.items() if name not in {spec.name for spec in RENDERER}}


def load_renderer(renderer: RendererChoice) -> Any:  # noqa: ANN401  # a DiffusersRenderer: torch is imported here
    """Return what draws, its `upscaler` and its `host` loaded in that order. Errors as `DiffusersRenderer.load`."""
    from fam_ext import standalone

    loaded = standalone.load_renderer(**renderer.arguments)
    loaded.load()
    return loaded


@contextmanager
def steps_bar(label: str) -> Iterator[Progress]:
    """Show a bar of the sampler's steps with the time left; nothing when not in a terminal."""
    if not sys.stdout.isatty():
        yield Progress()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),  # a prompt's brackets are no markup
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, transient=True) as bars:
        task = bars.add_task(plain(label), total=None)
        yield Progress(step=lambda done, total: bars.update(task, completed=done, total=total))
