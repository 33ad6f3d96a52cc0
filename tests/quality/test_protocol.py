"""Which rows there are, what decides them, and what is refused before anything runs."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.errors import UsageError
from fam_ext.methods.catalog import METHODS
from fam_ext.options.request import HiresRequest
from fam_ext.quality import protocol
from tests.test_recipe import NOISE, Small

REQUEST = HiresRequest(size=(64, 64))
SQUARE = ((64, 64), (128, 128))


def rows(request=REQUEST, methods=("fam", "direct"), around=None, **more):
    every = protocol.cases([SQUARE], ["a cat", "a dog"], **{"count": 3, "seed": 5, **more})
    variants = [protocol.Variant(name, name, request.config) for name in methods]
    return protocol.rows(every, variants, request, {"model": "x"} if around is None else around)


def test_prompts_come_in_turn_with_seeds_that_count_up():
    found = rows()
    assert [(row.label, row.case.prompt, row.case.seed) for row in found] == [
        ("fam", "a cat", 5), ("direct", "a cat", 5), ("fam", "a dog", 6), ("direct", "a dog", 6),
        ("fam", "a cat", 7), ("direct", "a cat", 7),
    ]  # fmt: skip
    assert found[0].request.prompt == "a cat" and found[0].request.size == (128, 128)
    assert len({row.fingerprint for row in found}) == 6
    assert len({row.file for row in found}) == 6


def test_more_pictures_leave_the_earlier_ones_as_they_are():
    assert [row.fingerprint for row in rows(count=5)][:6] == [row.fingerprint for row in rows()]


@pytest.mark.parametrize(
    "changed",
    [
        rows(dataclasses.replace(REQUEST, steps=9)),
        rows(dataclasses.replace(REQUEST, config=FamConfig(cutoff=0.4))),
        rows(dataclasses.replace(REQUEST, negative_prompt="blur")),
        rows(around={"model": "y"}),
        rows(seed=50),
    ],
)
def test_whatever_decides_the_pixels_is_in_the_fingerprint(changed):
    before, after = ({row.fingerprint for row in group} for group in (rows(), changed))
    assert not before & after


def test_a_label_decides_no_pixel_and_a_variants_dials_do():
    every = protocol.cases([SQUARE], ["a cat"], count=1, seed=5)
    plain, renamed, other = protocol.rows(
        every,
        [
            protocol.Variant("fam", "fam", FamConfig()),
            protocol.Variant("ours", "fam", FamConfig()),
            protocol.Variant("fm only", "fam", FamConfig(am=False)),
        ],
        REQUEST,
        {},
    )
    assert (plain.fingerprint, plain.file) == (renamed.fingerprint, renamed.file)
    assert other.fingerprint != plain.fingerprint and other.request.config.am is False


def test_an_upscaler_is_in_the_rows_that_ask_it_alone():
    every = protocol.cases([SQUARE], ["a cat"], count=1, seed=5)
    auto, filtered = FamConfig(), FamConfig(upsample="pixel_bicubic")
    variants = [protocol.Variant(f"{name} {config.upsample}", name, config)
                for name in ("fam", "direct", "upscaler", "resize") for config in (auto, filtered)]  # fmt: skip
    without, beside = (
        protocol.rows(every, variants, REQUEST, {"model": "x", "upscaler": file}) for file in (None, "its hash")
    )
    changed = [one.label for one, two in zip(without, beside, strict=True) if one.fingerprint != two.fingerprint]
    assert changed == ["fam auto", "upscaler auto", "upscaler pixel_bicubic"]
    assert len({row.surroundings for row in (*without, *beside)}) == 1  # one native picture serves all


@pytest.mark.parametrize("upsample", ["auto", "pixel_bicubic", "latent_bicubic"])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "accdiffusion"])  # it asks for words
def test_what_asks_an_upscaler_is_what_the_recipe_enlarges_by_it(method, upsample):
    asked, config = [], FamConfig(upsample=upsample)

    def larger(image, size):
        asked.append(size)
        return image.resize(size[::-1])

    more = {"size": (128, 96), "method": method, "config": config}
    hires.upscale(Small(), NOISE, sampling=hires.Sampling(), larger=larger, **more)
    assert bool(asked) == bool(protocol.asking_stages(HiresRequest(**more), (64, 64)))


def test_true_pictures_are_looked_for_before_anything_runs(tmp_path):
    every = protocol.cases([SQUARE], ["a cat"], count=2, seed=0)
    with pytest.raises(UsageError, match=r"0-a-cat\.png for 'a cat', seed 0"):
        protocol.check_truths(tmp_path, every)
    for case in every:
        path = protocol.truth_file(tmp_path, case)
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (128, 128)).save(path)
    protocol.check_truths(tmp_path, every)
    Image.new("RGB", (128, 64)).save(path)
    with pytest.raises(UsageError, match="is 128x64; give it at 128x128"):
        protocol.check_truths(tmp_path, every)
    path.write_bytes(b"none")
    with pytest.raises(UsageError, match="1-a-cat"):
        protocol.check_truths(tmp_path, every)


@pytest.mark.parametrize("crop", [0, 8, 129, 512])
def test_a_crop_that_does_not_fit_is_refused(crop):
    every = protocol.cases([SQUARE], ["a cat"], count=1, seed=0)
    protocol.check_crop(128, every)
    with pytest.raises(UsageError, match=f"--crop is {crop}; choose 16 to 128 px"):
        protocol.check_crop(crop, every)


def test_references_are_pictures_that_crops_fit_in(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "note.txt").write_text("none")
    found = protocol.pictures_in(tmp_path, least=100, flag="--references")
    assert [path.name for path in found] == ["a.png", "b.png"]
    with pytest.raises(UsageError, match="crops of 101 px do not fit"):
        protocol.pictures_in(tmp_path, least=101, flag="--references")
    (tmp_path / "b.png").unlink()
    with pytest.raises(UsageError, match="has 1 pictures"):
        protocol.pictures_in(tmp_path, least=10, flag="--references")
    with pytest.raises(UsageError, match="is no folder"):
        protocol.pictures_in(tmp_path / "gone", least=10, flag="--references")
