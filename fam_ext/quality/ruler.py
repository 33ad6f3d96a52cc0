"""All measures of one picture, and of the set it is one of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fam_ext.quality.consistency import spread_beyond, texture_spread
from fam_ext.quality.detail import compression_ratio, glcm_contrast, period_error, texture_period
from fam_ext.quality.extractors import Clip, Extractor, Features, demo_net
from fam_ext.quality.protocol import Case, fingerprint, load, truth_file
from fam_ext.quality.seams import seams
from fam_ext.quality.structure import Picture, kept

VERSION = 4
"""Raised when a measure changes: pictures are kept and measured again."""


@dataclass(frozen=True)
class Measured:
    """What one picture gave: numbers by name, and features by "EXTRACTOR whole" (1, D) and "EXTRACTOR crops" (N, D)."""

    values: dict[str, float | None]
    features: dict[str, Features] = field(default_factory=dict[str, Features])


class Ruler:
    """Measures pictures: `crops` crops of `crop` px each, against true pictures where there is a folder of them."""

    def __init__(
        self,
        *,
        crop: int,
        crops: int,
        truth: Path | None = None,
        others: Sequence[Extractor] = (),
        clip: Clip | None = None,
        weights: Sequence[str] = (),
    ) -> None:
        demo, self._agrees = demo_net()
        self.extractors = (demo, *others)
        self.crop, self.crops, self.truth, self.clip = crop, crops, truth, clip
        self._settings = [VERSION, crop, crops, clip is not None, _demo_net_hash(), *weights]

    def fingerprint(self, case: Case) -> str:
        """Return the fingerprint of all that decides a picture's measures beside the picture."""
        truth = None if self.truth is None else _marks(truth_file(self.truth, case))
        return fingerprint(self._settings, truth)

    def measure(self, picture: Picture, native: Picture, case: Case) -> Measured:
        """Return the measures of a picture (H, W, 3) that was made from `native`."""
        values = {
            **kept(picture, native),
            "glcm": glcm_contrast(picture),
            "compression": compression_ratio(picture),
            "period": texture_period(picture),
            "spread": texture_spread(picture),
            **seams(picture, native),
            **self._agrees(picture, case.prompt),
        }
        if self.truth is not None:
            truth = load(truth_file(self.truth, case))
            values["period_error"] = period_error(picture, truth)
            values["spread_beyond"] = spread_beyond(picture, truth)
        if self.clip is not None:
            values["clip"] = self.clip.score(picture, case.prompt)
        return Measured(values, self.features(picture, case.seed))

    def features(self, picture: Picture, seed: int) -> dict[str, Features]:
        """Return each extractor's features of the whole picture, and of its crops at places that `seed` draws."""
        parts = cut(picture, crop=self.crop, count=self.crops, seed=seed)
        found: dict[str, Features] = {}
        for extractor in self.extractors:
            found[f"{extractor.name} whole"] = extractor.whole([picture])
            found[f"{extractor.name} crops"] = extractor.crops(parts)
        return found


def cut(picture: Picture, *, crop: int, count: int, seed: int) -> list[Picture]:
    """Return `count` crops of `crop` px that are not resized; of pictures of one size the same for the same seed."""
    height, width = picture.shape[:2]
    rng = np.random.default_rng([seed, height, width])
    places = rng.integers(0, [height - crop + 1, width - crop + 1], size=(count, 2)).tolist()
    return [picture[top : top + crop, left : left + crop] for top, left in places]


def _demo_net_hash() -> str:
    """Return the SHA-256 of demo-net: its weights, its lists and its code."""
    from fam_ext.demo import demo_net

    return hashlib.sha256(
        b"".join(file.read_bytes() for file in sorted(demo_net.FOLDER.glob("demo_net.*")))
    ).hexdigest()


def _marks(path: Path) -> list[object]:
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]
