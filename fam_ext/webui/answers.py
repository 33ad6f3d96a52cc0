"""How an error of FAM ends a generation: a sentence on the page, 422 from the API, a cell of a plot left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import gradio as gr
import torch
from fastapi import HTTPException
from modules import images, shared
from modules.processing import DecodedSamples

from fam_ext.errors import ConfigError, FamError, UnsupportedModelError, UnsupportedSamplerError, UsageError
from fam_ext.hosts.base import replaced
from fam_ext.ui.accordion import TITLE
from fam_ext.webui.nested import is_in_batch
from fam_ext.webui.session import PROGRESS_ATTRIBUTE, Session, session_of

logger = logging.getLogger(__name__)

PLOT = "x/y/z plot"
_ENDED = "_fam_ended"
"""On p: whether it saved no grid before `say`, where that has ended it."""


@contextmanager
def stopping(p: Any, *, sampling: bool = False) -> Generator[None, None, None]:  # noqa: ANN401
    """Keep an error raised in a callback, which the WebUI would swallow, and let it out where the WebUI samples.

    `sampling` says that it is sampling already.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, FamError):
            logger.exception("FAM Hires failed")
        fail(p, error, sampling=sampling)


def fail(p: Any, error: Exception, *, sampling: bool = False) -> None:  # noqa: ANN401
    """End p's generation before it samples: page and API show the sentence of `error`."""
    session = session_of(p)
    if session is not None and session.error is None:
        session.error = error

    def raising(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        raise answer_of(p, error)

    def nothing(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Stand in for `init`, which would raise the WebUI's own error about the same."""

    raising.fam = nothing.fam = True  # pyright: ignore[reportFunctionMemberAccess]
    if getattr(p, "sampler", None) is not None:
        p.sampler.sample = p.sampler.sample_img2img = raising
    if sampling:  # in p.sample, which answers: see `answering`
        return
    said = is_said(p, error)
    if said:
        say(p, error)
    # `sample` too, also where something goes on after an interrupt
    for name, ours in (("init", nothing if said else raising), ("sample", raising)):
        if session is None:
            setattr(p, name, ours)
        else:
            session.undo.enter_context(replaced(p, name, lambda previous, ours=ours: ours))


def is_said(p: Any, error: Exception) -> bool:  # noqa: ANN401
    """Return whether `error` is a user's to answer where no exception can tell: on the page, and in a plot's cell.

    Not in another script: it counts on pictures, and SD upscale saves a black one where there are none.
    """
    if not isinstance(error, FamError) or hasattr(p, PROGRESS_ATTRIBUTE):
        return False
    return _script(p) == PLOT or (not p.is_api and _script(p) is None)


def say(p: Any, error: Exception) -> None:  # noqa: ANN401
    """End the generation as the WebUI's own Interrupt does, with one sentence under the gallery and in the log.

    An exception would be printed with a traceback and all arguments, and shown with its class.
    """
    logger.warning("%s", error)
    p.comment(str(error))
    shared.state.interrupted = True
    setattr(p, _ENDED, getattr(p, "do_not_save_grid", False))
    p.do_not_save_grid = True  # the WebUI fails at a grid of no pictures
    if _is_one_of_many(p) and not p.is_api:  # the page shows the comments of the first alone
        gr.Warning(f"{TITLE}: {error}")


def go_on(p: Any, processed: Any) -> None:  # noqa: ANN401
    """Leave the page in order after a generation that `say` has ended; to be called when it is over.

    A plot goes on with its next cell, img2img's Batch with its next file. The gallery's ✨ puts what was made in the
    place of its picture: that itself.
    """
    if _ENDED not in p.__dict__:
        return
    p.do_not_save_grid = p.__dict__.pop(_ENDED)
    if _is_one_of_many(p):
        shared.state.interrupted = False
    if processed.images or _is_cell(p):
        return
    if is_in_batch():
        processed.infotexts = []  # the WebUI writes one also where no picture is: it would be the next file's
    elif getattr(p, "txt2img_upscale", False):
        own, _ = images.read_info_from_image(p.firstpass_image)
        processed.images = [p.firstpass_image]
        processed.info = own or processed.info
        processed.infotexts = [processed.info]


def _is_one_of_many(p: Any) -> bool:  # noqa: ANN401
    return _is_cell(p) or is_in_batch()


def _is_cell(p: Any) -> bool:  # noqa: ANN401
    """Return whether p is one cell of an X/Y/Z plot."""
    return _script(p) == PLOT


def _script(p: Any) -> str | None:  # noqa: ANN401
    """Return the name, in lower case, of the script that is chosen to run the generation; None: none is."""
    chosen = p.script_args[0] if p.script_args else 0
    scripts = getattr(p.scripts, "selectable_scripts", [])
    is_script = isinstance(chosen, int) and 0 < chosen <= len(scripts)
    return (scripts[chosen - 1].title() or "").lower() if is_script else None


def refuse_axis(p: Any, values: list[Any], error: FamError) -> None:  # noqa: ANN401
    """End a plot before its first cell: the plot goes over `values`, the list of an axis, and none is left."""
    if p.is_api:
        raise answer_of(p, error) from None
    logger.warning("%s", error)
    p.comment(str(error))
    values.clear()


def answer_of(p: Any, error: Exception) -> Exception:  # noqa: ANN401
    """Return what to raise out of p's sampling: for the API an error that it answers with 422, without a traceback."""
    is_users = isinstance(error, ConfigError | UsageError | UnsupportedModelError | UnsupportedSamplerError)
    if not is_users or not p.is_api or hasattr(p, PROGRESS_ATTRIBUTE):
        return error
    logger.warning("%s", error)
    return Unanswerable(422, detail=str(error))


class Unanswerable(HTTPException):
    """A request of the API that cannot be carried out."""

    def __str__(self) -> str:
        return str(self.detail)


def answering(p: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: ANN401
    """Return a wrapper of p.sample that answers a `FamError` where the page or the API asked."""

    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            try:
                return previous(*args, **kwargs)
            except FamError as error:
                session = session_of(p)
                if session is None or not is_said(p, error):
                    _over(session)
                    raise answer_of(p, error) from error
                session.error = session.error or error
                say(p, error)
                # the WebUI stacks what comes back before it asks again: `postprocess_batch_list` drops this
                return DecodedSamples([torch.zeros(3, 8, 8)])
            except Exception:
                _over(session_of(p))
                raise

        return sample

    return make


def _over(session: Session | None) -> None:
    """Undo what was done to a p that nobody asks again: the garbage collector would in an order of its own."""
    if session is not None:
        session.undo.close()
