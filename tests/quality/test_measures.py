"""Each measure orders what it must: pictures whose faults are known."""

import numpy as np
import pytest
from PIL import Image

from fam_ext.compare import structure_psnr
from fam_ext.quality import detail, seams, structure

Y, X = np.mgrid[0:512, 0:512]


def picture(light):
    return np.repeat(np.clip(light, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def stripes(period, side=512):
    y, x = np.mgrid[0:side, 0:side]
    return picture(128 + 80 * np.sin(2 * np.pi * (x + 0.3 * y) / period))


def enlarged(image, times=2):
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((width * times, height * times), Image.Resampling.BICUBIC))


def blobs(*places, side=256, radius=30):
    y, x = np.mgrid[0:side, 0:side]
    image = np.full((side, side, 3), (190, 216, 242), np.uint8)
    for top, left in places:
        image[np.hypot(y - top, x - left) < radius] = (150, 40, 30)
    return image


ONE = blobs((128, 128))
NOISE = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)


def test_a_resize_keeps_all_structure_and_another_picture_none():
    kept, lost = structure.kept(enlarged(ONE), ONE), structure.kept(enlarged(blobs((60, 60))), ONE)
    assert kept["psnr"] > 40 > 20 > lost["psnr"]
    assert kept["ms_ssim"] > 0.98 > lost["ms_ssim"]
    assert kept["low_band"] < 2 < 50 < lost["low_band"]
    assert kept["colour_p99"] < 3 < 50 < lost["colour_p99"]


