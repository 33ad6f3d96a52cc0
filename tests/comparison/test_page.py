"""The page of a comparison in Chromium, as someone uses it: mouse, touch and keys. With axe-core where FAM_AXE names
its axe.min.js."""

import dataclasses
import json
import re

import pytest
from PIL import Image

from fam_ext.comparison import page as pages
from fam_ext.comparison.page import write_page
from fam_ext.comparison.spectrum import Spectrum
from fam_ext.methods.catalog import METHODS
from tests.comparison.made import COLOURS, SIDE, SPOT, results, write
from tests.ui.test_access import faults
from tests.webui.browsing import chromium

PIXEL = """([index, x, y]) => {
    const lens = document.querySelectorAll('.lens')[index];
    const { data } = lens.getContext('2d').getImageData(lens.width / 2 + x, lens.height / 2 + y, 1, 1);
    return Array.from(data).slice(0, 3);
}"""
BRIGHTEST = """index => {
    const canvas = document.querySelectorAll('.maps canvas')[index];
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const red = Array.from(data).filter((_, at) => at % 4 === 0);
    const at = red.indexOf(Math.max(...red));
    return [at % canvas.width, Math.floor(at / canvas.width)];
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_page(results(tmp_path_factory.mktemp("made")))[0]


@pytest.fixture
def opened(browser, file):
    closing = []

    def open_page(width=1280, **more):
        context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        page, said = context.new_page(), []
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto(file.as_uri())
        page.wait_for_selector("fam-compare [role=slider]")
        closing.append((context, said))
        return page

    yield open_page
    for context, said in closing:
        context.close()
        assert said == []


def near(found, wanted):
    return all(abs(one - other) < 24 for one, other in zip(found, wanted, strict=True))


def over(page, x=0.5, y=0.5, nth=1):
    """Point at a picture of the grid, at shares of its sides."""
    frame = page.locator(".grid .frame").nth(nth)
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_the_lens_shows_the_same_place_of_every_method_one_to_one(opened):
    page = opened()
    over(page)
    page.wait_for_selector(".grid .lens")
    assert page.locator(".grid .lens").count() == page.locator("tbody.on .lens").count() == 3
    for lens, colour in enumerate([(90, 90, 90), *COLOURS.values()]):
        # 128 px wide: the spot is 8 px at the target's size, however large the page shows the picture
        assert near(page.evaluate(PIXEL, [lens, 0, 0]), SPOT)
        assert near(page.evaluate(PIXEL, [lens, 9, 0]), colour) and near(page.evaluate(PIXEL, [lens, 0, -9]), colour)
    over(page, x=0.3)
    assert near(page.evaluate(PIXEL, [1, 0, 0]), COLOURS["direct"])
    assert near(page.evaluate(PIXEL, [1, round(0.2 * 2 * SIDE), 0]), SPOT)  # a fifth of the width to the right
    over(page, nth=4)  # the other row
    page.wait_for_selector("tbody:nth-of-type(2).on .lens")
    assert page.locator(".grid .lens").count() == 3


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_keys_walk_the_grid_move_the_lens_and_open_two_pictures(opened):
    page = opened()
    page.keyboard.press("Tab")  # the scale
    page.keyboard.press("Tab")
    at = "[document.activeElement.dataset.row, document.activeElement.dataset.column].join()"
    assert page.evaluate(at) == "0,0"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    for key, place in [
        ("ArrowRight", "0,1"),
        ("ArrowDown", "1,1"),
        ("End", "1,2"),
        ("ArrowDown", "1,2"),
        ("Home", "1,0"),
    ]:
        page.keyboard.press(key)
        assert page.evaluate(at) == place and page.locator("td[tabindex='0']").count() == 1
    assert near(page.evaluate(PIXEL, [2, 0, 0]), SPOT)
    for _ in range(4):
        page.keyboard.press("Shift+ArrowRight")
    assert near(page.evaluate(PIXEL, [2, 0, 0]), COLOURS["fam"])
    assert near(page.evaluate(PIXEL, [2, round(-0.1 * 2 * SIDE), 0]), SPOT) and page.evaluate(at) == "1,0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("fam-compare .label").all_inner_texts() == ["native", "direct"]
    assert page.evaluate("document.activeElement.shadowRoot.activeElement.getAttribute('role')") == "slider"
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator("fam-compare [role=slider]").get_attribute("aria-valuenow") == "60"
    page.set_viewport_size({"width": 1280, "height": 500})
    page.locator("td[tabindex='0']").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('fam-compare').getBoundingClientRect().bottom <= innerHeight + 1")
    page.wait_for_function("document.querySelector('fam-compare').after.clientHeight > 100")


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_a_finger_moves_the_lens_and_the_page_scrolls_at_400_px(opened):
    page = opened(width=400, has_touch=True)
    box = page.locator(".grid .frame").nth(1).bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".grid .lens")
    assert near(page.evaluate(PIXEL, [2, 0, 0]), SPOT)
    assert page.evaluate("getComputedStyle(document.querySelector('.frame')).touchAction") == "auto"


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_the_scale_the_pair_the_numbers_and_the_spectra(opened):
    page = opened()
    assert "64 x 64 to 128 x 128 px" in page.inner_text(".grid")
    page.check("input[value='3']")
    assert "64 x 64 to 192 x 192 px" in page.inner_text(".grid")
    assert page.evaluate("document.querySelector('td[data-column=\"2\"] img').naturalWidth") == 192
    page.select_option("select[aria-label='Left']", "fam")
    page.select_option("select[aria-label='Right']", "direct")
    assert page.locator("fam-compare .label").all_inner_texts() == ["fam", "direct"]
    assert page.locator(".grid b").count() == 0 and "<b>a dog</b>" in page.inner_text(".grid")
    direct, fam = (page.locator(f".numbers tbody tr:nth-child({row})").inner_text().split("\t") for row in (1, 2))
    assert direct == ["direct", "2", "4", "2.0 s", "1.5 s to 2.5 s", "not measured", "31.3 dB", "0.50 %"]
    assert fam[5] == "3.00 GiB"
    told = page.locator("ul[aria-label='What each was made with'] li").all_inner_texts()
    assert told == [
        "direct: preset <i>own</i>, steps 4, fm_window 1,0",
        "fam: preset <i>own</i>, steps 4, fm_window 1,0, upscaler x4",
    ]
    assert page.locator(".spectra path.line").count() == 6  # native, direct, fam, and each in the key
    assert page.locator(".spectra .keys li").all_inner_texts() == ["native", "direct", "fam"]


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_a_point_is_asked_and_its_maps_are_shown(opened):
    page = opened()
    assert "step 3 of 4 (t / T 0.48), at up.0" in page.inner_text("main")
    assert page.locator("select[aria-label='Method'] option").all_inner_texts() == ["fam"]
    asked = page.locator(".asked")
    asked.scroll_into_view_if_needed()
    box = asked.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 6.5 / 8, box["y"] + box["height"] * 1.5 / 8)
    assert page.inner_text("#told") == "Column 7, row 2 of 8 x 8 points."
    assert page.evaluate(BRIGHTEST, 1) == [6, 1] and page.evaluate(BRIGHTEST, 2) == [6, 1]
    asked.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(BRIGHTEST, 1) == [5, 2]
    captions = page.locator(".maps figcaption").all_inner_texts()
    assert captions[1] == "native map, 4 x 4: up to 1.0 times the mean"
    assert captions[2] == "target map, 8 x 8: up to 64.0 times the mean"


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_and_nothing_wider_than_the_page(opened, scheme):
    for width in (400, 1920):
        page = opened(width, color_scheme=scheme, bypass_csp=True)  # axe is no part of the page
        over(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert faults(page, "main") == []


def test_the_page_is_one_file_that_runs_its_own_scripts_alone(file):
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', text) and "default-src 'none'" in text
    assert len(re.findall(r"'sha256-[^']+'", text)) == 2 and text.count("<script") == 3
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    assert len(data["rows"]) == 2 and len(data["cells"]) == 8 and data["scales"] == [2, 3]


def test_lines_of_all_methods_differ_and_each_colour_is_there():
    script, style = (pages._read(name) for name in ("page.js", "page.css"))
    dashes = re.findall("'(.*?)'", re.search(r"DASHES = \[(.*?)\]", script).group(1))
    colours = int(re.search(r"COLOURS = (\d+)", script).group(1))
    count = len(METHODS) + 1  # and native
    assert len({(index % colours, dashes[index % len(dashes)]) for index in range(count)}) == count
    assert all(len(re.findall(f"--c{index}:", style)) == 2 for index in range(colours))  # on light and on dark


def test_pictures_give_way_where_the_page_is_too_large(tmp_path, monkeypatch):
    made = results(tmp_path, rows=("a cat",), scales=(4.0,))
    _, whole, best = write_page(made)
    monkeypatch.setattr(pages, "MOST_BYTES", whole - 1)
    _, size, quality = write_page(made)
    assert (best, quality) == ("quality 92", "quality 85") and size < whole
    monkeypatch.setattr(pages, "MOST_BYTES", 1000)
    assert write_page(made)[2] == "quality 40, sides at 12%"
    assert len(list(tmp_path.glob("*.html"))) == 1 and not list(tmp_path.glob(".fam-*"))


def test_a_full_page_of_noise_is_kept_below_the_limit_by_smaller_pictures(tmp_path, monkeypatch):
    keys = [f"a cat {number}" for number in range(8)]
    made = results(tmp_path, rows=keys, scales=(2.0, 3.0, 4.0, 5.0))
    noise = Image.effect_noise((192, 192), 90).convert("RGB")
    for each in made.cells.values():
        write(tmp_path, each.file, noise)
    monkeypatch.setattr(pages, "MOST_BYTES", 15_000_000 // 40)  # as the pictures of 8 x 8 cells are to these
    path, size, words = write_page(made)
    assert size <= pages.MOST_BYTES and words.startswith("quality 40, sides at ")
    assert f" {words}" in path.read_text(encoding="utf-8")


def test_what_could_not_be_made_is_said_in_its_place(tmp_path):
    made = results(tmp_path, rows=("a cat",), scales=(2.0,), file=None, problem="the memory ran out", spectrum=None)
    assert "the memory ran out" in write_page(made)[0].read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_nine_methods_are_printed_whole(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.comparison.made.COLOURS", {f"method+{number}": (9, 9, 9) for number in range(9)})
    page = browser.new_page(viewport={"width": 718, "height": 1000}, color_scheme="dark")  # A4 within its margins
    page.goto(write_page(results(tmp_path))[0].as_uri())
    over(page)
    page.wait_for_selector(".grid .lens")
    page.emulate_media(media="print")
    assert not page.locator(".grid .lens").first.is_visible()  # it stands where the window's picture was
    for table in (".grid", ".numbers"):
        assert page.evaluate(f"document.querySelector('{table}').getBoundingClientRect().right") <= 718
    assert page.evaluate("getComputedStyle(document.querySelector('.grid tbody')).breakInside") == "avoid"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.close()


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("power", [0.0, 0.001])
def test_spectra_of_flat_pictures_say_so(browser, tmp_path, power):
    made, flat = results(tmp_path), Spectrum((1.0, 2.0), (power, power))
    made.natives = {key: dataclasses.replace(native, spectrum=flat) for key, native in made.natives.items()}
    made.cells = {key: dataclasses.replace(cell, spectrum=flat) for key, cell in made.cells.items()}
    page, said = browser.new_page(), []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.goto(write_page(made)[0].as_uri())
    assert ("Flat: there is nothing" in page.inner_text(".spectra")) == (power == 0)
    assert page.locator(".spectra svg[role=img]").count() == (power > 0) and said == []
    page.close()


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_a_row_without_any_picture_says_so_in_its_place(browser, tmp_path):
    made = results(tmp_path, file=None, problem="the memory ran out", spectrum=None, attention=None)
    made.natives["row-0"] = dataclasses.replace(made.natives["row-0"], file=None, problem="of NaN", spectrum=None)
    (tmp_path / made.natives["row-1"].file).unlink()
    page, said = browser.new_page(), []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(write_page(made)[0].as_uri())
    problems = page.locator(".grid td .problem").all_inner_texts()
    assert problems == ["of NaN", *2 * ["the memory ran out"], "the file is gone", *2 * ["the memory ran out"]]
    assert page.locator("text=There is no picture of this row at this scale.").count() == 2
    assert page.locator(".grid .caption").first.inner_text() == "64 x 64 to 128 x 128 px, seed 1"
    page.locator("td[data-row='0'][data-column='1']").dblclick()
    page.locator("td[data-row='1'][data-column='0']").press("Enter")
    page.check("input[value='3']")
    assert said == []
    page.close()


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_a_method_that_failed_is_not_called_left_out(browser, tmp_path):
    made = results(tmp_path, file=None, problem="the memory ran out", spectrum=None, attention=None)
    page = browser.new_page()
    page.goto(write_page(made)[0].as_uri())
    assert page.locator(".numbers tbody td").all_inner_texts() == ["could not be made"] * 2
    page.locator("td[data-column='2']").nth(1).focus()
    assert page.locator("tbody.on").inner_text().startswith("<b>a dog</b>")
    page.close()
