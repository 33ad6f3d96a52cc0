"""Generations inside a generation, as extensions make them for faces and details: FAM is the outer one's alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from modules.processing import StableDiffusionProcessing

_LOOP = "process_images_inner"


def is_nested() -> bool:
    """Return whether the WebUI's loop that calls us runs inside another one of its kind."""
    frame, loops = sys._getframe(1), 0
    while frame is not None:
        loops += frame.f_code.co_name == _LOOP
        frame = frame.f_back
    return loops > 1


def not_for_copies(p: Any, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: ANN401
    """Return a wrapper of p's own method `name` that leaves copies of p alone, which share p's attributes.

    The method is bound to p: the object that the WebUI asks stands in the frame that calls.
    """

    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            caller = sys._getframe(1).f_locals
            asked = caller.get("p", caller.get("self"))
            if asked is p or not isinstance(asked, StableDiffusionProcessing):
                return previous(*args, **kwargs)
            return getattr(type(asked), name)(asked, *args, **kwargs)

        return method

    return make
