"""No control character reaches the terminal: not from a file's name, its metadata, or a renderer's sentence."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fam_ext import terminal
from fam_ext.cli import progress
from fam_ext.cli.making import steps_bar
from fam_ext.errors import RenderError
from fam_ext.jobs.events import Event
from tests.jobs.fakes import Fast, make_picture
from tests.test_cli import run

ESC = "\x1b]0;owned\x07\x1b[31m\u202e\x9b2J"


def safe(text: str) -> bool:
    return all(line.isprintable() and "\u202e" not in line for line in text.splitlines())


class Rude(Fast):
    def render(self, image, request, progress):
        logging.getLogger("fam_ext").warning("loud %s", ESC)
        raise RenderError(f"no {ESC}")


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows cannot hold")
@pytest.mark.parametrize("view", ["plain", "json", "live"])
def test_a_job_prints_no_control_character(tmp_path: Path, capsys, monkeypatch, view: str) -> None:
    monkeypatch.setattr("fam_ext.jobs.renderers.RendererSpec.build", lambda spec: Rude())
    make_picture(tmp_path / "in" / "a\x1b[31m[/b].png", f"cat {ESC}", Sampler=f"Euler {ESC}")
    make_picture(tmp_path / "in" / "b.png")
    code, out, err = run(capsys, "upscale", tmp_path / "in", "-o", tmp_path / f"out{ESC}", "--progress", view)
    assert code == 1
    if view != "live":  # rich colours its own bars
        assert safe(out)
    assert safe(err) and ESC not in out + err and "owned\x07" not in out


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows cannot hold")
@pytest.mark.parametrize("table", ["table", "json", "csv"])
def test_a_plan_prints_no_control_character(tmp_path: Path, capsys, table: str) -> None:
    make_picture(tmp_path / "in" / "a\x1b[31m.png", f"cat {ESC}")
    (tmp_path / "in" / "bad\x1b.png").write_bytes(b"x")
    words = ("upscale", tmp_path / "in", "-o", tmp_path / "out", "--dry-run", "--plan-format", table)
    code, out, err = run(capsys, *words)
    assert (code, safe(out + err)) == (0, True)
    if table == "json":
        assert next(json.loads(line)["prompt"] for line in out.splitlines()) == f"cat {ESC}"


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows cannot hold")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_inspect_prints_no_control_character(tmp_path: Path, capsys, more: tuple[str, ...]) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / f"a{ESC}.png")
    (tmp_path / f"a{ESC}.txt").write_text(f"cat {ESC}")
    make_picture(tmp_path / f"b{ESC}.png", f"cat {ESC}", Sampler=f"Euler {ESC}")
    (tmp_path / f"c{ESC}.png").write_bytes(b"no picture")
    for name in "abc":
        code, out, err = run(capsys, "inspect", tmp_path / f"{name}{ESC}.png", *more)
        assert (code, safe(out + err)) == (int(name == "c"), True), name


def test_an_error_prints_no_control_character(tmp_path: Path, capsys) -> None:
    for words in (("upscale", f"gone{ESC}", "-o", tmp_path / "o"), ("presets", "show", ESC), ("report", ESC)):
        code, out, err = run(capsys, *words)
        assert code == 2 and safe(out + err), words


def test_a_live_view_takes_any_name(capsys) -> None:
    with progress._LiveView() as view:
        view.event(Event("step", key="a[/b]\x1b.png", step=1, steps=2, total=1))
        view.event(Event("failed", key="a[/b]\x1b.png", message=ESC, failed=1, total=1))
        view.event(Event("planned", notes=(ESC,), total=1))
    out = capsys.readouterr().out  # rich itself leaves out the bell, so ESC as a whole never stands there
    assert "owned" in out and not any(mark in out for mark in ("\x1b]", "\x1b[31m", "\u202e", "\x9b"))


def test_json_stays_json() -> None:
    assert terminal.as_json({"a": "猫"}) == '{"a": "猫"}'
    assert json.loads(terminal.as_json({"a": ESC})) == {"a": ESC}
    assert safe(terminal.as_json({"a": ESC}))


def test_a_bar_shows_a_prompt_as_it_is(capsys, monkeypatch):
    """Rich takes brackets for markup, and an end without a beginning for an error."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    with steps_bar("a [red] castle [/b]\x1b[31m by fam") as bar:
        bar.step(1, 2)
    assert "a [red] castle [/b]\\x1b[31m by fam" in capsys.readouterr().out


def test_any_name_is_printed_in_a_code_page(tmp_path: Path) -> None:
    """As on Windows with `> log.txt`, whose code page lacks most names."""
    made = tmp_path / "猫 é \U0001f600.png"
    make_picture(made, made.stem)
    plan = ["upscale", tmp_path, "-o", tmp_path.parent / "out", "--dry-run"]
    for command, code in (
        (["inspect", made], 0),
        (["inspect", made, "--json"], 0),
        (plan, 0),
        ([*plan, "--plan-format", "csv"], 0),
        (["inspect", tmp_path / "猫.png"], 2),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "fam_ext.cli", *map(str, command)],
            env={**os.environ, "PYTHONIOENCODING": "cp1252"},
            capture_output=True,
            check=False,
        )
        out, err = ended.stdout.decode("cp1252"), ended.stderr.decode("cp1252")
        assert (ended.returncode, err.count("\n")) == (code, code // 2), err
        assert "\\u732b" in out + err
        if "--json" in command:
            assert json.loads(out)["file"] == made.name


def test_nothing_is_printed_but_by_say() -> None:
    """Else a stranger's name or sentence reaches the terminal as it is."""
    package = Path(terminal.__file__).parent
    printing = re.compile(r"(?<![\w.])(typer\.echo|click\.echo|print)\(")
    found = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(printing.search(line) for line in path.read_text(encoding="utf-8").splitlines())
    ]
    assert found == ["terminal.py"]
