"""The neighbours on real UNets of both layouts, at every shape, and the upscaler that some of them start from."""

import dataclasses
import functools
import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from fam_ext import hires, standalone
from fam_ext.core.config import FamConfig
from fam_ext.errors import Cancelled, UsageError
from fam_ext.jobs.contract import Progress
from fam_ext.jobs.make import degrade
from fam_ext.methods.catalog import METHODS
from fam_ext.options.renderer import RendererChoice
from fam_ext.options.request import HiresRequest
from fam_ext.upscalers import Upscaler, lanczos

NATIVE = Image.effect_noise((64, 64), 60).convert("RGB")
SHAPES = [(128, 128), (192, 192), (256, 256), (128, 256)]
ENDS = {"steps": 2, "schedule": "SGM Uniform"}
"""From pure noise, where all acts, and in the middle."""
WIDER = {"multidiffusion": 1 / 2, "demofusion": 1.0, "accdiffusion": 1.0}
"""Strides for the larger shapes: at the methods' own, hundreds of windows took most of this file's time."""


@pytest.fixture
def network():
    """Doubles a picture and turns it into its negative; keeps what it was given."""

    def doubled(pixels):
        seen.append(tuple(pixels.shape[-2:]))
        return 1 - interpolate(pixels, scale_factor=2, mode="nearest")

    seen = []
    upscaler = Upscaler("negative (fake 2x)", 2, doubled, torch.device("cpu"))
    return upscaler, seen


@pytest.fixture(scope="module")
def drawn(sd_host):
    """Returns what a method draws of the first shape, drawn once."""
    return functools.cache(lambda method: made(sd_host, method, size=SHAPES[0], **ENDS).image.tobytes())


def asked(method, size=(128, 128), *, steps=3, schedule="Automatic", **dials):
    config = FamConfig(start=1.0, **dials)
    settings = {"steps": steps, "sampler": "Euler", "schedule": schedule, "method": method}
    return HiresRequest(prompt="a stone", size=size, seed=5, config=config, **settings)


def made(host, method, **more):
    return standalone.render_on(host, NATIVE, asked(method, **more), Progress())


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "size"), [*(("sd_host", size) for size in SHAPES), ("sdxl_host", SHAPES[-1])])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_draws_every_shape_on_both_layouts(request, monkeypatch, drawn, layout, method, size):
    host = request.getfixturevalue(layout)
    if size != SHAPES[0] and method in WIDER:
        monkeypatch.setitem(METHODS[method].load().__init__.__kwdefaults__, "stride", WIDER[method])
    rendered = made(host, method, size=size, **ENDS)
    assert rendered.image.size == size[::-1] and rendered.ran.method == method
    if size == SHAPES[0]:
        assert rendered.image.tobytes() == drawn(method)


@pytest.mark.slow
def test_the_neighbours_are_not_the_plain_pass(drawn):
    assert drawn("resize") == drawn("upscaler"), "without a network the upscaler is a resize"
    different = METHODS.keys() - {"resize"}
    assert len({drawn(method) for method in different}) == len(different), "no two others draw the same"


def test_an_upscaler_alone_draws_what_its_network_draws(sd_host, network):
    upscaler, seen = network
    rendered = standalone.render_on(sd_host, NATIVE, asked("upscaler"), Progress(), upscaler=upscaler)
    assert rendered.image.tobytes() == upscaler.enlarge(NATIVE, (128, 128)).tobytes()
    assert seen == [(64, 64)] * 2
    assert (rendered.ran.upscaler, rendered.ran.steps_taken, rendered.ran.config) == (upscaler.name, 0, None)


@pytest.mark.parametrize(
    ("tile", "most"), [(None, 256), (0, 256), (4096, 256), (1024, 256), (512, 128), (256, 64), (8, 64)]
)
def test_the_vaes_tile_only_makes_a_networks_smaller(sd_host, network, tile, most):
    upscaler, seen = network
    request = dataclasses.replace(asked("upscaler", (600, 560)), tile=tile)
    standalone.render_on(sd_host, NATIVE.resize((280, 300)), request, Progress(), upscaler=upscaler)
    assert most / 2 < max(map(max, seen)) <= most


def test_each_step_down_gives_a_network_less(sd_host, network):
    upscaler, seen = network
    request, largest = asked("upscaler", (600, 560)), []
    while request is not None:
        standalone.render_on(sd_host, NATIVE.resize((280, 300)), request, Progress(), upscaler=upscaler)
        largest.append(max(map(max, seen)))
        seen.clear()
        request, _ = degrade(request, standalone.DiffusersRenderer.can_give_up) or (None, "")
    assert len(largest) == 3 and largest == sorted(set(largest), reverse=True)


def test_without_a_network_it_is_lanczos(sd_host):
    rendered = made(sd_host, "upscaler", size=(128, 192))
    assert rendered.image.tobytes() == lanczos(NATIVE, (128, 192)).tobytes()
    assert rendered.ran.upscaler is None


def test_a_plain_resize_leaves_the_network_alone(sd_host, network):
    upscaler, seen = network
    rendered = standalone.render_on(sd_host, NATIVE, asked("resize"), Progress(), upscaler=upscaler)
    assert rendered.image.tobytes() == lanczos(NATIVE, (128, 128)).tobytes()
    assert seen == [] and (rendered.ran.upscaler, rendered.ran.steps_taken) == (None, 0)


