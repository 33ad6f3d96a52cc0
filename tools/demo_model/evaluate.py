"""Measure the embedded model: `python tools/demo_model/evaluate.py --count 512`. Stopped, it goes on where it was.

Everything that says demo-net is measured by demo-net, our own classifier of 128 px pictures; none of it is FID, KID or
CLIP. Pictures and `table.md` land in `.work/eval/`. With few pictures FD is biased upwards: compare equal n only.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from data import Collection, Renders
from made import METHODS, Made, Row, add_options, save_grid
from torch import Tensor

from fam_ext.demo.demo_net import (
    DemoNet,
    agreement,
    at_net_size,
    frechet_distance,
    kernel_distance,
    labels,
    load_demo_net,
    look,
)

logger = logging.getLogger(__name__)

WHITE_TOLERANCE = 0.1
SMALLEST_PIECE = 0.002


def components(image: Tensor) -> int:
    """Return how many pieces stand on the white ground of (3, H, W) in [0, 1]: 8-connected, at 128 px, specks
    under 0.2 % of the picture not counted."""
    small = at_net_size(image[None])[0]
    foreground = ((1 - small).amax(dim=0) > WHITE_TOLERANCE).float()
    numbers = foreground * torch.arange(1, foreground.numel() + 1, dtype=torch.float32).view_as(foreground)
    while True:
        # each pixel takes the largest number around it, until every piece has one
        spread = F.max_pool2d(numbers[None, None], 3, stride=1, padding=1)[0, 0] * foreground
        if torch.equal(spread, numbers):
            break
        numbers = spread
    _, sizes = numbers[numbers > 0].unique(return_counts=True)
    return int((sizes >= SMALLEST_PIECE * foreground.numel()).sum())


def psnr(image: Tensor, other: Tensor) -> float:
    """Return the PSNR in dB of two pictures in [0, 1]; equal ones give infinity."""
    error = (image - other).square().mean().item()
    return math.inf if error == 0 else -10 * math.log10(error)


def shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (3, H, W) at `size`, low-pass filtered."""
    return F.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)


def halo(picture: Tensor, decoded: Tensor, *, reach: int = 8) -> tuple[float, float]:
    """Return the 99th percentile of the error on white ground within `reach` px of the object, and farther away."""
    foreground = ((1 - picture).amax(dim=0) > 0.02).float()[None, None]
    near = F.max_pool2d(foreground, 2 * reach + 1, stride=1, padding=reach)[0, 0] > 0
    ground = foreground[0, 0] == 0
    error = (picture - decoded).abs().amax(dim=0)
    parts = (error[ground & near], error[ground & ~near])
    return tuple(part.quantile(0.99).item() if part.numel() else 0.0 for part in parts)  # pyright: ignore[reportReturnType]


