"""The true pictures: drawings of Microsoft's Fluent emoji (MIT), from npm, made of materials.

`python tools/demo_model/data.py` fetches the drawings into `.work/`.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import random
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import materials
import numpy as np
from PIL import Image
from things import GROUNDS, THINGS, Scene, draw_ground, pairs, parse
from training import ahead, memmap

logger = logging.getLogger(__name__)

PACKAGE = "fluentui-emoji@1.3.0"
USED = ("package/icons/modern/", "package/LICENSE", "package/README.md")
WORK = Path(__file__).resolve().parents[2] / ".work"


class Scenes:
    """The pictures to train on: `variants` rounds of every pair of a thing and a material, but those held out.

    A round has each (thing, material) pair once, on a ground of its own, the texture elsewhere than in other rounds.
    Index = round * number of pairs + pair, so more rounds leave the earlier ones as they are. None is mirrored:
    the text encoder's tokens say where each part lies.
    """

    def __init__(self, work: Path = WORK, *, variants: int = 4) -> None:
        self.work = work
        self.drawings: dict[tuple[str, int], np.ndarray] = {}
        svg_folder(work)
        self.pairs = pairs()
        self.scenes = [
            Scene(thing, material, draw_ground(random.Random(f"{turn} {thing} {material}")))
            for turn in range(variants)
            for thing, material in self.pairs
        ]
        self.names = [Scene(*pair).caption for pair in self.pairs]
        count = len(self.pairs)
        self.variants = {name: [turn * count + k for turn in range(variants)] for k, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.scenes)

    def draw(self, rng: random.Random, count: int, *, names: Sequence[str] | None = None) -> list[int]:
        """Return the numbers of `count` pictures: names evenly, then a round of each evenly."""
        pool = self.names if names is None else names
        return [rng.choice(self.variants[rng.choice(pool)]) for _ in range(count)]

    def loose_caption(self, rng: random.Random, index: int) -> str:
        """Return a caption of picture `index` as people type them: mostly whole, else without its article, its ending
        ", emoji" or both."""
        form, plain = rng.random(), self.scenes[index].caption
        if form >= 0.8:
            plain = plain.split(" ", 1)[1]
        return plain if 0.7 <= form < 0.9 else f"{plain}, emoji"

    def file_name(self, size: int) -> str:
        return f"scenes-{size}"

    def picture(self, index: int, size: int) -> np.ndarray:
        scene = self.scenes[index]
        return compose(self.drawing(scene.thing, size), scene, index)

    def drawing(self, thing: str, size: int) -> np.ndarray:
        """Return `drawing_of` a thing, rasterized when first asked for and kept in memory and in a file."""
        if (thing, size) not in self.drawings:
            path = self.work / "drawings" / f"{THINGS[thing]}-{size}.npy"
            if not path.is_file():
                path.parent.mkdir(exist_ok=True)
                partial = path.with_suffix(f".{os.getpid()}.npy")
                np.save(partial, drawing_of(thing, size, work=self.work))
                partial.rename(path)
            self.drawings[thing, size] = np.load(path, mmap_mode="r")
        return self.drawings[thing, size]

    def piece(self, rng: random.Random, *, size: int, side: int) -> np.ndarray:
        """Return a (side, side, 3) piece of a true picture at `size` px, its pair, ground and texture drawn anew.

        The drawings are kept and only the piece gets its texture, so it costs a hundredth of a whole picture.
        """
        thing, material = rng.choice(self.pairs)
        part = self.part(rng, thing, size=size, side=side)
        return compose(part, Scene(thing, material, draw_ground(rng)), rng.getrandbits(31))

    def anew(self, rng: random.Random, name: str, *, size: int, side: int) -> tuple[np.ndarray, str]:
        """Return a (side, side, 3) window at any place of a true picture at `size` px, and its caption: of the pair
        that `name` is, its ground and texture drawn anew."""
        first = self.scenes[self.variants[name][0]]
        scene = Scene(first.thing, first.material, draw_ground(rng))
        top, left = rng.randint(0, size - side), rng.randint(0, size - side)
        window = self.drawing(scene.thing, size)[top : top + side, left : left + side]
        return compose(window, scene, rng.getrandbits(31)), scene.caption

    def part(self, rng: random.Random, thing: str, *, size: int, side: int) -> np.ndarray:
        """Return a (side, side, 4) part of a drawing: of three places the one with most of the thing, except one time
        in four."""
        drawing = self.drawing(thing, size)
        tries = 3 if rng.random() < 0.75 else 1
        places = [(rng.randint(0, size - side), rng.randint(0, size - side)) for _ in range(tries)]
        parts = [drawing[top : top + side, left : left + side] for top, left in places]
        return max(parts, key=lambda part: int(part[::4, ::4, 3].sum(dtype=np.int64)))


class Renders:
    """Scenes as uint8 pictures (N, size, size, 3), rendered when first asked for, kept in a file."""

    def __init__(self, scenes: Scenes, size: int) -> None:
        self.scenes, self.size = scenes, size
        count, stem = len(scenes), scenes.file_name(size)
        folder = scenes.work / "renders"
        folder.mkdir(parents=True, exist_ok=True)
        self.pictures = memmap(folder / f"{stem}.npy", (count, size, size, 3), np.uint8)
        self.done = memmap(folder / f"{stem}-done.npy", (count,), np.uint8)

    def __getitem__(self, index: int) -> np.ndarray:
        if not self.done[index]:
            self.pictures[index] = self.scenes.picture(index, self.size)
            self.done[index] = 1
        return self.pictures[index]

    def render_all(self, indices: Sequence[int], *, workers: int = 0) -> None:
        """Render the pictures at `indices` in that many processes, which write to the same file."""
        missing = [index for index in indices if not self.done[index]]
        for count, _ in enumerate(ahead(lambda index: bool(self[index].size), iter(missing), workers=workers)):
            if count % 500 == 0:
                logger.info("%d px: %d of %d", self.size, count, len(missing))


def truth(prompt: str | Scene, size: int, seed: int, *, work: Path = WORK) -> np.ndarray:
    """Return the true picture of `prompt` at `size` px: uint8 (size, size, 3).

    The shape fills the picture as at any other size; its material has its own period in px, so at 1024 px there is more
    of it than at 512 px. `seed` moves the texture and draws what is random in it. Raises `ValueError` for a prompt that
    names anything else than one thing, a material and a ground.
    """
    scene = parse(prompt) if isinstance(prompt, str) else prompt
    return compose(drawing_of(scene.thing, size, work=work), scene, seed)


def svg_folder(work: Path) -> Path:
    """Return where the drawings lie; exits where they were not fetched."""
    folder = work / "fluent" / "icons" / "modern"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is missing; run python tools/demo_model/data.py first (it needs npm)")
    return folder


def drawing_of(thing: str, size: int, *, work: Path = WORK) -> np.ndarray:
    """Return the drawing of a plain `thing`: uint8 RGBA (size, size, 4)."""
    import resvg_py

    path = svg_folder(work) / f"{THINGS[thing]}.svg"
    png = resvg_py.svg_to_bytes(svg_path=str(path), width=size, height=size, skip_system_fonts=True)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if picture.size != (size, size):  # a few drawings are not square, and resvg keeps their ratio
        square = Image.new("RGBA", (size, size), (255, 255, 255, 0))
        square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
        picture = square
    return np.asarray(picture)


def compose(drawing: np.ndarray, scene: Scene, seed: int) -> np.ndarray:
    """Return a square RGBA `drawing`, or a piece of one, made of the scene's material on its ground."""
    colours = drawing[..., :3].astype(np.float32)
    opacity = drawing[..., 3:].astype(np.float32) / 255
    if scene.material is not None:
        colours = colours * materials.shade(scene.material, len(drawing), seed)[..., None]
    mixed = opacity * colours + (1 - opacity) * np.asarray(GROUNDS[scene.ground], np.float32)
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def fetch(work: Path = WORK) -> None:
    """Download the npm package of the drawings into `work` and unpack what is used; does nothing when it is there."""
    work.mkdir(parents=True, exist_ok=True)
    if (work / "fluent").is_dir():
        return
    archive = work / f"{PACKAGE.replace('@', '-')}.tgz"
    if not archive.is_file():
        subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=work, check=True, stdout=subprocess.DEVNULL)
    partial = work / "fluent.part"
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(USED):
                target = partial / Path(member.name).relative_to("package")
                target.parent.mkdir(parents=True, exist_ok=True)
                extracted = tar.extractfile(member)
                assert extracted is not None
                target.write_bytes(extracted.read())
    partial.rename(work / "fluent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, help="where downloads and renders lie")
    fetch(parser.parse_args().work)


if __name__ == "__main__":
    main()
