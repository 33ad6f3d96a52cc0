"""`fam-hires try`: three pictures by each preset, a sheet, and nothing else."""

import re

from PIL import Image

from fam_ext.jobs.renderers import RendererSpec
from tests.jobs.fakes import FakeSpec, make_folder, make_picture
from tests.test_cli import run


def test_try_makes_three_by_each_preset_and_a_sheet(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(RendererSpec, "build", lambda self: FakeSpec("Fast").build())
    monkeypatch.setenv("FAM_HIRES_HOME", str(tmp_path / "home"))
    make_folder(tmp_path / "in", 5)
    make_picture(tmp_path / "in" / "large.png", size=(96, 64))
    command = ["try", tmp_path / "in", "-o", tmp_path / "out", "--presets", "fast,paper"]
    code, out, err = run(capsys, *command)
    assert (code, err) == (0, ""), err
    assert "6 done" in out and re.search(r"fast: about .* for all 6\n", out) and "paper: about" in out
    folder = tmp_path / "out-try" / "1"
    assert len(list((folder / "fast").glob("*.png"))) == len(list((folder / "paper").glob("*.png"))) == 3
    with Image.open(folder / "trial.png") as sheet:
        assert sheet.width > 3 * 384 and sheet.height > 3 * 384
    assert not (tmp_path / "out").exists()
    assert run(capsys, *command[:-1], "a,b,c,d")[0] == 2
    assert run(capsys, *command[:-1], "nope")[0] == 2
