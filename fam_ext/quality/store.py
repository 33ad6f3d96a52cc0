"""The benchmark's rows in FOLDER/results.sqlite, one a picture; committed as each is measured."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from fam_ext.errors import OutputError, UsageError
from fam_ext.quality.extractors import Features
from fam_ext.quality.protocol import Row
from fam_ext.quality.ruler import Measured

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    fingerprint TEXT PRIMARY KEY, method TEXT NOT NULL, height INTEGER NOT NULL, width INTEGER NOT NULL,
    prompt TEXT NOT NULL, seed INTEGER NOT NULL, settings TEXT NOT NULL, picture TEXT NOT NULL, seconds REAL NOT NULL,
    peak_memory INTEGER, ruler TEXT NOT NULL, measures TEXT NOT NULL, features BLOB NOT NULL,
    machine TEXT, libraries TEXT
) STRICT
"""
_COLUMNS = (
    *("fingerprint", "method", "height", "width", "prompt", "seed", "settings", "picture", "seconds", "peak_memory"),
    *("ruler", "measures", "features", "machine", "libraries"),
)
_ADDED = _COLUMNS.index("machine")
"""From there on columns that the rows of an older version lack."""
_WAIT_SECONDS = 60
"""For another run in the same folder, which writes a row."""


@dataclass(frozen=True)
class Made:
    """What a picture took, and what it measured under which ruler."""

    seconds: float
    """Of the pass from the native picture to the result, decoding included; without the native picture."""
    peak_memory: int | None
    ruler: str
    measured: Measured
    machine: str | None = None
    """On which it took that; None in the rows of an older version."""
    libraries: str | None = None
    """Which drew it; None in the rows of an older version."""


class Store:
    """Rows by fingerprint. Settings that differ have another, so they never meet in a table."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "results.sqlite"
        with self._answered():
            self._rows = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
        try:
            self._open()
        except BaseException:
            self._rows.close()
            raise

    def _open(self) -> None:
        another = f"{self.path} is no database of results; move it away, or choose another --out"
        try:
            columns = tuple(name for _, name, *_ in self._rows.execute("PRAGMA table_info(rows)"))
            (others,) = self._rows.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            raise OutputError(f"{self.path} cannot be opened ({error}); choose another --out") from None
        except sqlite3.DatabaseError:
            raise UsageError(another) from None
        lacking = _COLUMNS[max(len(columns), _ADDED) :] if columns else ()
        if others and columns + lacking != _COLUMNS:
            raise UsageError(another)  # another program's: not even a table is added
        with self._answered():
            self._rows.execute(_SCHEMA)
            for column in lacking:
                self._rows.execute(f"ALTER TABLE rows ADD COLUMN {column} TEXT")
            self._rows.execute("BEGIN IMMEDIATE")  # said now where nothing can be written, not after the first picture
            self._rows.rollback()

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(f"{self.path} cannot be written ({error}); free space, or choose another --out") from None
        except sqlite3.DatabaseError as error:
            raise OutputError(
                f"{self.path} is damaged ({error}); move it away, then every picture is made and measured again"
            ) from None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()

    def get(self, fingerprint: str) -> Made | None:
        """Return what was made under a fingerprint; None where nothing was."""
        with self._answered():
            found = self._rows.execute(
                "SELECT seconds, peak_memory, ruler, measures, features, machine, libraries FROM rows"
                " WHERE fingerprint = ?",
                (fingerprint,),
            ).fetchone()
        if found is None:
            return None
        seconds, peak, ruler, values, features, *where = found
        return Made(seconds, peak, ruler, Measured(json.loads(values), _unpacked(features)), *where)

    def put(self, row: Row, made: Made) -> None:
        """Keep a row, in the place of one with its fingerprint."""
        height, width = row.case.size
        with self._answered(), self._rows:
            self._rows.execute(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(row.fingerprint, row.label, height, width, row.case.prompt, _signed(row.case.seed)),
                    *(row.request.to_text(), row.file, made.seconds, made.peak_memory, made.ruler),
                    *(json.dumps(made.measured.values), _packed(made.measured.features), made.machine, made.libraries),
                ),
            )


def _signed(seed: int) -> int:
    """Return a seed as SQLite's 64 bits hold it."""
    return seed - 2**64 if seed >= 2**63 else seed


def _packed(features: dict[str, Features]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **features)
    return file.getvalue()


def _unpacked(data: bytes) -> dict[str, Features]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
