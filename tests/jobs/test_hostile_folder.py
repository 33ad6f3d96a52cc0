"""An output folder that a stranger made: its journal, its links, what stands where a file is expected."""

import contextlib
import hashlib
import os
import sqlite3
import stat
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from fam_ext.cli.upscale import TableFormat, print_plan
from fam_ext.errors import OutputError, PictureError, UsageError
from fam_ext.jobs import report
from fam_ext.jobs.compare_page import _picture
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.disk import file_hash
from fam_ext.jobs.lock import FileLock
from fam_ext.jobs.run import run_job
from fam_ext.jobs.walk import check_places, walk
from fam_ext.metadata import pictures
from fam_ext.metadata.files import is_link
from fam_ext.options.parts import RunRule
from tests.jobs.fakes import Fast, make_picture, options


@pytest.fixture
def out(tmp_path: Path) -> Path:
    make_picture(tmp_path / "in" / "a.png", "=HYPERLINK(1)", 1)
    run_job(options(tmp_path / "in", tmp_path / "out"), Fast, run=RunRule(report=False))
    return tmp_path / "out"


def change(out: Path, columns: str, *values: object) -> None:
    database = sqlite3.connect(out / ".fam-hires" / "journal.sqlite3")
    with contextlib.closing(database), database:
        database.execute(f"UPDATE items SET {columns}", values)


@pytest.mark.parametrize("owner", ["evil", "1-a", "1-a/../x", b"\xff"])
@pytest.mark.parametrize("name", ["../home/.bashrc", "HOME/.bashrc", "../home/new", "a\0", None, "b.png"])
def test_a_journals_unfinished_file_is_put_nowhere_else(out: Path, owner: object, name: object) -> None:
    home = out.parent / "home"
    home.mkdir()
    (home / ".bashrc").write_text("mine")
    kept = out / ".fam-hires" / "tmp" / f"{owner}-1"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("evil")
    name = name.replace("HOME", str(home)) if isinstance(name, str) else name
    digest = hashlib.sha256(b"evil").hexdigest()
    change(out, "state = 'saving', owner = ?, output = ?, output_hash = ?", owner, name, digest)
    with Journal(out) as journal:
        (item,) = journal.items()
    assert item.state == ("done" if (owner, name) == ("1-a", "b.png") else "pending")
    assert sorted(os.listdir(home)) == [".bashrc"] and (home / ".bashrc").read_text() == "mine"
    for owner, of_half in (("1-a", None), ("1-a", digest), ("a\0", None)):  # no file has no hash either
        half = out / ".fam-hires" / "tmp" / "1-a-1"
        half.parent.mkdir(exist_ok=True)
        half.write_text("half")
        change(out, "state = 'saving', owner = ?, output_hash = ?, output = 'gone.png'", owner, of_half)
        with Journal(out) as journal:
            assert journal.counts()["pending"] == 1 and not (out / "gone.png").exists()


def test_a_junction_is_a_link(tmp_path: Path, monkeypatch) -> None:
    """On Windows; Python 3.10 and 3.11 have no `os.path.isjunction`."""
    assert not is_link(tmp_path) and not is_link(tmp_path / "none")
    status = SimpleNamespace(st_mode=stat.S_IFDIR, st_reparse_tag=0xA0000003)
    with monkeypatch.context() as windows:
        windows.setattr(os, "lstat", lambda path: status)
        assert is_link(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize("name", ["tmp", ".", "journal.sqlite3", "journal.sqlite3-wal", "lock"])
def test_a_link_in_place_of_a_jobs_own_files_is_refused(out: Path, tmp_path: Path, name: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "thesis-1.odt").write_text("x")
    place = out / ".fam-hires" / name
    if os.path.lexists(place):
        place.rename(tmp_path / "moved")
    place.symlink_to(docs, target_is_directory=True)
    with pytest.raises(OutputError, match="is a link"):
        Journal(out)
    assert os.listdir(docs) == ["thesis-1.odt"]


def test_only_our_own_temporaries_are_tidied_up(out: Path) -> None:
    temporary = out / ".fam-hires" / "tmp"
    temporary.mkdir(exist_ok=True)
    for name in ("thesis-1.odt", "notes", "1-a-7"):
        (temporary / name).touch()
    Journal(out).close()
    assert sorted(os.listdir(temporary)) == ["notes", "thesis-1.odt"]


def test_odd_values_of_a_row_end_no_report(out: Path) -> None:
    odd = ("<b>", b"\0\xff", 1e308, float("inf"), 2**62, None, "")
    for column in ("state", "source", "origin", "output", "error", "finished", "program", "seconds", "native_width"):
        for value in odd:
            change(out, "state = 'done', source = 'a', output = 'a', finished = 1, seconds = 1, native_width = 1")
            try:
                change(out, f"{column} = ?", value)
            except sqlite3.IntegrityError:
                continue
            with Journal(out) as journal:
                report.write_all(journal)
                (item,) = journal.items()
            assert max(item.seconds or 0, item.native[1]) < 1 << 63  # nor in a page or an answer
            assert "<b>" not in (out / "report.html").read_text().partition("<tbody>")[0], column


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
def test_what_is_no_file_is_never_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "a.png"
    os.mkfifo(fifo)

    def read() -> None:
        for path in (fifo, Path("/dev/zero")):
            assert report._thumbnail(path, 10) == "" and file_hash(path) is None
            for reader in (pictures.read_header, pictures.read_file, _picture):
                with pytest.raises(PictureError, match="not a regular file"):
                    reader(path)
        with pytest.raises(OSError, match=r"a\.png"):
            FileLock(fifo).acquire()
        (tmp_path / ".fam-hires").mkdir()
        os.mkfifo(tmp_path / ".fam-hires" / "owner-1-a.lock")
        Journal(tmp_path).close()
        ended.append(True)

    ended: list[bool] = []
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert ended


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_names_that_no_system_takes_are_a_sentence(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    long = "x" * 300
    with pytest.raises(PictureError, match="cannot be read"):
        pictures.read_file("a\0")
    for source, output in (("in", long), ("in", "one"), (long, "out")):
        job = options(tmp_path / source, tmp_path / output)
        with pytest.raises(UsageError, match=r"cannot be used|does not exist"):
            check_places(job.places)
    assert [found.problem is None for found in walk(options(tmp_path / long, tmp_path / "out").places)] == [False]


def test_a_plans_cells_are_no_formulas(tmp_path: Path, capsys) -> None:
    make_picture(tmp_path / "in" / "a.png", "=HYPERLINK(1)")
    print_plan(options(tmp_path / "in", tmp_path / "out"), TableFormat.csv)
    assert ",'=HYPERLINK(1)," in capsys.readouterr().out


def test_the_limit_of_pixels_is_ours_not_pillows(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many
    for kind in ("PNG", "BMP"):
        Image.new("RGB", (48, 32)).save(tmp_path / "a", kind)
        data = pictures.read_file(tmp_path / "a")
        assert data == (tmp_path / "a").read_bytes()
        assert pictures.decode(data, max_pixels=1536).image.size == (48, 32)
        with pytest.raises(PictureError, match="raise --max-input-megapixels"):
            pictures.read_header(data, max_pixels=1535)
    assert Image.MAX_IMAGE_PIXELS == 100
