"""Which pictures are made and measured: methods x sizes x prompts and seeds, each with the fingerprint of what decides
its pixels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fam_ext.core.config import FamConfig
from fam_ext.errors import PictureError, UsageError
from fam_ext.metadata.pictures import decode, read_file
from fam_ext.methods.base import Stage
from fam_ext.methods.catalog import METHODS
from fam_ext.options.request import HiresRequest
from fam_ext.recipe import asks_upscaler

MOST_ROWS = 100_000
"""Pictures of one run."""
MOST_NAME = 180
"""Bytes of a prompt in a file's name."""
Size = tuple[int, int]
"""(height, width) in px."""
DEFAULT_PROMPTS = (
    *("a knitted shoe on a blue ground", "a brick castle", "a furry elephant on a green ground", "a wooden train"),
    *("a scaly turtle on a cream ground", "a mosaic butterfly", "a striped sailboat on a navy ground", "a rocket"),
    *("a woven basket", "a crystalline pear", "a dotted umbrella on a pink ground", "a furry owl on a lilac ground"),
    *("a knitted penguin", "a wooden fire engine on a grey ground", "a brick church on a blue ground", "a scaly fox"),
    *("a mosaic dinosaur on a cream ground", "a striped balloon", "a woven hut on a green ground", "a dotted drum"),
    *("a crystalline key on a navy ground", "a pineapple on a pink ground", "a wooden tractor", "a knitted rabbit"),
)
"""What the embedded model is asked for where no file of prompts is given."""


@dataclass(frozen=True)
class Case:
    """What every method begins from: the native picture of one prompt and seed, to be made as large as `size`."""

    native: Size
    size: Size
    prompt: str
    seed: int

    @property
    def stem(self) -> str:
        """The name of its files: "7-a-red-teapot"."""
        return stem(self.prompt, self.seed)


@dataclass(frozen=True)
class Variant:
    """A row of every table: a method with the dials `config`."""

    label: str
    method: str
    config: FamConfig


@dataclass(frozen=True)
class Row:
    """One picture to make and measure."""

    case: Case
    label: str
    """That of its variant, which decides no pixel."""
    request: HiresRequest
    fingerprint: str
    """Of all that decides its pixels: the request and `surroundings`."""
    surroundings: str
    """Fingerprint of the model's weights, the device, the version: what decides the native picture's pixels."""

    @property
    def file(self) -> str:
        """The name of its picture."""
        case = self.case
        return f"{case.stem}-{self.request.method}-{size_words(case.size)}-{self.fingerprint[:8]}.png"


def cases(sizes: Sequence[tuple[Size, Size]], prompts: Sequence[str], *, count: int, seed: int) -> list[Case]:
    """Return the cases of (native, size) pairs: `count` pictures with seeds counting up from `seed`, the prompts in
    turn. Picture by picture, so that a run that is stopped has the same pictures at every size."""
    return [
        Case(native, size, prompts[number % len(prompts)], seed + number)
        for number in range(count)
        for native, size in sizes
    ]


def rows(
    every: Sequence[Case], variants: Sequence[Variant], request: HiresRequest, surroundings: Mapping[str, object]
) -> list[Row]:
    """Return a row for each case and variant; `request` brings the other settings, `surroundings` what else decides
    pixels."""
    plain = fingerprint(without_upscaler(surroundings))

    def row(case: Case, variant: Variant) -> Row:
        own = dataclasses.replace(
            request,
            size=case.size,
            prompt=case.prompt,
            seed=case.seed,
            method=variant.method,
            config=variant.config,
        )
        around = fingerprint(surroundings_of(own, case.native, surroundings))
        return Row(case, variant.label, own, fingerprint(own.to_json(), case.native, around), plain)

    return [row(case, variant) for case in every for variant in variants]


