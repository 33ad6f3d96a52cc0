"""The page of the real WebUI in Chromium: what a user sees and clicks."""

import contextlib
import json
import shutil
import time

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright and Chromium")
CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")
# the WebUI's own, without any extension
KNOWN_ERRORS = ("reading 'props'",)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    page = browser.new_page(viewport={"width": 1500, "height": 1400})
    page.set_default_timeout(60_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url, wait_until="domcontentloaded")
    page.wait_for_selector("#txt2img_prompt textarea")
    page.wait_for_function("typeof switch_to_fam_hires === 'function' && gradioApp().querySelector('#tab_fam_hires')")
    time.sleep(1)
    yield page
    page.close()
    assert not [error for error in errors if not any(known in error for known in KNOWN_ERRORS)]


def fill(page, selector, value):
    page.fill(selector, str(value))
    page.press(selector, "Tab")


def fill_for_good(page, selector, value):
    """Fill a field that an event still on its way may set back to what it was when the event began."""
    for _ in range(20):
        page.fill(selector, value)
        time.sleep(1)
        if page.input_value(selector) == value:
            return
    raise AssertionError(f"{selector} does not keep {value!r}")


def set_small(page):
    page.fill("#txt2img_prompt textarea", "a red apple")
    for name, value in (("width", 64), ("height", 64), ("steps", 4)):
        fill(page, f"#txt2img_{name} input[type=number]", value)
    fill(page, "#txt2img_seed input", 1)


def generate(page):
    """Press Generate and return (infotext, log) once the page has answered."""
    page.click("#txt2img_generate")
    with contextlib.suppress(sync_api.TimeoutError):  # over before we looked
        page.wait_for_selector("#txt2img_interrupt", state="visible", timeout=2000)
    page.wait_for_selector("#txt2img_interrupt", state="hidden")
    page.wait_for_selector("#html_log_txt2img :text('Time taken')")
    time.sleep(1)
    return page.inner_text("#html_info_txt2img"), page.inner_text("#html_log_txt2img")


def open_tab(page):
    page.evaluate("switch_to_fam_hires()")
    page.wait_for_selector("#fam_hires_mode", state="visible")


def open_folds(page):
    """Open every fold of ours that can be seen."""
    closed = page.locator(".fam-fold > .label-wrap:not(.open):visible")
    while closed.count():
        closed.first.click()


def open_folder(page, source, *, steps):
    open_tab(page)
    page.click("#fam_hires_mode button:has-text('Batch folder')")
    open_folds(page)
    page.fill("#fam_hires_folder_input textarea", str(source))
    page.fill("#fam_hires_folder_prompt textarea", "a red apple")
    fill(page, "#fam_hires_steps input[type=number]", steps)


def test_txt2img_says_what_ran_and_what_is_wrong(page, server):
    set_small(page)
    page.click("#txt2img_fam_hires > .label-wrap")
    infotext, log = generate(page)
    assert "FAM" not in infotext and "Hires. fix is off" in log
    page.click("#txt2img_hr-visible-checkbox")
    infotext, log = generate(page)
    assert "FAM version" in infotext and "FAM start: 0.7" in infotext
    fill(page, "#txt2img_fam_hires_cutoff input", 900)
    before = len(server.log())
    infotext, log = generate(page)
    assert log.startswith("cutoff is 900") and "512" in log and "FAM version" not in infotext
    # one line in the console, no traceback
    printed = server.log()[before:]
    assert printed.count("cutoff is 900") == 1 and "Traceback" not in printed
    assert page.locator("#txt2img_gallery img").count() == 0
    fill(page, "#txt2img_fam_hires_cutoff input", 32)
    assert "FAM version" in generate(page)[0]


