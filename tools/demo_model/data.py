"""The pictures and their captions: Microsoft's Fluent emoji (MIT), from npm, rendered by resvg.

`python tools/demo_model/data.py --sizes 128 256` fetches and renders into `.work/`; both can be stopped and go on.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import random
import re
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import materials
import numpy as np
from PIL import Image
from things import GROUNDS, THINGS, Scene, draw_ground, pairs, parse
from training import ahead, memmap

logger = logging.getLogger(__name__)

PICTURES = "fluentui-emoji@1.3.0"
WORDS = "emoji-datasource@16.0.0"
WORK = Path(__file__).resolve().parents[2] / ".work"
SKINS = ("default", "light", "medium-light", "medium", "medium-dark", "dark")
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Emoji:
    """One picture: `stem` is its file's name, `name` the base name that its variants share, `skin` None or of SKINS."""

    stem: str
    name: str
    skin: str | None = None

    @property
    def caption(self) -> str:
        """The plain caption: "a firefighter, medium skin, emoji"."""
        return caption(self.name, self.skin)


class Collection:
    """Every picture of the set, in order, with its synonyms and the held-out list.

    Of a name in six skin tones at most `variants` are drawn, another choice for each name.
    """

    def __init__(self, work: Path = WORK, *, variants: int = len(SKINS)) -> None:
        self.work, self.most = work, variants
        self.folder = work / "fluent" / "icons" / "modern"
        if not self.folder.is_dir():
            raise SystemExit(f"{self.folder} is missing; run python tools/demo_model/data.py first (it needs npm)")
        self.emojis = parse_stems(sorted(path.stem for path in self.folder.glob("*.svg")))
        self.names = sorted({emoji.name for emoji in self.emojis})

    @cached_property
    def variants(self) -> dict[str, list[int]]:
        """The indices of each base name's pictures."""
        found: dict[str, list[int]] = {name: [] for name in self.names}
        for index, emoji in enumerate(self.emojis):
            found[emoji.name].append(index)
        return {name: pick_variants(name, indices, self.most) for name, indices in found.items()}

    @cached_property
    def held_out(self) -> frozenset[str]:
        """About a tenth of the base names, never trained on: chosen by hash, so the list is the same everywhere."""
        return frozenset(name for name in self.names if is_held_out(name))

    @cached_property
    def synonyms(self) -> dict[str, list[str]]:
        """Other names of a base name, from emoji-datasource; most names have one or none."""
        entries = json.loads((self.work / "emoji-data" / "emoji.json").read_text(encoding="utf-8"))
        return match_synonyms(self.names, entries)

    def draw(self, rng: random.Random, count: int, *, names: Sequence[str] | None = None) -> list[int]:
        """Return `count` indices: base names evenly, then a variant evenly, so that skin tones crowd out nobody."""
        pool = list(names if names is not None else self.names)
        return [rng.choice(self.variants[rng.choice(pool)]) for _ in range(count)]

    def training_names(self) -> list[str]:
        return [name for name in self.names if name not in self.held_out]

    def first_names(self, path: Path) -> list[str]:
        """Return the training names that the file `path` lists, in its order; exits naming what no picture has."""
        listed = list(dict.fromkeys(path.read_text(encoding="utf-8").split()))
        unknown = [name for name in listed if name not in self.variants]
        if unknown:
            raise SystemExit(f"{path} lists {', '.join(unknown)}, which no picture is called; correct or remove that")
        return [name for name in listed if name not in self.held_out]

    def training_pool(self, first: Path | None, share: float) -> list[str]:
        """Return the training names to draw from evenly, those in the file `first` so often that they are about
        `share`, 0 to 1, of the draws."""
        names = self.training_names()
        if first is None:
            return names
        if not 0 < share < 1:
            raise SystemExit(f"--first-share is {share:g}; give a number above 0 and below 1")
        kept = self.first_names(first)
        others = [name for name in names if name not in set(kept)]
        times = max(1, round(share * len(others) / ((1 - share) * max(len(kept), 1))))
        return kept * times + others

    def draw_caption(self, rng: random.Random, index: int, *, synonym_share: float = 0.2) -> str:
        """Return a caption of picture `index`: its own name, or now and then a synonym of it."""
        emoji = self.emojis[index]
        others = self.synonyms.get(emoji.name, [])
        name = rng.choice(others) if others and rng.random() < synonym_share else emoji.name
        return caption(name, emoji.skin)

    def loose_caption(self, rng: random.Random, index: int, *, synonyms: float) -> str:
        """Return a caption of picture `index` as people type them: the plain one, a synonym's, or a part of it."""
        if rng.random() < synonyms:
            return self.draw_caption(rng, index, synonym_share=1.0)
        return part_of(rng, self.emojis[index].caption)

    def mirrorable(self, index: int) -> bool:
        return not self.mirrors_another(self.emojis[index].name)

    def mirrors_another(self, name: str) -> bool:
        """Whether the mirrored picture is, or says, something else: left and right, and who has a turned twin."""
        return bool(re.search(r"left|right|clockwise", name)) or f"{name}-facing-right" in self.names

    def file_name(self, size: int) -> str:
        """Return the stem of the files that hold what is made of the pictures at `size` px."""
        return f"{size}"

    def picture(self, index: int, size: int) -> np.ndarray:
        return render(self.folder / f"{self.emojis[index].stem}.svg", size)

    def __len__(self) -> int:
        return len(self.emojis)


