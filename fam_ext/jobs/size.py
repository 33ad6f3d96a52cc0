"""How large a result is: the target of a picture, and which pictures are too small, too narrow or large enough."""

from __future__ import annotations

from fam_ext.errors import PictureError
from fam_ext.options.field import MAX_SIDE
from fam_ext.options.parts import SizeRule

MIN_SIDE = 16
MIN_ENLARGED = 64
MAX_ASPECT = 16.0
_MULTIPLE = 8


def check_native(size: tuple[int, int], target: tuple[int, int] | None = None) -> None:
    """Raise `PictureError` for a picture too small or too narrow for a latent. One that is too small is enlarged to
    MIN_SIDE first where the target has MIN_ENLARGED a side."""
    height, width = size
    if min(size) < MIN_SIDE and (target is None or min(target) < MIN_ENLARGED):
        raise PictureError(
            f"{width} x {height} px is too small; at least {MIN_SIDE} px a side are needed, or a target of at least "
            f"{MIN_ENLARGED} px a side"
        )
    if max(size) > MAX_ASPECT * min(size):
        raise PictureError(
            f"{width} x {height} px is too narrow; crop it to at most {MAX_ASPECT:g} times as long as wide"
        )


def enlarged_size(native: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) with at least MIN_SIDE px a side, which a latent needs, the aspect kept."""
    factor = max(1.0, MIN_SIDE / min(native))
    return max(MIN_SIDE, round(native[0] * factor)), max(MIN_SIDE, round(native[1] * factor))


def enlarged_note(native: tuple[int, int]) -> str:
    """Return the sentence about a picture that is enlarged first."""
    height, width = enlarged_size(native)
    return f"enlarged from {native[1]} x {native[0]} to {width} x {height} px first, the least size"


def check_target(native: tuple[int, int], target: tuple[int, int]) -> None:
    """Raise `PictureError` for a target that the standalone renderer refuses: below MIN_ENLARGED a side, or smaller
    than the picture by more than its rounding."""
    height, width = enlarged_size(native)
    what = f"the target {target[1]} x {target[0]} px is"
    if min(target) < MIN_ENLARGED:
        raise PictureError(
            f"{what} too small; at least {MIN_ENLARGED} px a side are needed, so choose a larger --scale or --size"
        )
    if target[0] < height - _MULTIPLE or target[1] < width - _MULTIPLE:
        raise PictureError(f"{what} smaller than the picture's {width} x {height} px; choose a larger --size")


def target_size(native: tuple[int, int], rule: SizeRule) -> tuple[tuple[int, int], str | None]:
    """Return the target (height, width), multiples of 8 with the aspect kept, and a reason to skip the picture."""
    height, width = native
    if rule.size is not None and rule.exact_size:
        target = (rounded(rule.size[0]), rounded(rule.size[1]))
    else:
        factor = rule.scale
        if rule.size is not None:
            factor = min(rule.size[0] / height, rule.size[1] / width)
        capped = factor
        if rule.max_side is not None:
            capped = min(capped, rule.max_side / max(native))
        if rule.max_megapixels is not None:
            capped = min(capped, _largest_factor(native, rule.max_megapixels))
        rounding = _floor if capped < factor or rule.size is not None else rounded
        target = (rounding(height * capped), rounding(width * capped))
    if target[0] * target[1] <= height * width and not rule.exact_size:
        if is_capped(native, rule):
            return target, f"{width} x {height} px is as large as --max-megapixels {rule.max_megapixels:g} allows"
        return target, f"{width} x {height} px is as large as the size asked for; nothing to do"
    if max(target) > MAX_SIDE:
        raise PictureError(f"the target {target[1]} x {target[0]} px is too large; lower --scale or set --max-side")
    return target, None


def is_capped(native: tuple[int, int], rule: SizeRule) -> bool:
    """Return whether `max_megapixels` makes a picture's target smaller than what was asked for."""
    if rule.max_megapixels is None or (rule.size is not None and rule.exact_size):
        return False
    factor = rule.scale
    if rule.size is not None:
        factor = min(rule.size[0] / native[0], rule.size[1] / native[1])
    if rule.max_side is not None:
        factor = min(factor, rule.max_side / max(native))
    return factor > _largest_factor(native, rule.max_megapixels)


def _largest_factor(native: tuple[int, int], megapixels: float) -> float:
    return (megapixels * 1e6 / (native[0] * native[1])) ** 0.5


def rounded(side: float) -> int:
    """Return a target's side in px as a multiple of 8, the nearest."""
    return max(_MULTIPLE, int(side / _MULTIPLE + 0.5) * _MULTIPLE)


def _floor(side: float) -> int:
    return max(_MULTIPLE, int(side / _MULTIPLE + 1e-9) * _MULTIPLE)
