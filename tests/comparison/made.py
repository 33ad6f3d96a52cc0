"""A comparison's folder without any model: flat pictures with a square in the middle, and maps that are known."""

import torch
from PIL import Image

from fam_ext.comparison.attention import QUERIES, Maps, atlas
from fam_ext.comparison.results import Attention, Cell, Native, Results
from fam_ext.comparison.spectrum import radial_spectrum
from fam_ext.metadata import pictures

COLOURS = {"direct": (40, 70, 200), "fam": (20, 140, 60)}
SPOT = (230, 220, 40)
SIDE = 64


def picture(side, colour):
    """A flat picture whose middle sixteenth of the width is SPOT."""
    image = Image.new("RGB", (side, side), colour)
    low, high = side * 15 // 32, side * 17 // 32
    image.paste(SPOT, (low, low, high, high))
    return image


def own_maps(grid=QUERIES):
    """Maps by which each point attends to its own cell alone on the target, and to all alike natively."""
    points = QUERIES * QUERIES
    target = torch.zeros(points, grid, grid)
    for point in range(points):
        target[point, point // QUERIES, point % QUERIES] = grid * grid
    return Maps("up.0", 3, 0.48, torch.ones(points, 4, 4), target, 0.7 + 0.3 * target)


def write(folder, file, image):
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(pictures.encode(image, "PNG").data)
    return file


def results(folder, *, rows=("a cat", "<b>a dog</b> & </script> " + 9 * "a long title "), scales=(2.0, 3.0), **changes):
    """A whole folder; `fam` has maps, and its peak memory is known."""
    found = Results(folder, {"model": "toy", "device": "cpu", "dtype": "float32"})
    sheet, peaks = atlas(own_maps())
    for number, title in enumerate(rows):
        key, native = f"row-{number}", picture(SIDE, (90, 90, 90))
        size = (SIDE, SIDE)
        settings = {"seed": 1, "steps": 4, "sampler": "DDIM", "cfg_scale": 7.0}
        file = write(folder, f"native/{key}.png", native)
        found.natives[key] = Native(
            key, title, title, "d", size, file=file, spectrum=radial_spectrum(native), **settings
        )
        for scale in scales:
            for method, colour in COLOURS.items():
                side, place = round(scale * SIDE), f"{method}-{scale:g}x"
                made = picture(side, colour)
                kept = None
                if method == "fam":
                    name = write(folder, f"attention/{place}-{key}.png", sheet)
                    kept = Attention(name, "up.0", 3, 0.48, QUERIES, (4, 4), (QUERIES, QUERIES), tuple(peaks))
                values = {
                    "file": write(folder, f"{place}/{key}.png", made),
                    "seconds": 1.5 + number,
                    "steps": 4,
                    "peak_memory": 3 << 30 if method == "fam" else None,
                    "structure": 31.25,
                    "detail": 0.5,
                    "spectrum": radial_spectrum(made),
                    "attention": kept,
                    "settings": {"preset": "<i>own</i>", "steps": 4, "fm_window": [1, 0], "clip_skip": None},
                    "upscaler": "x4" if method == "fam" else None,
                }
                cell = Cell(key, method, scale, "d", (side, side), **{**values, **changes})
                found.cells[cell.key] = cell
    found.write()
    return found
