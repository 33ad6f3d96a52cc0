"""Which pictures are too small, too narrow or large enough."""

import pytest

from fam_ext.errors import PictureError
from fam_ext.jobs.size import check_native, check_target, enlarged_size, is_capped, target_size
from fam_ext.options.parts import SizeRule


@pytest.mark.parametrize(
    ("size", "target", "says"),
    [
        ((16, 16), None, None),
        ((15, 40), None, "40 x 15 px is too small"),
        ((15, 40), (64, 80), None),
        ((15, 40), (63, 80), "40 x 15 px is too small"),
        ((16, 256), None, None),
        ((256, 16), None, None),
        ((16, 257), None, "257 x 16 px is too narrow; crop it to at most 16 times"),
    ],
)
def test_a_picture_is_too_small_or_too_narrow_from_one_pixel_on(size, target, says: str | None) -> None:
    if says is None:
        check_native(size, target)
        return
    with pytest.raises(PictureError, match=says):
        check_native(size, target)


@pytest.mark.parametrize(
    ("native", "target", "says"),
    [
        ((64, 64), (64, 64), None),
        ((32, 32), (56, 64), "the target 64 x 56 px is too small"),
        ((100, 200), (92, 192), None),  # its rounding
        ((100, 200), (91, 200), "the target 200 x 91 px is smaller than the picture's 200 x 100"),
        ((100, 200), (100, 191), "smaller than the picture's 200 x 100"),
    ],
)
def test_a_target_is_no_smaller_than_the_picture(native, target, says: str | None) -> None:
    if says is None:
        check_target(native, target)
        return
    with pytest.raises(PictureError, match=says):
        check_target(native, target)


@pytest.mark.parametrize(
    ("native", "size"), [((16, 300), (16, 300)), ((12, 9), (21, 16)), ((8, 8), (16, 16)), ((4, 60), (16, 240))]
)
def test_small_pictures_are_enlarged_as_a_whole(native, size) -> None:
    assert enlarged_size(native) == size


@pytest.mark.parametrize(
    ("native", "rule", "capped", "skipped"),
    [
        ((1000, 1000), {"max_megapixels": 4.0}, False, None),
        ((1001, 1000), {"max_megapixels": 4.0}, True, None),
        ((1000, 1000), {"max_megapixels": None}, False, None),
        ((1000, 1000), {"max_megapixels": 2.0, "size": (1200, 2000)}, False, None),
        ((1000, 1000), {"max_megapixels": 2.0, "size": (1600, 2000)}, True, None),
        ((1000, 1000), {"max_megapixels": 2.0, "size": (1600, 1600), "exact_size": True}, False, None),
        ((1000, 1000), {"max_megapixels": 2.0, "max_side": 1200}, False, None),
        ((1000, 1000), {"max_megapixels": 1.0}, True, "1000 x 1000 px is as large as --max-megapixels 1 allows"),
        ((1000, 1000), {"max_side": 1000}, False, "1000 x 1000 px is as large as the size asked for; nothing to do"),
    ],
)
def test_what_is_capped_and_what_is_large_enough(native, rule: dict, capped: bool, skipped: str | None) -> None:
    assert is_capped(native, SizeRule(**rule)) == capped
    assert target_size(native, SizeRule(**rule))[1] == skipped
