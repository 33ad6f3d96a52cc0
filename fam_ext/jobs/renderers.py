"""Which renderers there are by name, and the one that a journal keeps. A journal is data: it names one, no more."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from fam_ext.errors import UsageError
from fam_ext.jobs.contract import Renderer

RENDERERS: Mapping[str, str] = {"standalone": "fam_ext.standalone:load_renderer"}
"""Name in a journal -> "module:function". A journal may be a stranger's: nothing that it names is ever imported."""
IN_HOST = "webui"
"""Name in a journal for a renderer that lives in its host's process and that no other can build."""
_ARGUMENTS = frozenset(("model", "device", "dtype", "loras", "config", "offload", "clip_l_skip", "upscaler"))


@dataclass(frozen=True)
class RendererSpec:
    """A renderer by its name in RENDERERS, so that other processes can build it, and its keyword arguments."""

    name: str = "standalone"
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def build(self) -> Renderer:
        """Import and call. Nothing is imported before. Raises `UsageError` for a name that is not ours."""
        if self.name not in RENDERERS:
            raise UsageError(f"renderer is {self.name!r}; choose {', '.join(RENDERERS)}")
        module, _, function = RENDERERS[self.name].partition(":")
        return getattr(importlib.import_module(module), function)(**self.arguments)


RendererSource: TypeAlias = RendererSpec | Callable[[], Renderer]
"""A renderer that any process can build, or a function of this one."""


def kept_renderer(kept: object) -> RendererSpec:
    """Return the renderer that a journal names; an older journal names it by our own import path. Raises `UsageError`
    for any other name: a journal is data, and runs nothing."""
    values = cast("dict[str, object]", kept) if isinstance(kept, dict) else {}
    name = values.get("name")
    if name == IN_HOST or not {"name", "target"} & set(values):
        raise UsageError(
            "the job was drawn in the WebUI, or the journal names no renderer; start the same folders there again, "
            "which tries the failed files too"
        )
    if name is None:
        by_path = {path: known for known, path in RENDERERS.items()}
        path = values.get("target", RENDERERS["standalone"])
        name = by_path.get(path, path) if isinstance(path, str) else path
    if not isinstance(name, str) or name not in RENDERERS:
        raise UsageError(
            f"the journal names the renderer {str(name)[:60]!a}, which is not one of ours "
            f"({', '.join(RENDERERS)}); run the job's own command again"
        )
    arguments = values.get("arguments", {})
    if not isinstance(arguments, dict) or not _ARGUMENTS.issuperset(cast("dict[str, object]", arguments)):
        raise UsageError(
            f"the journal's arguments for the renderer are not {', '.join(sorted(_ARGUMENTS))}; "
            "run the job's own command again"
        )
    return RendererSpec(name, cast("dict[str, Any]", arguments))


def to_keep(renderer: RendererSource) -> dict[str, Any]:
    """Return what a journal keeps of a renderer: what `kept_renderer` reads."""
    if isinstance(renderer, RendererSpec):
        return {"name": renderer.name, "arguments": dict(renderer.arguments)}
    return {"name": IN_HOST}
