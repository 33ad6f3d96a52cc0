"""Methods side by side: pictures for a contact sheet, and how well each keeps the native picture's structure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fam_ext.quality.structure import downsampled, psnr

GAP = 8
LABEL_HEIGHT = 24
LETTERS = 15
"""Height in px of headers and captions."""
BLOCK = 16
"""Side in px of the blocks whose spread of grey says how much texture a place has."""
FULL = 12.0
"""Spread in levels of 255 from which a block has all the texture that counts, so that no outline has more."""


@dataclass(frozen=True)
class Cell:
    """One picture of a contact sheet with its caption, and a piece of it that is shown under it, pixel for pixel."""

    image: Image.Image
    caption: str = ""
    piece: Image.Image | None = None


def structure_psnr(image: Image.Image, native: Image.Image, *, box: int = 1) -> float:
    """Return the PSNR in dB of `image`, area-downsampled to the native size, to `native`: higher keeps more structure.

    It sees duplicated or moved objects, not missing detail: a plain resize scores very high. With `box` the means over
    squares of so many native px are compared, to which a texture that is drawn anew at its own size is no error.
    """
    size = (max(1, native.height // box), max(1, native.width // box))
    small, wanted = (downsampled(np.asarray(picture.convert("RGB")), size) for picture in (image, native))
    return math.inf if np.array_equal(small, wanted) else psnr(small, wanted)


def high_band_energy(image: Image.Image, native: Image.Image) -> float:
    """Return the share in percent of `image`'s grey-level variance above the native Nyquist frequency: detail that the
    native picture cannot hold. A plain resize has next to none."""
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    rows = np.abs(np.fft.fftfreq(grey.shape[0], 1 / grey.shape[0]))[:, None] >= native.height / 2
    columns = np.abs(np.fft.fftfreq(grey.shape[1], 1 / grey.shape[1]))[None, :] >= native.width / 2
    total = float(power.sum())
    return 100 * float(power[rows | columns].sum()) / total if total else 0.0


def most_textured(image: Image.Image, side: int) -> tuple[int, int]:
    """Return (left, top), multiples of BLOCK, of the square of `side` px with most texture.

    That is the mean over its blocks of BLOCK px of the spread of grey in one, at most FULL.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    rows, columns = (length // BLOCK for length in grey.shape)
    blocks = grey[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    sums = np.pad(np.minimum(blocks.std(axis=(1, 3)), FULL).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    high, wide = (min(side // BLOCK, count) for count in (rows, columns))
    within = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    top, left = np.unravel_index(int(within.argmax()), within.shape)
    return int(left) * BLOCK, int(top) * BLOCK


def contact_sheet(rows: Sequence[Sequence[Cell | None]], *, header: Sequence[str], side: int = 256) -> Image.Image:
    """Return one picture with a row of `rows` each, every cell fitted into a square of `side` px; None stays empty.

    Where cells have pieces, another square of `side` px is under each picture, with its piece in the middle.
    """
    squares = 2 if any(cell and cell.piece for row in rows for cell in row) else 1
    width = GAP + len(header) * (side + GAP)
    row_height = squares * (side + GAP) + LABEL_HEIGHT
    sheet = Image.new("RGB", (width, LABEL_HEIGHT + GAP + len(rows) * row_height), "white")
    draw, font = ImageDraw.Draw(sheet), _font()
    lefts = [GAP + column * (side + GAP) for column in range(len(header))]
    for left, name in zip(lefts, header, strict=True):
        draw.text((left, GAP), _cut(name, side, font), fill="black", font=font)
    for row_index, row in enumerate(rows):
        top = LABEL_HEIGHT + GAP + row_index * row_height
        for left, cell in zip(lefts, row, strict=True):
            if cell is None:
                continue
            fitted = cell.image.convert("RGB")
            fitted.thumbnail((side, side), Image.Resampling.LANCZOS)
            shown = [fitted] if cell.piece is None else [fitted, cell.piece.convert("RGB")]
            for place, image in enumerate(shown):
                down = top + place * (side + GAP)
                sheet.paste(image, (left + (side - image.width) // 2, down + (side - image.height) // 2))
                draw.rectangle((left - 1, down - 1, left + side, down + side), outline="#cccccc")
            label = top + squares * (side + GAP) - GAP + 3
            draw.text((left, label), _cut(cell.caption, side, font), fill="#444444", font=font)
    return sheet


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(LETTERS)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return as much of `text` as fits into `width` px, in the letters that the font is sure to have."""
    text = text.encode("ascii", "replace").decode()
    while font.getlength(text) > width:
        text = text[:-1]
    return text