class Evaluation(Made):
    """One model, one seed, one way of sampling."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.collection = Collection(options.work)
        # of these names training saw no more skin tones than this
        self.first = Collection(options.work, variants=options.first_variants)

    @cached_property
    def net(self) -> DemoNet:
        return load_demo_net()

    def prompts(self, count: int, *, held_out: bool) -> list[int]:
        """Return indices of pictures whose captions are asked for: names even, the first n the same for any n."""
        pool = sorted(self.collection.held_out) if held_out else self.collection.training_names()
        return self.collection.draw(random.Random(self.options.seed * 2 + int(held_out)), count, names=pool)

    def first_prompts(self, count: int) -> list[int]:
        """Return indices as `prompts` does, of the names that training drew most, listed in `--first`."""
        pool = self.collection.first_names(self.options.first)
        return self.first.draw(random.Random(self.options.seed), count, names=pool)

    def prompt(self, index: int) -> str:
        return self.collection.emojis[index].caption

    # --- what is measured

    def vae_rows(self) -> list[Row]:
        rows: list[Row] = []
        for size in sorted({self.side, 512}):
            bar = "at least 31 dB" if size == 512 else ""
            renders = Renders(self.collection, size)
            values: list[float] = []
            near: list[float] = []
            far: list[float] = []
            for index in self.prompts(self.options.vae_count, held_out=True):
                picture = torch.from_numpy(renders[index].copy()).permute(2, 0, 1).float() / 255
                decoded = self.host.decode(self.host.encode(picture[None]))[0]
                values.append(psnr(picture, decoded))
                for part, value in zip((near, far), halo(picture, decoded), strict=True):
                    part.append(value)
            n = len(values)
            rows.append((f"VAE, PSNR on renders at {size} px (held-out names, n {n})", f"{_mean(values):.1f} dB", bar))
            text = f"{_mean(near):.3f} / {_mean(far):.3f}"
            rows.append((f"VAE, error on white near / far from the object at {size} px (p99, n {n})", text, ""))
        return rows

    def native_rows(self) -> list[Row]:
        count = self.options.count
        indices = self.prompts(count, held_out=False)
        others = self.prompts(2 * count, held_out=False)[count:]
        return self._compared(indices, others, "native", "training names")

    def first_rows(self) -> list[Row]:
        count = self.options.first_count
        if self.options.first is None or not count:
            return []
        indices = self.first_prompts(2 * count)
        return self._compared(indices[:count], indices[count:], "first", f"names of {self.options.first.name}")

    def _compared(self, indices: Sequence[int], others: Sequence[int], kind: str, names: str) -> list[Row]:
        """Return what native pictures of `indices` measure beside their renders and those of `others`."""
        rows: list[Row] = []
        renders = Renders(self.collection, 128 if self.options.small_renders else self.side)
        real = [torch.from_numpy(renders[index].copy()).permute(2, 0, 1).float() / 255 for index in indices]
        wanted = self._wanted(indices)
        real_features, real_logits = look(self.net, real)
        natives = self.native(indices, kind)
        features, logits = look(self.net, natives)
        save_grid(natives, self.folder / f"{kind}.png")
        n = f"{names}, n {len(indices)}"
        for name, seen in (("renders", real_logits), ("native pictures", logits)):
            top1, top5 = agreement(seen, wanted)
            bar = "at least 55 / 75 %" if name != "renders" else ""
            rows.append((f"demo-net top-1 / top-5 agreement, {name} ({n})", _percents(top1, top5), bar))
        more = [torch.from_numpy(renders[index].copy()).permute(2, 0, 1).float() / 255 for index in others]
        more_features = look(self.net, more)[0]
        for name, seen in (("renders of other draws", more_features), ("native pictures", features)):
            text = f"{frechet_distance(seen, real_features):.2f} / {kernel_distance(seen, real_features):.4f}"
            rows.append((f"FD / KD on demo-net to renders, {name} ({n})", text, ""))
        pieces = [_mean([components(image) for image in images]) for images in (real, natives)]
        rows.append((f"connected pieces, renders / native ({n})", f"{pieces[0]:.2f} / {pieces[1]:.2f}", "within 10 %"))
        return rows

    def held_out_rows(self) -> list[Row]:
        if not self.options.held_out:
            return []
        indices = self.prompts(self.options.held_out, held_out=True)
        _, logits = look(self.net, self.native(indices, "held-out"))
        text = _percents(*agreement(logits, self._wanted(indices)))
        return [(f"demo-net top-1 / top-5 agreement, held-out names (n {len(indices)})", text, "")]

    def hires_rows(self) -> list[Row]:
        first, rows = self.options.first is not None, []
        count = min(self.options.hires, self.options.first_count if first else self.options.count)
        if not count:
            return []
        indices = self.first_prompts(count) if first else self.prompts(count, held_out=False)
        kind, before = ("first", "first-") if first else ("native", "")
        natives = self.native(indices, kind)
        wanted = self._wanted(indices)
        _, logits = look(self.net, natives)
        rows.append((f"2x: {kind}, top-1 / top-5 (n {count})", _percents(*agreement(logits, wanted)), ""))
        columns = [natives]
        for method in self.options.methods:
            pictures = self.upscaled(indices, natives, method, before=before)
            columns.append([shrunk(picture, (self.side, self.side)) for picture in pictures])
            _, logits = look(self.net, pictures)
            close = [psnr(small, native) for small, native in zip(columns[-1], natives, strict=True)]
            pieces = _mean([components(picture) for picture in pictures])
            agreed = _percents(*agreement(logits, wanted))
            bar = "half of native's, under 13 dB" if method == "direct" else ""
            text = f"{agreed}; {_mean(close):.1f} dB; {pieces:.2f} pieces"
            rows.append((f"2x: {method}, top-1 / top-5, PSNR to native (n {count})", text, bar))
        save_grid([column[row] for row in range(min(count, 8)) for column in columns],
                  self.folder / "hires.png", across=len(columns))  # fmt: skip
        return rows

    def time_rows(self) -> list[Row]:
        wall, busy = self.load_seconds
        rows = [("load, with its imports: time / CPU time", f"{wall:.1f} / {busy:.1f} s", "under 2 s")]
        for kind, seconds in self.seconds.items():
            bar = "" if "CPU" in kind else "under 8 s" if kind.endswith(f"-{self.side}") else "under 40 s"
            rows.append((f"time of {kind} (mean of {len(seconds)})", f"{_mean(seconds):.1f} s", bar))
        return rows

    def _wanted(self, indices: Sequence[int]) -> list[int]:
        numbers = {name: number for number, name in enumerate(labels())}
        return [numbers[self.collection.emojis[index].name] for index in indices]

    def run(self) -> str:
        """Return the table in Markdown, also written to `folder`."""
        rows = [*self.vae_rows(), *self.native_rows(), *self.first_rows(), *self.held_out_rows(), *self.hires_rows()]
        rows += self.time_rows()
        return self.write_table(rows, "table.md")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


def _percents(first: float, second: float) -> str:
    return f"{100 * first:.1f} / {100 * second:.1f} %"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--count", type=int, default=512, help="native pictures of training captions")
    parser.add_argument("--first", type=Path, help="file of the names that training drew most, measured on their own")
    parser.add_argument("--first-count", type=int, default=64, help="native pictures of names in --first")
    parser.add_argument("--first-variants", type=int, default=2, help="skin tones a name of --first was taught in")
    parser.add_argument("--held-out", type=int, default=128, help="native pictures of held-out names")
    parser.add_argument("--hires", type=int, default=32, help="pictures at 2x, for each method")
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=["direct", "fam-c0.5"])
    parser.add_argument("--vae-count", type=int, default=16, help="renders through the VAE at each size")
    parser.add_argument("--small-renders", action="store_true", help="compare with renders at 128 px, which are quick")
    return parser.parse_args(arguments)


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    evaluation = Evaluation(parse())
    table = evaluation.run()
    print(table)
    print(f"pictures in {evaluation.folder}")


if __name__ == "__main__":
    main()
