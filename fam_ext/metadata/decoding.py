"""Pixels of a picture file: upright, RGB, alpha apart."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageCms

from fam_ext.errors import PictureError
from fam_ext.metadata import png
from fam_ext.metadata.guard import open_known, strict_pillow
from fam_ext.metadata.header import Header
from fam_ext.metadata.reading import DEFAULT_MAX_PIXELS, first_line, read_header


@dataclass(frozen=True)
class Picture:
    """A decoded picture: upright RGB, its alpha apart, its header for the way back; notes of what was lost."""

    image: Image.Image
    alpha: Image.Image | None
    header: Header
    notes: tuple[str, ...] = ()


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, first_frame: bool = False) -> Picture:
    """Return the picture upright, RGB and alpha apart; transparent parts of the RGB lie on white.

    Raises `PictureError`, one sentence, whatever is wrong with the file.
    """
    header = read_header(data, max_pixels=max_pixels, first_frame=first_frame)
    if header.format == "PNG" and not png.is_whole(data):
        raise PictureError("the file is truncated (its end is missing); copy it again")
    notes: tuple[str, ...] = ()
    try:
        with strict_pillow():
            # Pillow refuses texts of more than 1 MB: it is given the pixels only
            image = open_known(io.BytesIO(png.pixels(data) if header.format == "PNG" else data))
            image.load()
            key: int | tuple[int, ...] | None = image.info.get("transparency") if image.mode != "P" else None
            image = eight_bits(image)
            if header.format == "PNG" and key is not None:
                image.info["transparency"] = _key(key, depth=data[24])
            transparent = image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info
            if header.icc is not None and header.icc[16:20] == _SPACES.get(image.mode):
                image = image.convert("LA") if transparent else image
                converted = _in_srgb(image, header.icc)
                image = converted or image
                notes = () if converted else ("the colour profile cannot be used; colours may look different",)
            image = image.convert("RGBA" if transparent else "RGB")
    except PictureError:
        raise
    except MemoryError:
        raise PictureError("the picture is too large for this machine's memory; lower the pixel limit") from None
    except Exception as error:  # decoders raise whatever they like on damaged data
        raise PictureError(f"the pixels cannot be decoded ({first_line(error)}); open and save it again") from None
    if header.format != "TIFF":  # which Pillow turns while it loads
        image = _upright(image, header.orientation)
    if image.mode != "RGBA":
        return Picture(bare(image), None, header, notes)
    alpha = image.getchannel("A")
    ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Picture(Image.alpha_composite(ground, image).convert("RGB"), alpha, header, notes)


def _key(key: int | tuple[int, ...], *, depth: int) -> int | tuple[int, ...]:
    """Return a PNG's transparent colour in 8 bits a channel; Pillow tells it in those of the file."""
    if isinstance(key, tuple):
        return tuple(cast("int", _key(value, depth=depth)) for value in key)
    return key >> 8 if depth == 16 else min(key * 255 // (2**depth - 1), 255)


_SPACES: Mapping[str, bytes] = {"CMYK": b"CMYK", "L": b"GRAY", "LA": b"GRAY"}
"""The colour space that a profile names, by the mode that becomes RGB by it."""


def _in_srgb(image: Image.Image, icc: bytes) -> Image.Image | None:
    """Return a CMYK or grey picture as RGB by its colour profile, None where the profile or LittleCMS fails."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        colours = image.convert("L") if image.mode == "LA" else image
        made = ImageCms.profileToProfile(colours, source, target, outputMode="RGB")
    except Exception:  # a colour profile is never a reason to fail
        return None
    if made is not None and image.mode == "LA":
        made.putalpha(image.getchannel("A"))
    return made


_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def bare(image: Image.Image) -> Image.Image:
    """Return `image` as RGB without any info: writers would put the old text and EXIF back by themselves."""
    copied = image.copy() if image.mode == "RGB" else image.convert("RGB")
    copied.info = {}
    return copied


def eight_bits(image: Image.Image) -> Image.Image:
    """Return `image` with 8 bits a channel, which Pillow's own conversion would clip. Raises `PictureError`."""
    if image.mode == "I" and image.format != "PNG" and cast("int", image.getextrema()[1]) <= 255:
        return image.convert("L")  # a TIFF's 32 bits hold what they like; an old Pillow has a PNG's 16 in them
    if image.mode.startswith("I;16") or image.mode == "I":
        scaled = image.convert("I").point(lambda value: value * (1 / 256))  # pyright: ignore[reportUnknownLambdaType, reportUnknownMemberType]
        return scaled.convert("L")
    if image.mode == "F":
        raise PictureError("the picture holds floating-point values; save it with 8 or 16 bits a channel")
    return image
