"""What the training scripts share: a clock over several starts, weight averages, safe saving, the device, workers."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import itertools
import logging
import math
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn

logger = logging.getLogger(__name__)


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
        state = module.state_dict()
        floats = [key for key, value in state.items() if value.is_floating_point()]
        held = [self.values[key] for key in floats]
        # one launch for all of them, where a GPU waits for a slow CPU
        torch._foreach_lerp_(held, [state[key] for key in floats], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for key in state.keys() - set(floats):
            self.values[key].copy_(state[key])

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


class Ranks:
    """The processes that train one model together, each on a batch of its own: those of torchrun, or this one alone.

    On a CPU two processes of one thread each take nearly twice the steps of one with two threads.
    """

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo")
            atexit.register(distributed.destroy_process_group)  # its threads would abort the process that leaves first

    def place(self, step: int) -> int:
        """Return the number of this process's batch of `step`, which no other step and no other process has."""
        return step * self.count + self.rank

    def agree(self, module: nn.Module, seconds: float) -> float:
        """Make every gradient of `module` the mean over the processes; return the mean of their `seconds`, too."""
        if self.count == 1:
            return seconds
        for value in module.parameters():
            if value.grad is None:  # here, but perhaps not in another process
                value.grad = torch.zeros_like(value)
        gradients = [value.grad for value in module.parameters() if value.grad is not None]
        flat = torch.cat([torch.tensor([seconds]), *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(flat)
        flat /= self.count
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, flat[1:].split(sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))
        return flat[0].item()


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


def teach(
    net: nn.Module,
    loss_of: Callable[[int], Tensor],
    *,
    state: Path,
    minutes: float,
    steps: int,
    rate: float,
    decay: float = 0.998,
) -> tuple[int, float]:
    """Train a classifier `net` on the loss that `loss_of` says of each step, going on from the file `state`.

    Stops after `minutes` over all starts, or after `steps` of this one unless that is negative. Leaves `net` on the CPU
    with its averaged weights, and returns the steps and the seconds of all starts.
    """
    device = next(net.parameters()).device
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.05)
    average = Average(net, decay)
    clock, step = Clock(minutes * 60), 0
    state.parent.mkdir(parents=True, exist_ok=True)
    if state.is_file():
        held = torch.load(state, map_location=device, weights_only=True)
        net.load_state_dict(held["net"])
        optimizer.load_state_dict(held["optimizer"])
        average.load(held["average"], steps=held["step"])
        clock.spent, step = held["spent"], held["step"]
        logger.info("going on from step %d, %.0f s", step, clock.spent)

    def save() -> None:
        held = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        save_atomically({**held, "spent": clock.total(), "step": step}, state)

    net.train()
    first_step = step
    saved = shown = time.monotonic()
    while not clock.done() and (steps < 0 or step - first_step < steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * cosine(clock.share(), warm=0.03)
        with autocast(device):
            loss = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        average.update(net)
        step += 1
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            logger.info("step %d  %.0f s  loss %.3f", step, clock.total(), loss.item())
        if time.monotonic() - saved > 120:
            saved = time.monotonic()
            save()
    save()
    average.copy_to(net)
    net.cpu().eval()
    return step, clock.total()


def memmap(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return the array in the .npy file `path`, made of zeros where there is none, and longer where it has fewer rows.

    More rounds of pictures leave the earlier ones as they are, and some process may have asked for fewer before.
    """
    if not path.is_file():
        fresh = path.with_suffix(f".{os.getpid()}.npy")
        np.lib.format.open_memmap(fresh, mode="w+", dtype=dtype, shape=shape)
        with contextlib.suppress(FileExistsError):  # another process made it first
            os.link(fresh, path)
        fresh.unlink()
    held = np.lib.format.open_memmap(path, mode="r+")
    if held.shape[1:] != shape[1:] or held.dtype != dtype:
        raise SystemExit(f"{path} holds {held.dtype} of {held.shape[1:]}, not of {shape[1:]}; remove it")
    if len(held) >= shape[0]:
        return held
    with path.open("r+b") as file:  # numpy leaves room in the header for a longer first axis
        descr = np.lib.format.dtype_to_descr(held.dtype)
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        file.truncate(held.offset + math.prod(shape) * held.itemsize)
    return np.lib.format.open_memmap(path, mode="r+")


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


FREED = "freed.safetensors"
"""What a later training of a VAE without GroupNorm's statistics goes on from: see norms.py."""
ENCODER = ("encoder.", "quant_conv.")
"""What the names of a VAE's weights begin with where they make its latents."""


def tag_of(vae: Path) -> str:
    """Return what names the cached latents of the VAE in folder `vae`: another encoder, another cache."""
    if not (vae / FREED).is_file():
        return hashlib.sha256((vae / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()[:8]
    said = hashlib.sha256()
    for name, value in sorted(load_file(vae / FREED).items()):
        if name.startswith(ENCODER):
            said.update(name.encode() + value.numpy().tobytes())
    return said.hexdigest()[:8]
