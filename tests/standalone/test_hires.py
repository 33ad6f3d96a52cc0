"""The recipe on toy models of the three layouts: sizes, seeds, records, late starts, errors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.errors import Cancelled, PictureError, UnsupportedSamplerError, UsageError
from fam_ext.methods.catalog import METHODS

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run

SAMPLING = hires.Sampling(prompt="a cat", negative_prompt="blurry", seed=3, steps=3, cfg_scale=4.0)


def picture(width=64, height=64, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def pixels(image):
    return np.asarray(image, dtype=np.int16)


@pytest.mark.parametrize("kind", ["sd_host", "v_host", "sdxl_host"])
def test_every_layout_makes_a_picture_of_the_asked_size_and_says_what_ran(kind, request):
    host = request.getfixturevalue(kind)
    done = hires.upscale(host, picture(), size=(128, 128), sampling=SAMPLING)
    assert done.image.size == (128, 128) and done.steps == 3
    assert done.report.fm_calls == 3
    sites = 9 if kind == "sdxl_host" else 3
    assert done.report.am_calls and len(done.report.am_calls) == sites
    assert set(done.report.am_calls.values()) == {3}


@pytest.mark.parametrize("size", [(128, 192), (72, 104), (64, 256), (136, 120)])
def test_any_multiple_of_eight_and_any_aspect(sd_host, size):
    done = hires.upscale(sd_host, picture(64, 56), size=size, sampling=SAMPLING)
    assert done.image.size == (size[1], size[0])


@pytest.mark.parametrize("sampler", ["DDIM", "Euler a", "DPM++ 2M Karras", "Heun", "UniPC"])
def test_the_same_seed_gives_the_same_picture_and_another_does_not(sd_host, sampler):
    def make(seed):
        sampling = hires.Sampling(prompt="a cat", seed=seed, steps=3, sampler=sampler, cfg_scale=3.0)
        return pixels(hires.upscale(sd_host, picture(), size=(96, 96), sampling=sampling).image)

    assert np.array_equal(make(1), make(1))
    assert not np.array_equal(make(1), make(2))


def test_methods_differ_and_off_is_the_bare_pass(sd_host):
    made = {
        method: pixels(hires.upscale(sd_host, picture(), size=(96, 96), sampling=SAMPLING, method=method).image)
        for method in METHODS.keys() - {"resize"}  # what upscaler is without a network
    }
    made |= {
        name: pixels(hires.upscale(sd_host, picture(), size=(96, 96), sampling=SAMPLING, config=config).image)
        for name, config in {
            "no am": FamConfig(am=False),
            "no fm": FamConfig(fm=False),
            "late": FamConfig(start=0.5),
        }.items()
    }
    names = list(made)
    assert all(not np.array_equal(made[a], made[b]) for a in names for b in names if a < b)
    off = hires.upscale(
        sd_host, picture(), size=(96, 96), sampling=SAMPLING, config=FamConfig(attention=0.0, cutoff=0.0)
    )
    assert np.array_equal(pixels(off.image), made["direct-from-native"])
    assert not off.report.fm_calls and not off.report.am_calls


def test_direct_inference_starts_from_noise_and_runs_every_step_whatever_the_start(sd_host):
    late = FamConfig(start=0.5)
    direct, fam = (
        hires.upscale(sd_host, picture(), size=(96, 96), sampling=SAMPLING, config=late, method=method)
        for method in ("direct", "fam")
    )
    assert direct.steps == SAMPLING.steps > fam.steps
    whole = hires.upscale(sd_host, picture(), size=(96, 96), sampling=SAMPLING, method="direct")
    assert np.array_equal(pixels(direct.image), pixels(whole.image))


def test_fm_keeps_the_low_band_of_the_reference_where_direct_inference_does_not(sd_host, monkeypatch):
    config = FamConfig(cutoff=4, cutoff_reference="cycles", am=False)
    sampling = hires.Sampling(prompt="a cat", seed=3, steps=12, cfg_scale=1.0)
    encode, decode, references, latents = sd_host.encode, sd_host.decode, [], []
    monkeypatch.setattr(sd_host, "encode", lambda *a, **k: references.append(encode(*a, **k)) or references[-1])
    monkeypatch.setattr(sd_host, "decode", lambda latent, **k: latents.append(latent) or decode(latent, **k))
    for method in ("fam", "direct"):
        hires.upscale(sd_host, picture(seed=4), size=(128, 128), sampling=sampling, config=config, method=method)
    low = torch.fft.fftfreq(16, 1 / 16).abs() < 3
    wanted, fam, direct = (torch.fft.fft2(x)[0][:, low][:, :, low] for x in (references[1], *latents))
    assert (fam - wanted).abs().mean() < 0.1 * (direct - wanted).abs().mean()


def test_generated_natives_are_recorded_and_attended_to(sd_host):
    native = hires.generate_native(sd_host, size=(64, 64), sampling=SAMPLING)
    assert native.image.size == (64, 64) and len(native.record) == SAMPLING.steps
    recorded = hires.upscale(sd_host, native, size=(128, 128), sampling=SAMPLING)
    replayed = hires.upscale(sd_host, native, size=(128, 128), sampling=SAMPLING, config=FamConfig(am_source="replay"))
    assert recorded.report.am_calls == replayed.report.am_calls
    assert not np.array_equal(pixels(recorded.image), pixels(replayed.image))
    with pytest.raises(ValueError, match="no native run was recorded"):
        hires.upscale(sd_host, picture(), size=(128, 128), sampling=SAMPLING, config=FamConfig(am_source="recorded"))


def test_native_passes_condition_sdxl_on_their_own_size(sdxl_host):
    seen = []
    handle = sdxl_host.pipe.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(
            (args[0].shape[-1] * 8, kwargs["added_cond_kwargs"]["time_ids"][0].tolist())
        ),
        with_kwargs=True,
    )
    try:
        hires.upscale(sdxl_host, picture(64, 72), size=(128, 144), sampling=SAMPLING)
    finally:
        handle.remove()
    assert {(width, tuple(ids)) for width, ids in seen} == {
        (64, (72.0, 64.0, 0.0, 0.0, 72.0, 64.0)),
        (144, (128.0, 144.0, 0.0, 0.0, 128.0, 144.0)),
    }


def test_low_memory_makes_the_same_picture(sd_host):
    def make(low_memory):
        return hires.upscale(sd_host, picture(), size=(96, 96), sampling=SAMPLING, low_memory=low_memory)

    plain, low = make(False), make(True)
    assert np.abs(pixels(plain.image) - pixels(low.image)).max() <= 1
    # two halves a step, each steered
    assert {site: 2 * calls for site, calls in plain.report.am_calls.items()} == low.report.am_calls


def test_progress_and_cancel(sd_host):
    steps = []
    hires.upscale(
        sd_host,
        picture(),
        size=(96, 96),
        sampling=SAMPLING,
        callbacks=hires.Callbacks(lambda done, total: steps.append((done, total))),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(Cancelled, match="after 0 of 3"):
        hires.upscale(
            sd_host, picture(), size=(96, 96), sampling=SAMPLING, callbacks=hires.Callbacks(cancelled=lambda: True)
        )
    assert hires.upscale(sd_host, picture(), size=(96, 96), sampling=SAMPLING).report.am_calls, "the next one runs"


@pytest.mark.parametrize(
    ("image", "size", "error", "match"),
    [
        (picture(), (100, 96), UsageError, "96x100; choose multiples of 8"),
        (picture(), (32, 32), UsageError, "at least 64 px"),
        (picture(128, 128), (96, 96), UsageError, "smaller than the picture's 128x128"),
        (Image.new("RGB", (1, 1)), (96, 96), PictureError, "the picture is 1x1"),
        (Image.new("RGB", (20000, 10)), (80, 160000), PictureError, "20000x10"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sd_host, image, size, error, match):
    with pytest.raises(error, match=match):
        hires.upscale(sd_host, image, size=size, sampling=SAMPLING)


def test_unknown_method_and_sampler_are_refused(sd_host):
    with pytest.raises(UsageError, match="method is 'magic'; choose one of fam, direct"):
        hires.upscale(sd_host, picture(), size=(96, 96), sampling=SAMPLING, method="magic")
    with pytest.raises(UnsupportedSamplerError, match="'PLMS' is refused"):
        hires.upscale(sd_host, picture(), size=(96, 96), sampling=hires.Sampling(sampler="PLMS"))


def test_tiles_stay_near_the_whole_picture(sd_host):
    latent = sd_host.encode(hires.to_tensor(picture(256, 192)), tile=0)
    tiled = sd_host.encode(hires.to_tensor(picture(256, 192)), tile=128)
    assert tiled.shape == latent.shape == (1, 4, 24, 32)
    assert sd_host.decode(latent, tile=128).shape == (1, 3, 192, 256)


@pytest.mark.parametrize("tile", [7, 48, 100, 127])
def test_tiles_of_any_side_make_the_whole_picture(sd_host, tile):
    latent = sd_host.encode(hires.to_tensor(picture(256, 192)), tile=tile)
    assert latent.shape == (1, 4, 24, 32)
    assert sd_host.decode(latent, tile=tile).shape == (1, 3, 192, 256)


def test_native_size_keeps_area_and_aspect(sd_host):
    assert hires.native_size(sd_host, (128, 128)) == (64, 64)
    height, width = hires.native_size(sd_host, (128, 512))
    assert (height, width) == (32, 128)


@pytest.mark.parametrize(
    ("side", "target", "native"),
    [
        (512, (1024, 1536), (448, 672)),
        (512, (1536, 1024), (672, 448)),
        (512, (1024, 2048), (384, 768)),
        (1024, (2048, 4096), (704, 1408)),
        (1024, (2048, 2048), (1024, 1024)),
        (768, (2048, 4096), (512, 1024)),
    ],
)
def test_no_target_stretches_its_native_picture(side, target, native):
    assert hires.native_size(SimpleNamespace(native_side=side), target) == native


def test_a_native_size_is_of_the_targets_aspect():
    for width in range(512, 4097, 8):
        height_native, width_native = hires.native_size(SimpleNamespace(native_side=512), (1024, width))
        assert width_native / height_native == pytest.approx(width / 1024, rel=0.02)
        assert height_native % 8 == width_native % 8 == 0


def test_native_generation_is_the_pipelines_own(sd_host):
    from fam_ext.core.guide import seeded_noise

    native = hires.generate_native(sd_host, size=(64, 64), sampling=SAMPLING)
    sd_host.pipe.set_progress_bar_config(disable=True)
    expected = sd_host.pipe(
        SAMPLING.prompt,
        negative_prompt=SAMPLING.negative_prompt,
        num_inference_steps=SAMPLING.steps,
        guidance_scale=SAMPLING.cfg_scale,
        latents=seeded_noise((4, 8, 8), [SAMPLING.seed]),
        height=64,
        width=64,
        output_type="latent",
    ).images
    assert torch.allclose(native.latent, expected, atol=1e-4)
