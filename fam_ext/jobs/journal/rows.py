"""A row as the engine works on it; a damaged value of it is none, never an error."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from fam_ext.errors import FamError
from fam_ext.jobs.contract import Ran
from fam_ext.options.request import HiresRequest

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Item:
    """One row, as the engine works on it."""

    id: int
    key: str
    source: str
    request: HiresRequest | None
    native: tuple[int, int]
    format: str
    output: str
    taken: tuple[str, ...] = ()
    origin: str | None = None
    base_text: str | None = None
    content_hash: str | None = None
    attempts: int = 0
    state: str = "pending"
    error: str | None = None
    notes: tuple[str, ...] = ()
    seconds: float | None = None
    bytes: int | None = None
    finished: float | None = None
    program: str | None = None
    deaths: int = 0
    """Processes that ended while they read or drew it."""
    ran: Ran | None = None
    """What ran, where the file is done; None too where a journal before version 5 did not say it."""


@dataclass
class PlanCounts:
    """What planning found."""

    files: int = 0
    new: int = 0
    done_before: int = 0
    kept: int = 0
    """Outputs made from another picture or with other settings, or changed since, kept because nothing was said about
    replacing them."""
    kept_keys: set[str] = field(default_factory=set[str])
    skipped: int = 0
    failed: int = 0
    left_out: str = ""
    """What the walk left out, on one line."""
    cut_short: bool = False
    """Whether it was interrupted, and may not have reached all files."""


COLUMNS = (
    "id, key, source, request, native_height, native_width, format, output, taken, origin, base_text, content_hash, "
    "attempts, state, error, notes, seconds, bytes, finished, program, deaths, ran"
)


def to_db(name: str) -> str | bytes:
    """Return a file name as SQLite holds it: bytes where it is not valid Unicode."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def from_db(value: object) -> str:
    """Return the file name that `to_db` was given; "" for what is none."""
    return os.fsdecode(value) if isinstance(value, str | bytes) else ""


def request_of(text: str | None) -> HiresRequest | None:
    """Return a row's request; None where there is none, or none that this version can draw (damage, other ranges)."""
    return _read(HiresRequest.from_json, text)


def ran_of(text: str | None) -> Ran | None:
    """Return a row's record of what ran; None where there is none that this version can read."""
    return _read(Ran.from_json, text)


def _read(from_json: Callable[[Any], _Value], text: str | None) -> _Value | None:
    if text is None:
        return None
    try:
        return from_json(json.loads(text))
    except (FamError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        log.debug("a row's value cannot be read", exc_info=True)
        return None


def texts_of(text: object) -> tuple[str, ...]:
    """Return a row's list of texts; () where it is damaged."""
    try:
        found = json.loads(cast("str", text) or "[]")
    except (ValueError, TypeError, RecursionError):
        return ()
    return tuple(str(entry) for entry in cast("list[object]", found)) if isinstance(found, list) else ()


def number(value: Any) -> Any:  # noqa: ANN401  # whatever a damaged column holds
    """Return a row's number; None where it is none: SQLite keeps any value in any column."""
    return value if isinstance(value, int | float) and abs(value) < 1 << 63 else None


def _text(value: object) -> str | None:
    """Return a row's text; None where it is none."""
    return value if isinstance(value, str) else None


def item_of(row: Sequence[Any]) -> Item:
    return Item(
        id=row[0],
        key=from_db(row[1]),
        source=from_db(row[2]),
        request=request_of(row[3]),
        native=(number(row[4]) or 0, number(row[5]) or 0),
        format=_text(row[6]) or "",
        output=from_db(row[7]),
        taken=texts_of(row[8]),
        origin=_text(row[9]),
        base_text=_text(row[10]),
        content_hash=_text(row[11]),
        attempts=number(row[12]) or 0,
        state=_text(row[13]) or "",
        error=_text(row[14]),
        notes=texts_of(row[15]),
        seconds=number(row[16]),
        bytes=number(row[17]),
        finished=number(row[18]),
        program=_text(row[19]),
        deaths=number(row[20]) or 0,
        ran=ran_of(row[21]),
    )