def test_paste_restores_the_dials(page):
    text = "a red apple\nSteps: 4, Sampler: Euler, Schedule type: Automatic, CFG scale: 5, Seed: 3, Size: 64x64, "
    text += "Denoising strength: 0.8, FAM version: 0.1.0, FAM cutoff: 0.6, FAM no AM: True, FAM AM window: 0.9 to 0.2, "
    text += "FAM start: 0.8, Hires upscale: 2, Hires upscaler: Lanczos"
    page.fill("#txt2img_prompt textarea", text)
    page.click("#paste")
    page.wait_for_function("gradioApp().querySelector('#txt2img_prompt textarea').value === 'a red apple'")
    time.sleep(1)
    assert page.is_checked("#txt2img_fam_hires-visible-checkbox")
    assert page.input_value("#txt2img_fam_hires_cutoff input") == "0.6"
    assert not page.is_checked("#txt2img_fam_hires_am input")
    assert page.is_checked("#txt2img_fam_hires_fm input")
    assert page.input_value("#txt2img_fam_hires_start input[type=number]") == "0.8"
    page.click("#txt2img_fam_hires_more .label-wrap")
    assert page.input_value("#txt2img_fam_hires_am_window_start input[type=number]") == "0.9"
    assert page.input_value("#txt2img_fam_hires_am_window_end input[type=number]") == "0.2"


def test_a_preset_travels_in_the_infotext_and_its_dials_without_it(page, server):
    file = server.data / "fam-hires" / "presets" / "my own.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"version": 1, "name": "my own", "fam": {"cutoff": 0.3, "start": 0.8}}))
    made = server.generate({"preset": "my own"})
    assert made.fam["FAM preset"] == "my own" and made.fam["FAM cutoff"] == "0.3"
    assert "FAM preset" not in server.generate({"preset": "my own", "start": 0.9}).fam

    def pasted():
        page.fill("#txt2img_prompt textarea", made.infotexts[0])
        page.click("#paste")
        page.wait_for_function("gradioApp().querySelector('#txt2img_prompt textarea').value === 'a red apple'")
        page.wait_for_function("gradioApp().querySelector('#txt2img_fam_hires_cutoff input').value === '0.3'")
        time.sleep(1)
        assert page.input_value("#txt2img_fam_hires_start input[type=number]") == "0.8"
        return page.input_value("#txt2img_fam_hires_preset input")

    page.click("#txt2img_fam_hires .label-wrap >> nth=0")
    page.click("#txt2img_fam_hires_preset_refresh")
    assert pasted() == "my own"
    # the same name with other dials, or none of that name
    file.write_text(json.dumps({"version": 1, "name": "my own", "fam": {"cutoff": 0.7}}))
    assert pasted() == "custom"
    file.unlink()
    assert pasted() == "custom"


def test_a_plot_that_cannot_be_is_one_line(page, server):
    set_small(page)
    page.click("#txt2img_hr-visible-checkbox")
    page.click("#script_list input >> nth=0")
    page.click("#script_list li:has-text('X/Y/Z plot')")
    page.click("#script_txt2img_xyz_plot_x_type input")
    page.click("li:has-text('[FAM] Cutoff c')")
    fill_for_good(page, "#script_txt2img_xyz_plot_x_values textarea", "0.5, 900")
    before = len(server.log())
    infotext, log = generate(page)
    said = server.log()[before:]
    assert log.startswith("cutoff is 900") and "512" in log and not infotext.strip()
    assert said.count("cutoff is 900") == 1 and "Traceback" not in said
    assert page.locator("#txt2img_gallery img").count() == 0


def test_a_preset_sets_the_dials(page):
    page.click("#txt2img_fam_hires > .label-wrap")
    assert page.is_checked("#txt2img_fam_hires-visible-checkbox")
    page.click("#txt2img_fam_hires_preset input")
    page.click("#txt2img_fam_hires_preset li:has-text('paper')")
    page.wait_for_function("gradioApp().querySelector('#txt2img_fam_hires_cutoff input').value === '0.5'")
    assert page.input_value("#txt2img_fam_hires_start input[type=number]") == "1"


