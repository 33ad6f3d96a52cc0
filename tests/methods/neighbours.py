"""What the tests of the neighbours share: a pass that has begun, a network, a kernel."""

import math
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fam_ext.core.guide import seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.hosts.layers import Layer, select_layers
from fam_ext.methods.base import Condition, Pictures

LEVEL = NoiseLevel(500.0, 0.6, 0.8)
CONDITION = Condition(lambda: torch.zeros(2, dtype=torch.int64), find_uncond=lambda: torch.tensor([True, False]))


def begun(method, size=(16, 16), native=(8, 8), **more):
    """Return the method's last pass from `native` to `size`, in latent pixels."""
    stage = method.stages((8 * size[0], 8 * size[1]), (8 * native[0], 8 * native[1]))[-1]
    target = None if stage.upsample is None else seeded_noise((4, *size), [2])
    pictures = Pictures(seeded_noise((4, *native), [1]), target, seeded_noise((4, *size), [3]), None, steps=10, **more)
    return method.begin(stage, pictures)


class Network:
    """Says of a latent its mean over the picture plus the latent; keeps the sizes it was given."""

    def __init__(self):
        self.sizes = []

    def __call__(self, latent, level, condition, *, phase="target"):
        self.sizes.append(tuple(latent.shape[-2:]))
        return latent + latent.mean(dim=(-2, -1), keepdim=True)


class Dilating:
    """A kernel that notes how it was run."""

    def __init__(self, stride=(1, 1)):
        self.runs = []
        self.stride = stride

    def __call__(self, feature_map, *, weight=None, dilation=(1, 1), stride=None):
        self.runs.append((tuple(feature_map.shape[-2:]), dilation, stride))
        step = stride or self.stride
        return feature_map[..., :: step[0], :: step[1]]


def convolutions(levels):
    """Return the names of the convolutions of SD1.5 (4 levels) or SDXL (3)."""
    names = []
    for block in range(levels):
        for side, layers, sampler in (("down", 2, "downsamplers"), ("up", 3, "upsamplers")):
            names += [f"{side}_blocks.{block}.resnets.{layer}.conv{one}" for layer in range(layers) for one in (1, 2)]
            names += [f"{side}_blocks.{block}.{sampler}.0.conv"] if block < levels - 1 else []
    return [
        "conv_in",
        *names,
        *(f"mid_block.resnets.{layer}.conv{one}" for layer in (0, 1) for one in (1, 2)),
        "conv_out",
    ]


def meant(sites, levels):
    """Return the names that `sites` means in that network."""
    return {layer.name for layer in select_layers([Layer(name, None, 0) for name in convolutions(levels)], sites)}


def starting(levels, *starts):
    return {name for name in convolutions(levels) if name.startswith(starts)}


def at(rho):
    return NoiseLevel(1000.0 * rho, 0.6, 0.8)


def phases_of(steered, rho):
    phases = []

    def call(latent, level, condition, *, phase="target"):
        phases.append(phase)
        return latent

    steered.around_model(call, torch.zeros(1, 4, *steered.pictures.noise.shape[-2:]), at(rho), CONDITION)
    return phases


def wave(cycles, size=(32, 32)):
    """Return (1, 1, H, W): so many cycles over the width."""
    line = torch.cos(2 * math.pi * cycles * torch.arange(size[1]) / size[1])
    return line.expand(1, 1, *size)


class Makings(TorchDispatchMode):
    """Counts the operations by name while it is open."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))
