"""Questions to a device that keep nobody waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fam_ext.errors import FamError


class LateChecks:
    """Questions to a device that keep nobody waiting: on CUDA the answers of one step are read at the next, or at
    `finish`; elsewhere at once. One copy a step, whatever is asked."""

    def __init__(self) -> None:
        self._asked: list[tuple[Tensor, FamError]] = []
        self._sent: tuple[Tensor, Any, list[FamError]] | None = None

    def expect(self, answer: Tensor, error: FamError) -> None:
        """Ask, with the next `send`, whether `answer` (one boolean) is true; `error` is raised where it is not."""
        self._asked.append((answer, error))

    def send(self) -> None:
        """Raise for what was sent before, then send off what was asked since."""
        self.finish()
        asked, self._asked = self._asked, []
        if not asked:
            return
        answers = torch.stack([answer for answer, _ in asked])
        record_event = EVENTS.get(answers.device.type)
        if record_event is None:
            near, event = answers.cpu(), None
        else:
            near = torch.empty_like(answers, device="cpu", pin_memory=torch.cuda.is_available())
            near.copy_(answers, non_blocking=True)
            event = record_event(answers.device)
        self._sent = near, event, [error for _, error in asked]
        if event is None:
            self.finish()

    def finish(self) -> None:
        """Raise for what was sent last."""
        if self._sent is None:
            return
        answers, event, errors = self._sent
        self._sent = None
        if event is not None:
            event.synchronize()
        for holds, error in zip(answers.tolist(), errors, strict=True):
            if not holds:
                raise error


def _cuda_event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


EVENTS: dict[str, Callable[[torch.device], Any]] = {"cuda": _cuda_event}
"""By type of device, what gives an event that tells when the device has come this far."""
