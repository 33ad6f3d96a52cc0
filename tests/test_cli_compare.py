"""`fam-hires compare BEFORE AFTER`: no model is loaded."""

import re

import pytest
from PIL import Image

from fam_ext.jobs import compare_page
from tests.test_cli import run


def made(folder, *names, side=64):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((side, side), 50).convert("RGB").save(folder / name)
    return folder


def test_two_pictures_become_one_page_that_needs_no_other_file(tmp_path, capsys):
    before, after = made(tmp_path, "a.png") / "a.png", made(tmp_path, "b.jpg", side=128) / "b.jpg"
    page = tmp_path / "c.html"
    code, out, err = run(capsys, "compare", before, after, "--out", page)
    assert (code, err) == (0, "") and "1 compared" in out
    text = page.read_text()
    assert text.count('<fam-compare data-scale="1">') == 1 and text.count("data:image/jpeg") == 2
    assert "64 x 64 to 128 x 128 px" in text and not re.findall(r'(?:src|href)="(?!data:)', text)
    code, _, err = run(capsys, "compare", before, after, "--out", page)
    assert code == 1 and err.count("\n") == 1 and "add --overwrite" in err and page.read_text() == text
    assert run(capsys, "compare", after, before, "--out", page, "--overwrite")[0] == 0
    assert "128 x 128 to 64 x 64 px" in page.read_text()
    assert not list(tmp_path.glob(".fam-*"))


def test_folders_are_compared_by_name(tmp_path, capsys, monkeypatch):
    before = made(tmp_path / "in", "1.png", "2.png", "10.png", "sub/3.png", "only.png")
    after = made(tmp_path / "out", "1.jpg", "2.png", "10.png", "sub/3.webp", ".fam-hires/1.png", side=128)
    (after / "2.png").write_bytes(b"none")
    (after / "report.html").write_text("")
    code, out, err = run(capsys, "compare", before, after, "-o", tmp_path / "c.html")
    assert code == 0 and "1 pictures have no other of their name" in out
    assert err.count("\n") == 1 and "2.png cannot be shown" in err
    text = (tmp_path / "c.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == ["1", "10", "sub/3"]
    monkeypatch.setattr(compare_page, "MOST_PAIRS", 1)
    assert "the first 1 of 4 pairs" in run(capsys, "compare", before, after, "-o", tmp_path / "d.html")[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["in", "gone"], "does not exist; check the path"),
        (["in", "in/1.png"], "are a file and a folder"),
        (["in", "other"], "no picture of one name"),
        (["in", "in", "--methods", "fam"], "AFTER is given"),
        (["in", "in", "--steps", "5"], "AFTER is given"),
        (["bad.png", "in/1.png"], "bad.png cannot be shown"),
        (["in", "in", "--out", "x.png"], "--out is x.png, and BEFORE and AFTER make one page; name a .html file"),
        (["in", "in", "--out", "x"], "--out is x, and BEFORE and AFTER make one page"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence_and_writes_nothing(tmp_path, capsys, monkeypatch, words, sentence):
    made(tmp_path, "in/1.png", "other/2.png")
    (tmp_path / "bad.png").write_bytes(b"none")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "compare", *words)
    assert code == 2 and sentence in err and err.count("\n") == 1
    assert not list(tmp_path.glob("*.html")) and not list(tmp_path.glob(".fam-*"))
