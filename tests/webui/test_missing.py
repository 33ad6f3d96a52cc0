"""What was missing or replaced is said: in the infotext, under the gallery, in the page's table and in the report."""

import pytest
from PIL.PngImagePlugin import PngInfo

from fam_ext.metadata.infotext import parse
from tests.webui.server import BROKEN, encoded
from tests.webui.test_jobs import ROUTE, wait

PROMPT = f"a red apple <lora:gone:1> <lora:{BROKEN}:1> <hypernet:nowhere:1> <odd:x>"
OF_PROMPT = (
    "Lora not found: gone",
    f"Lora cannot be loaded: {BROKEN}; see the WebUI's console",
    "Hypernetwork not found: nowhere",
    "odd is no kind of network that this WebUI has",
)
OF_UPSCALER = f"upscaler {BROKEN} gave nothing (see the WebUI's console); Lanczos was used"


@pytest.fixture(scope="module", autouse=True)
def broken_lora(server):
    folder = server.data / "models" / "Lora"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{BROKEN}.safetensors").write_bytes(b"no weights")
    yield
    (folder / f"{BROKEN}.safetensors").unlink()


@pytest.fixture
def picture(tmp_path, native_picture):
    """A picture whose infotext asks for what this WebUI has not."""
    info = PngInfo()
    settings = "Steps: 3, Sampler: UniPC, Schedule type: Automatic, CFG scale: 4, Seed: 1, VAE: gone.pt"
    info.add_text("parameters", f"{PROMPT}\n{settings}")
    (tmp_path / "in").mkdir()
    native_picture.save(tmp_path / "in" / "0.png", pnginfo=info)
    return tmp_path / "in" / "0.png"


def test_the_hires_pass_says_it_in_the_infotext(server):
    fields = {"hr_upscaler": BROKEN, "hr_prompt": "a red apple <lora:for-hires-alone:1>"}
    try:
        answer = server.generate({}, prompt=PROMPT, override_settings={"sd_vae": "gone.pt"}, **fields)
    finally:
        server.ask("/sdapi/v1/options", {"sd_vae": "Automatic"})
    assert answer.status == 200, answer.error
    params = parse(answer.infotexts[0]).params
    said = params["FAM notes"]
    assert all(words in said for words in (*OF_PROMPT, OF_UPSCALER, "Lora not found: for-hires-alone")), said
    assert "VAE gone.pt is not in this WebUI" in said
    assert params["FAM upscaler"] == params["Hires upscaler"] == "Lanczos"
    whole = server.generate({}, hr_upscaler="Lanczos")
    assert "FAM notes" not in whole.infotexts[0]
    assert whole.images[0].size == answer.images[0].size


def test_a_part_whose_window_ends_before_the_pass_is_said(server):
    (said,) = server.generate({"start": 0.5, "am_window": [1.0, 0.6]}).infotexts
    assert "AM does not act: its window ends at rho 0.6" in parse(said).params["FAM notes"]


def test_img2img_says_it_of_the_upscaler_of_the_settings(server, native_picture):
    fields = {"tab": "img2img", "init_images": [encoded(native_picture)], "width": 128, "height": 128}
    try:
        for name in (BROKEN, "Magic"):
            answer = server.generate({}, override_settings={"upscaler_for_img2img": name}, **fields)
            said = parse(answer.infotexts[0]).params
            assert said["FAM upscaler"] == "Lanczos" and f"upscaler {name} gave nothing" in said["FAM notes"]
    finally:
        server.ask("/sdapi/v1/options", {"upscaler_for_img2img": None})


def test_a_folder_says_it_on_the_file_and_in_both_reports(server, picture):
    out = picture.parents[1] / "out"
    body = {"input": str(picture.parent), "output": str(out), "upscaler": BROKEN, "own_model": True}
    job = server.ask(f"{ROUTE}/jobs", body)[1]["id"]
    ended = wait(server, job)
    assert ended["done"] == 1, ended
    wanted = (
        *OF_PROMPT,
        OF_UPSCALER,
        "VAE gone.pt is not in this WebUI",
        "sampler UniPC is not offered, DPM++ 2M was used",
    )
    (made,) = server.ask(f"{ROUTE}/jobs/{job}/report")[1]["files"]
    page = (out / "report.html").read_text(encoding="utf-8").replace("&#x27;", "'")
    for said in (ended["rows"][0]["message"], made["notes"], page):
        assert all(words in said for words in wanted), said
    assert made["upscaler"] == "Lanczos" and made["sampler"] == "DPM++ 2M"


def test_the_page_says_it(page, picture):
    page.small()
    page.fill("#txt2img_prompt textarea", PROMPT)
    page.click("#txt2img_hr > .label-wrap")
    page.choose("#txt2img_hr_upscaler", BROKEN)
    page.click("#txt2img_fam_hires > .label-wrap")
    infotext, log = page.generate()
    assert "FAM version" in infotext and all(words in log for words in (*OF_PROMPT, OF_UPSCALER)), log
    # one picture
    page.open_tab()
    page.open_folds()
    page.set_input_files("#fam_hires_image input[type=file]", str(picture))
    page.settle()
    page.choose("#fam_hires_sampler", "Euler")
    page.check("#fam_hires_own_model input")
    page.click("#fam_hires_generate")
    log = page.inner_text("#html_log_fam_hires")
    assert "VAE gone.pt is not in this WebUI" in page.inner_text("#html_info_fam_hires")
    assert all(words in log for words in (*OF_PROMPT, "VAE gone.pt is not in this WebUI")), log
    # a folder
    page.open_folder(picture.parent, steps=3)
    page.start()
    row = page.inner_text("#fam_hires_status_table tr:has-text('0.png')")
    assert all(words in row for words in (*OF_PROMPT, "sampler UniPC is not offered, DPM++ 2M was used")), row


def test_a_setting_that_the_page_has_not_is_said(page):
    page.open_tab()
    page.open_folds()
    text = "a leaf\nSteps: 7, Sampler: Magic, CFG scale: 4, Seed: 1, Size: 64x64, FAM version: 0.1.0, FAM cutoff: 0.6"
    page.fill("#fam_hires_infotext textarea", text)
    page.click("#fam_hires_apply_infotext")
    said = page.inner_text("#fam_hires_picture_note")
    assert "not set: sampler is 'Magic', which is not offered here" in said, said
    assert page.input_value("#fam_hires_steps input[type=number]") == "7"
    # the dials are no preset's any more
    assert page.input_value("#fam_hires_cutoff input") == "0.6"
    assert page.input_value("#fam_hires_preset input") == "custom"
