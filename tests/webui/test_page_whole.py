"""One visit, from the first picture to a folder in the morning: every part of the page in the real A1111, in turn.

Nothing of ours may stand in the browser's console or leave a traceback in the log; with FAM_AXE (see
tests/ui/test_access.py) axe-core looks at each state.
"""

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fam_ext import cli
from tests.ui.test_access import NAMELESS, faults
from tests.webui.browsing import Browsed

WIDTHS = (400, 1280, 1920)
WIDER = """() => [...document.querySelectorAll('#fam_hires_row, #fam_hires_row *')]
    .filter(one => one.offsetParent && !one.closest('.fam-table, .fam-trial, .view, .wrap, .gradio-gallery'))
    .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(one => one.outerHTML.slice(0, 160))"""


def write(path, picture, prompt):
    info = PngInfo()
    settings = "Steps: 3, Sampler: Euler, Schedule type: Automatic, CFG scale: 4, Seed: 5"
    info.add_text("parameters", f"{prompt}\n{settings}")
    path.parent.mkdir(exist_ok=True)
    picture.save(path, pnginfo=info)


def looks_right(page):
    """Check what is on the page now: every part has its name, and none is cut off at any width."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 1400})
        assert page.evaluate(WIDER) == [], width
    page.set_viewport_size({"width": 1500, "height": 1400})
    assert page.evaluate(NAMELESS) == [] and faults(page) == []


def test_a_visit(page, browser, server, tmp_path, native_picture):
    begun = len(server.log())
    console = []
    page.on("console", lambda message: console.append(message.text) if message.type == "error" else None)
    busy = Image.effect_noise((64, 64), 80).convert("RGB")
    source = tmp_path / "in"
    for number, picture in enumerate((native_picture, busy, native_picture.resize((96, 64)), native_picture)):
        write(source / f"{number}.png", picture, f"a red apple {number}")
    a_picture(page, source)
    compared(page)
    a_folder(page, browser, server, source)
    once_more(page, source)
    tried(page, source)
    beside_hires_fix(page)
    log = server.log()[begun:]
    # gradio's own where a page closes while it asks
    assert log.count("Traceback") == log.count("WebSocketDisconnect: 1001"), log[log.find("Traceback") :][:3000]
    assert not console
    a_page_of_its_own(browser, source, tmp_path / "compare.html")


def ended(page, says):
    """Wait until what was pressed runs, or says why not, and then until it is over."""
    page.wait_for_selector("#fam_hires_status :is([data-running], .fam-error)")
    assert page.locator("#fam_hires_status .fam-error").count() == 0, page.inner_text("#fam_hires_status")
    page.has("#fam_hires_status", says)
    page.settle()


def a_picture(page, source):
    page.open_tab()
    assert "Three steps" in page.inner_text("#fam_hires_outlook")
    looks_right(page)
    page.set_input_files("#fam_hires_image input[type=file]", str(source / "2.png"))
    page.has("#fam_hires_size", "96 x 64 to 192 x 128 px")
    page.has("#fam_hires_outlook", "Euler")
    page.settle()
    assert page.inner_text("#fam_hires_fold_sampling > .label-wrap").startswith("Sampler: Euler, 3 steps")
    assert page.inner_text("#fam_hires_preset_about").strip()
    page.click("#fam_hires_generate")
    page.wait_for_selector("#fam_hires_compare [role=slider]")
    page.has("#fam_hires_size", "192 x 128 px, about")
    looks_right(page)


def compared(page):
    slider = page.locator("#fam_hires_compare [role=slider]")
    slider.focus()
    page.keyboard.press("Shift+ArrowLeft")
    assert slider.get_attribute("aria-valuenow") == "40"
    page.click("#fam_hires_compare button:has-text('Lens')")
    page.hover("#fam_hires_compare .stage")
    assert "1:1" in page.inner_text("#fam_hires_compare .note")
    page.click("#fam_hires_compare button:has-text('Difference')")


def a_folder(page, browser, server, source):
    page.open_tab("Batch folder")
    page.fill("#fam_hires_folder_input textarea", source)
    page.has("#fam_hires_status", "4 files, 4 to do")
    page.settle()
    page.press("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('0.png')")
    page.press("#fam_hires_pause")
    page.has("#fam_hires_status", "paused")
    assert not page.is_visible("#fam_hires_start") and page.is_visible("#fam_hires_stop")
    # a second browser shows the same job
    other = Browsed(browser, server)
    other.open_tab("Batch folder")
    other.has("#fam_hires_status", "paused")
    other.press("#fam_hires_pause")
    other.close()
    page.has("#fam_hires_status", "done: 4 done")
    page.settle()
    page.wait_for_selector("#fam_hires_status_table td:has-text('64 x 64 to 128 x 128')")
    page.click("#fam_hires_status_table button:has-text('file')")
    assert page.locator("#fam_hires_status_table td:nth-child(2)").all_inner_texts()[0] == "0.png"
    page.click(".fam-pick[data-key='1.png']")
    page.wait_for_selector("#fam_hires_compare [role=slider]")


def once_more(page, source):
    page.fill("#fam_hires_scale input[type=number]", 3)
    page.has("#fam_hires_status", "Changed since: Size (px)")
    page.settle()
    page.press("#fam_hires_again")
    ended(page, "done: 4 done")
    assert page.input_value("#fam_hires_folder_output textarea").endswith("in-fam-2")


def tried(page, source):
    page.open_folds()
    page.fill("#fam_hires_folder_output textarea", str(source.parent / "night"))
    page.fill("#fam_hires_scale input[type=number]", 2)
    page.uncheck(
        "#fam_hires_try_presets label:has(span:text-is('paper')) input"
    )  # it would set aside the pictures' own three steps
    page.settle()
    assert "Try on 3: fast, balanced" in page.inner_text("#fam_hires_fold_trial > .label-wrap")
    page.press("#fam_hires_try")
    ended(page, "done: 6 done")
    rows = page.locator("#fam_hires_trial tbody th").all_inner_texts()
    assert rows[1] == "largest: 2.png, 96 x 64 to 192 x 128 px" and rows[2].startswith("busiest: 1.png")
    assert page.locator("#fam_hires_trial td img").count() == 9
    assert "for 4 files" in page.inner_text("#fam_hires_trial th:has-text('Take fast')")
    looks_right(page)
    page.click("#fam_hires_trial button[data-key] >> nth=0")
    page.wait_for_selector("#fam_hires_compare [role=slider]")
    page.click("#fam_hires_trial button:has-text('Take fast')")
    page.wait_for_function("gradioApp().querySelector('#fam_hires_preset input').value === 'fast'")
    page.has("#fam_hires_status", "4 files, 4 to do")
    page.start("done: 4 done")
    # what was tried is what is made
    night = source.parent / "night"
    for path in (source.parent / "night-try" / "1" / "fast").glob("*.png"):
        with Image.open(path) as trial, Image.open(night / path.name) as real:
            assert trial.tobytes() == real.tobytes() and trial.info["parameters"] == real.info["parameters"]
    assert len(list(night.glob("*.png"))) == 4
    assert page.locator("#fam_hires_trial table").count() == 0


def beside_hires_fix(page):
    page.click("#tabs > div > button:has-text('txt2img')")
    page.small()
    page.click("#txt2img_fam_hires > .label-wrap")
    page.has("#txt2img_fam_hires", "Hires. fix is off")
    page.click("#txt2img_hr-visible-checkbox")
    page.has("#txt2img_fam_hires", "denoising strength is not used")
    page.settle()
    assert page.get_attribute("#txt2img_fam_hires-visible-checkbox", "aria-label") == "FAM Hires"
    assert faults(page, "#txt2img_fam_hires") == []
    infotext, _ = page.generate()
    assert "FAM version" in infotext


def a_page_of_its_own(browser, source, target):
    try:
        cli.main(["compare", str(source), str(source.parent / "night"), "--out", str(target)])
    except SystemExit as end:
        assert not end.code
    page, errors = browser.new_page(), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(target.as_uri())
    page.wait_for_selector("fam-compare [role=slider] >> nth=3")
    assert page.locator("fam-compare").count() == 4 and not errors
    page.close()
