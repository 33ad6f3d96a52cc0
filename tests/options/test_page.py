"""docs/options.md is what the tables say, and its flags are those of the real command."""

import re

import typer

from fam_ext.cli import app
from tools import options_page


def test_the_page_is_up_to_date() -> None:
    written = options_page.FILE.read_text(encoding="utf-8")
    assert written == options_page.page(), "run python tools/options_page.py"


def test_its_flags_are_those_of_the_command() -> None:
    told = {flag for cell in re.findall(r"`(-[^`]*)`", options_page.page()) for flag in cell.split(", ")}
    upscale = typer.main.get_command(app).commands["upscale"]
    taken = {flag for parameter in upscale.params for flag in parameter.opts if flag.startswith("-")}
    assert told == taken
