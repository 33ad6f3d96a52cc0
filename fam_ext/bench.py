"""What FAM costs on this machine: step time and peak memory beside direct inference, methods taking turns."""

from __future__ import annotations

import platform
import statistics
import time

import torch

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.hosts.diffusers.host import DiffusersHost
from fam_ext.methods.base import Method, Pictures, Stage
from fam_ext.methods.fam import Fam

CONFIGS = {
    "direct inference": FamConfig(am=False, fm=False),
    "FM": FamConfig(am=False),
    "FM + AM": FamConfig(),
}


def cost_table(host: DiffusersHost, scales: list[float], *, steps: int, repeats: int) -> list[str]:
    """Return lines of text: seconds a step, the ratio to direct inference in the same round (median of `repeats`), and
    on CUDA the peak memory, for each of `scales`. The native run before the pass is not counted; AM's native pass is.
    """
    lines = [f"{host.name} on {_machine(host)}, {host.dtype}, {steps} DDIM steps, median of {repeats} rounds"]
    for scale in scales:
        side = round(host.native_side * scale / 8) * 8
        seconds: dict[str, list[float]] = {name: [] for name in CONFIGS}
        memory: dict[str, float] = {}
        for _ in range(repeats):
            for name, config in CONFIGS.items():
                taken, peak = _time_pass(host, side, config, steps)
                seconds[name].append(taken / steps)
                memory[name] = max(peak, memory.get(name, 0.0))
        for name, taken in seconds.items():
            ratio = statistics.median(
                ours / direct for ours, direct in zip(taken, seconds["direct inference"], strict=True)
            )
            peak = f", peak {memory[name] / 2**30:.2f} GiB" if memory[name] else ""
            lines.append(
                f"{scale:g}x {side}x{side} {name}: {statistics.median(taken):.3f} s a step, x {ratio:.3f}{peak}"
            )
    return lines


def _time_pass(host: DiffusersHost, side: int, config: FamConfig, steps: int) -> tuple[float, float]:
    sampler = host.sampler("DDIM", "Automatic", steps, seeds=[0])
    sampling = hires.Sampling(prompt="a picture", steps=steps)
    native_latent, latent = (
        seeded_noise((host.latent_channels, length // 8, length // 8), [0]).to(host.device)
        for length in (host.native_side, side)
    )
    method = Fam(config) if config.fm else Method(config)
    steered = method.begin(Stage((side, side)), Pictures(native_latent, latent, latent, None, steps=steps))
    cuda = host.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(host.device)
        torch.cuda.synchronize(host.device)
    with host.model([sampling.words], size=(side, side), cfg_scale=sampling.cfg_scale, steered=steered) as model:
        began = time.perf_counter()
        sampler.run(latent, model, modify=steered.before_step)
        if cuda:
            torch.cuda.synchronize(host.device)
    peak = torch.cuda.max_memory_allocated(host.device) if cuda else 0
    return time.perf_counter() - began, float(peak)


def _machine(host: DiffusersHost) -> str:
    if host.device.type == "cuda":
        return torch.cuda.get_device_name(host.device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
