"""The contact sheet: what stands where, and the demo's rows with and without a true picture."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageChops

from fam_ext.compare import GAP, LABEL_HEIGHT, Cell, contact_sheet, most_textured
from fam_ext.demo import run as demo
from fam_ext.errors import RenderError
from fam_ext.jobs.run import run_job
from tests.jobs.fakes import Fast, make_folder, make_picture

Y, X = np.mgrid[0:512, 0:512]


def grey(values):
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")


def flat(colour, side=64):
    return Image.new("RGB", (side, side), colour)


def square(sheet, row, column, *, side, place=0, squares=2):
    left = GAP + column * (side + GAP)
    top = LABEL_HEIGHT + GAP + row * (squares * (side + GAP) + LABEL_HEIGHT) + place * (side + GAP)
    return sheet.crop((left, top, left + side, top + side))


def test_a_piece_stands_under_its_picture_pixel_for_pixel_and_none_is_left_empty():
    piece = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8))
    rows = [[Cell(flat("red"), "one", piece), None], [Cell(flat("red"), "two"), Cell(flat("blue"))]]
    sheet = contact_sheet(rows, header=("left", "right"), side=48)
    assert square(sheet, 0, 0, side=48, place=1).tobytes() == piece.tobytes()
    assert square(sheet, 0, 0, side=48).getpixel((24, 24)) == (255, 0, 0)
    assert square(sheet, 1, 1, side=48).getpixel((24, 24)) == (0, 0, 255)
    assert square(sheet, 0, 1, side=48).getextrema() == ((255, 255),) * 3
    without = contact_sheet([[Cell(flat("red"))]], header=("left",), side=48)
    assert without.height == 2 * (LABEL_HEIGHT + GAP) + 48


def test_a_small_piece_is_not_enlarged():
    piece = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8))
    sheet = contact_sheet([[Cell(flat("red"), "", piece)]], header=("",), side=48)
    assert square(sheet, 0, 0, side=48, place=1).crop((12, 12, 36, 36)).tobytes() == piece.tobytes()


def test_a_long_caption_ends_where_its_cell_does():
    row = [Cell(flat("white", 48), "a long caption that never ends"), Cell(flat("white", 48))]
    sheet = contact_sheet([row], header=("a long header that never ends", ""), side=48)
    white = Image.new("RGB", (48, sheet.height), "white")
    beside = sheet.crop((GAP + 48 + GAP, 0, GAP + 48 + GAP + 48, sheet.height))
    words = [ImageChops.difference(white, part).crop((0, 0, 48, 20)).getbbox() for part in (beside, sheet)]
    assert words[0] is None and words[1] is not None


@pytest.mark.parametrize("middle", [(150, 300), (380, 120)])
def test_the_place_with_most_texture_is_on_the_texture_and_not_on_an_outline(middle):
    inside = np.hypot(Y - middle[0], X - middle[1]) < 110
    outline = (X > 40) & (X < 60)
    values = np.where(inside, 120 + 50 * np.sin(X / 3) * np.sin(Y / 3), np.where(outline, 0, 250))
    left, top = most_textured(grey(values), 96)
    assert inside[top : top + 96, left : left + 96].mean() > 0.85


@pytest.mark.parametrize("side", [96, 512, 700])
def test_the_place_lies_in_the_picture_even_where_it_is_flat_or_small(side):
    assert most_textured(flat("white", 512), side) == (0, 0)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """The demo's folders with two samples whose pictures are made already."""
    fine = grey(120 + 40 * np.sin(X / 3) * (Y > 200))
    native = fine.resize((256, 256))
    folders = {name: tmp_path / name for name in ("samples", "truths", "out/fam", "out/direct")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for name in ("0-a knitted owl.png", "1-a teapot.webp"):
        native.save(folders["samples"] / name, lossless=True)
        fine.save(folders["out/fam"] / name, lossless=True)
        ImageChops.offset(fine, 9).save(folders["out/direct"] / name, lossless=True)
    done = SimpleNamespace(failed=0, stopped=None, pending=0, kept=0)
    monkeypatch.setattr(demo, "run_job", lambda *_, **__: done)
    for name in ("samples", "truths"):
        monkeypatch.setattr(demo, name, lambda name=name: folders[name])
    true = grey(120 + 40 * np.sin(X / 3) * (Y < 320))
    true.save(folders["truths"] / "1-a teapot.webp", lossless=True)
    return SimpleNamespace(fine=fine, true=true, truths=folders["truths"], out=tmp_path / "out")


def test_the_demo_shows_the_true_picture_where_there_is_one_and_the_same_place_of_each(ran):
    path, lines = demo.run_demo(ran.out, count=2, say=lambda _: None)
    with Image.open(path) as opened:
        sheet = opened.convert("RGB")
    side = demo.SIDE
    assert sheet.width == GAP + 5 * (side + GAP)
    places = [most_textured(picture, side) for picture in (ran.fine, ran.true)]
    assert places[0] != places[1]
    # where FAM's has most texture; in the second row, where the true one has
    for row, (left, top) in enumerate(places):
        piece, true = (each.crop((left, top, left + side, top + side)) for each in (ran.fine, ran.true))
        assert square(sheet, row, 3, side=side, place=1).tobytes() == piece.tobytes()
        assert square(sheet, row, 2, side=side, place=1).tobytes() != piece.tobytes()  # direct inference
    assert square(sheet, 1, 4, side=side, place=1).tobytes() == true.tobytes()
    assert square(sheet, 0, 4, side=side).getextrema() == ((255, 255),) * 3
    assert [line.split(" dB")[0].split("kept ")[0] for line in lines] == [
        "FAM at 2x: structure ",
        "direct inference at 2x: structure ",
    ]


def test_without_any_true_picture_the_sheet_has_no_column_for_it(ran):
    (ran.truths / "1-a teapot.webp").unlink()
    path, _ = demo.run_demo(ran.out, count=2, say=lambda _: None)
    with Image.open(path) as sheet:
        assert sheet.width == GAP + 4 * (demo.SIDE + GAP)


def test_a_true_picture_of_another_size_is_refused(ran):
    flat("red").save(ran.truths / "0-a knitted owl.png")
    with pytest.raises(RenderError, match=r"0-a knitted owl\.png is 64x64 and the demo's 512x512: write .* again"):
        demo.run_demo(ran.out, count=2, say=lambda _: None)


def test_the_demo_draws_nothing_beside_pictures_of_other_samples(tmp_path, monkeypatch):
    out = tmp_path / "out"
    make_folder(tmp_path / "a", 2)
    monkeypatch.setattr(demo, "samples", lambda: tmp_path / "a")
    options = demo.demo_options(out, "fam", 2)
    demo._check_others(options, out)
    assert not out.exists()
    assert run_job(options, Fast).done == 2
    demo._check_others(options, out)
    make_picture(tmp_path / "a" / "picture 1.png", "a newer one")  # in its place
    with pytest.raises(RenderError, match="fam holds 1 of the demo's pictures made from other samples or settings"):
        demo._check_others(options, out)
    make_picture(tmp_path / "b" / "picture 0.png", "another one")
    monkeypatch.setattr(demo, "samples", lambda: tmp_path / "b")  # installed elsewhere
    with pytest.raises(RenderError, match="fam holds 1 of"):
        demo._check_others(demo.demo_options(out, "fam", 1), out)
