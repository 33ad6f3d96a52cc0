"""The one element that compares two pictures: in the report, and by its own HTML. The tab's is in test_tab."""

import base64
import io
import os
import re
import struct
import sys

import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from fam_ext.jobs import report
from fam_ext.jobs.batches import Batches
from fam_ext.jobs.compare import compare_html, script
from fam_ext.ui import compare
from fam_ext.ui.thumbnails import Thumbnails, seen, upright
from tests.jobs.fakes import Fast, make_folder, page_job
from tests.metadata.files import raw_chunk, with_chunks
from tests.ui.test_folder import ended
from tests.ui.test_tab import browser  # noqa: F401


@pytest.fixture
def shown(browser, tmp_path):  # noqa: F811
    """A page of its own: a black picture of 64 px and a white one of 256 px with one red pixel in the middle."""
    after = Image.new("RGB", (256, 256), "white")
    after.paste((200, 0, 0), (120, 120, 136, 136))
    html = compare_html(Image.new("RGB", (64, 64)), after, most=4096)
    (tmp_path / "page.html").write_text(f"<!doctype html><body>{html}<script>{script()}</script>")
    page = browser.new_page(viewport={"width": 900, "height": 800})
    page.set_default_timeout(30_000)
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("document.querySelector('fam-compare').stage.style.width === '256px'")
    yield page
    page.close()


def test_a_picture_travels_no_larger_than_it_is_shown() -> None:
    def sides(before: int, after: int, most: int) -> list[int]:
        html = compare_html(Image.new("RGB", (before, before)), Image.new("RGB", (after, after)), most=most)
        found = re.findall(r"base64,([^\"]+)", html)
        return [Image.open(io.BytesIO(base64.b64decode(data))).width for data in found]

    assert sides(16, 64, 64) == [16, 64]
    assert sides(16, 256, 64) == [16, 64]
    assert sides(128, 256, 64) == [64, 64]


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_the_slider_the_lens_and_the_keys(shown):
    view = shown.locator("[role=slider]")
    box = shown.locator(".stage").bounding_box()

    def pixel(x, y):
        from io import BytesIO

        return (
            Image.open(BytesIO(shown.screenshot())).convert("RGB").getpixel((round(box["x"] + x), round(box["y"] + y)))
        )

    assert max(pixel(60, 60)) < 40 and min(pixel(200, 60)) > 220  # before at the left, after at the right
    shown.mouse.move(box["x"] + 128, box["y"] + 60)
    shown.mouse.down()
    shown.mouse.move(box["x"] + 40, box["y"] + 60)
    shown.mouse.up()
    assert min(pixel(60, 60)) > 220
    view.focus()
    shown.keyboard.press("Shift+ArrowRight")
    assert view.get_attribute("aria-valuenow") == "26"
    # the lens: both at one to one of the larger picture, where the pointer is
    shown.click("button:has-text('Lens')")
    shown.mouse.move(box["x"] + 128, box["y"] + 128)
    glass = shown.locator(".lens div >> nth=1")
    assert glass.evaluate("node => node.style.backgroundSize") == "256px 256px"
    assert "1:1" in shown.inner_text(".note")
    before = glass.evaluate("node => node.style.backgroundPosition")
    view.focus()
    shown.keyboard.press("ArrowDown")
    assert glass.evaluate("node => node.style.backgroundPosition") != before
    # where they differ the difference is bright
    shown.click("button:has-text('Difference')")
    assert min(pixel(60, 60)) > 220
    shown.select_option("select", "4")
    assert shown.locator(".stage").bounding_box()["width"] == 1024


def test_a_preview_says_that_it_is_one():
    whole = Image.new("RGB", (256, 128))
    assert 'data-scale="1"' in compare_html(whole, whole, most=256)
    assert 'data-scale="0.25"' in compare_html(whole, whole, most=64)


