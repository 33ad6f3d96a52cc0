"""The journal's tables, and how those of earlier versions become today's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

SCHEMA_VERSION = 7

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    key NOT NULL UNIQUE,
    source NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sidecar TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    content_hash TEXT,
    settings_hash TEXT,
    request TEXT,
    taken TEXT,
    origin TEXT,
    base_text TEXT,
    native_height INTEGER NOT NULL DEFAULT 0,
    native_width INTEGER NOT NULL DEFAULT 0,
    pixels INTEGER NOT NULL DEFAULT 0,
    model_rank INTEGER NOT NULL DEFAULT 0,
    size_rank INTEGER NOT NULL DEFAULT 0,
    format TEXT,
    output,
    output_fold UNIQUE,
    output_hash TEXT,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    at_risk INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    notes TEXT,
    seconds REAL,
    bytes INTEGER,
    finished REAL,
    owner TEXT,
    program TEXT,
    ran TEXT,
    plan INTEGER NOT NULL DEFAULT 0,
    weights TEXT
);
CREATE INDEX items_queue ON items (state, plan, deaths, model_rank, size_rank, id);
CREATE INDEX items_source ON items (source);
"""


def _to_version_2(connection: sqlite3.Connection) -> None:
    """Version 1 had no text from sidecars."""
    connection.execute("ALTER TABLE items ADD COLUMN base_text TEXT")


def _to_version_3(connection: sqlite3.Connection) -> None:
    """Version 2 did not say which program wrote a picture's metadata."""
    connection.execute("ALTER TABLE items ADD COLUMN program TEXT")


def _to_version_4(connection: sqlite3.Connection) -> None:
    """Version 3 did not know during which pictures a process had died."""
    connection.execute("ALTER TABLE items ADD COLUMN at_risk INTEGER NOT NULL DEFAULT 0")
    connection.execute("ALTER TABLE items ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0")
    connection.execute("DROP INDEX IF EXISTS items_queue")
    connection.execute("CREATE INDEX items_queue ON items (state, deaths, model_rank, size_rank, id)")


def _to_version_5(connection: sqlite3.Connection) -> None:
    """Version 4 said of a finished picture what was asked for, not what ran."""
    connection.execute("ALTER TABLE items ADD COLUMN ran TEXT")


def _to_version_6(connection: sqlite3.Connection) -> None:
    """Version 5 did not say which plan had met a file last, and found a file by its key alone."""
    connection.execute("ALTER TABLE items ADD COLUMN plan INTEGER NOT NULL DEFAULT 0")
    connection.execute("DROP INDEX IF EXISTS items_queue")
    connection.execute("CREATE INDEX items_queue ON items (state, plan, deaths, model_rank, size_rank, id)")
    connection.execute("CREATE INDEX items_source ON items (source)")


def _to_version_7(connection: sqlite3.Connection) -> None:
    """Version 6 did not say which weights draw a file."""
    connection.execute("ALTER TABLE items ADD COLUMN weights TEXT")


MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {
    1: _to_version_2,
    2: _to_version_3,
    3: _to_version_4,
    4: _to_version_5,
    5: _to_version_6,
    6: _to_version_7,
}


class Connection(sqlite3.Connection):
    """SQLite's own, whose words about a damaged file may hold bytes of it that are no text."""

    def execute(self, *args: Any) -> sqlite3.Cursor:  # noqa: ANN401  # a statement and its values
        try:
            return super().execute(*args)
        except UnicodeDecodeError:
            raise sqlite3.DatabaseError("malformed database schema") from None
