"""results.json is read as it was written, or refused in one sentence."""

import json
import os
import sys

import pytest

from fam_ext.comparison.page import write_page
from fam_ext.comparison.results import Results, write_new
from fam_ext.errors import OutputError, PictureError
from tests.comparison.made import results


def test_what_is_written_is_read(tmp_path):
    made = results(tmp_path)
    assert Results.read(tmp_path) == made


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("rows", "size", "[1e999, 64]"),
        ("rows", "size", "[64.5, 64]"),
        ("rows", "size", "[64]"),
        ("rows", "cfg_scale", "Infinity"),
        ("rows", "seed", '"1"'),
        ("rows", "title", "null"),
        ("rows", "file", '"../a.png"'),
        ("rows", "spectrum", '{"cycles": [1], "power": ["nan"]}'),
        ("cells", "seconds", "NaN"),
        ("cells", "seconds", '"fast"'),
        ("cells", "seconds", "true"),
        ("cells", "seconds", "null"),
        ("cells", "scale", "-Infinity"),
        ("cells", "notes", "[1]"),
        ("cells", "settings", '"steps 4"'),
        ("cells", "upscaler", "{}"),
        ("cells", "problem", "3"),
        ("cells", "attention", '{"file": "a.png"}'),
        ("cells", "attention", "7"),
        ("cells", "unknown", "7"),
    ],
)
def test_a_value_that_is_none_of_its_field_is_refused(tmp_path, part, name, value):
    results(tmp_path, rows=("a cat",), scales=(2.0,))
    file = tmp_path / "results.json"
    values = json.loads(file.read_text())
    values[part][-1][name] = "HERE"
    file.write_text(json.dumps(values).replace('"HERE"', value))
    with pytest.raises(OutputError, match="cannot be read as a comparison's results"):
        Results.read(tmp_path)


def test_no_number_is_written_that_a_browser_refuses(tmp_path):
    made = results(tmp_path)
    made.machine["seconds"] = float("nan")
    for write in (made.write, lambda: write_page(made)):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write()


@pytest.mark.skipif(sys.platform == "win32", reason="links, FIFOs")
def test_a_strangers_folder_shows_and_changes_no_file_outside_it(tmp_path):
    made = results(tmp_path / "out", rows=("a cat",), scales=(2.0,))
    page = write_page(made)[0].read_bytes()
    for name in ("fam-2x", "native/row-0.png"):
        (tmp_path / "out" / name).rename(tmp_path / name.replace("/", "-"))
        (tmp_path / "out" / name).symlink_to(tmp_path / name.replace("/", "-"))
    assert not made.holds("fam-2x/row-0.png") and not made.holds("native/row-0.png") and not made.holds(None)
    assert made.holds("direct-2x/row-0.png") and len(write_page(made)[0].read_bytes()) < len(page)
    with pytest.raises(PictureError, match="a link in the output folder leads outside it"):
        write_new(tmp_path / "out", "fam-2x/b.png", b"")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert Results.read(tmp_path / "link").holds("direct-2x/row-0.png"), "the user's own link to the folder"
    (tmp_path / "out" / "results.json").unlink()
    os.mkfifo(tmp_path / "out" / "results.json")
    with pytest.raises(OutputError, match="cannot be read as a comparison's results"):
        Results.read(tmp_path / "out")
