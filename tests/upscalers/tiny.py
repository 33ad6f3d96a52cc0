"""A tiny ESRGAN with random weights, under the names that Real-ESRGAN has for them."""

import torch

from tools.real_esrgan import IN_BLOCK, names

FILTERS, GROWTH = 8, 32  # spandrel reads the first from the weights, the second it takes for granted


def shapes(blocks=1):
    """Yield (name, out, in) of each convolution, first to last."""
    for name in names(6 + IN_BLOCK * blocks):
        kind = name.rpartition(".")[2]
        if kind.startswith("conv") and kind[4:].isdigit():
            nth = int(kind[4:])
            yield name, FILTERS if nth == 5 else GROWTH, FILTERS + (nth - 1) * GROWTH
        else:
            yield name, 3 if name == "conv_last" else FILTERS, 3 if name == "conv_first" else FILTERS


def state_dict(blocks=1):
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, out, into in shapes(blocks):
        state[f"{name}.weight"] = torch.randn(out, into, 3, 3, generator=generator) * (into * 9) ** -0.5
        state[f"{name}.bias"] = torch.randn(out, generator=generator) * 0.1
    return state
