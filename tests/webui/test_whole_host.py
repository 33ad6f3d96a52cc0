"""The whole WebUI before and after what we do: settings, model, VAE, hooks, random state, and a picture's bits."""

import time
from pathlib import Path

import pytest
from PIL import Image, ImageStat
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from tests.webui.browsing import Browsed
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


def changed(server, before):
    """Return what is not as it was, by name: (was, is)."""
    now = state(server)
    return {name: (was, now[name]) for name, was in before.items() if now[name] != was}


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


@pytest.fixture
def page(browser, probed):
    """A function that returns the test's page, loaded where a test asks for it."""
    pages = []

    def opened():
        pages.extend([Browsed(browser, probed)] if not pages else [])
        return pages[0]

    yield opened
    for page in pages:
        page.close()


@pytest.fixture(params=["tiny-sd15", "tiny-sdxl"])
def layout(request, probed):
    """The WebUI on a checkpoint of each layout."""
    before = probed.ask("/sdapi/v1/options")[1]["sd_model_checkpoint"]
    probed.ask("/sdapi/v1/options", {"sd_model_checkpoint": f"{request.param}.safetensors"})
    yield request.param
    probed.ask("/sdapi/v1/options", {"sd_model_checkpoint": before})


def picture_of(page, folder, steps=3):
    """Show the tab's Picture mode with the folder's first picture, its model and VAE too."""
    page.open_tab()
    page.set_input_files("#fam_hires_image input[type=file]", str(folder / "0.png"))
    page.settle()
    page.open_folds()
    page.check("#fam_hires_own_model input")
    page.fill("#fam_hires_steps input[type=number]", steps)


class Doors:
    """One generation through each door; each returns what was said of it: an infotext, or an error."""

    def __init__(self, server, page, picture, place, other):
        self.server, self.page, self.picture, self.place = server, page, picture, place
        self.texts = [f", Clip skip: 2, Model: {other}"]

    def source(self):
        return folder_of(self.place / str(len(list(self.place.iterdir()))), self.picture, self.texts)

    def txt2img(self):
        answer = self.server.generate({"start": 1.0})
        return answer.error or answer.infotexts[0]

    def img2img(self):
        fields = {"tab": "img2img", "init_images": [encoded(self.picture)], "width": 128, "height": 128}
        answer = self.server.generate({"start": 1.0}, **fields)
        return answer.error or answer.infotexts[0]

    def tab(self):
        picture_of(self.page(), self.source())
        self.page().click("#fam_hires_generate")
        return self.page().inner_text("#html_info_fam_hires") + self.page().inner_text("#html_log_fam_hires")

    def folder(self):
        source = self.source()
        self.page().open_folder(source, steps=3)
        self.page().check("#fam_hires_folder_own_model input")
        self.page().start("of 1")
        status, table = (self.page().inner_text(f"#fam_hires_status{part}") for part in ("", "_table"))
        return status + table + self.made(source)

    def jobs(self):
        source = self.source()
        job = self.server.ask(f"{ROUTE}/jobs", {"input": str(source), "own_model": True})[1]["id"]
        return f"{wait(self.server, job)}" + self.made(source)

    @staticmethod
    def made(source):
        for path in Path(f"{source}-fam").glob("*.png"):
            with Image.open(path) as result:
                return result.info["parameters"]
        return ""


@pytest.mark.parametrize("door", ["txt2img", "img2img", "tab", "folder", "jobs"])
def test_whatever_ends_a_picture_the_host_is_as_it_was(probed, page, native_picture, tmp_path, layout, door):
    other = "tiny-sdxl" if layout == "tiny-sd15" else "tiny-sd15"
    generate = getattr(Doors(probed, page, native_picture, tmp_path, other), door)
    plain = probed.generate().pixels
    # the WebUI's own txt2img and img2img seed the random state that all share
    before = state(probed, random=door not in ("txt2img", "img2img"))

    assert "FAM version" in generate()
    assert not changed(probed, before)
    probed.ask("/probe/end?how=error")
    said = generate()
    assert "the probe ends this pass" in said and "FAM version" not in said
    assert not changed(probed, before)
    probed.ask("/probe/end?how=interrupt")
    said = generate()
    assert "the probe" not in said and ("interrupted" in said or "FAM version" in said or "dropped" in said)
    before["flags"][0] = "random" not in before  # the WebUI's API forgets an interrupt when its next picture begins
    assert not changed(probed, before)
    assert probed.generate().pixels == plain


