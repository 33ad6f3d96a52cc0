"""What the command prints. A terminal obeys control characters, and names and sentences may be a stranger's."""

from __future__ import annotations

import json
import logging
import sys

import typer

from fam_ext.escapes import shown


def plain(text: str) -> str:
    """Return a text for a terminal: its lines stay, control and direction marks are written as escapes."""
    return "\n".join(shown(line) for line in text.split("\n"))


def say(text: str, *, err: bool = False) -> None:
    """Print a text and a line's end, to stderr with `err`; control characters as escapes."""
    typer.echo(plain(text), err=err)


def as_json(values: object, *, indent: int | None = None) -> str:
    """Return JSON that prints on any terminal: in ASCII where a text holds what a terminal would obey, or what stdout's
    encoding lacks."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return text if plain(text) == text and _can_print(text) else json.dumps(values, indent=indent)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


class PlainFormatter(logging.Formatter):
    """A log line without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line as `plain` gives it."""
        return plain(super().format(record))
