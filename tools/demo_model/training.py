"""What the training scripts share: a clock over several starts, weight averages, safe saving, the device, workers."""

from __future__ import annotations

import hashlib
import itertools
import math
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class Clock:
    """Training time in seconds, summed over every start."""

    def __init__(self, budget: float, *, spent: float = 0.0) -> None:
        self.budget, self.spent = budget, spent
        self._start = time.monotonic()

    def total(self) -> float:
        return self.spent + time.monotonic() - self._start

    def share(self) -> float:
        """The part of the budget that is used, 0 to 1."""
        return min(self.total() / self.budget, 1.0)

    def done(self) -> bool:
        return self.total() >= self.budget


class Average:
    """An exponential moving average of a module's state; warms up over the first steps."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, 1 - decay)
            else:
                self.values[key].copy_(value)

    def load(self, values: dict[str, Tensor], *, steps: int = 10**6) -> None:
        for key, value in values.items():
            self.values[key].copy_(value)
        self.steps = steps

    def copy_to(self, module: nn.Module) -> None:
        module.load_state_dict(self.values)


def cosine(share: float, *, warm: float = 0.02, floor: float = 0.02) -> float:
    """Return the learning rate's factor at `share` of the budget: a linear start, then a cosine down to `floor`."""
    if share < warm:
        return (share + 1e-3) / (warm + 1e-3)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (share - warm) / (1 - warm)))


def pick_device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> Any:
    """Return bf16 autocast where it is fast: on a GPU, and on a CPU with AMX."""
    fast = device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_amx_tile_supported())
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def spare_workers() -> int:
    """Return how many processes may draw pictures ahead: one a core beside the GPU, none where the CPU trains."""
    return max(1, min(16, (os.cpu_count() or 1) - 1)) if torch.cuda.is_available() else 0


_make: Callable[[int], Any] | None = None


def _call(number: int) -> Any:
    torch.set_num_threads(1)
    assert _make is not None
    return _make(number)


def ahead(make: Callable[[int], Any], numbers: Iterator[int] | range, *, workers: int) -> Generator[Any, None, None]:
    """Yield `make` of each of `numbers`, in order; made ahead in `workers` processes, or with 0 when asked for.

    The workers are forks, so `make` may be a closure, and must leave a GPU alone.
    """
    if not workers:
        yield from map(make, numbers)
        return
    global _make
    _make = make
    numbers = iter(numbers)
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        waiting = deque(pool.apply_async(_call, (number,)) for number in itertools.islice(numbers, 3 * workers))
        while waiting:
            made = waiting.popleft().get()
            for number in itertools.islice(numbers, 1):
                waiting.append(pool.apply_async(_call, (number,)))
            yield made


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write `state` so that a stop at any moment leaves the old or the new file, never half a one."""
    partial = path.with_suffix(f"{path.suffix}.part")
    torch.save(state, partial)
    os.replace(partial, path)


def write_small(state: dict[str, Tensor], path: Path) -> None:
    """Write weights in half of fp16's room: those with rows as int8 with a scale a row, the others in fp16.

    The error is at most 0.4 % of a row's largest weight: less than what a training goes on to change.
    """
    small: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.dim() < 2:
            small[name] = value.half().cpu().contiguous()
            continue
        rows = value.float().cpu().flatten(1)
        scale = rows.abs().amax(dim=1).clamp_min(1e-12) / 127
        small[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape).contiguous()
        small[f"{name}:scale"] = scale
    save_file(small, path)


def read_small(path: Path) -> dict[str, Tensor]:
    """Return what `write_small` wrote, in float32."""
    held = load_file(path)
    state: dict[str, Tensor] = {}
    for name, value in held.items():
        if name.endswith(":scale"):
            continue
        scale = held.get(f"{name}:scale")
        state[name] = value.float() if scale is None else value.float() * scale.reshape(-1, *[1] * (value.dim() - 1))
    return state


def tag_of(vae: Path) -> str:
    """Return what names the cached latents of the VAE in folder `vae`: another VAE, another cache."""
    return hashlib.sha256((vae / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()[:8]
