"""Methods side by side: pictures for a contact sheet, and how well each keeps the native picture's structure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 8
LABEL_HEIGHT = 22


@dataclass(frozen=True)
class Cell:
    """One picture of a contact sheet with its caption."""

    image: Image.Image
    caption: str = ""


def structure_psnr(image: Image.Image, native: Image.Image) -> float:
    """Return the PSNR in dB of `image`, area-downsampled to the native size, to `native`: higher keeps more structure.

    It sees duplicated or moved objects, not missing detail: a plain resize scores very high.
    """
    small = image.convert("RGB").resize(native.size, Image.Resampling.BOX)
    difference = np.asarray(small, dtype=np.float64) - np.asarray(native.convert("RGB"), dtype=np.float64)
    error = float(np.mean(difference**2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def high_band_energy(image: Image.Image, native: Image.Image) -> float:
    """Return the share in percent of `image`'s grey-level variance above the native Nyquist frequency: detail that the
    native picture cannot hold. A plain resize has next to none."""
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    rows = np.abs(np.fft.fftfreq(grey.shape[0], 1 / grey.shape[0]))[:, None] >= native.height / 2
    columns = np.abs(np.fft.fftfreq(grey.shape[1], 1 / grey.shape[1]))[None, :] >= native.width / 2
    total = float(power.sum())
    return 100 * float(power[rows | columns].sum()) / total if total else 0.0


def contact_sheet(rows: Sequence[Sequence[Cell]], *, header: Sequence[str], side: int = 256) -> Image.Image:
    """Return one picture with a row of `rows` each, every cell fitted into a square of `side` px."""
    width = GAP + len(header) * (side + GAP)
    row_height = side + LABEL_HEIGHT + GAP
    sheet = Image.new("RGB", (width, LABEL_HEIGHT + GAP + len(rows) * row_height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for column, name in enumerate(header):
        draw.text((GAP + column * (side + GAP), GAP), name, fill="black", font=font)
    for row_index, row in enumerate(rows):
        top = LABEL_HEIGHT + GAP + row_index * row_height
        for column, cell in enumerate(row):
            left = GAP + column * (side + GAP)
            fitted = cell.image.convert("RGB")
            fitted.thumbnail((side, side), Image.Resampling.LANCZOS)
            sheet.paste(fitted, (left + (side - fitted.width) // 2, top + (side - fitted.height) // 2))
            draw.rectangle((left - 1, top - 1, left + side, top + side), outline="#cccccc")
            draw.text((left, top + side + 3), _ascii(cell.caption)[: side // 6], fill="#444444", font=font)
    return sheet


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