def pictures(html):
    """Return the pictures of an element or a page."""
    urls = re.findall(r"base64,([^'\"]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(url))) for url in urls]


def test_what_is_transparent_lies_on_white_on_both_sides(tmp_path):
    """Below full transparency a file holds any colour, mostly black."""
    (tmp_path / "in").mkdir()
    spot = Image.new("L", (64, 64))
    spot.paste(255, (40, 40, 56, 56))
    for mode in ("RGB", "L"):
        picture = Image.new(mode, spot.size)
        picture.putalpha(spot)
        picture.save(tmp_path / "in" / f"{picture.mode}.png")
    options = page_job({"input": str(tmp_path / "in")})
    assert ended(Batches(lambda options: Fast()), options)["done"] == 2
    page = (tmp_path / "in-fam" / report.NAMES[-1]).read_text(encoding="utf-8")
    shown = pictures(page)
    assert len(shown) == 4
    thumbnails = Thumbnails()
    thumbnails.begin()
    for name in ("RGBA.png", "LA.png"):
        before, after = tmp_path / "in" / name, tmp_path / "in-fam" / name
        with Image.open(before) as native, Image.open(after) as result:
            assert result.getpixel((20, 20))[-1] == 0, "the result is transparent too"
            shown += pictures(compare.compare_html(native, result))
        shown += pictures(thumbnails.of(before).url + "'" + thumbnails.of(after).url)
    for picture in shown:
        x, y = picture.width // 8, picture.height // 8
        assert picture.mode == "RGB" and min(picture.getpixel((x, y))) > 250, picture


def test_what_cannot_be_shown_is_none_and_reaches_no_interpreter(tmp_path, monkeypatch):
    """A page that watches a job would go blind by one file: Pillow's errors are of any kind."""
    huge = raw_chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0))
    made = {"bomb.png": b"\x89PNG\r\n\x1a\n" + huge}
    made["eps.png"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    made["exif.png"] = with_chunks()
    made["none.png"] = b""
    called = []
    monkeypatch.setattr(ImageOps, "exif_transpose", lambda picture: struct.unpack("<I", b""))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **more: called.append(args))
    thumbnails = Thumbnails()
    thumbnails.begin()
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
        assert (seen(tmp_path / name), thumbnails.of(tmp_path / name)) == (None, None), name
    assert not called
    Image.new("RGB", (48, 32)).save(tmp_path / "good.png")
    monkeypatch.undo()
    assert seen(tmp_path / "good.png")[1] == (48, 32) and seen(tmp_path / "good.png", most=48 * 32 - 1) is None
    Image.new("RGB", (480, 320)).save(tmp_path / "good.jpg")
    assert [seen(tmp_path / "good.jpg", side=side)[0].size for side in (None, 60)] == [(480, 320), (120, 80)]
    good, gone = tmp_path / "good.png", tmp_path / "gone.png"
    assert "data:image" in compare.files_compared(good, good)
    assert compare.files_compared(good, gone) == compare.files_compared(gone, good) == ""
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "fifo.png")
        assert seen(tmp_path / "fifo.png") is None, "it is not waited for"


def test_sixteen_bits_are_not_clipped():
    grey = Image.new("I;16", (64, 64), 32768)
    for picture in pictures(compare.compare_html(grey, grey)):
        assert 120 < picture.getpixel((9, 9))[0] < 136


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_picture_is_turned_once(kind, tmp_path):
    stored = Image.new("RGB", (64, 32), "white")
    stored.paste("black", (0, 0, 64, 16))
    tags = Image.Exif()
    tags[0x0112] = 6
    stored.save(tmp_path / "one", kind, exif=tags)
    with Image.open(tmp_path / "one") as image:
        shown = upright(image)
    assert shown.size == (32, 64)
    assert shown.getpixel((24, 32)) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_a_report_compares_its_pictures(browser, tmp_path):  # noqa: F811
    options = page_job({"input": str(make_folder(tmp_path / "in", 2))})
    assert ended(Batches(lambda options: Fast()), options)["done"] == 2
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto((tmp_path / "in-fam" / "report.html").as_uri())
    page.click("button.compare >> nth=0")
    page.wait_for_selector("dialog fam-compare [role=slider]")
    assert page.locator("dialog fam-compare img[slot]").count() == 2
    page.click("dialog .close")
    page.click(".tabs button:has-text('done')")
    assert page.locator("tbody tr:visible").count() == 2
    assert not errors
    page.close()