def test_the_tab_s_interrupt_button_leaves_the_host_as_it_was(probed, page, native_picture, tmp_path):
    plain = probed.generate().pixels
    before = state(probed)
    picture_of(page(), folder_of(tmp_path / "in", native_picture, [", Model: tiny-sd15"]), steps=150)
    page().press("#fam_hires_generate")
    while probed.ask("/sdapi/v1/progress?skip_current_image=true")[1]["state"]["sampling_step"] < 2:
        time.sleep(0.05)
    page().click("#fam_hires_interrupt")
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


def reload_ui(page, server):
    """Press Reload UI, leave the page, and wait until the WebUI has started anew.

    A page that stays asks the new server whether it is there; where it asks before the WebUI has added its API,
    starlette ends the WebUI ("Cannot add middleware after an application has started").
    """
    started, asked = (server.log().count(said) for said in ("Startup time:", "Received restart request"))
    page.click("#tabs > div > button:has-text('Settings')")
    page.press("#settings_restart_gradio")
    deadline = time.monotonic() + 240
    while server.log().count("Received restart request") == asked:
        assert time.monotonic() < deadline, server.log()[-2000:]
        time.sleep(0.05)
    page.goto("about:blank")
    while server.log().count("Startup time:") == started:
        assert time.monotonic() < deadline, server.log()[-2000:]
        time.sleep(0.2)


def test_reload_ui_leaves_the_host_as_it_was_and_a_jobs_end_known(probed, page, native_picture, tmp_path):
    folder = folder_of(tmp_path / "in", native_picture, [", Clip skip: 2, Model: tiny-sd15"])
    plain, guided = probed.generate().pixels, probed.generate({}).pixels
    body = {"input": str(folder), "own_model": True}
    job = wait(probed, probed.ask(f"{ROUTE}/jobs", body)[1]["id"])
    before = state(probed, random=False)
    probed.ask("/sdapi/v1/options", {"fam_default_preset": "paper"})
    reload_ui(page(), probed)
    probed.ask("/sdapi/v1/options", {"fam_default_preset": "balanced"})
    before["flags"][0] = True  # the WebUI's own button asks for an interrupt as well
    before["opts"]["fam_default_preset"] = "'balanced'"
    before.pop("functions")  # the WebUI's own scripts are loaded anew
    assert not changed(probed, before)
    assert (probed.generate().pixels, probed.generate({}).pixels) == (plain, guided)
    assert probed.ask(f"{ROUTE}/jobs/{job['id']}")[1] == job
    # the page was built with the preset that the settings named then
    page().load()
    assert page().value("#fam_hires_preset") == page().value("#txt2img_fam_hires_preset") == "paper"
    assert page().value("#txt2img_fam_hires_cutoff") == "0.5"
    reload_ui(page(), probed)
    assert not any(said in probed.log() for said in ("Error executing callback", "Error running", "Error loading"))


def test_reload_ui_ends_no_file_of_a_job_badly(probed, page, native_picture, tmp_path):
    folder = folder_of(tmp_path / "in", native_picture, [", Clip skip: 2, Model: tiny-sd15"] * 3)
    plain = probed.generate().pixels
    body = {"input": str(folder), "own_model": True, "rules": {"steps": "override"}, "steps": 20}
    page()
    job = probed.ask(f"{ROUTE}/jobs", body)[1]["id"]
    while probed.ask(f"{ROUTE}/jobs/{job}")[1]["step"] < 1:
        time.sleep(0.05)
    reload_ui(page(), probed)
    ended = wait(probed, job)
    assert ended["failed"] == 0, ended
    assert (ended["state"], ended["error"]) == ("stopped", "the renderer was interrupted; start the job again to go on")
    page().load()
    page().open_tab("Batch folder")
    page().wait_for_selector("#fam_hires_status .fam-status:has-text('stopped')")
    assert page().inner_text("#fam_hires_status").startswith("stopped")
    assert probed.generate().pixels == plain
