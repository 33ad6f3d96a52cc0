"""How much a picture holds at each size of detail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

BINS = 48


@dataclass(frozen=True)
class Spectrum:
    """Mean power by frequency, in cycles per shorter side of the picture: one scene has the same at any size."""

    cycles: tuple[float, ...]
    power: tuple[float, ...]
    """Of grey levels of 0 to 1."""


def radial_spectrum(image: Image.Image, *, bins: int = BINS) -> Spectrum:
    """Return the power of `image`'s grey levels averaged over rings, from 1 cycle to half its shorter side.

    A Hann window keeps the border, where a picture does not go on, from showing up as detail. The coefficients are
    divided by the number of pixels: an enlarged picture has the power of the small one where both hold anything.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float64) / 255
    height, width = grey.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    seen = (grey - np.average(grey, weights=window)) * window
    power = np.abs(np.fft.rfft2(seen)) ** 2 / (height * width) ** 2 / np.mean(window**2)
    shorter = min(height, width)
    rows, columns = np.fft.fftfreq(height)[:, None] * shorter, np.fft.rfftfreq(width)[None, :] * shorter
    radius = np.hypot(rows, columns)
    # each ring is at least one cycle wide, and from there on the rings grow with the frequency
    edges = np.unique(np.round(np.geomspace(1, shorter / 2, bins + 1)))
    # all but the columns 0 and Nyquist stand for their mirror image too
    weight = np.full(power.shape, 2.0)
    weight[:, 0] = 1
    if width % 2 == 0:
        weight[:, -1] = 1
    counts, _ = np.histogram(radius, edges, weights=weight)
    sums, _ = np.histogram(radius, edges, weights=weight * power)
    centres = np.sqrt(edges[:-1] * edges[1:])
    there = counts > 0
    return Spectrum(
        tuple(float(f"{value:.4g}") for value in centres[there]),
        tuple(float(f"{value:.4g}") for value in sums[there] / counts[there]),
    )
