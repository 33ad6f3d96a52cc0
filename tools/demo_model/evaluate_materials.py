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
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import compose, drawing_of
from made import METHODS, Made, Row, add_options, save_grid
from things import MATERIALS, THINGS, Scene, draw_scenes
from torch import Tensor

from fam_ext.demo.demo_net import FOLDER, Judge, crops_of, load_demo_net
from fam_ext.quality.detail import period_error
from fam_ext.quality.statistics import Array, Estimate, about, frechet, kernel, mean, set_distance
from fam_ext.quality.structure import downsampled, kept

RESIZE = "resize"


def as_picture(values: Tensor) -> np.ndarray:
    """Return (3, H, W) in [0, 1] as uint8 (H, W, 3)."""
    return (values.permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()


def as_values(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


def enlarged(picture: Tensor, side: int) -> Tensor:
    """Return (3, H, W) as a plain bicubic resize makes it."""
    return F.interpolate(picture[None], size=(side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)


def with_interval(values: Sequence[float | None], unit: str = "", *, digits: int = 2) -> str:
    """Return "mean (low to high, n N)" of one value a picture, without those that have none."""
    found = mean(values)
    return "n 0" if found is None else shown(found, unit, digits=digits)


def shown(found: Estimate, unit: str = "", *, digits: int = 2) -> str:
    """Return "value (low to high, n N)"; "value (n N)" where there is no interval."""
    spread = "" if found.low is None else f"{found.low:.{digits}f} to {found.high:.{digits}f}, "
    return f"{found.value:.{digits}f}{unit} ({spread}n {found.n})"


def beside(pictures: Sequence[Tensor], others: Sequence[Tensor], *, across: int = 8) -> list[Tensor]:
    """Return `pictures` and `others` in turns of `across`: in a grid as wide a row of each under the other."""
    starts = range(0, len(pictures), across)
    return [picture for start in starts for row in (pictures, others) for picture in row[start : start + across]]


def share(right: Sequence[bool]) -> str:
    return with_interval([100.0 * value for value in right], " %", digits=1)


def distances(pictures: Sequence[Array], others: Sequence[Array]) -> str:
    """Return "FD (interval); KD" of the crop features (N, D) of two sets of pictures, of the same scenes in order."""
    found = about(set_distance(frechet, pictures, others, paired=True))
    if found is None:
        return f"n {len(pictures)}"
    apart = kernel(pictures, others, paired=True)[0]
    return f"{shown(found)}; {apart:.4f}"


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

    def crop_features(self, pictures: Sequence[Tensor]) -> list[Array]:
        """Return for each picture the features (N, 128) of its crops on the thing."""
        return [self.judge.crop_features(crops_of(picture)).double().numpy() for picture in pictures]

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
        columns = [[as_values(downsampled(as_picture(picture), (self.side, self.side))) for picture in column[:8]]
                   for column in sheet]  # fmt: skip
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
        wanted: Sequence[Array],
    ) -> list[Row]:
        """Return the rows of one method; `wanted` are the crop features of the true pictures at 2x."""
        drawn, native, true = ([as_picture(one) for one in ones] for ones in (pictures, natives, truths))
        thing, material = self.agreement(pictures, scenes)
        off = [period_error(one, other) for one, other in zip(drawn, true, strict=True)]
        left = [kept(one, other) for one, other in zip(drawn, native, strict=True)]
        structure, more, colours = ([each[key] for each in left] for key in ("psnr", "objects", "colour_mean"))
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
