"""The executors by name: a known list, from which a run's own rule chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from fam_ext.jobs.executors.base import Executor
from fam_ext.jobs.executors.local import Local
from fam_ext.jobs.executors.process import ProcessSlots
from fam_ext.jobs.executors.ray import RaySlots
from fam_ext.jobs.executors.workers import Workers
from fam_ext.jobs.outcomes import Outcomes
from fam_ext.jobs.renderers import RendererSource
from fam_ext.options.parts import RunRule

EXECUTORS: Mapping[str, Callable[[Outcomes, RendererSource], Executor]] = {
    "local": Local,
    "process": partial(Workers, start=ProcessSlots),
    "ray": partial(Workers, start=RaySlots),
}


def executor_name(run: RunRule) -> str:
    """Return the name in EXECUTORS of what a run asks for."""
    if run.ray is not None:
        return "ray"
    return "process" if run.workers > 0 else "local"
