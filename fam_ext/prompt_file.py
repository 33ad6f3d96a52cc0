"""A text file with a prompt on each line, as the commands that draw many take one."""

from __future__ import annotations

import re
from pathlib import Path

from fam_ext.errors import UsageError
from fam_ext.escapes import shown

_MOST_BYTES = 1 << 20


def read_prompts(path: Path) -> list[str]:
    """Return the lines of a text file in UTF-8 that are not empty. Raises `UsageError`."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--prompts is {shown(path)}, which cannot be read ({error.strerror}); check it") from None
    if len(raw) > _MOST_BYTES:
        raise UsageError(f"--prompts is {shown(path)}, which is larger than 1 MB; give one prompt a line")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 without a mark decodes, a NUL behind each letter
        raise UsageError(f"--prompts is {shown(path)}, which is no text in UTF-8; give one prompt a line")
    found = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]  # a prompt may hold other breaks
    if not found:
        raise UsageError(f"--prompts is {shown(path)}, which has no line with a prompt; give one prompt a line")
    return found
