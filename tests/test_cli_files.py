"""Files that a command names: which of them it takes, and what their names mean."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fam_ext import cli
from fam_ext.cli.options import named_files
from tests.jobs.fakes import make_folder, make_picture
from tests.test_cli import planned


def test_files_that_are_named_are_included_and_excluded_as_a_folders_are(tmp_path: Path, capsys) -> None:
    files = sorted(make_folder(tmp_path / "in", 3).iterdir())
    for words, kept in ((("--exclude", "*1*"), "02"), (("--include", "*1*"), "1")):
        rows = planned(capsys, *files, "-o", tmp_path / "out", *words)
        assert [row["source"] for row in rows] == [f"picture {number}.png" for number in kept]


def test_a_pattern_is_files_where_paths_are_named_and_there_alone(tmp_path: Path, capsys, monkeypatch) -> None:
    """As in Windows, whose shells say no files, and where typer takes every word of sys.argv for a pattern."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a1.png", "a[1].png", "a_mask.png", "b_mask.png"):
        make_picture(tmp_path / name, name)
    monkeypatch.setattr("typer.core.os", SimpleNamespace(**{**vars(os), "name": "nt"}))

    def sources(*words: str) -> list[str]:
        monkeypatch.setattr(
            sys, "argv", ["fam-hires", "upscale", "-o", "../out", "--dry-run", "--plan-format", "json", *words]
        )
        with pytest.raises(SystemExit) as end:
            cli.main()
        out = capsys.readouterr().out
        return sorted(json.loads(line)["source"] for line in out.splitlines()) if not end.value.code else []

    assert sources(".", "--exclude", "*_mask.png") == ["a.png", "a1.png", "a[1].png"]
    assert sources(".", "--include", "a?.png") == ["a1.png"]
    assert sources("*_mask.png") == ["a_mask.png", "b_mask.png"]
    assert sources("a[1].png") == ["a[1].png"] and sources("a[1]*.png") == ["a[1].png"]
    assert sources("*.webp") == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such name there")
def test_a_file_that_has_a_patterns_name_is_meant_itself(tmp_path: Path) -> None:
    for name in ("a*.png", "ab.png"):
        (tmp_path / name).touch()
    assert named_files([str(tmp_path / "a*.png")]) == [str(tmp_path / "a*.png")]


def test_a_home_folder_is_meant_by_every_option(tmp_path: Path, capsys, monkeypatch) -> None:
    """No shell of Windows says it in full."""
    monkeypatch.chdir(tmp_path)
    for variable in ("HOME", "USERPROFILE", "FAM_HIRES_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(SystemExit) as end:
        cli.main(["presets", "export", "paper", "~/mine.json"])
    assert end.value.code == 0 and (tmp_path / "mine.json").is_file(), capsys.readouterr().err