def test_a_picture_is_sent_to_the_tab_and_enlarged(page):
    set_small(page)
    infotext, _ = generate(page)
    page.click("#txt2img_send_to_fam_hires")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_infotext textarea').value.includes('Steps: 4')")
    assert page.input_value("#fam_hires_infotext textarea").startswith("a red apple\nSteps: 4")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_seed input').value === '1'")
    page.click("#fam_hires_generate")
    page.wait_for_selector("#fam_hires_compare img[slot] >> nth=1")
    infotext = page.inner_text("#html_info_fam_hires")
    assert "FAM version" in infotext and "Hires resize: 128x128" in infotext and "Seed: 1," in infotext
    slider = page.locator("#fam_hires_compare [role=slider]")
    slider.focus()
    page.keyboard.press("Shift+ArrowLeft")
    assert slider.get_attribute("aria-valuenow") == "40"
    # and back to txt2img, dials and all
    page.click("#fam_hires_send_to_txt2img")
    page.wait_for_function("gradioApp().querySelector('#txt2img_fam_hires-visible-checkbox').checked")


def test_the_tab_says_what_is_wrong(page):
    open_tab(page)
    page.click("#fam_hires_generate")
    page.wait_for_function("gradioApp().querySelector('#html_log_fam_hires').innerText.includes('no picture')")


def test_png_info_sends_to_the_tab(page, tmp_path, native_picture):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", "a blue car\nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 9, Size: 64x64")
    native_picture.save(tmp_path / "sent.png", pnginfo=info)
    page.click("#tabs > div > button:has-text('PNG Info')")
    page.set_input_files("#pnginfo_image input[type=file]", str(tmp_path / "sent.png"))
    page.wait_for_selector("#tab_pnginfo :text('a blue car')")
    page.click("#pnginfo_send_to_fam_hires")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_infotext textarea').value.includes('a blue car')")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_steps input[type=number]').value === '7'")


def test_a_folder_is_listed_run_and_stopped(page, tmp_path, native_picture):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(8):
        native_picture.save(source / f"{number}.png")
    (source / "5.png").write_bytes((source / "5.png").read_bytes()[:20])
    open_folder(page, source, steps=3)
    page.click("#fam_hires_list")
    page.wait_for_selector("#fam_hires_plan_table")
    listed = page.inner_text("#fam_hires_status")
    assert "8 files" in listed and "1 unreadable" in listed and "128 x 128" in listed and "a red apple" in listed
    assert not (tmp_path / "in-fam").exists()
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status [data-running]")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('0.png'):has-text('done')")
    page.click("#fam_hires_stop_after")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_status').innerText.startsWith('stopped')")
    done = len(list((tmp_path / "in-fam").glob("*.png")))
    assert 1 <= done < 7
    page.click("#fam_hires_start")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_status').innerText.startsWith('done')")
    assert "5.png" in page.inner_text("#fam_hires_status_table tr:has-text('failed')")
    assert len(list((tmp_path / "in-fam").glob("*.png"))) == 7
    assert page.locator("#fam_hires_compare img[slot]").count() == 2
    with Image.open(tmp_path / "in-fam" / "0.png") as result:
        assert "FAM version" in result.info["parameters"]


def test_start_asks_once_when_files_carry_no_prompt(page, tmp_path, native_picture):
    source = tmp_path / "in"
    source.mkdir()
    info = PngInfo()
    info.add_text("parameters", "a leaf\nSteps: 3, Sampler: Euler, CFG scale: 4, Seed: 1, Version: f2.0")
    native_picture.save(source / "0.png", pnginfo=info)
    native_picture.save(source / "1.png")
    open_folder(page, source, steps=3)
    page.fill("#fam_hires_folder_prompt textarea", "")
    page.click("#fam_hires_list")
    page.wait_for_selector("#fam_hires_plan_table tr:has-text('0.png'):has-text('Forge')")
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status :text('1 of 2 carry no prompt')")
    assert not (tmp_path / "in-fam").exists()
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status .fam-status:has-text('done: 2 done')")


def test_a_folder_is_paused_resumed_and_a_file_skipped(page, tmp_path, native_picture):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        native_picture.save(source / f"{number}.png")
    made = tmp_path / "in-fam"
    open_folder(page, source, steps=40)
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('0.png'):has-text('running')")
    page.click("#fam_hires_skip")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('0.png'):has-text('skipped by you')")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('1.png'):has-text('running')")
    page.click("#fam_hires_pause")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_status').innerText.startsWith('paused')")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('1.png'):has-text('done')")
    time.sleep(3)  # longer than the rest of the job would take
    assert [path.name for path in made.glob("*.png")] == ["1.png"]
    page.click("#fam_hires_pause")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_status').innerText.startsWith('done')")
    assert sorted(path.name for path in made.glob("*.png")) == ["1.png", "2.png"]


