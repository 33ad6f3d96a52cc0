"""Pictures that a measurement makes: once, kept in a folder that is named by the model and how it was sampled."""

from __future__ import annotations

import argparse
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from data import WORK
from PIL import Image
from torch import Tensor

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.standalone import load_pipeline, weights_tag

Row = tuple[str, str, str]
"""What is measured, the value, the bar it is held against ("" = none)."""

METHODS: dict[str, tuple[str, FamConfig]] = {
    "direct": ("direct", FamConfig()),
    "from-native": ("direct-from-native", FamConfig()),
    "skip-residual": ("skip-residual", FamConfig()),
    "fm": ("fam", FamConfig(am=False)),
    "fam-c0.5": ("fam", FamConfig()),
    "fam-c1": ("fam", FamConfig(cutoff=1.0)),
    "fam-8cycles": ("fam", FamConfig(cutoff=8.0, cutoff_reference="cycles")),
    "fam-16cycles": ("fam", FamConfig(cutoff=16.0, cutoff_reference="cycles")),
}


def to_pixels(image: Image.Image) -> Tensor:
    """Return (3, H, W) in [0, 1]."""
    return hires.to_tensor(image)[0]


class Made(ABC):
    """One model, one seed, one way of sampling; a subclass says which prompt an index has."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tag = weights_tag(options.model)
        how = f"{self.tag}-steps{options.steps}-cfg{options.guidance:g}-seed{options.seed}-{options.dtype}"
        self.folder: Path = options.work / "eval" / how
        self.folder.mkdir(parents=True, exist_ok=True)
        self.host = load_pipeline(options.model, dtype=options.dtype)
        self.side = options.native or self.host.native_side

    @abstractmethod
    def prompt(self, index: int) -> str:
        """Return the prompt of picture `index`."""

    def sampling(self, index: int, number: int) -> hires.Sampling:
        return hires.Sampling(
            prompt=self.prompt(index),
            seed=self.options.seed * 100_000 + number,
            steps=self.options.steps,
            sampler="DDIM",
            cfg_scale=self.options.guidance,
        )

    def native(self, indices: Sequence[int], kind: str) -> list[Tensor]:
        size = (self.side, self.side)
        return [
            self._kept(
                f"{kind}-{self.side}", number, lambda i=index, n=number: hires.generate_native(
                    self.host, size=size, sampling=self.sampling(i, n)
                ).image
            )
            for number, index in enumerate(indices)
        ]  # fmt: skip

    def upscaled(self, indices: Sequence[int], natives: Sequence[Tensor], method: str, *, before: str) -> list[Tensor]:
        name, config = METHODS[method]
        size = (2 * self.side, 2 * self.side)
        return [
            self._kept(
                f"{before}{method}-{2 * self.side}", number, lambda i=index, n=number: hires.upscale(
                    self.host, hires.to_image(natives[n][None]), size=size, sampling=self.sampling(i, n),
                    config=config, method=name,
                ).image
            )
            for number, index in enumerate(indices)
        ]  # fmt: skip

    def write_table(self, rows: Sequence[Row], name: str) -> str:
        """Return `rows` as a Markdown table under what was sampled and on what; also written to `name` in `folder`."""
        options = self.options
        head = (
            f"Model {self.tag}, native {self.side} px, DDIM {options.steps}, guidance {options.guidance:g},"
            f" seed {options.seed}, {options.dtype}; {hardware()}"
        )
        lines = [head, "", "| measure | value | bar |", "|---|---|---|"]
        lines += [f"| {what} | {value} | {bar} |" for what, value, bar in rows]
        table = "\n".join(lines) + "\n"
        (self.folder / name).write_text(table, encoding="utf-8")
        return table

    def _kept(self, kind: str, number: int, make: Callable[[], Image.Image]) -> Tensor:
        path = self.folder / kind / f"{number:04}.png"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            image = make()
            partial = path.with_suffix(".part")
            image.save(partial, "PNG")
            partial.rename(path)
        return to_pixels(Image.open(path))


def hardware() -> str:
    """Return what the numbers were measured on, in words."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = f"{len(names)} x {names[0]}" if names else cpu
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}{gpu}, torch {torch.__version__}, {torch.get_num_threads()} threads"


def save_grid(images: Sequence[Tensor], path: Path, *, across: int = 8, rows: int = 8) -> None:
    """Write the first `across` x `rows` of `images` as one picture."""
    chosen = list(images[: across * rows])
    height, width = chosen[0].shape[-2:]
    sheet = Image.new("RGB", (across * width, -(-len(chosen) // across) * height), "white")
    for number, image in enumerate(chosen):
        sheet.paste(hires.to_image(image[None]), (number % across * width, number // across * height))
    sheet.save(path)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every measurement takes."""
    parser.add_argument("--model", help="diffusers folder; without it, the embedded model")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--native", type=int, help="side in px, where it isn't the model's own")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the weights")
