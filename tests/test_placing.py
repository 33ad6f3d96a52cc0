"""A file gets a name that no other has, also where the disk has no hard links (exFAT, some network shares); and on
Windows, where a scanner holds what is fresh."""

import errno
import os
from collections import Counter

import pytest
from PIL import Image

from fam_ext import placing
from fam_ext.cli import written
from fam_ext.comparison import results
from fam_ext.errors import ConfigError, OutputError
from fam_ext.jobs import compare_page
from fam_ext.options.presets import Preset, PresetStore
from fam_ext.placing import put_new
from fam_ext.quality import written as measured


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


@pytest.fixture
def scanner(monkeypatch):
    """Hold each file for the first `tries` times that it is moved, and removed."""
    tried, real = Counter(), {name: getattr(os, name) for name in ("replace", "unlink")}

    def held(name):
        def act(path, *more):
            tried[name, str(path)] += 1
            if os.path.lexists(path) and tried[name, str(path)] <= held.tries:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real[name](path, *more)

        return act

    held.tries = 2
    for name in real:
        monkeypatch.setattr(os, name, held(name))
    monkeypatch.setattr(placing, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(placing, "HELD_SECONDS", 60.0)
    return held


def test_what_a_scanner_holds_for_an_instant_is_written_all_the_same(tmp_path, scanner):
    first = written.write_new(tmp_path, "a", Image.new("RGB", (8, 8)), None)
    results.write_new(tmp_path, "b.txt", b"b")
    for text in (b"old", b"new"):
        results.write_whole(tmp_path / "results.json", text)
        measured.write_whole(tmp_path / "table.md", text)
    found, note = compare_page.pairs(first, first)
    for overwrite in (False, True):
        compare_page.write_page(found, note, tmp_path / "pair.html", overwrite=overwrite)
    PresetStore(tmp_path / "presets").save(Preset("mine"))
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"a.png", "b.txt", "results.json", "table.md", "pair.html", "presets/mine.json"}
    assert (tmp_path / "results.json").read_bytes() == (tmp_path / "table.md").read_bytes() == b"new"


def test_what_is_in_its_place_counts_and_what_cannot_be_is_said(tmp_path, scanner, monkeypatch):
    store, image = PresetStore(tmp_path), Image.new("RGB", (8, 8))
    store.save(Preset("mine"))
    monkeypatch.setattr(placing, "HELD_SECONDS", 0.05)
    monkeypatch.setattr(type(tmp_path), "unlink", os.unlink)
    scanner.tries = 1_000
    assert written.write_new(tmp_path, "a", image, None) == tmp_path / "a.png"  # its second name stays
    with pytest.raises(OutputError, match="Permission denied"):
        results.write_whole(tmp_path / "results.json", b"new")
    with pytest.raises(ConfigError, match="Permission denied"):
        store.save(Preset("other"))
    with pytest.raises(ConfigError, match="'mine' cannot be deleted"):
        store.delete("mine")
