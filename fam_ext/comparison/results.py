"""results.json: what stands in a comparison's folder. Read again by the next run, which makes only what is missing. No
torch."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fam_ext import __version__, placing
from fam_ext.comparison.spectrum import Spectrum
from fam_ext.errors import OutputError, PictureError
from fam_ext.escapes import shown
from fam_ext.jobs.journal.disk import check_inside
from fam_ext.jobs.lock import alone_in
from fam_ext.metadata.files import read_file

NAME = "results.json"
PAGE = "compare.html"
_FORMAT = 1
_MOST_BYTES = 64 << 20
_PLAIN = re.compile(r"[\w+-][\w+.-]*(/[\w+-][\w+.-]*)?", re.ASCII)


@dataclass(frozen=True)
class Native:
    """A row's own picture; without `file` it could not be made, and `problem` says why."""

    row: str
    title: str
    prompt: str
    digest: str
    """Of all that it depends on."""
    size: tuple[int, int]
    """(height, width)"""
    seed: int
    steps: int
    sampler: str
    cfg_scale: float
    file: str | None = None
    """Below the folder, with /."""
    spectrum: Spectrum | None = None
    seconds: float | None = None
    """None for a picture that was given."""
    problem: str | None = None


@dataclass(frozen=True)
class Attention:
    """Where the maps of a cell lie, and what they are of; see `comparison.attention`."""

    file: str
    site: str
    step: int
    rho: float
    queries: int
    native: tuple[int, int]
    """(height, width) of a map."""
    target: tuple[int, int]
    peaks: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """One picture by one method at one scale; without `file` it could not be made, and `problem` says why."""

    row: str
    method: str
    scale: float
    digest: str
    size: tuple[int, int]
    file: str | None = None
    seconds: float | None = None
    steps: int | None = None
    peak_memory: int | None = None
    """Bytes of the device; None where that cannot be told."""
    structure: float | None = None
    """PSNR in dB to the native picture at its size; None where equal, or not made."""
    detail: float | None = None
    """Percent of the variance above what the native picture can hold."""
    spectrum: Spectrum | None = None
    attention: Attention | None = None
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None
    """With what it was made: preset, sampler, dials."""
    upscaler: str | None = None
    """The network that enlarged for it."""
    problem: str | None = None

    @property
    def key(self) -> tuple[str, str, float]:
        """What it is the only one of."""
        return self.row, self.method, self.scale


@dataclass
class Results:
    """A comparison's folder: filled cell by cell, and written after each."""

    folder: Path
    machine: dict[str, str] = field(default_factory=dict[str, str])
    """Model, device and number format, in words."""
    natives: dict[str, Native] = field(default_factory=dict[str, Native])
    cells: dict[tuple[str, str, float], Cell] = field(default_factory=dict[tuple[str, str, float], Cell])

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Return what stands in `folder`; nothing, where there is none yet. Raises `OutputError` for a folder that
        holds another's page, and for a file that cannot be read."""
        path = folder / NAME
        if not path.exists():
            if (folder / PAGE).exists():
                raise OutputError(f"{shown(folder / PAGE)} is not of a comparison; choose another --out")
            return cls(folder)
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError("too large")
            text = read_file(path).decode("utf-8")
            return cls._of(folder, json.loads(text, parse_constant=_finite, parse_float=_finite))
        except (PictureError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise OutputError(
                f"{shown(path)} cannot be read as a comparison's results ({type(error).__name__}); choose another --out"
            ) from None

    @classmethod
    def _of(cls, folder: Path, values: Any) -> Results:  # noqa: ANN401
        if values["format"] != _FORMAT:
            raise ValueError("of another version")
        natives = [_built(Native, entry) for entry in values["rows"]]
        cells = [_built(Cell, entry) for entry in values["cells"]]
        machine = {str(name): str(value) for name, value in values["machine"].items()}
        return cls(folder, machine, {each.row: each for each in natives}, {each.key: each for each in cells})

    def write(self) -> None:
        """Write the file whole, in the place of what it was."""
        values: dict[str, Any] = {
            "format": _FORMAT,
            "version": __version__,
            "machine": self.machine,
            "rows": [dataclasses.asdict(native) for native in self.natives.values()],
            "cells": [dataclasses.asdict(cell) for cell in self.cells.values()],
        }
        write_whole(self.folder / NAME, json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1).encode())

    def holds(self, file: str | None) -> bool:
        """Return whether a file that stands in the results is still there: a link to one elsewhere is none of ours."""
        path = self.folder / (file or "")
        return path.is_file() and path.resolve() == self.folder.resolve() / (file or "")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let no other run fill `folder` meanwhile: each would write results without the other's. Errors as `alone_in`."""
    with alone_in(folder, ".fam-compare.lock"):
        for pattern in (".fam-*.part", "*/.fam-*.part"):  # of a run that was killed while it wrote
            for left in folder.glob(pattern):
                placing.drop(left)
        yield


def write_new(folder: Path, file: str, data: bytes) -> str:
    """Write `folder`/`file` whole, under the first numbered form of that name that no file has, and return the name.
    Raises `OutputError`, and `PictureError` where a link leads outside the folder."""
    check_inside(folder, folder / file)
    with _said(folder / file):
        return placing.write_new(folder / file, data).relative_to(folder).as_posix()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in the place of what it was, whole. Raises `OutputError`."""
    with _said(path):
        placing.write_whole(path, data)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OutputError(
            f"{shown(path)} cannot be written ({error.strerror}); free space or choose another --out"
        ) from None


def _built(kind: Any, values: Any) -> Any:  # noqa: ANN401
    """Return a `Native`, `Cell` or `Attention` of JSON. The file may be a stranger's: no value is of another type than
    its field's, and no name in it leads out of the folder."""
    entry = dict(cast("dict[str, Any]", values))
    for each in dataclasses.fields(kind):
        wanted, _, optional = str(each.type).partition(" | ")
        value = entry.get(each.name, each.default)
        if value is None and optional:
            continue
        if wanted in _LISTS:
            length, types = _LISTS[wanted]
            entry[each.name] = _several(value, types, length)
        elif wanted == "Spectrum":
            entry[each.name] = _spectrum(value)
        elif wanted == "Attention":
            entry[each.name] = _built(Attention, value)
        elif type(value) not in _TYPES[wanted]:
            raise TypeError
    if entry.get("file") is not None:
        _check_plain(entry["file"])
        if kind is Cell and None in (entry.get("seconds"), entry.get("detail")):
            raise ValueError("a picture that was made took no time")
    return kind(**entry)


_TYPES: dict[str, tuple[type, ...]] = {  # no bool is an int here
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "dict[str, Any]": (dict,),
}
_LISTS: dict[str, tuple[int | None, tuple[type, ...]]] = {
    "tuple[int, int]": (2, (int,)),
    "tuple[float, ...]": (None, (int, float)),
    "tuple[str, ...]": (None, (str,)),
}


def _several(values: Any, types: tuple[type, ...], length: int | None = None) -> tuple[Any, ...]:  # noqa: ANN401
    if any(type(value) not in types for value in values) or length not in (None, len(values)):
        raise TypeError
    return tuple(values)


def _spectrum(values: Any) -> Spectrum:  # noqa: ANN401
    return Spectrum(*(_several(values[name], (int, float)) for name in ("cycles", "power")))


def _finite(text: str) -> float:
    """Return the number of a JSON text: 1e999, NaN and Infinity are none to a browser."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _check_plain(file: str) -> None:
    if not _PLAIN.fullmatch(file):
        raise ValueError("a file's name leads elsewhere")
