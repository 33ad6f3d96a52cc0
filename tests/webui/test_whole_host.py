"""The whole WebUI before and after what we do: settings, model, VAE, hooks, random state, and a picture's bits."""

import time
from pathlib import Path

import pytest
from PIL.PngImagePlugin import PngInfo

from tests.webui.server import encoded
from tests.webui.test_jobs import ROUTE, wait

PROBE = Path(__file__).parent / "probe"


@pytest.fixture(scope="module")
def probed(start):
    return start(extension=PROBE)


def state(server, *, random=True):
    found = server.ask("/probe")[1]
    if not random:
        found.pop("random")
    return found


def folder_of(place, picture, texts):
    place.mkdir()
    for number, more in enumerate(texts):
        info = PngInfo()
        settings = f"Steps: 3, Sampler: Euler, Schedule type: Automatic, CFG scale: 4, Seed: {number}, Size: 64x64"
        info.add_text("parameters", f"a red apple {number}\n{settings}{more}")
        picture.save(place / f"{number}.png", pnginfo=info)
    return place


def test_a_folder_job_leaves_the_host_as_it_was(probed, native_picture, tmp_path):
    other = "tiny-sd15"
    folder = folder_of(tmp_path / "in", native_picture, [", Clip skip: 2", "", f", Model: {other}"])
    plain = probed.generate().pixels
    before = state(probed)
    body = {"input": str(folder), "own_model": True}
    ended = wait(probed, probed.ask(f"{ROUTE}/jobs", body)[1]["id"])
    assert (ended["state"], ended["done"]) == ("done", 3), ended
    assert state(probed) == before
    assert probed.generate().pixels == plain


@pytest.mark.parametrize("ending", ["cancel", "skip", "error"])
def test_a_job_that_ends_badly_leaves_the_host_as_it_was(probed, native_picture, tmp_path, ending):
    folder = folder_of(tmp_path / "in", native_picture, [", Clip skip: 2, Model: tiny-sd15"] * 2)
    probed.generate()
    before = state(probed)
    body = {"input": str(folder), "own_model": True, "own_settings": False, "steps": 60}
    if ending == "error":
        body["fam"] = {"am_sites": "no.such.site"}
    answer = probed.ask(f"{ROUTE}/jobs", body)[1]
    if "id" in answer:
        job = answer["id"]
        if ending != "error":
            while probed.ask(f"{ROUTE}/jobs/{job}")[1]["step"] < 1:
                time.sleep(0.05)
            probed.ask("/sdapi/v1/skip" if ending == "skip" else f"{ROUTE}/jobs/{job}/cancel", {})
        wait(probed, job)
    assert state(probed) == before


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_a_generation_leaves_the_host_as_it_was(probed, native_picture, tab):
    fields = {"tab": tab, "init_images": [encoded(native_picture)], "width": 128, "height": 128}
    if tab == "txt2img":
        fields = {}
    probed.generate(**fields)
    before = state(probed, random=False)
    assert probed.generate({"start": 0.7}, **fields).fam
    assert probed.generate({"cutoff": 7}, **fields).status == 422
    assert state(probed, random=False) == before


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_equal_requests_give_equal_pictures_whatever_ran_before(probed, native_picture, tab):
    fields = {"tab": tab, "init_images": [encoded(native_picture)], "width": 128, "height": 128}
    if tab == "txt2img":
        fields = {"hr_upscaler": "Lanczos"}
    first = probed.generate({"start": 0.7, "upsample": "pixel_bicubic"}, **fields).pixels
    probed.generate(seed=77)
    probed.generate(tab="img2img", init_images=[encoded(native_picture)], width=128, seed=5)
    assert probed.generate({"start": 0.7, "upsample": "pixel_bicubic"}, **fields).pixels == first
