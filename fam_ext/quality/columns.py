"""What stands in the tables: each measure's name, unit, group and which way is better."""

from __future__ import annotations

from dataclasses import dataclass

from fam_ext.quality.extractors import Extractor


@dataclass(frozen=True)
class Column:
    """One measure. `key` is its name in a row, or of a set distance "EXTRACTOR PART KIND"."""

    key: str
    title: str
    digits: int = 2
    better: str = ""
    """"more", "less", or "" where neither is."""


GROUPS: dict[str, tuple[Column, ...]] = {
    "Structure kept, against the native picture": (
        Column("psnr", "PSNR, dB", 1, "more"),
        Column("ms_ssim", "MS-SSIM", 3, "more"),
        Column("low_band", "low band changed, %", 1, "less"),
        Column("colour_mean", "coarse colour off, of 255", 2, "less"),
        Column("colour_p99", "its 99th percentile", 1, "less"),
    ),
    "Objects and words": (
        Column("objects", "objects more or fewer", 2, "less"),
        Column("strays", "strays, % of the area", 2, "less"),
        Column("agrees_thing", "agreement (demo-net), thing, %", 1, "more"),
        Column("agrees_material", "agreement (demo-net), material, %", 1, "more"),
        Column("clip", "CLIP score", 2, "more"),
    ),
    "Texture": (
        Column("period", "period, px", 1),
        Column("period_error", "off the true period, octaves", 2, "less"),
        Column("spread", "unlike from part to part, dB", 2),
        Column("spread_beyond", "beyond the true picture's, dB, 0 is best", 2),
    ),
    "Detail, with the structure it cost": (
        Column("psnr", "PSNR, dB", 1, "more"),
        Column("glcm", "GLCM contrast", 2),
        Column("compression", "compression ratio", 1),
    ),
    "Seams and edges": (
        Column("seam", "step at tile borders, 1 is none", 2, "less"),
        Column("wrap_sides", "left to right beyond native, of 255", 1),
        Column("wrap_ends", "top to bottom beyond native, of 255", 1),
    ),
    "Cost of the pass": (
        Column("seconds", "time, median, s", 1, "less"),
        Column("peak_memory", "peak memory, GiB", 2, "less"),
    ),
}
SETS = "Distance to the {} pictures"
"""For "true", or for "reference"."""


def set_columns(extractors: tuple[Extractor, ...]) -> tuple[Column, ...]:
    """Return the columns of the set distances; those of Inception are FID and KID, and no others."""
    found: list[Column] = []
    for extractor in extractors:
        for part, words in (("crops", ", crops"), ("whole", ", whole")):
            found.append(Column(f"{extractor.name} {part} frechet", f"{extractor.frechet}{words}", 2, "less"))
            found.append(Column(f"{extractor.name} {part} kernel", f"{extractor.kernel}{words}", 4, "less"))
    return tuple(found)
