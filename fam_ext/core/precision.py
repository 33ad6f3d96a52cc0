"""Arithmetic in the dtypes that it was given, whatever autocast the host has open."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
WITH_AUTOCAST = ("cuda", "xpu", "cpu")
"""Devices that every torch has an autocast of."""


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """While open, no autocast of `tensor`'s device acts: A1111 samples under one on CUDA, where matmuls of float32
    become half, and those into a float32 tensor fail."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if kind in WITH_AUTOCAST else nullcontext()


def as_given(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function`, whose first argument is a tensor, `without_autocast` of it."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with without_autocast(cast("Tensor", args[0])):
            return function(*args, **kwargs)

    return run
