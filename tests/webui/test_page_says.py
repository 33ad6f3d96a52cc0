"""What the page says of jobs, files and settings is so: second runs, other settings, two pages, what was not set."""

import io
import time
import urllib.request

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.webui.browsing import Browsed
from tests.webui.test_jobs import ROUTE, wait

SETTINGS = "Steps: 3, Sampler: Euler, Schedule type: Automatic, CFG scale: 4, Seed: 5, Size: 64x64, Clip skip: 2"


def write(path, picture, text=f"a red apple\n{SETTINGS}"):
    info = PngInfo()
    info.add_text("parameters", text)
    path.parent.mkdir(exist_ok=True)
    picture.save(path, pnginfo=info)


def shown(page, gallery):
    """Return the first picture of a gallery."""
    address = page.get_attribute(f"{gallery} img >> nth=0", "src")
    with urllib.request.urlopen(address) as answer, Image.open(io.BytesIO(answer.read())) as picture:
        return picture.convert("RGB")


def test_each_run_says_what_it_did(page, tmp_path, native_picture):
    source = tmp_path / "in"
    write(source / "0.png", native_picture)
    # on its side, as a camera writes it: 64 wide, 48 high, to be turned by a quarter
    turned = Image.Exif()
    turned[0x0112] = 6
    native_picture.crop((0, 0, 64, 48)).save(source / "1.jpg", exif=turned, quality=95)
    (source / "2.png").write_bytes(b"none")
    (source / "read.me").write_text("not a picture")
    page.open_folder(source, steps=3)
    page.start()
    assert page.inner_text("#fam_hires_status .fam-status").startswith("done: 2 done, 1 failed, of 3")
    before, after = (page.locator(f"#fam_hires_compare img[slot={name}]") for name in ("before", "after"))
    for picture, size in ((before, [48, 64]), (after, [96, 128])):
        assert picture.evaluate("node => [node.naturalWidth, node.naturalHeight]") == size
    # the same again: nothing to do is not only "done"
    page.start("0 done, 2 done before")
    assert "0 done, 2 done before, 1 failed, of 3" in page.inner_text("#fam_hires_status .fam-status")
    assert "100" in page.get_attribute("#fam_hires_status .fam-bar div", "style")
    # other settings: the plan shows them, and what is there stays
    page.fill("#fam_hires_scale input[type=number]", 3)
    page.click("#fam_hires_list")
    plan = page.inner_text("#fam_hires_status")
    assert "192 x 192" in plan and "2 kept: made with other settings" in plan and "All again" in plan
    assert "1 not an image" in plan or "read.me" in plan, plan
    page.start("0 done, 2 kept")
    kept = page.inner_text("#fam_hires_status .fam-status")
    assert "0 done, 2 kept: made with other settings" in kept
    # a page loaded anew shows the same job
    page.load()
    page.open_tab("Batch folder")
    page.has("#fam_hires_status .fam-status", kept)
    # one that only failed has no pictures of the last one
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.png").write_bytes(b"none")
    page.open_folder(tmp_path / "bad", steps=3)
    page.start("0 done, 1 failed, of 1")
    assert "0 done, 1 failed, of 1" in page.inner_text("#fam_hires_status .fam-status")
    assert page.locator("#fam_hires_gallery img").count() == page.locator("#fam_hires_compare img").count() == 0


def test_two_pages_and_a_job_at_once_keep_their_own(page, browser, server, tmp_path, native_picture):
    write(tmp_path / "in" / "0.png", native_picture)
    other = Browsed(browser, server)
    for each, cutoff in ((page, 8), (other, 16)):
        each.small()
        each.click("#txt2img_hr-visible-checkbox")
        each.click("#txt2img_fam_hires > .label-wrap")
        each.fill("#txt2img_fam_hires_cutoff input", cutoff)
    other.fill("#txt2img_seed input", 2)
    job = server.ask(f"{ROUTE}/jobs", {"input": str(tmp_path / "in")})[1]["id"]
    page.press("#txt2img_generate")
    other.press("#txt2img_generate")
    assert wait(server, job)["done"] == 1
    for each, cutoff, seed in ((page, 8, 1), (other, 16, 2)):
        each.settle()
        infotext = each.inner_text("#html_info_txt2img")
        assert f"FAM cutoff: {cutoff}," in infotext and f"Seed: {seed}," in infotext
        fields = {"sampler_name": "DPM++ 2M", "scheduler": "Automatic", "cfg_scale": 7, "seed": seed}
        alone = server.generate({"preset": "balanced", "cutoff": cutoff, "cutoff_reference": "cycles"}, **fields)
        assert shown(each, "#txt2img_gallery").tobytes() == alone.images[0].tobytes()
    other.close()


def test_stop_leaves_the_folder_that_a_picture_waits_for(page, server, tmp_path, native_picture):
    write(tmp_path / "in" / "0.png", native_picture, f"a red apple\n{SETTINGS.replace('Steps: 3', 'Steps: 99')}")
    page.open_tab()
    page.set_input_files("#fam_hires_image input[type=file]", str(tmp_path / "in" / "0.png"))
    page.settle()
    job = server.ask(f"{ROUTE}/jobs", {"input": str(tmp_path / "in")})[1]["id"]
    while not server.ask(f"{ROUTE}/jobs/{job}")[1]["step"]:
        time.sleep(0.05)
    page.press("#fam_hires_generate")
    page.press("#fam_hires_interrupt")
    page.has("#html_log_fam_hires", "your picture waits for a folder's file")
    assert wait(server, job)["done"] == 1


def test_a_picture_is_made_alike_in_the_tab_and_in_a_folder(page, tmp_path, native_picture):
    source = tmp_path / "in"
    write(source / "0.png", native_picture, f"a red apple\n{SETTINGS}, Model: tiny-sd15")
    page.open_tab()
    page.set_input_files("#fam_hires_image input[type=file]", str(source / "0.png"))
    page.settle()
    page.open_folds()
    page.check("#fam_hires_own_model input")
    page.click("#fam_hires_generate")
    infotext = page.inner_text("#html_info_fam_hires")
    assert "Clip skip: 2" in infotext and "Model: tiny-sd15" in infotext
    alone = shown(page, "#fam_hires_gallery")
    page.open_folder(source, steps=3)
    page.check("#fam_hires_folder_own_model input")
    page.start()
    with Image.open(tmp_path / "in-fam" / "0.png") as result:
        assert result.convert("RGB").tobytes() == alone.tobytes()
        assert "Clip skip: 2" in result.info["parameters"] and "Model: tiny-sd15" in result.info["parameters"]


def test_one_bad_value_of_an_infotext_is_named_and_the_others_are_set(page):
    text = "a red apple\nSteps: 4, Sampler: Euler, CFG scale: 5, Seed: 3, Size: 64x64, FAM version: 0.1.0, "
    page.fill("#txt2img_prompt textarea", text + "FAM cutoff: 0.6, FAM attention: much, FAM start: 0.8")
    page.press("#paste")
    page.wait_for_selector(".toast-body:has-text('attention'):has-text('the other values were set')")
    page.settle()
    assert page.value("#txt2img_fam_hires_cutoff") == "0.6" and page.value("#txt2img_fam_hires_start") == "0.8"