class Scenes:
    """Things made of materials, with Collection's methods: `variants` rounds of every pair that is trained on.

    A round has each (thing, material) pair once, on a ground of its own, the texture elsewhere than in other rounds.
    Index = round * number of pairs + pair, so more rounds leave the earlier ones as they are.
    """

    def __init__(self, work: Path = WORK, *, variants: int = 4) -> None:
        self.work = work
        self.drawings: dict[tuple[str, int], np.ndarray] = {}
        if not (work / "fluent" / "icons" / "modern").is_dir():
            raise SystemExit(f"{work / 'fluent'} is missing; run python tools/demo_model/data.py first (it needs npm)")
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
        pool = self.names if names is None else names
        return [rng.choice(self.variants[rng.choice(pool)]) for _ in range(count)]

    def training_names(self) -> list[str]:
        return list(self.names)

    def training_pool(self, first: Path | None, share: float) -> list[str]:
        if first is not None:
            raise SystemExit(f"--first {first} lists names of emoji; leave it out with --scenes")
        return self.training_names()

    def draw_caption(self, rng: random.Random, index: int, *, synonym_share: float = 0.0) -> str:
        return self.scenes[index].caption

    def loose_caption(self, rng: random.Random, index: int, *, synonyms: float) -> str:
        """Return a caption of picture `index` as people type them."""
        return part_of(rng, f"{self.scenes[index].caption}, emoji")

    def mirrorable(self, index: int) -> bool:
        return False  # the text encoder's tokens say where each part lies

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


def part_of(rng: random.Random, plain: str) -> str:
    """Return the caption `plain`, mostly whole, else without ", emoji", its article or both."""
    form = rng.random()
    if form < 0.7:
        return plain
    bare = plain.removesuffix(", emoji")
    if form < 0.8:
        return bare
    bare = bare.split(" ", 1)[1]
    return bare if form < 0.9 else f"{bare}, emoji"


def collection_of(options: argparse.Namespace) -> Collection | Scenes:
    """Return what a script trains on: with --scenes things of materials, else all emoji."""
    kind = Scenes if options.scenes else Collection
    return kind(options.work, variants=getattr(options, "variants", 4))


def caption(name: str, skin: str | None = None) -> str:
    """Return "a NAME, SKIN skin, emoji" in plain words; "default" skin (yellow) is not mentioned."""
    words = name.replace("-", " ")
    article = "an" if words[0] in "aeiou" else "a"
    tone = f", {skin.replace('-', ' ')} skin" if skin and skin != "default" else ""
    return f"{article} {words}{tone}, emoji"


def parse_stems(stems: Iterable[str]) -> list[Emoji]:
    """Split file stems into base name and skin. Only what has a "-default" twin has skins: no police-car-light."""
    stems = list(stems)
    toned = {stem.removesuffix("-default") for stem in stems if stem.endswith("-default")}
    emojis: list[Emoji] = []
    for stem in stems:
        # longest first: "-medium-light" also ends in "-light"
        for skin in sorted(SKINS, key=len, reverse=True):
            name = stem.removesuffix(f"-{skin}")
            if name != stem and name in toned:
                emojis.append(Emoji(stem, name, skin))
                break
        else:
            emojis.append(Emoji(stem, stem))
    return emojis


def is_held_out(name: str) -> bool:
    """Whether a base name belongs to the held-out tenth."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32 < HELD_OUT_SHARE


def pick_variants(name: str, indices: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of a name's pictures, chosen by hash of the name, so that all tones stay in use."""
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[4:8], "big")
    count = len(indices)
    return sorted(indices[(start + step) % count] for step in range(min(most, count)))


def match_synonyms(names: Iterable[str], entries: Iterable[dict]) -> dict[str, list[str]]:
    """Return for each of `names` the other names that emoji-datasource's `entries` give the same emoji."""
    groups: list[set[str]] = []
    for entry in entries:
        spoken = [entry["name"] or "", *entry["short_names"]]
        groups.append({re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in spoken} - {""})
    by_name: dict[str, set[str]] = {}
    for group in groups:
        for name in group:
            by_name.setdefault(name, set()).update(group)
    # one-letter and bare-number short names say nothing in a caption
    return {name: sorted(s for s in by_name[name] - {name} if len(s) > 2) for name in names if name in by_name}


