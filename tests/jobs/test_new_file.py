"""A file gets a name that no other has, also where the disk has no hard links (exFAT, some network shares)."""

import os

import pytest
from PIL import Image

from fam_ext.cli import written
from fam_ext.comparison import results
from fam_ext.errors import OutputError
from fam_ext.jobs import compare_page
from fam_ext.jobs.new_file import put_new


@pytest.fixture(params=["links", "none"])
def disk(request, monkeypatch):
    def no_link(*_):
        raise PermissionError(1, "Operation not permitted")

    if request.param == "none":
        monkeypatch.setattr(os, "link", no_link)


@pytest.mark.usefixtures("disk")
def test_nothing_is_ever_replaced(tmp_path):
    image, pair = Image.new("RGB", (8, 8)), tmp_path / "pair.html"
    for number in range(3):
        path = written.write_new(tmp_path, "a", image, None)
        name = results.write_new(tmp_path, "b.txt", str(number).encode())
        assert (tmp_path / name).read_bytes() == str(number).encode()
    assert path.name == "a-3.png" and name == "b-3.txt"
    with Image.open(tmp_path / "a.png") as made:
        assert made.size == (8, 8)
    found, note = compare_page.pairs(tmp_path / "a.png", tmp_path / "a-2.png")
    compare_page.write_page(found, note, pair)
    whole = pair.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        compare_page.write_page(found, note, pair)
    assert pair.read_bytes() == whole and len(list(tmp_path.iterdir())) == 7


@pytest.mark.usefixtures("disk")
def test_a_name_that_is_taken_stays_whose_it_is_and_a_failure_leaves_nothing(tmp_path):
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    with pytest.raises(FileExistsError):
        put_new(tmp_path / "new", tmp_path / "old")
    with pytest.raises(FileNotFoundError):
        put_new(tmp_path / "gone", tmp_path / "other")
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["new", "old"]