def surroundings_of(request: HiresRequest, native: Size, surroundings: Mapping[str, object]) -> Mapping[str, object]:
    """Return of `surroundings` what decides a request's pixels: an upscaler only where it is asked, so that a row
    without is the same row beside any."""
    if surroundings.get("upscaler") is None or asking_stages(request, native):
        return surroundings
    return without_upscaler(surroundings)


def without_upscaler(surroundings: Mapping[str, object]) -> dict[str, object]:
    """Return `surroundings` as they are where no upscaler was chosen."""
    return {**surroundings, "upscaler": None}


def asking_stages(request: HiresRequest, native: Size) -> list[Stage]:
    """Return the stages of a request for which a chosen upscaler enlarges."""
    stages: Sequence[Stage] = METHODS[request.method].load()(request.config).stages(request.size, native)
    return [one for one in stages if asks_upscaler(one)]


def lanczos_note(asked: Iterable[tuple[str, HiresRequest, Size]]) -> str | None:
    """Return which of those, of (name, request, native size), Lanczos enlarges where no upscaler was chosen."""
    names = [name for name, request, native in asked if any(one.pixels for one in asking_stages(request, native))]
    return f"no --upscaler: Lanczos enlarges in {', '.join(dict.fromkeys(names))}" if names else None


def fingerprint(*values: object) -> str:
    """Return the SHA-256 of values as JSON, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def truth_file(folder: Path, case: Case) -> Path:
    """Return where the true picture of a case lies: FOLDER/1024x1024/7-a-red-teapot.png."""
    return folder / size_words(case.size) / f"{case.stem}.png"


def check_truths(folder: Path, every: Sequence[Case]) -> None:
    """Raise `UsageError` for the first case whose true picture is missing, unreadable or of another size."""
    for case in every:
        path = truth_file(folder, case)
        try:
            height, width, _ = load(path).shape
        except PictureError as error:
            what = f"has no picture {path}" if not path.is_file() else f"picture {error}"
            raise UsageError(
                f"--truth {what} for {case.prompt!r}, seed {case.seed}; put it there, or leave out --truth"
            ) from None
        if (height, width) != case.size:
            raise UsageError(f"--truth {path} is {width}x{height}; give it at {size_words(case.size)} px")


def check_crop(crop: int, every: Sequence[Case]) -> None:
    """Raise `UsageError` where a crop is not inside each picture."""
    least = min(min(case.size) for case in every)
    if not 16 <= crop <= least:
        raise UsageError(f"--crop is {crop}; choose 16 to {least} px, the smallest side of a picture")


def pictures_in(folder: Path, *, least: int, flag: str) -> list[Path]:
    """Return the pictures of a folder, by name. Raises `UsageError` for none, or for one with a side under `least`."""
    found: list[Path] = []
    for path in sorted(_files(folder, flag)):
        try:
            height, width, _ = load(path).shape
        except PictureError:
            continue
        if min(height, width) < least:
            raise UsageError(
                f"{flag} {path} is {width}x{height}; crops of {least} px do not fit, so give larger pictures or a "
                "smaller --crop"
            )
        found.append(path)
    if len(found) < 2:
        raise UsageError(f"{flag} {folder} has {len(found)} pictures; give a folder of two or more")
    return found


def _files(folder: Path, flag: str) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError:
        raise UsageError(f"{flag} {folder} is no folder that can be read; give a folder of pictures") from None


def load(path: Path) -> NDArray[np.uint8]:
    """Return a picture file as uint8 (H, W, 3). Raises `PictureError`, which names the file."""
    try:
        return np.asarray(decode(read_file(path)).image)
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from None


def stem(prompt: str, seed: int) -> str:
    """Return the name of what belongs to a prompt and seed: "7-a-red-teapot"."""
    words = re.sub(r"[^\w]+", "-", prompt).strip("-")[:60]
    words = words.encode()[:MOST_NAME].decode(errors="ignore")  # a file system counts bytes: 255 of the whole name
    return f"{seed}-{words or 'picture'}"


def size_words(size: Size) -> str:
    """Return WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"