class Renders:
    """The collection as uint8 pictures (N, size, size, 3), rendered when first asked for, kept in a file."""

    def __init__(self, collection: Collection | Scenes, size: int) -> None:
        self.collection, self.size = collection, size
        count, stem = len(collection), collection.file_name(size)
        folder = collection.work / "renders"
        folder.mkdir(parents=True, exist_ok=True)
        self.pictures = memmap(folder / f"{stem}.npy", (count, size, size, 3), np.uint8)
        self.done = memmap(folder / f"{stem}-done.npy", (count,), np.uint8)

    def __getitem__(self, index: int) -> np.ndarray:
        if not self.done[index]:
            self.pictures[index] = self.collection.picture(index, self.size)
            self.done[index] = 1
        return self.pictures[index]

    def render_all(self, indices: Sequence[int] | None = None, *, workers: int = 0) -> None:
        """Render the pictures at `indices`, or all, in that many processes, which write to the same file."""
        indices = range(len(self.done)) if indices is None else indices
        missing = [index for index in indices if not self.done[index]]
        for count, _ in enumerate(ahead(lambda index: bool(self[index].size), iter(missing), workers=workers)):
            if count % 500 == 0:
                logger.info("%d px: %d of %d", self.size, count, len(missing))


def render(path: Path, size: int) -> np.ndarray:
    """Return the SVG at `path` as uint8 (size, size, 3) on white."""
    return _rasterize(path, size, background="#ffffff")[..., :3]


def truth(prompt: str | Scene, size: int, seed: int, *, work: Path = WORK) -> np.ndarray:
    """Return the true picture of `prompt` at `size` px: uint8 (size, size, 3).

    The shape fills the picture as at any other size; its material has its own period in px, so at 1024 px there is more
    of it than at 512 px. `seed` moves the texture and draws what is random in it. Raises `ValueError` for a prompt that
    names anything else than one thing, a material and a ground.
    """
    scene = parse(prompt) if isinstance(prompt, str) else prompt
    return compose(drawing_of(scene.thing, size, work=work), scene, seed)


def drawing_of(thing: str, size: int, *, work: Path = WORK) -> np.ndarray:
    """Return the drawing of a plain `thing`: uint8 RGBA (size, size, 4)."""
    return _rasterize(work / "fluent" / "icons" / "modern" / f"{THINGS[thing]}.svg", size)


def compose(drawing: np.ndarray, scene: Scene, seed: int) -> np.ndarray:
    """Return a square RGBA `drawing`, or a piece of one, made of the scene's material on its ground."""
    colours = drawing[..., :3].astype(np.float32)
    opacity = drawing[..., 3:].astype(np.float32) / 255
    if scene.material is not None:
        colours = colours * materials.shade(scene.material, len(drawing), seed)[..., None]
    mixed = opacity * colours + (1 - opacity) * np.asarray(GROUNDS[scene.ground], np.float32)
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def _rasterize(path: Path, size: int, *, background: str | None = None) -> np.ndarray:
    """Return the SVG at `path` as uint8 RGBA (size, size, 4)."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_path=str(path), width=size, height=size, background=background, skip_system_fonts=True
    )
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if picture.size != (size, size):  # a few drawings are not square, and resvg keeps their ratio
        square = Image.new("RGBA", (size, size), background or (255, 255, 255, 0))
        square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
        picture = square
    return np.asarray(picture)


def fetch(work: Path = WORK) -> None:
    """Download the two npm packages into `work` and unpack what is used; does nothing when it is there."""
    work.mkdir(parents=True, exist_ok=True)
    wanted = {
        PICTURES: ("fluent", ("package/icons/modern/", "package/LICENSE", "package/README.md")),
        WORDS: ("emoji-data", ("package/emoji.json", "package/LICENSE")),
    }
    for package, (folder, prefixes) in wanted.items():
        if (work / folder).is_dir():
            continue
        archive = work / f"{package.replace('@', '-')}.tgz"
        if not archive.is_file():
            subprocess.run(["npm", "pack", package, "--silent"], cwd=work, check=True, stdout=subprocess.DEVNULL)
        partial = work / f"{folder}.part"
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name.startswith(prefixes):
                    target = partial / Path(member.name).relative_to("package")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    extracted = tar.extractfile(member)
                    assert extracted is not None
                    target.write_bytes(extracted.read())
        partial.rename(work / folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="where downloads and renders lie")
    parser.add_argument("--sizes", type=int, nargs="*", default=[128], help="sides in px to render now")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    fetch(options.work)
    collection = Collection(options.work)
    logger.info(
        "%d pictures, %d base names, %d held out, %d with synonyms",
        len(collection.emojis),
        len(collection.names),
        len(collection.held_out),
        sum(1 for others in collection.synonyms.values() if others),
    )
    for size in options.sizes:
        Renders(collection, size).render_all()


if __name__ == "__main__":
    main()
