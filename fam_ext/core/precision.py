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


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """While open, no autocast of `tensor`'s device acts: A1111 samples under one on CUDA, where matmuls of float32
    become half, and those into a float32 tensor fail."""
    kind = tensor.device.type
    return nullcontext() if kind == "mps" else torch.autocast(kind, enabled=False)  # torch 2.1 has none of MPS


def as_given(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function`, whose first argument is a tensor, `without_autocast` of it."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with without_autocast(cast("Tensor", args[0])):
            return function(*args, **kwargs)

    return run
