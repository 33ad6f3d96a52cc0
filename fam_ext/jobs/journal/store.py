"""An open journal file: locks, transactions, small values, and taking back what dead processes held."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

from fam_ext.errors import OutputError, PictureError, UsageError
from fam_ext.jobs.journal.disk import (
    can_map,
    check_inside,
    db_sentence,
    db_uri,
    file_hash,
    output_sentence,
    sync_folder,
    unlink,
)
from fam_ext.jobs.journal.rows import from_db
from fam_ext.jobs.journal.schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION, Connection
from fam_ext.jobs.lock import FileLock, NoLocksError, is_held
from fam_ext.jobs.walk import STATE_FOLDER
from fam_ext.metadata.files import is_link
from fam_ext.placing import replace

log = logging.getLogger(__name__)

_Opened = TypeVar("_Opened", bound="Store")
FILE_NAME = "journal.sqlite3"
_OWNER = re.compile(r"\d+-\w+")
"""How `Store.token` reads. A journal may be a stranger's: whatever else it names as an owner leads to no file."""
_BUSY_SECONDS = 60.0
MAX_DEATHS = 2
"""So often may a process die during a picture before its row fails."""
POISON = (
    "the process ended twice while it worked on this picture (killed, or out of memory); make the picture or --scale "
    "smaller, or try it once more: fam-hires retry-failed, in the WebUI Start"
)


class Store:
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
        self._just_failed: set[int] = set()
        """Rows that this process found to have ended two."""
        self._plan: int = 0
        """The plan whose files are worked on and counted; those that only earlier plans met wait for theirs."""
        self._main_lock: FileLock | None = None
        self._owner_lock: FileLock | None = None
        self._memory = memory
        if memory:
            self._db = self._copy_in_memory()
            self._prepare()
            self.follow()
            return
        try:
            self._refuse_links()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.temporary.mkdir(exist_ok=True)
            self._take_locks(join)
            self._db = self._connect()
            self._prepare()
            self.follow()
            self.recover()
        except OSError as error:
            self._give_up()
            raise OutputError(output_sentence(self.output, error)) from None
        except sqlite3.Error as error:
            self._give_up()
            raise OutputError(db_sentence(self.path, error)) from None
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Leave nothing open: a connection that waits to be collected would lock the file for the next one."""
        if hasattr(self, "_db"):
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._release_locks()

    def _refuse_links(self) -> None:
        """Raise `OutputError` where what is written and tidied up here would be elsewhere."""
        files = ("lock", *(FILE_NAME + ending for ending in ("", "-wal", "-shm")))
        for place in (self.folder, self.temporary, *map(self.folder.joinpath, files)):
            if is_link(place):
                raise OutputError(f"{place} is a link, and a job's own files are never followed elsewhere; remove it")

    # --- open and close -------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        locks = self._owner_lock is not None  # SQLite's own would fail, too
        alone = f"vfs={'win32' if os.name == 'nt' else 'unix'}-none"
        db = sqlite3.connect(
            self.path if locks else db_uri(Path(os.path.realpath(self.path)), alone),
            uri=not locks,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        try:
            if locks and can_map(self.folder):
                db.execute("PRAGMA journal_mode=WAL")
                # a crash of the system may lose the last rows, never the file: a job that resumes checks the picture
                db.execute("PRAGMA synchronous=NORMAL")
            else:
                for words in ("locking_mode=EXCLUSIVE", "journal_mode=DELETE", "locking_mode=NORMAL"):
                    db.execute(f"PRAGMA {words}")  # who is alone can end a WAL that came from another disk
        except BaseException:
            db.close()
            raise
        return db

    def _copy_in_memory(self) -> sqlite3.Connection:
        memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        # as it stands on a disk that is read-only, or that lacks what several processes need
        for how in ("mode=ro", "immutable=1") if os.path.isfile(self.path) else ():
            try:
                uri = db_uri(Path(os.path.realpath(self.path)), how)
                with contextlib.closing(sqlite3.connect(uri, uri=True)) as source:
                    source.execute("SELECT 1 FROM sqlite_master")  # a backup would wait for a lock for ever
                    source.backup(memory)
                break
            except sqlite3.Error as error:
                if how == "immutable=1" or not isinstance(error, sqlite3.OperationalError):
                    raise OutputError(db_sentence(self.path, error)) from None
        return memory

    def _prepare(self) -> None:
        with self._transaction():
            found = self._db.execute("SELECT name FROM sqlite_master WHERE name = 'meta'").fetchone()
            if found is None:
                for statement in SCHEMA.split(";"):
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
                MIGRATIONS[step](self._db)
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
            unlink(owner.path)
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

    def __enter__(self: _Opened) -> _Opened:
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
                raise OutputError(db_sentence(self.path, error)) from None
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
            raise OutputError(db_sentence(self.path, sqlite3.DatabaseError(f"malformed {name}"))) from None

    def _set(self, name: str, value: Any) -> None:  # noqa: ANN401
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def set(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Keep a JSON value with the job."""
        with self._transaction():
            self._set(name, value)

    def check_there(self) -> None:
        """Raise `OutputError` where the folder was moved away or deleted, or its disk taken off: the open journal would
        go on, and what it calls done be elsewhere."""
        if not os.path.exists(self.path):
            raise OutputError(
                f"{self.output} was moved or deleted while the job ran; put it back, then run the same command again"
            )

    def follow(self) -> None:
        """Work on the files of the newest plan, which may be another process's."""
        number = self.get("plan", 0)
        self._plan = number if isinstance(number, int) and 0 <= number < 1 << 62 else 0

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
                    failed = db.execute(
                        "UPDATE items SET state = 'failed', error = ?, finished = ? "
                        "WHERE id = ? AND state = 'pending' AND deaths >= ?",
                        (POISON, time.time(), item_id, MAX_DEATHS),
                    )
                    if failed.rowcount:
                        self._just_failed.add(item_id)
                count += 1
        self._remove_dead_temporaries()
        return count

    def _finish(self, owner: Any, item_id: int, output: Any, output_hash: Any) -> bool:  # noqa: ANN401  # a stranger's
        """Return whether the picture is in its place, moving it there if only the rename was missing."""
        if not (_is_owner(owner) and isinstance(output_hash, str)):
            return False
        target = self.output / from_db(output)
        temporary = self.temporary_path(item_id, owner=owner)
        try:
            check_inside(self.output, target)
            if file_hash(target) != output_hash:
                if file_hash(temporary) != output_hash:
                    return False
                replace(temporary, target)
        except (PictureError, OSError, ValueError):  # ValueError: a name that no system takes
            return False
        sync_folder(target.parent)  # the process may have ended before its rename was on the disk
        return True

    def _alive(self, owner: object) -> bool:
        return _is_owner(owner) and is_held(self.folder / f"owner-{owner}.lock")

    def _remove_dead_temporaries(self) -> None:
        for path in self._listing(self.temporary):
            owner = path.name.rsplit("-", 1)[0]
            if _is_owner(owner) and owner != self.token and not self._alive(owner):
                unlink(path)
        for path in self._listing(self.folder):
            if path.name.startswith("owner-") and path.name != f"owner-{self.token}.lock" and not is_held(path):
                unlink(path)

    def _remove_temporaries(self, owner: str) -> None:
        for path in self._listing(self.temporary):
            if path.name.rsplit("-", 1)[0] == owner:
                unlink(path)

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


def _is_owner(value: object) -> bool:
    return isinstance(value, str) and _OWNER.fullmatch(value) is not None