def test_a_picture_is_equal_to_itself():
    kept = structure.kept(NOISE, NOISE)
    assert (kept["psnr"], kept["low_band"], kept["colour_mean"]) == (99.0, 0.0, 0.0)
    assert kept["ms_ssim"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("side", [16, 40, 250])
def test_structure_is_measured_at_odd_sizes(side):
    native = np.ascontiguousarray(NOISE[:side, : side - 3])
    assert structure.kept(np.ascontiguousarray(enlarged(native)[:-1]), native)["psnr"] > 15


@pytest.mark.parametrize(("native", "target"), [((384, 704), (1024, 2048)), ((704, 384), (1920, 1080))])
def test_a_picture_of_another_aspect_than_its_native_one_is_measured(native, target):
    """Native sides are multiples of 64: few targets have their aspect exactly."""
    plain = np.full((*native, 3), (190, 216, 242), np.uint8)
    plain[100:200, 150:250] = (150, 40, 30)
    larger = np.asarray(Image.fromarray(plain).resize(target[::-1], Image.Resampling.BICUBIC))
    assert structure.objects(larger, plain) == {"objects": 0.0, "strays": 0.0}


def test_a_box_is_the_mean_of_what_it_covers():
    blocks = NOISE.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(structure.downsampled(NOISE, (128, 128)) - blocks).max() <= 0.5
    assert abs((structure.downsampled(NOISE, (128, 128)) - blocks).mean()) < 0.02  # halves round up as often as down
    row = np.array([[[0], [90], [30]]], np.uint8).repeat(3, axis=2)
    assert structure.downsampled(row, (1, 2))[0, :, 0].tolist() == [30, 50]  # (0 + 90 / 2) / 1.5
    assert (structure.downsampled(NOISE, (512, 512)) == NOISE.repeat(2, axis=0).repeat(2, axis=1)).all()


@pytest.mark.parametrize("times", [1.25, 1.5])
def test_a_box_moves_nothing_where_a_side_is_no_multiple(times):
    smooth = np.asarray(Image.fromarray(NOISE[:96, :96]).resize((384, 384), Image.Resampling.BICUBIC))
    larger = np.asarray(Image.fromarray(smooth).resize((round(384 * times),) * 2, Image.Resampling.BICUBIC))
    small = structure.downsampled(larger, (384, 384))
    left, right = structure.psnr(small[:, 1:], smooth[:, :-1]), structure.psnr(small[:, :-1], smooth[:, 1:])
    assert left == pytest.approx(right, abs=0.1) and structure.psnr(small, smooth) > 38
    shown = structure_psnr(Image.fromarray(larger), Image.fromarray(smooth))  # on a page of `compare`
    assert shown == structure.psnr(small, smooth)


@pytest.mark.parametrize("across", [X, Y])
def test_a_box_of_means_hears_no_texture_drawn_anew_in_it(across):
    drawn = Image.fromarray(picture(np.where(across % 2, 190, 130)))
    halves = Image.fromarray(picture(np.where(across < 256, 190, 130)))
    flat = Image.fromarray(picture(0 * X + 160))
    assert structure_psnr(drawn, flat) < 20 < 60 < structure_psnr(drawn, flat, box=16)
    assert structure_psnr(halves, flat, box=16) < 20


def test_coarse_colour_is_the_shift_of_means_and_not_of_detail():
    shifted = np.clip(ONE.astype(int) + 5, 0, 255).astype(np.uint8)
    assert structure.kept(shifted, ONE)["colour_mean"] == pytest.approx(5, abs=0.1)
    checker = picture(np.where((X + Y) % 2, 90, 110))
    assert structure.kept(checker, picture(np.full((512, 512), 100)))["colour_mean"] < 0.1


def test_low_band_hears_low_frequencies_alone():
    base = picture(128 + 60 * np.sin(2 * np.pi * X / 512 * 4))
    high = picture(128 + 60 * np.sin(2 * np.pi * X / 512 * 4) + 20 * np.sin(2 * np.pi * X / 512 * 40))
    low = picture(128 + 60 * np.sin(2 * np.pi * X / 512 * 4) + 20 * np.sin(2 * np.pi * X / 512 * 10))
    assert structure.low_band(high, base) < 3
    assert structure.low_band(low, base) == pytest.approx(100 / 3, rel=0.05)


def test_objects_and_strays():
    assert structure.objects(enlarged(ONE), ONE) == {"objects": 0.0, "strays": 0.0}
    doubled = structure.objects(enlarged(blobs((128, 128), (40, 200))), ONE)
    assert doubled["objects"] == 1.0 and doubled["strays"] == pytest.approx(100 * np.pi * 30**2 / 256**2, rel=0.1)
    touching = structure.objects(enlarged(blobs((128, 128), (128, 180))), ONE)
    assert touching["objects"] == 0.0 and touching["strays"] > 1  # what pieces miss, area sees
    assert structure.objects(enlarged(NOISE), NOISE) == {"objects": None, "strays": None}


@pytest.mark.parametrize("period", [9, 14, 24])
def test_an_enlarged_texture_has_twice_the_period_of_the_true_one(period):
    true, native = stripes(period, 512), stripes(period, 256)
    across = period / np.hypot(1, 0.3)
    assert detail.texture_period(true) == pytest.approx(across, rel=0.1)
    assert detail.texture_period(enlarged(native)) == pytest.approx(2 * across, rel=0.15)
    assert detail.period_error(stripes(period), true) == 0
    assert detail.period_error(enlarged(native), true) == pytest.approx(1, abs=0.25)
    assert detail.period_error(picture(np.full((512, 512), 90)), true) == 1.0
    assert detail.period_error(true, picture(np.full((512, 512), 90))) is None


@pytest.mark.parametrize("period", [8, 14, 24, 36, 45, 50, 100])
def test_a_long_period_is_read_short_and_never_beyond_the_longest(period):
    across = period / np.hypot(1, 0.3)
    found = detail.texture_period(stripes(period))
    assert found <= detail.PERIODS[1]
    assert 0.8 * min(across, detail.PERIODS[1]) <= found <= 1.05 * across


def test_an_outline_does_not_hide_a_texture():
    outlined = stripes(14).copy()
    outlined[np.hypot(Y - 256, X - 256) > 200] = 250
    assert detail.texture_period(outlined) == pytest.approx(detail.texture_period(stripes(14)), rel=0.1)


def test_contrast_and_compression_reward_detail_and_noise_too():
    blurred = np.asarray(Image.fromarray(NOISE).resize((64, 64)).resize((256, 256), Image.Resampling.BICUBIC))
    assert detail.glcm_contrast(NOISE) > 4 * detail.glcm_contrast(blurred)
    assert detail.compression_ratio(NOISE) < detail.compression_ratio(blurred)


def test_glcm_contrast_is_that_of_the_matrix():
    small = NOISE[:20, :20]
    grey = np.asarray(Image.fromarray(small).convert("L")).astype(int) * detail.LEVELS // 256
    matrix = np.zeros((detail.LEVELS, detail.LEVELS))
    for one, two in ((grey[:-1], grey[1:]), (grey[:, :-1], grey[:, 1:])):
        np.add.at(matrix, (one.ravel(), two.ravel()), 1)
    i, j = np.mgrid[0 : detail.LEVELS, 0 : detail.LEVELS]
    assert detail.glcm_contrast(small) == pytest.approx(((i - j) ** 2 * matrix / matrix.sum()).sum())


def test_seams_lie_where_tiles_meet():
    rows, columns = seams.tile_lines((1024, 1024), (512, 512))
    assert rows == columns and len(rows) == 2 and all(line % 8 == 0 for line in rows)
    assert seams.tile_lines((512, 512), (512, 512)) == ([], [])
    plain = picture(128 + 40 * np.sin(np.mgrid[0:1024, 0:1024][1] / 60))
    native = structure.downsampled(plain, (512, 512))
    cut = plain.copy()
    cut[rows[0] :] += 12
    assert seams.seam(cut, native.shape) > 1.5 > 1.2 > seams.seam(plain, native.shape)
    assert seams.seam(native, native.shape) is None


def test_edges_that_were_joined_have_less_wrap_than_the_native_picture():
    native = picture(np.where(Y < 100, 40, 200))
    joined = native.copy()
    joined[-8:] = 120
    found = seams.seams(joined, native)
    assert found["wrap_ends"] < -50 and found["wrap_sides"] == 0
