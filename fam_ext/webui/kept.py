"""The WebUI as it was: settings, model, VAE and random state, put back after what we do with them."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modules import sd_models, sd_vae, shared

_ABSENT = object()
_SET_BY_LOADING = ("sd_checkpoint_hash",)
"""Settings that loading a checkpoint changes along the way."""


@contextmanager
def settings_kept(overrides: Mapping[str, Any]) -> Generator[None, None, None]:
    """Put the settings in `overrides` back afterwards, also those that its settings file does not hold yet.

    The WebUI itself restores only what its settings file holds: a clip skip given for one picture would stay for all
    that follow. And it restores over what is chosen on its page meanwhile: that stays. A settings file that was written
    meanwhile is written again.
    """
    data = shared.opts.data
    before = {name: data.get(name, _ABSENT) for name in (*overrides, *_SET_BY_LOADING)}
    written = _written()
    try:
        yield
    finally:
        for name, value in before.items():
            if name in overrides and not _is_same(name, data.get(name), overrides[name]):
                continue
            if value is _ABSENT:
                data.pop(name, None)
            else:
                data[name] = value
        if "sd_vae" in overrides:
            sd_vae.reload_vae_weights()
        if _written() != written:
            shared.opts.save(shared.config_filename)


def _is_same(name: str, value: Any, asked: Any) -> bool:  # noqa: ANN401
    if name != "sd_model_checkpoint":
        return value == asked
    known = sd_models.checkpoint_aliases  # loading a checkpoint can give it another title
    return known.get(value) is known.get(asked)


def _written() -> int | None:
    """Return when the WebUI's settings file was written last."""
    file = Path(shared.config_filename)
    return file.stat().st_mtime_ns if file.exists() else None


def reload_model() -> None:
    """Load the checkpoint and VAE of the settings again where a picture's own took their place; the caller holds the
    queue."""
    with own_random_state():  # building a model draws its first weights
        sd_models.reload_model_weights()
        sd_vae.reload_vae_weights()


@contextmanager
def own_random_state(seed: int | None = None) -> Generator[None, None, None]:
    """Run with a random state of our own, seeded with `seed`, and leave everybody's as it was.

    A VAE's encoder draws from torch's global state: equal requests would else depend on whatever ran before.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            if seed is not None:
                torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def with_own_random_state(seed: Callable[[], int]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a wrapper that runs a method under `own_random_state`; `seed` is asked when it is called."""

    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with own_random_state(seed()):
                return previous(*args, **kwargs)

        return method

    return make
