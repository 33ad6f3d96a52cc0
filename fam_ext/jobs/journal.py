"""The journal: one SQLite row a file, and the batch's only truth. Files are renamed into place before they count."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

from fam_ext.errors import FamError, OutputError, UsageError
from fam_ext.jobs.contract import Ran
from fam_ext.jobs.lock import FileLock, NoLocksError, is_held
from fam_ext.jobs.names import alternatives, fold
from fam_ext.jobs.plan import Planned
from fam_ext.jobs.walk import STATE_FOLDER, Candidate
from fam_ext.options.job import Job
from fam_ext.options.request import HiresRequest

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")
SCHEMA_VERSION = 5
STATES = ("pending", "running", "saving", "done", "failed", "skipped")
FILE_NAME = "journal.sqlite3"
_BUSY_SECONDS = 60.0
_BATCH = 500
_BATCH_SECONDS = 0.5
MAX_DEATHS = 2
"""So often may a process die during a picture before its row fails."""
POISON = (
    "the process ended twice while it worked on this picture (killed, or out of memory); make the picture or --scale "
    "smaller, or try it once more with fam-hires retry-failed"
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

_SCHEMA = """
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
    ran TEXT
);
CREATE INDEX items_queue ON items (state, deaths, model_rank, size_rank, id);
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


_MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {
    1: _to_version_2,
    2: _to_version_3,
    3: _to_version_4,
    4: _to_version_5,
}


class _Connection(sqlite3.Connection):
    """SQLite's own, whose words about a damaged file may hold bytes of it that are no text."""

    def execute(self, *args: Any) -> sqlite3.Cursor:  # noqa: ANN401  # a statement and its values
        try:
            return super().execute(*args)
        except UnicodeDecodeError:
            raise sqlite3.DatabaseError("malformed database schema") from None


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
    size: int = 0
    mtime_ns: int = 0
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
    """Outputs made from another picture or with other settings, kept because nothing was said about replacing them."""
    kept_keys: set[str] = field(default_factory=set[str])
    skipped: int = 0
    failed: int = 0
    left_out: str = ""
    """What the walk left out, on one line."""


_COLUMNS = (
    "id, key, source, request, native_height, native_width, format, output, taken, origin, base_text, content_hash, "
    "attempts, state, error, notes, seconds, bytes, finished, size, mtime_ns, program, deaths, ran"
)


