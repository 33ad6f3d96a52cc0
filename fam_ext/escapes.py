"""A stranger's words made safe to print: names of files, texts of pictures, sentences of other libraries."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from fam_ext.errors import FamError

_MOST_NAMED = 5
_MOST_OF_A_NAME = 60


def shown(name: object) -> str:
    """Return a name or sentence on one line: control and direction marks are written as escapes."""
    return "".join(
        mark
        if mark.isprintable() and unicodedata.category(mark) not in ("Cf", "Cs")
        else mark.encode("unicode_escape", "backslashreplace").decode("ascii")
        for mark in str(name)
    )


def one_line(text: str) -> str:
    """Return a sentence that any terminal and database takes: one line, escapes for what is not printed, bounded."""
    return shown(" ".join(text.split()))[:290]


def sentence(error: BaseException) -> str:
    """Return an error on one line: ours as it is, any other with its type, bounded."""
    text = shown(" ".join(str(error).split()))
    if isinstance(error, FamError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def listed(names: Sequence[str]) -> str:
    """Return names as a note has them, long ones cut, of many the first: "a, b, c, d, e and 2 more"."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(name[:_MOST_OF_A_NAME] for name in names[:_MOST_NAMED]) + more
