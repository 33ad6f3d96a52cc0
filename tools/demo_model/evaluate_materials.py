"""Measure a model of materials against true pictures: what it draws natively, and what each method makes at 2x.

    python tools/demo_model/evaluate_materials.py --model .work/materials/model

The judge is demo-net, our own classifier; FD and KD are on its features of 128 px crops that are never resized, so they
see whether a texture has its size. Every interval is a bootstrap of 95 % over pictures. "resize" is the native
picture enlarged, which no method may lose to in texture. Stopped, it goes on; pictures and `materials.md` land in
`.work/eval/`.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import compose, drawing_of
from made import METHODS, Made, Row, add_options, save_grid
from measures import coarse_colour, components, interval, psnr, shrunk, texture_period
from things import GROUNDS, MATERIALS, THINGS, Scene, draw_scenes
from torch import Tensor

from fam_ext.demo.demo_net import FOLDER, Judge, crops_of, frechet_distance, kernel_distance, load_demo_net

RESIZE = "resize"
DRAWS = 100


def as_picture(values: Tensor) -> np.ndarray:
    """Return (3, H, W) in [0, 1] as uint8 (H, W, 3)."""
    return (values.permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()


def as_values(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


def enlarged(picture: Tensor, side: int) -> Tensor:
    """Return (3, H, W) as a plain bicubic resize makes it."""
    return F.interpolate(picture[None], size=(side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)


def period_error(picture: Tensor, truth: Tensor) -> float | None:
    """Return how far a picture's texture period is from the true one, in octaves: 0 is right, 1 is two times as large;
    None where the true picture has no texture. A picture that lost its texture counts as one octave off."""
    wanted, found = (texture_period(as_picture(values)) for values in (truth, picture))
    if wanted is None:
        return None
    return 1.0 if found is None else abs(math.log2(found / wanted))


def pieces(picture: Tensor, ground: str) -> int:
    """Return in how many pieces the thing stands on its ground."""
    colour = torch.tensor(GROUNDS[ground])[:, None, None] / 255
    return components(1 - (picture - colour).abs())


def distance_interval(
    measure: Callable[[Tensor, Tensor], float],
    pictures: Sequence[Tensor],
    others: Sequence[Tensor],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a distance between the crops of `pictures` and those of `others`, each
    entry being one picture's features (N, D): pictures are drawn again, not crops, which are alike in one picture."""
    rng = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(draws):
        chosen = [
            torch.cat([side[number] for number in rng.integers(len(side), size=len(side))])
            for side in (pictures, others)
        ]
        found.append(measure(*chosen))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def with_interval(values: Sequence[float], unit: str = "", *, digits: int = 2) -> str:
    """Return "mean (low to high, n N)" of one value a picture."""
    if not values:
        return "n 0"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}{unit} (n 1)"
    low, high = interval(values)
    return f"{mean:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f}, n {len(values)})"


def beside(pictures: Sequence[Tensor], others: Sequence[Tensor], *, across: int = 8) -> list[Tensor]:
    """Return `pictures` and `others` in turns of `across`: in a grid as wide a row of each under the other."""
    starts = range(0, len(pictures), across)
    return [picture for start in starts for row in (pictures, others) for picture in row[start : start + across]]


def share(right: Sequence[bool]) -> str:
    return with_interval([100.0 * value for value in right], " %", digits=1)


def distances(pictures: Sequence[Tensor], others: Sequence[Tensor]) -> str:
    """Return "FD (interval); KD" of two sets of pictures' crop features."""
    if len(pictures) < 2:
        return f"n {len(pictures)}"
    both = torch.cat(list(pictures)), torch.cat(list(others))
    low, high = distance_interval(frechet_distance, pictures, others)
    return f"{frechet_distance(*both):.2f} ({low:.2f} to {high:.2f}, n {len(pictures)}); {kernel_distance(*both):.4f}"


def judge_in(folder: Path) -> Judge:
    """Return the demo-net in `folder`; exits when it does not know these scripts' things or materials."""
    judge = load_demo_net(folder)
    if missing := ({*THINGS} - {*judge.things}) | ({*MATERIALS} - {*judge.kinds}):
        raise SystemExit(f"the judge in {folder} does not know {', '.join(sorted(missing))}; train it anew (judge.py)")
    return judge