def to_db(name: str) -> str | bytes:
    """Return a file name as SQLite holds it: bytes where it is not valid Unicode."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def from_db(value: str | bytes) -> str:
    """Return the file name that `to_db` was given."""
    return os.fsdecode(value) if isinstance(value, bytes) else value


class Journal:
    """An open journal. One process owns it; others join. Usable from several threads of a process."""

    def __init__(self, output: str | Path, *, join: bool = False, memory: bool = False) -> None:
        """Open or make the journal of an output folder.

        `memory` works on a copy and writes nothing (a dry run). Raises `UsageError` when another process works there
        and `join` is false, `OutputError` when the folder cannot be written.
        """
        self.output = Path(output)
        self._root = str(self.output)
        self.folder = self.output / STATE_FOLDER
        self.path = self.folder / FILE_NAME
        self.temporary = self.folder / "tmp"
        self.token = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.joined = False
        self._mutex = threading.RLock()
        self._numbers: dict[str, int] = {}
        """By a wanted name: the first number that may be free, so that many equal names are settled in linear time."""
        self.places: set[Path] = set()
        """Folders below the output that were checked and made in this run."""
        self._sources: frozenset[tuple[int, int]] | None = None
        self._main_lock: FileLock | None = None
        self._owner_lock: FileLock | None = None
        self._memory = memory
        if memory:
            self._db = self._copy_in_memory()
            self._prepare()
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.temporary.mkdir(exist_ok=True)
            self._take_locks(join)
            self._db = self._connect(self.path)
            self._prepare()
            self.recover()
        except OSError as error:
            self._give_up()
            raise OutputError(output_sentence(self.output, error)) from None
        except sqlite3.Error as error:
            self._give_up()
            raise OutputError(_db_sentence(self.path, error)) from None
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Leave nothing open: a connection that waits to be collected would lock the file for the next one."""
        if hasattr(self, "_db"):
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._release_locks()

    # --- open and close -------------------------------------------------------------------------------------------

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        try:
            db.execute("PRAGMA journal_mode=WAL")
            # a crash of the system may lose the last rows, never the file: the picture is checked when a job resumes
            db.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            db.close()
            raise
        return db

    def _copy_in_memory(self) -> sqlite3.Connection:
        memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        if self.path.is_file():
            try:
                source = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)
                try:
                    source.backup(memory)
                finally:
                    source.close()
            except sqlite3.Error as error:
                raise OutputError(_db_sentence(self.path, error)) from None
        return memory

    def _prepare(self) -> None:
        with self._transaction():
            found = self._db.execute("SELECT name FROM sqlite_master WHERE name = 'meta'").fetchone()
            if found is None:
                for statement in _SCHEMA.split(";"):
                    if statement.strip():
                        self._db.execute(statement)
                self._set("schema_version", SCHEMA_VERSION)
                return
            version = self.get("schema_version", 0)
            if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
                raise OutputError(
                    f"the journal in {self.folder} has version {version!r}; this FAM Hires reads 1 to "
                    f"{SCHEMA_VERSION}, so update it or choose another output folder"
                )
            for step in range(version, SCHEMA_VERSION):
                _MIGRATIONS[step](self._db)
                self._set("schema_version", step + 1)

    def _take_locks(self, join: bool) -> None:
        owner = FileLock(self.folder / f"owner-{self.token}.lock")
        main = FileLock(self.folder / "lock")
        try:
            if not owner.acquire():
                raise UsageError(f"the lock of this process in {self.folder} is taken; run the same command again")
            self._owner_lock = owner
            taken = main.acquire()
        except NoLocksError:
            _unlink(owner.path)
            if join:
                raise UsageError(
                    f"the file system of {self.output} has no locks, so --join cannot share it; choose another output "
                    "folder, or run one process at a time"
                ) from None
            log.warning("the file system of %s has no locks: run one process at a time there", self.output)
            return
        if taken:
            self._main_lock = main
        elif join:
            self.joined = True
        else:
            raise UsageError(
                f"another process works on {self.output}; wait for it, stop it, or share the work with --join"
            )

    def _release_locks(self) -> None:
        if self._main_lock is not None:
            self._main_lock.release()
            self._main_lock = None
        if self._owner_lock is not None:
            self._owner_lock.release(remove=True)
            self._owner_lock = None

    def close(self) -> None:
        """Give back what this process still holds, and close. Leaves no temporary file of its own."""
        with self._mutex:
            if not self._memory:
                try:
                    self._db.execute(
                        "UPDATE items SET state = 'pending', attempts = MAX(0, attempts - 1), at_risk = 0, "
                        "owner = NULL WHERE owner = ? AND state = 'running'",
                        (self.token,),
                    )
                except sqlite3.Error as error:
                    log.warning("the journal could not be updated while closing: %s", error)
                self._remove_temporaries(self.token)
            try:
                self._db.close()
            except sqlite3.Error as error:
                log.warning("the journal could not be closed: %s", error)
            if not self._memory:
                with contextlib.suppress(OSError):  # another process uses it
                    self.temporary.rmdir()
            self._release_locks()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._mutex:
            if self._db.in_transaction:
                yield self._db
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._rollback()
                raise OutputError(_db_sentence(self.path, error)) from None
            except BaseException:
                self._rollback()
                raise

    def _rollback(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.warning("the journal could not be rolled back: %s", error)

    # --- small values ---------------------------------------------------------------------------------------------

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  # anything JSON holds
        """Return a value kept with the job."""
        with self._mutex:
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        try:
            return default if row is None else json.loads(row[0])
        except (ValueError, TypeError, RecursionError):
            raise OutputError(_db_sentence(self.path, sqlite3.DatabaseError(f"malformed {name}"))) from None

    def _set(self, name: str, value: Any) -> None:  # noqa: ANN401
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def set(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Keep a JSON value with the job."""
        with self._transaction():
            self._set(name, value)

    # --- recovery -------------------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Return how many files of dead processes were taken back: finished if their picture is whole, failed if it was
        the second process to die in them, else queued."""
        with self._mutex:
            rows = self._db.execute(
                "SELECT DISTINCT owner FROM items WHERE state IN ('running', 'saving') AND owner IS NOT NULL"
            ).fetchall()
        dead = [owner for (owner,) in rows if owner != self.token and not self._alive(owner)]
        count = 0
        for owner in dead:
            with self._mutex:
                held = self._db.execute(
                    "SELECT id, state, output, output_hash FROM items WHERE owner = ? AND state IN "
                    "('running', 'saving')",
                    (owner,),
                ).fetchall()
            for item_id, state, output, output_hash in held:
                whole = state == "saving" and self._finish(owner, item_id, output, output_hash)
                with self._transaction() as db:
                    db.execute(
                        "UPDATE items SET state = ?, deaths = deaths + at_risk, at_risk = 0, owner = NULL "
                        "WHERE id = ? AND owner = ?",
                        ("done" if whole else "pending", item_id, owner),
                    )
                    db.execute(
                        "UPDATE items SET state = 'failed', error = ?, finished = ? "
                        "WHERE id = ? AND state = 'pending' AND deaths >= ?",
                        (POISON, time.time(), item_id, MAX_DEATHS),
                    )
                count += 1
        self._remove_dead_temporaries()
        return count

    def _finish(self, owner: str, item_id: int, output: str | bytes, output_hash: str) -> bool:
        """Return whether the picture is in its place, moving it there if only the rename was missing."""
        target = self.output / from_db(output)
        if _file_hash(target) == output_hash:
            sync_folder(target.parent)  # the process may have ended before its rename was on the disk
            return True
        temporary = self.temporary_path(item_id, owner=owner)
        if _file_hash(temporary) != output_hash:
            return False
        try:
            os.replace(temporary, target)
        except OSError:
            return False
        sync_folder(target.parent)
        return True

    def _alive(self, owner: str) -> bool:
        return is_held(self.folder / f"owner-{owner}.lock")

    def _remove_dead_temporaries(self) -> None:
        for path in self._listing(self.temporary):
            owner = path.name.rsplit("-", 1)[0]
            if owner != self.token and not self._alive(owner):
                _unlink(path)
        for path in self._listing(self.folder):
            if path.name.startswith("owner-") and path.name != f"owner-{self.token}.lock" and not is_held(path):
                _unlink(path)

    def _remove_temporaries(self, owner: str) -> None:
        for path in self._listing(self.temporary):
            if path.name.rsplit("-", 1)[0] == owner:
                _unlink(path)

    @staticmethod
    def _listing(folder: Path) -> list[Path]:
        try:
            return list(folder.iterdir())
        except OSError:
            return []

    def _below(self, name: str) -> str:
        return f"{self._root}{os.sep}{name}"

    def temporary_path(self, item_id: int, *, owner: str | None = None) -> Path:
        """Return where an item's bytes wait for their rename: short, on the output's volume, named by owner."""
        return self.temporary / f"{owner or self.token}-{item_id}"

    # --- planning -------------------------------------------------------------------------------------------------

    def plan(
        self,
        candidates: Iterator[Candidate],
        options: Job,
        plan_file: Callable[..., Planned],
        *,
        on_count: Callable[[PlanCounts], None] = lambda counts: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> PlanCounts:
        """Enter the candidates and return what was found. Files done with the same content and settings stay done."""
        counts = PlanCounts()
        ranks = _Ranks()
        self._numbers.clear()
        fingerprint = options.fingerprint
        with self._transaction() as db:
            self._set("planning", True)
            # a folder that could not be read is looked at anew
            db.execute("DELETE FROM items WHERE state = 'failed' AND request IS NULL AND key LIKE '%/'")
            # keys are unique within a walk: an empty journal of our own need not be asked for each
            fresh = self._memory and db.execute("SELECT 1 FROM items LIMIT 1").fetchone() is None
        numbered = enumerate(candidates if options.places.first is None else islice(candidates, options.places.first))
        while batch := list(islice(numbered, _BATCH)):
            looked = 0
            while looked < len(batch):
                # files are read outside of the transactions: others that share the folder never wait for them
                decided: list[Callable[[], None]] = []
                until = time.monotonic() + _BATCH_SECONDS
                while looked < len(batch) and (not decided or time.monotonic() < until):
                    index, candidate = batch[looked]
                    decided.append(
                        self._decide(candidate, options, fingerprint, index, plan_file, ranks, counts, fresh)
                    )
                    looked += 1
                with self._transaction():
                    for write in decided:
                        write()
                counts.files += len(decided)
                on_count(counts)
                if cancelled():
                    break
            if cancelled():
                break
        if options.output.overwrite:
            self._spare_sources(counts)
        with self._transaction():
            self._set("planning", False)
            self._set("options", options.to_json())
        return counts

    def _decide(
        self,
        candidate: Candidate,
        options: Job,
        fingerprint: str,
        index: int,
        plan_file: Callable[..., Planned],
        ranks: _Ranks,
        counts: PlanCounts,
        fresh: bool,
    ) -> Callable[[], None]:
        """Look at one file, and return what is to be written about it."""
        row: Sequence[Any] | None = None
        if not fresh:
            row = self._db.execute(
                "SELECT id, size, mtime_ns, sidecar, fingerprint, state, output, settings_hash, content_hash, source, "
                "bytes, deaths FROM items WHERE key = ?",
                (to_db(candidate.key),),
            ).fetchone()
        unchanged = row is not None and tuple(row[1:5]) == (
            candidate.size,
            candidate.mtime_ns,
            candidate.sidecar_mark,
            fingerprint,
        )
        if row is not None and unchanged and candidate.problem is None and self._stands(row):
            counts.done_before += row[5] == "done"
            if from_db(row[9]) == candidate.path:
                return lambda: None
            moved = ("UPDATE items SET source = ? WHERE id = ?", (to_db(candidate.path), row[0]))
            return lambda: _run(self._db, *moved)
        planned = plan_file(candidate, options, index=index)
        settings_hash = planned.settings_hash(options)
        if row is not None and row[5] == "done" and row[6] is not None and planned.problem is None:
            there = os.path.lexists(self._below(from_db(row[6])))
            equal = row[7] == settings_hash and row[8] is not None and row[8] == _file_hash(Path(candidate.path))
            if there and equal:
                counts.done_before += 1
                marks = (candidate.size, candidate.mtime_ns, candidate.sidecar_mark, fingerprint)
                seen = (
                    "UPDATE items SET source = ?, size = ?, mtime_ns = ?, sidecar = ?, fingerprint = ? WHERE id = ?",
                    (to_db(candidate.path), *marks, row[0]),
                )
                return lambda: _run(self._db, *seen)
            if there and not options.output.overwrite:
                counts.kept += 1
                counts.kept_keys.add(candidate.key)
                return lambda: None

        def write() -> None:
            if row is not None:
                state = self._db.execute("SELECT state FROM items WHERE id = ?", (row[0],)).fetchone()
                if state is not None and state[0] in ("running", "saving"):
                    return  # a joined process works on it
            self._write(candidate, planned, settings_hash, fingerprint, options, ranks, counts, row)

        return write

    def _spare_sources(self, counts: PlanCounts) -> None:
        """Fail what would replace a source, by whatever name the source is reached."""
        with self._transaction() as db:
            rows = db.execute("SELECT id, output FROM items WHERE state = 'pending'").fetchall()
            for item_id, output in rows:
                if self.is_source(self._below(from_db(output))):
                    db.execute(
                        "UPDATE items SET state = 'failed', error = ?, request = NULL, output = NULL, "
                        "output_fold = NULL WHERE id = ?",
                        (IS_SOURCE, item_id),
                    )
                    counts.failed += 1
                    counts.new -= 1

    def is_source(self, path: str | Path) -> bool:
        """Return whether a path, itself or through links, is a file that this journal's jobs read."""
        found = _identities(path)
        if not found:
            return False
        if self._sources is None:
            with self._mutex:
                rows = self._db.execute("SELECT source FROM items").fetchall()
            self._sources = frozenset(one for (source,) in rows for one in _identities(from_db(source)))
        return not self._sources.isdisjoint(found)

    def _stands(self, row: Sequence[Any]) -> bool:
        """Return whether an unchanged row needs nothing: done and still there, or waiting for its turn."""
        state, output, written = row[5], row[6], row[10]
        if state == "done":
            try:
                return os.stat(self._below(from_db(output))).st_size == written
            except OSError:
                return False
        return state in ("pending", "running", "saving") or row[11] >= MAX_DEATHS

    def _write(
        self,
        candidate: Candidate,
        planned: Planned,
        settings_hash: str,
        fingerprint: str,
        options: Job,
        ranks: _Ranks,
        counts: PlanCounts,
        row: Sequence[Any] | None,
    ) -> None:
        state, error = "pending", None
        output: str | None = None
        if planned.problem is not None:
            state, error = "failed", planned.problem
        elif planned.skip is not None:
            state, error = "skipped", planned.skip
        else:
            output, error = self._place(candidate, planned, options, row)
            if output is None:
                state = "failed"
            elif error is not None:
                state = "skipped"
        counts.failed += state == "failed"
        counts.skipped += state == "skipped"
        counts.new += state == "pending"
        request = planned.request
        model_rank, size_rank = ranks.of(request) if request is not None else (0, 0)
        claimed = state == "pending" and output is not None
        values: dict[str, Any] = {
            "key": to_db(candidate.key),
            "source": to_db(candidate.path),
            "size": candidate.size,
            "mtime_ns": candidate.mtime_ns,
            "sidecar": candidate.sidecar_mark,
            "fingerprint": fingerprint,
            "content_hash": None,
            "settings_hash": settings_hash,
            "request": planned.request_text if state != "failed" else None,
            "taken": json.dumps(planned.taken),
            "origin": planned.origin,
            "base_text": planned.base_text,
            "native_height": planned.native[0],
            "native_width": planned.native[1],
            "pixels": 0 if request is None else request.size[0] * request.size[1],
            "model_rank": model_rank,
            "size_rank": size_rank,
            "format": planned.format,
            "output": to_db(output) if output is not None else None,
            "output_fold": to_db(fold(output)) if claimed and output is not None else None,
            "output_hash": None,
            "state": state,
            "attempts": 0,
            "deaths": 0,
            "error": error,
            "notes": json.dumps(planned.notes) if planned.notes else None,
            "seconds": None,
            "bytes": None,
            "finished": None,
            "owner": None,
            "program": planned.program,
            "ran": None,
        }
        if row is None:
            self._db.execute(_insert(tuple(values)), tuple(values.values()))
        else:
            names = ", ".join(f"{name} = ?" for name in values)
            self._db.execute(f"UPDATE items SET {names} WHERE id = ?", (*values.values(), row[0]))

    def _place(
        self, candidate: Candidate, planned: Planned, options: Job, row: Sequence[Any] | None
    ) -> tuple[str | None, str | None]:
        """Return the output's name, with the reason to skip it, or None with the problem."""
        wanted = fold(planned.output)
        start = self._numbers.get(wanted, 2)
        for tried, name in enumerate(alternatives(planned.output, candidate.key, start=start)):
            holder = self._db.execute("SELECT id FROM items WHERE output_fold = ?", (to_db(fold(name)),)).fetchone()
            if holder is not None and (row is None or holder[0] != row[0]):
                # another file's output; the numbers up to it are taken for all that want this name
                self._numbers[wanted] = max(start, start + tried - 2)
                continue
            target = self._below(name)
            if not os.path.lexists(target):
                return name, None
            if _same_file(target, candidate.path):
                return None, IS_OWN_SOURCE
            return name, None if options.output.overwrite else EXISTS
        return None, "no free name was found; choose another name pattern"

    # --- work -----------------------------------------------------------------------------------------------------

    def claim(self, *, suspect: bool = False, at_risk: bool = True) -> Item | None:
        """Return the next file in the queue, now ours; None when the queue is empty.

        The attempt is written at once. `suspect` asks for those during which a process died before, which are worked
        on alone; `at_risk` says that this process would die with the picture (a worker's death is not ours).
        """
        with self._transaction() as db:
            row = db.execute(
                f"SELECT {_COLUMNS} FROM items WHERE state = 'pending' AND deaths {'>' if suspect else '='} 0 "
                "ORDER BY deaths, model_rank, size_rank, id LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE items SET state = 'running', attempts = attempts + 1, at_risk = ?, owner = ? WHERE id = ?",
                (at_risk, self.token, row[0]),
            )
        return _item(row)

    def release(self, item: Item) -> None:
        """Put a claimed file back into the queue, as if it had not been touched."""
        with self._transaction() as db:
            db.execute(
                "UPDATE items SET state = 'pending', attempts = MAX(0, attempts - 1), at_risk = 0, owner = NULL "
                "WHERE id = ?",
                (item.id,),
            )

    def risk(self, item: Item, at_risk: bool) -> None:
        """Write whether the process is reading or drawing the file; one that waits in memory is not to blame."""
        with self._transaction() as db:
            db.execute("UPDATE items SET at_risk = ? WHERE id = ?", (at_risk, item.id))

    def again(self, item: Item) -> None:
        """Write a further attempt at a file that is ours already."""
        with self._transaction() as db:
            db.execute("UPDATE items SET attempts = attempts + 1 WHERE id = ?", (item.id,))

    def died(self, item: Item) -> int:
        """Write that a worker process ended during the file, and return how many have."""
        with self._transaction() as db:
            db.execute("UPDATE items SET deaths = deaths + 1 WHERE id = ?", (item.id,))
            return int(db.execute("SELECT deaths FROM items WHERE id = ?", (item.id,)).fetchone()[0])

    def fail(self, item: Item, error: str, *, notes: Sequence[str] = ()) -> None:
        """Record a failure with its cause in one sentence."""
        with self._transaction() as db:
            db.execute(
                "UPDATE items SET state = 'failed', at_risk = 0, owner = NULL, error = ?, notes = ?, finished = ? "
                "WHERE id = ?",
                (error, json.dumps(list(notes)), time.time(), item.id),
            )

    def skip(self, item: Item, reason: str) -> None:
        """Record that the user left out this picture; the next plan takes it up again."""
        with self._transaction() as db:
            db.execute("UPDATE items SET state = 'skipped', owner = NULL, error = ? WHERE id = ?", (reason, item.id))

    def saving(
        self, item: Item, *, output_hash: str, size: int, content_hash: str, notes: Sequence[str], ran: Ran
    ) -> None:
        """Record what the finished file will be, before it is renamed into its place."""
        with self._transaction() as db:
            db.execute(
                "UPDATE items SET state = 'saving', output_hash = ?, bytes = ?, seconds = ?, content_hash = ?, "
                "notes = ?, ran = ?, error = NULL, finished = ?, at_risk = 0, deaths = 0 WHERE id = ?",
                (
                    output_hash,
                    size,
                    ran.seconds,
                    content_hash,
                    json.dumps(list(notes)),
                    json.dumps(ran.to_json()),
                    time.time(),
                    item.id,
                ),
            )

    def done(self, item: Item) -> None:
        """Record that the picture stands in its place."""
        with self._transaction() as db:
            db.execute("UPDATE items SET state = 'done', owner = NULL WHERE id = ?", (item.id,))

    def retry_failed(self) -> int:
        """Queue every failed file that has a request again, and return how many. One that ended the process twice gets
        one try."""
        with self._transaction() as db:
            cursor = db.execute(
                "UPDATE items SET state = 'pending', error = NULL, deaths = MIN(deaths, 1) "
                "WHERE state = 'failed' AND request IS NOT NULL "
                "AND output_fold IS NOT NULL"
            )
            return cursor.rowcount

    # --- what it says ---------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Return the number of files in each state."""
        with self._mutex:
            rows = self._db.execute("SELECT state, COUNT(*) FROM items GROUP BY state").fetchall()
        return {state: 0 for state in STATES} | dict(rows)

    def hopeless(self) -> tuple[int, int]:
        """Return how many of the failed files no try can help, and how many ended the process MAX_DEATHS times."""
        with self._mutex:
            row = self._db.execute(
                "SELECT SUM(request IS NULL), SUM(request IS NOT NULL AND deaths >= ?) FROM items "
                "WHERE state = 'failed'",
                (MAX_DEATHS,),
            ).fetchone()
        return int(row[0] or 0), int(row[1] or 0)

    def wordless(self) -> tuple[int, int]:
        """Return how many of the pending files have no prompt, and how many are pending."""
        with self._mutex:
            row = self._db.execute(
                # a quotation mark within a JSON text is escaped: this is the field and nothing else
                """SELECT SUM(request LIKE '%"prompt": ""%'), COUNT(*) FROM items WHERE state = 'pending'"""
            ).fetchone()
        return int(row[0] or 0), int(row[1])

    def pending_pixels(self) -> int:
        """Return the target pixels still to be made."""
        with self._mutex:
            row = self._db.execute("SELECT SUM(pixels) FROM items WHERE state IN ('pending', 'running')").fetchone()
        return int(row[0] or 0)

    def others_at_work(self) -> bool:
        """Return whether another living process still plans or works on files."""
        if self.get("planning", False) and is_held(self.folder / "lock") and self._main_lock is None:
            return True
        with self._mutex:
            rows = self._db.execute(
                "SELECT DISTINCT owner FROM items WHERE state IN ('running', 'saving') AND owner <> ?", (self.token,)
            ).fetchall()
        return any(self._alive(owner) for (owner,) in rows)

    def items(self, *, state: str | None = None, limit: int | None = None) -> Iterator[Item]:
        """Yield rows in order, few at a time."""
        last = -1
        yielded = 0
        while True:
            where, values = "id > ?", [last]
            if state is not None:
                where += " AND state = ?"
                values.append(state)  # type: ignore[arg-type]  # SQLite takes both
            with self._mutex:
                rows = self._db.execute(
                    f"SELECT {_COLUMNS} FROM items WHERE {where} ORDER BY id LIMIT 1000", values
                ).fetchall()
            if not rows:
                return
            for row in rows:
                if limit is not None and yielded >= limit:
                    return
                yield _item(row)
                yielded += 1
            last = rows[-1][0]

    def history(self) -> tuple[float, float] | None:
        """Return (seconds, bytes) per target megapixel from what this folder has made so far; None at first."""
        with self._mutex:
            row = self._db.execute(
                "SELECT SUM(seconds), SUM(bytes), SUM(pixels) FROM items WHERE state = 'done' AND seconds IS NOT NULL"
            ).fetchone()
        seconds, size, pixels = row
        if not pixels:
            return None
        return seconds / pixels * 1e6, size / pixels * 1e6


EXISTS = "the output exists already; --overwrite replaces it"
IS_OWN_SOURCE = "the output would replace its own source; choose another output folder or name pattern"
IS_SOURCE = "the output would replace a source of the job; choose another output folder or name pattern"


class _Ranks:
    """Gives files of one model, and of one size within it, neighbouring places; first come, first ranked."""

    def __init__(self) -> None:
        self._models: dict[str, int] = {}
        self._sizes: dict[tuple[str, int, int], int] = {}

    def of(self, request: HiresRequest) -> tuple[int, int]:
        model = f"{request.model}|{request.vae}"
        size = (model, *request.size)
        return (
            self._models.setdefault(model, len(self._models)),
            self._sizes.setdefault(size, len(self._sizes)),
        )


@functools.lru_cache(maxsize=4)
def _insert(names: tuple[str, ...]) -> str:
    return f"INSERT INTO items ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def _request(text: str | None) -> HiresRequest | None:
    """Return a row's request; None where there is none, or none that this version can draw (damage, other ranges)."""
    return _read(HiresRequest.from_json, text)


def _ran(text: str | None) -> Ran | None:
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


def _texts(text: object) -> tuple[str, ...]:
    """Return a row's list of texts; () where it is damaged."""
    try:
        found = json.loads(cast("str", text) or "[]")
    except (ValueError, TypeError, RecursionError):
        return ()
    return tuple(str(entry) for entry in cast("list[object]", found)) if isinstance(found, list) else ()


def _item(row: Sequence[Any]) -> Item:
    return Item(
        id=row[0],
        key=from_db(row[1]),
        source=from_db(row[2]),
        request=_request(row[3]),
        native=(row[4], row[5]),
        format=row[6] or "",
        output="" if row[7] is None else from_db(row[7]),
        taken=_texts(row[8]),
        origin=row[9],
        base_text=row[10],
        content_hash=row[11],
        attempts=row[12],
        state=row[13],
        error=row[14],
        notes=_texts(row[15]),
        seconds=row[16],
        bytes=row[17],
        finished=row[18],
        size=row[19],
        mtime_ns=row[20],
        program=row[21],
        deaths=row[22],
        ran=_ran(row[23]),
    )


def _file_hash(path: Path) -> str | None:
    """Return the SHA-256 of a file, None when it cannot be read."""
    engine = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                engine.update(block)
    except OSError:
        return None
    return engine.hexdigest()


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, so that a rename survives a loss of power; not every system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _run(db: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> None:
    db.execute(statement, values)


def _same_file(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def _identities(path: str | Path) -> set[tuple[int, int]]:
    """Return device and inode of what stands at a path and of what it leads to."""
    found: set[tuple[int, int]] = set()
    with contextlib.suppress(OSError, ValueError):
        for status in (os.lstat(path), os.stat(path)):
            if status.st_ino:  # some network disks give none
                found.add((status.st_dev, status.st_ino))
    return found


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        log.debug("%s could not be removed", path)


def output_sentence(place: Path, error: OSError) -> str:
    """Return why a place cannot be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {place} is full; free some space and run the same command again"
    reason = error.strerror or type(error).__name__
    return f"{place} cannot be written ({reason}); choose another output folder or change its permissions"


def stops_the_job(error: OSError) -> bool:
    """Return whether a write error will hit every further picture too (full, read-only, forbidden)."""
    return error.errno in _FULL


def _db_sentence(path: Path, error: sqlite3.Error) -> str:
    text = str(error)
    if "full" in text:
        return f"the disk of {path.parent} is full; free some space and run the same command again"
    if "malformed" in text or "not a database" in text:
        return (
            f"the journal {path} is damaged ({text}); move it away, then existing outputs are kept and the rest is made"
        )
    return f"the journal {path} cannot be written ({text}); check the disk and run the same command again"
