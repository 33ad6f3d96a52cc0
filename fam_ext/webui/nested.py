"""Where a generation stands: inside another, as extensions make them for faces and details, or in a batch.

FAM is the outer generation's alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

from modules.processing import StableDiffusionProcessing

_LOOP = "process_images_inner"


def is_nested() -> bool:
    """Return whether the WebUI's loop that calls us runs inside another one of its kind."""
    return sum(frame.f_code.co_name == _LOOP for frame in _callers()) > 1


def is_in_batch() -> bool:
    """Return whether img2img's Batch calls us, which goes from file to file."""
    place = ("modules.img2img", "process_batch")
    return any((frame.f_globals.get("__name__"), frame.f_code.co_name) == place for frame in _callers())


def _callers() -> Generator[FrameType, None, None]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


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