class Evaluation(Made):
    """A model of materials. Its scenes are drawn once: half of pairs that were trained on, then unseen ones."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.judge = judge_in(options.judge)
        self.seen = draw_scenes(random.Random(options.seed), options.count)
        self.unseen = draw_scenes(random.Random(options.seed + 1), options.unseen, held_out=True)
        self.scenes = [*self.seen, *self.unseen]

    def prompt(self, index: int) -> str:
        return self.scenes[index].caption

    def truths(self, scenes: Sequence[Scene], size: int, *, seed: int = 0) -> list[Tensor]:
        return [
            as_values(compose(drawing_of(scene.thing, size, work=self.options.work), scene, seed + number))
            for number, scene in enumerate(scenes)
        ]

    def agreement(self, pictures: Sequence[Tensor], scenes: Sequence[Scene]) -> tuple[str, str]:
        """Return the shares of pictures whose thing, and whose material, is what was asked for."""
        both = list(zip(pictures, scenes, strict=True))
        return (
            share([self.judge.thing_of(picture) == scene.thing for picture, scene in both]),
            share([self.judge.material_of(picture) == scene.material for picture, scene in both]),
        )

    def crop_features(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        """Return for each picture the features (N, 128) of its crops on the thing."""
        return [self.judge.crop_features(crops_of(picture)) for picture in pictures]

    def native_rows(self) -> list[Row]:
        rows: list[Row] = []
        first = 0
        for name, scenes, bar in (("seen pairs", self.seen, "90 %"), ("unseen pairs", self.unseen, "75 %")):
            natives = self.native(range(first, first + len(scenes)), name.replace(" ", "-"))
            first += len(scenes)
            if not natives:
                continue
            truths = self.truths(scenes, self.side)
            save_grid(beside(natives, truths), self.folder / f"{name.replace(' ', '-')}.png", rows=16)
            for kind, pictures in (("true pictures", truths), ("native pictures", natives)):
                held = f"at least {bar}" if kind == "native pictures" else ""
                for what, value in zip(("thing", "material"), self.agreement(pictures, scenes), strict=True):
                    rows.append((f"{what} agreement, {kind}, {name}", value, held))
            features = [self.crop_features(pictures) for pictures in (truths, natives)]
            others = self.crop_features(self.truths(scenes, self.side, seed=10**6))
            rows.append((f"crop FD; KD of other true pictures, {name}", distances(features[0], others), ""))
            rows.append((f"crop FD; KD of native pictures, {name}", distances(features[1], others), "2x as much"))
        return rows

    def hires_rows(self) -> list[Row]:
        """Return what each method makes of the first `--hires` scenes at 2x."""
        scenes = self.seen[: self.options.hires]
        if not scenes:
            return []
        rows: list[Row] = []
        side = 2 * self.side
        indices = range(len(scenes))
        natives = self.native(indices, "seen-pairs")
        truths = self.truths(scenes, side)
        wanted = self.crop_features(truths)
        sheet = [natives, truths]
        for method in (RESIZE, *self.options.methods):
            if method == RESIZE:
                pictures = [enlarged(native, side) for native in natives]
            else:
                pictures = self.upscaled(indices, natives, method, before="seen-pairs-")
            sheet.append(pictures)
            rows += self.method_rows(method, pictures, natives, truths, scenes, wanted)
        columns = [[shrunk(picture, (self.side, self.side)) for picture in column[:8]] for column in sheet]
        save_grid([column[row] for row in range(min(len(scenes), 8)) for column in columns],
                  self.folder / "materials-2x.png", across=len(columns))  # fmt: skip
        return rows

    def method_rows(
        self,
        method: str,
        pictures: Sequence[Tensor],
        natives: Sequence[Tensor],
        truths: Sequence[Tensor],
        scenes: Sequence[Scene],
        wanted: Sequence[Tensor],
    ) -> list[Row]:
        """Return the rows of one method; `wanted` are the crop features of the true pictures at 2x."""
        small = [shrunk(picture, (self.side, self.side)) for picture in pictures]
        thing, material = self.agreement(pictures, scenes)
        off = [error for pair in zip(pictures, truths, strict=True) if (error := period_error(*pair)) is not None]
        more = [
            float(abs(pieces(picture, scene.ground) - pieces(native, scene.ground)))
            for picture, native, scene in zip(pictures, natives, scenes, strict=True)
        ]
        colours = [
            float(coarse_colour(as_picture(one), as_picture(native)).mean())
            for one, native in zip(small, natives, strict=True)
        ]
        structure = [min(psnr(one, native), 99.0) for one, native in zip(small, natives, strict=True)]
        return [
            (f"2x {method}: thing agreement", thing, ""),
            (f"2x {method}: material agreement", material, ""),
            (f"2x {method}: texture period off the true one", with_interval(off, " octaves"), ""),
            (
                f"2x {method}: crop FD; KD to true pictures of that size",
                distances(self.crop_features(pictures), wanted),
                "",
            ),
            (f"2x {method}: structure, PSNR to native", with_interval(structure, " dB", digits=1), ""),
            (f"2x {method}: pieces more or fewer than native", with_interval(more), ""),
            (f"2x {method}: coarse colours off native's", with_interval(colours, " levels"), ""),
        ]

    def run(self) -> str:
        """Return the table in Markdown, also written to `folder`."""
        rows = [*self.native_rows(), *self.hires_rows()]
        return self.write_table(rows, "materials.md")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--judge", type=Path, default=FOLDER, help="folder of a demo-net; else the shipped one")
    parser.add_argument("--count", type=int, default=256, help="native pictures of pairs that were trained on")
    parser.add_argument("--unseen", type=int, default=64, help="native pictures of pairs that were not")
    parser.add_argument("--hires", type=int, default=64, help="pictures at 2x, for each method")
    methods = ["direct", "from-native", "skip-residual", "fm", "fam-c0.5"]
    parser.add_argument("--methods", nargs="*", choices=sorted(METHODS), default=methods)
    options = parser.parse_args(arguments)
    if options.hires > options.count:
        parser.error(f"--hires {options.hires} is more than --count {options.count}; raise --count")
    return options


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    evaluation = Evaluation(parse())
    print(evaluation.run())
    print(f"pictures in {evaluation.folder}")


if __name__ == "__main__":
    main()
