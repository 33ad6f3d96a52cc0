"""The whole WebUI before and after what we do: settings, model, VAE, hooks, random state, and a picture's bits."""

import shutil
import time
from pathlib import Path

import pytest
from PIL import Image, ImageStat
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from tests.webui.server import encoded
from tests.webui.test_jobs import ROUTE, wait

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
PROBE = Path(__file__).parent / "probe"


@pytest.fixture(scope="module")
def probed(start):
    return start(extension=PROBE)


def state(server, *, random=True):
    found = server.ask("/probe")[1]
    if not random:
        found.pop("random")
    return found


def folder_of(place, picture, texts, seed=None):
    place.mkdir()
    for number, more in enumerate(texts):
        info = PngInfo()
        drawn = number if seed is None else seed
        settings = f"Steps: 3, Sampler: Euler, Schedule type: Automatic, CFG scale: 4, Seed: {drawn}, Size: 64x64"
        info.add_text("parameters", f"a red apple {drawn}\n{settings}{more}")
        picture.save(place / f"{number}.png", pnginfo=info)
    return place


@pytest.mark.parametrize("other", ["tiny-sd15", "tiny-sdxl"])
def test_a_folder_job_leaves_the_host_as_it_was(probed, native_picture, tmp_path, other):
    folder = folder_of(tmp_path / "in", native_picture, [", Clip skip: 2", "", f", Model: {other}"])
    plain = probed.generate().pixels
    before = state(probed)
    body = {"input": str(folder), "own_model": True}
    ended = wait(probed, probed.ask(f"{ROUTE}/jobs", body)[1]["id"])
    assert (ended["state"], ended["done"]) == ("done", 3), ended
    assert state(probed) == before
    assert probed.generate().pixels == plain


def test_each_file_has_its_own_vae_and_the_host_keeps_its_own(probed, checkpoints, native_picture, tmp_path):
    weights = load_file(checkpoints / "fluent-tiny.safetensors")
    prefix = "first_stage_model."
    place = probed.data / "models" / "VAE"
    place.mkdir(parents=True, exist_ok=True)
    darker = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    darker["decoder.conv_out.bias"] = darker["decoder.conv_out.bias"] - 0.5
    save_file(darker, place / "darker.safetensors")
    probed.ask("/sdapi/v1/refresh-vae", {})
    texts = ["", ", VAE: darker.safetensors", ", VAE: gone.pt"]
    folder = folder_of(tmp_path / "in", native_picture, texts, seed=5)
    probed.generate()
    before = state(probed)
    ended = wait(probed, probed.ask(f"{ROUTE}/jobs", {"input": str(folder), "own_model": True})[1]["id"])
    assert (ended["state"], ended["done"]) == ("done", 3), ended
    assert state(probed) == before
    own, dark, gone = (ImageStat.Stat(Image.open(tmp_path / "in-fam" / f"{n}.png")).mean[0] for n in range(3))
    assert dark < own - 20 and gone == own
    notes = {row["key"]: row["message"] for row in ended["rows"]}
    assert "gone.pt is not in this WebUI" in notes["2.png"] and notes["0.png"] == notes["1.png"] == ""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright and Chromium")
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_picture_and_its_interrupt_leave_the_host_as_it_was(probed, browser, native_picture, tmp_path):
    folder = folder_of(tmp_path / "in", native_picture, [", Clip skip: 2, Model: tiny-sd15"])
    page = browser.new_page(viewport={"width": 1500, "height": 1400})
    page.set_default_timeout(60_000)
    page.goto(probed.url, wait_until="domcontentloaded")
    page.wait_for_function("typeof switch_to_fam_hires === 'function' && gradioApp().querySelector('#tab_fam_hires')")
    time.sleep(1)
    page.evaluate("switch_to_fam_hires()")
    page.set_input_files("#fam_hires_image input[type=file]", str(folder / "0.png"))
    page.wait_for_function("gradioApp().querySelector('#fam_hires_steps input[type=number]').value === '3'")
    page.click("#fam_hires_fold_sampling > .label-wrap")
    page.check("#fam_hires_own_model input")
    plain = probed.generate().pixels
    before = state(probed, random=False)
    page.click("#fam_hires_generate")
    page.wait_for_selector("#html_info_fam_hires:has-text('Clip skip: 2')")
    assert "tiny-sd15" in page.inner_text("#html_info_fam_hires")
    assert state(probed, random=False) == before
    page.fill("#fam_hires_steps input[type=number]", "150")
    page.press("#fam_hires_steps input[type=number]", "Tab")
    page.click("#fam_hires_generate")
    while probed.ask("/sdapi/v1/progress?skip_current_image=true")[1]["state"]["sampling_step"] < 2:
        time.sleep(0.05)
    page.click("#fam_hires_interrupt")
    while probed.ask("/sdapi/v1/progress?skip_current_image=true")[1]["state"]["job_count"]:
        time.sleep(0.1)
    time.sleep(1)
    assert state(probed, random=False) == before
    page.close()
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


def test_reload_ui_leaves_the_host_as_it_was_and_a_jobs_end_known(probed, browser, native_picture, tmp_path):
    folder = folder_of(tmp_path / "in", native_picture, [", Clip skip: 2, Model: tiny-sd15"])
    plain, guided = probed.generate().pixels, probed.generate({}).pixels
    body = {"input": str(folder), "own_model": True}
    job = wait(probed, probed.ask(f"{ROUTE}/jobs", body)[1]["id"])
    before, started = state(probed, random=False), probed.log().count("Startup time:")
    page = browser.new_page(viewport={"width": 1500, "height": 1400})
    page.set_default_timeout(120_000)
    page.goto(probed.url, wait_until="domcontentloaded")
    page.click("#tabs > div > button:has-text('Settings')")
    page.click("#settings_restart_gradio")
    while probed.log().count("Startup time:") == started:
        time.sleep(0.2)
    after = state(probed, random=False)
    assert after.pop("flags")[1:] == before.pop("flags")[1:]  # the WebUI's own button asks for an interrupt as well
    assert after == before
    assert (probed.generate().pixels, probed.generate({}).pixels) == (plain, guided)
    assert probed.ask(f"{ROUTE}/jobs/{job['id']}")[1] == job
    page.goto(probed.url, wait_until="domcontentloaded")
    page.wait_for_function("typeof switch_to_fam_hires === 'function' && gradioApp().querySelector('#tab_fam_hires')")
    page.close()
    assert not any(said in probed.log() for said in ("Error executing callback", "Error running", "Error loading"))