def test_a_method_from_pure_noise_does_not_say_that_a_network_made_its_reference(sd_host, network):
    upscaler, seen = network
    rendered = standalone.render_on(sd_host, NATIVE, asked("direct"), Progress(), upscaler=upscaler)
    assert seen == [] and rendered.ran.upscaler is None


@pytest.mark.parametrize("method", ["upscaler+img2img", "tiled", "direct-from-native"])
def test_a_network_makes_the_reference_once_where_that_is_auto(sd_host, network, method):
    upscaler, seen = network
    rendered = standalone.render_on(sd_host, NATIVE, asked(method), Progress(), upscaler=upscaler)
    assert seen == [(64, 64)] and rendered.ran.upscaler == upscaler.name
    assert rendered.image.tobytes() != made(sd_host, method).image.tobytes()


def test_a_network_is_not_asked_and_not_named_where_the_reference_is_made_otherwise(sd_host, network):
    upscaler, seen = network
    request = asked("direct-from-native", upsample="pixel_bicubic")
    rendered = standalone.render_on(sd_host, NATIVE, request, Progress(), upscaler=upscaler)
    assert not seen and rendered.ran.upscaler is None


def test_the_reference_is_what_the_network_made(sd_host, network, monkeypatch):
    upscaler, _ = network
    encoded, encode = [], sd_host.encode

    def watched(images, **more):
        encoded.append(images)
        return encode(images, **more)

    monkeypatch.setattr(sd_host, "encode", watched)
    standalone.render_on(sd_host, NATIVE, asked("direct-from-native"), Progress(), upscaler=upscaler)
    wanted = np.asarray(upscaler.enlarge(NATIVE, (128, 128)))
    assert np.array_equal((encoded[-1][0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8), wanted)


def test_a_picture_from_text_is_enlarged_by_the_network_too(sd_host, network):
    upscaler, _ = network
    rendered, native = standalone.generate(sd_host, asked("upscaler"), upscaler=upscaler)
    assert np.array_equal(np.asarray(rendered.image), np.asarray(upscaler.enlarge(native, (128, 128))))
    assert rendered.ran.upscaler == upscaler.name


def test_an_upscaler_stops_when_it_is_told(sd_host, network):
    progress = Progress(cancelled=lambda: True)
    with pytest.raises(Cancelled):
        standalone.render_on(sd_host, NATIVE, asked("upscaler"), progress, upscaler=network[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name, entry in METHODS.items() if "FAM" in entry.title])
def test_what_is_called_fam_modulates_frequencies_and_attention(sd_host, method):
    drawn = [made(sd_host, method, **dials) for dials in ({}, {"fm": False}, {"am": False})]
    assert [(bool(each.ran.fm_calls), bool(each.ran.am_calls)) for each in drawn] == [
        *((True, True), (False, True), (True, False))
    ]
    assert len({each.image.tobytes() for each in drawn}) == 3


def test_what_a_method_fixes_is_what_the_record_says(sd_host):
    ran = made(sd_host, "fam-swap", attention=0.4).ran
    assert ran.config.attention == 1.0
    assert made(sd_host, "fam-constant").ran.config.reference == "constant"


def test_a_renderer_loads_its_network_before_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(standalone, "load_pipeline", lambda *args, **more: pytest.fail("the model was loaded"))
    renderer = standalone.load_renderer(upscaler=str(tmp_path / "nothing.safetensors"), device="cpu")
    with pytest.raises(UsageError, match=r"nothing\.safetensors cannot be read"):
        renderer.load()


@pytest.mark.parametrize(("said", "dtype"), [(None, None), ("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_a_network_runs_in_the_number_format_that_was_said(monkeypatch, said, dtype):
    asked = []
    monkeypatch.setattr(standalone.upscalers, "load", lambda file, **more: asked.append(more))
    _ = standalone.load_renderer(upscaler="x4.safetensors", device="cpu", dtype=said).upscaler
    assert asked == [{"device": torch.device("cpu"), "dtype": dtype}]


def test_every_argument_of_a_choice_is_one_of_the_loaders():
    loader = inspect.signature(standalone.load_pipeline).parameters.keys() - {"path"}
    assert set(RendererChoice().arguments) == loader | {"model", "upscaler"}


def test_a_choice_of_upscaler_is_in_the_identity_and_no_choice_leaves_it_as_it_was():
    plain, chosen = RendererChoice("standalone"), RendererChoice("standalone", upscaler="x4.safetensors")
    assert "upscaler" not in plain.identity and plain.arguments["upscaler"] is None
    assert chosen.identity != plain.identity and chosen.arguments["upscaler"] == "x4.safetensors"
    assert dataclasses.replace(chosen, upscaler="other.safetensors").identity != chosen.identity


def test_the_libraries_own_face_takes_any_way_to_enlarge(sd_host):
    done = hires.upscale(
        sd_host,
        NATIVE,
        size=(128, 128),
        sampling=hires.Sampling(),
        method="upscaler",
        larger=lambda image, size: Image.new("RGB", size[::-1], "red"),
    )
    assert done.image.getpixel((5, 5)) == (255, 0, 0) and done.steps == 0
