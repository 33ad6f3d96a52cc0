"""What FAM knows of one `process_images` call of the WebUI: the session on its object p."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Tensor

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport, NativeRecord
from fam_ext.methods.base import Method
from fam_ext.recipe import Source

_ATTRIBUTE = "_fam_session"
PROGRESS_ATTRIBUTE = "_fam_progress"
"""A `jobs.contract.Progress` on p: told each step of the hires pass, asked whether to stop."""
NOTES_ATTRIBUTE = "_fam_notes"
"""Sentences on p of what was left out before it began."""
PASSES_ATTRIBUTE = "_fam_passes"
"""A list on p to which each hires pass adds its guide's report and its steps."""


class Session:
    """What FAM does in one `process_images` call: set up before it samples, asked by the infotext what ran."""

    def __init__(self, p: Any, config: FamConfig, method: Method) -> None:  # noqa: ANN401
        self.p = p
        self.config = config
        self.method = method
        self.record = NativeRecord()
        """Of the native run of this iteration."""
        self.source = Source()
        """What the hires pass enlarges: set when the native run is over, in img2img from the beginning."""
        self.latents: Tensor | None = None
        """What the guided pass gave last; None before one has run."""
        self.reports: dict[int, GuideReport] = {}
        """What acted, by iteration (batch count)."""
        self.error: Exception | None = None
        self.upscaler: str | None = None
        """What made the reference in place of the upscaler that was asked for; None: that did."""
        self.notes: list[str] = []
        """What was missing or replaced, one sentence each."""
        self.undo = ExitStack()

    def ran_in(self, iteration: int) -> bool:
        """Return whether FM or AM changed anything in this iteration."""
        return self.acted_in(iteration) is not None

    def acted_in(self, iteration: int) -> FamConfig | None:
        """Return the dials that acted in this iteration, a part that did not as off; None where neither did."""
        report = self.reports.get(iteration)
        if report is None or not (report.fm_calls or report.am_calls):
            return None
        return self.config.replace(fm=report.fm_calls > 0, am=bool(report.am_calls))


def open_session(p: Any, config: FamConfig, method: Method) -> Session:  # noqa: ANN401
    """Return a new session of p."""
    session = Session(p, config, method)
    setattr(p, _ATTRIBUTE, session)
    return session


def session_of(p: Any) -> Session | None:  # noqa: ANN401
    """Return the session of p, None where FAM is off. A copy of p does not inherit one."""
    session = p.__dict__.get(_ATTRIBUTE)
    return session if session is not None and session.p is p else None


def close(p: Any) -> None:  # noqa: ANN401
    """Take everything of FAM off p; p may be used again, or be a copy of one that had a session."""
    for name in ("init", "sample"):  # what an error left where there was no session
        if getattr(p.__dict__.get(name), "fam", False) and _ATTRIBUTE not in p.__dict__:
            delattr(p, name)
    session = p.__dict__.pop(_ATTRIBUTE, None)
    if session is None:
        return
    if session.p is p:
        session.undo.close()
    else:  # a shallow copy shares the dict and the instance attributes
        for name in ("init", "sample", "sample_hr_pass"):
            p.__dict__.pop(name, None)
    p.extra_generation_params = {k: v for k, v in p.extra_generation_params.items() if not k.startswith("FAM ")}