def test_presets_are_saved_used_and_deleted(page, server):
    open_tab(page)
    open_folds(page)
    fill(page, "#fam_hires_cutoff input", 12)
    page.fill("#fam_hires_preset_name textarea, #fam_hires_preset_name input", "my own")
    page.click("#fam_hires_preset_save")
    page.wait_for_selector("#fam_hires_preset_note:has-text('saved my own')")
    files = list((server.data / "fam-hires" / "presets").glob("*.json"))
    assert [file.name for file in files] == ["my own.json"]
    answer = server.ask("/fam-hires/v1/presets")[1]
    assert "my own" in [preset["name"] for preset in answer["presets"]]
    fill(page, "#fam_hires_cutoff input", 3)
    page.wait_for_function("gradioApp().querySelector('#fam_hires_preset input').value === 'custom'")
    page.click("#fam_hires_preset input")
    page.click("#fam_hires_preset li:has-text('my own')")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_cutoff input').value === '12'")
    page.click("#fam_hires_preset_delete")
    page.wait_for_selector("#fam_hires_preset_note:has-text('deleted my own')")
    assert not list((server.data / "fam-hires" / "presets").glob("*.json"))


def test_the_settings_page_has_our_section(page):
    page.click("#tabs > div > button:has-text('Settings')")
    page.wait_for_selector("#settings button:has-text('FAM Hires')")


def test_the_webui_s_own_img2img_batch_uses_fam(page, tmp_path):
    (tmp_path / "in").mkdir()
    for number, color in enumerate(("red", "blue")):
        Image.new("RGB", (64, 64), color).save(tmp_path / "in" / f"{number}.png")
    page.click("#tabs button:has-text('img2img')")
    page.wait_for_selector("#img2img_prompt textarea", state="visible")
    page.fill("#img2img_prompt textarea", "a red apple")
    page.click("#mode_img2img button:has-text('Batch')")
    page.click("#img2img_batch_source button:has-text('From directory')")
    page.fill("#img2img_batch_input_dir textarea", str(tmp_path / "in"))
    page.fill("#img2img_batch_output_dir textarea", str(tmp_path / "out"))
    for name, value in (("width", 128), ("height", 128), ("steps", 4)):
        fill(page, f"#img2img_{name} input[type=number]", value)
    page.click("#img2img_fam_hires > .label-wrap")
    page.click("#img2img_generate")
    deadline = time.monotonic() + 60
    while len(made := sorted((tmp_path / "out").glob("*.png"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(1)
    assert [path.name for path in made] == ["00000-0.png", "00001-1.png"]  # the WebUI's own way of naming
    for path in made:
        with Image.open(path) as picture:
            assert picture.size == (128, 128)
            assert "FAM version" in picture.info["parameters"]


def test_a_folders_result_is_sent_whole_with_its_own_infotext(page, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for number, colour in enumerate(("red", "green")):
        info = PngInfo()
        info.add_text("parameters", f"a {colour} leaf\nSteps: 3, Sampler: Euler, CFG scale: 4, Seed: {number}")
        Image.new("RGB", (320, 64), colour).save(source / f"{number}.png", pnginfo=info)
    open_folder(page, source, steps=3)
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status .fam-status:has-text('done: 2 done')")
    page.wait_for_selector("#fam_hires_gallery img >> nth=1")
    page.click("#fam_hires_gallery .thumbnail-item >> nth=1")
    page.wait_for_selector("#fam_hires_gallery .thumbnails button.selected >> nth=0")
    time.sleep(1)
    page.click("#fam_hires_send_to_img2img")
    page.wait_for_selector("#img2img_image img")
    page.wait_for_function("gradioApp().querySelector('#img2img_prompt textarea').value === 'a red leaf'")
    width = page.eval_on_selector("#img2img_image img", "node => node.naturalWidth")
    assert width == 640
