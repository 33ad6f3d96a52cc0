"""Planning goes into the journal: what is new, what is done, what is kept, and under which name."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fam_ext.jobs.journal.disk import LONGEST_PATH, file_hash, identities, is_too_long, same_file
from fam_ext.jobs.journal.rows import PlanCounts, from_db, number, to_db
from fam_ext.jobs.journal.store import MAX_DEATHS, Store
from fam_ext.jobs.names import alternatives, fold, is_name_of
from fam_ext.jobs.plan import Planned, weights_of
from fam_ext.jobs.walk import Candidate, numbered
from fam_ext.options.job import Job, digest
from fam_ext.options.renderer import WEBUI
from fam_ext.options.request import HiresRequest

log = logging.getLogger(__name__)

_BATCH = 500
_BATCH_SECONDS = 0.5
EXISTS = "the output exists already; --overwrite replaces it"
IS_OWN_SOURCE = "the output would replace its own source; choose another output folder or name pattern"
IS_SOURCE = "the output would replace a source of the job; choose another output folder or name pattern"


class _Known(NamedTuple):
    """A file's row, as earlier plans and runs left it."""

    id: int
    key: str
    source: str
    size: int
    mtime_ns: int
    sidecar: str
    fingerprint: str
    state: str
    output: str | None
    settings_hash: str | None
    content_hash: str | None
    bytes: int | None
    deaths: int
    weights: str | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> _Known:
        """Return the row of _COLUMNS with its names as text."""
        known = cls(*row)
        output = None if known.output is None else from_db(known.output)
        deaths = number(known.deaths) or 0
        return known._replace(key=from_db(known.key), source=from_db(known.source), output=output, deaths=deaths)


_COLUMNS = ", ".join(_Known._fields)


class Entry(Store):
    """A journal that a plan is written into."""

    def plan(
        self,
        candidates: Iterator[Candidate],
        options: Job,
        plan_file: Callable[..., Planned],
        *,
        on_count: Callable[[PlanCounts], None] = lambda counts: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> PlanCounts:
        """Enter the candidates and return what was found. Files done with the same content and settings stay done; what
        only earlier plans met is left as it is."""
        counts = PlanCounts()
        ranks = _Ranks()
        self._numbers.clear()
        marks = weights_of(options)
        # what is done is looked at closely where other weights draw now
        fingerprint = digest([options.fingerprint, *marks]) if any(marks) else options.fingerprint
        with self._transaction() as db:
            self._set("planning", True)
            self._plan += 1
            self._set("plan", self._plan)
            # a folder that could not be read is looked at anew
            db.execute("DELETE FROM items WHERE state = 'failed' AND request IS NULL AND key LIKE '%/'")
            # keys are unique within a walk: an empty journal of our own need not be asked for each
            fresh = self._memory and db.execute("SELECT 1 FROM items LIMIT 1").fetchone() is None
        decide = functools.partial(
            self._decide,
            options=options,
            fingerprint=fingerprint,
            marks=marks,
            plan_file=plan_file,
            ranks=ranks,
            counts=counts,
            fresh=fresh,
        )
        numbered = enumerate(candidates if options.places.first is None else islice(candidates, options.places.first))
        while batch := list(islice(numbered, _BATCH)):
            looked = 0
            while looked < len(batch):
                # files are read outside of the transactions: others that share the folder never wait for them
                decided: list[Callable[[], None]] = []
                until = time.monotonic() + _BATCH_SECONDS
                while looked < len(batch) and (not decided or time.monotonic() < until):
                    index, candidate = batch[looked]
                    decided.append(decide(candidate, index=index))
                    looked += 1
                with self._transaction():
                    for write in decided:
                        write()
                counts.files += len(decided)
                on_count(counts)
                counts.cut_short = cancelled()
                if counts.cut_short:
                    break
            if counts.cut_short:
                break
        if options.output.overwrite:
            self._spare_sources(counts)
        with self._transaction():
            self._set("planning", False)
            self._set("options", options.to_json())
            self._set("weights", marks)
        return counts

    def _decide(
        self,
        candidate: Candidate,
        *,
        index: int,
        options: Job,
        fingerprint: str,
        marks: tuple[str, ...],
        plan_file: Callable[..., Planned],
        ranks: _Ranks,
        counts: PlanCounts,
        fresh: bool,
    ) -> Callable[[], None]:
        """Look at one file, and return what is to be written about it."""
        row = None if fresh else self._row_of(candidate, fingerprint)
        if row is not None and row.key != candidate.key:
            candidate = dataclasses.replace(candidate, key=row.key)
        unchanged = row is not None and (row.size, row.mtime_ns, row.sidecar, row.fingerprint) == (
            candidate.size,
            candidate.mtime_ns,
            candidate.sidecar_mark,
            fingerprint,
        )
        if row is not None and unchanged and candidate.problem is None and self._stands(row, options):
            counts.done_before += row.state == "done"
            return self._met(row, candidate)
        planned = plan_file(candidate, options, index=index)
        settings_hash, weights = planned.settings_hash(options), planned.weights(options, marks)
        if row is not None and row.state == "done" and row.output is not None and planned.problem is None:
            there = os.path.lexists(self._below(row.output))
            same_weights = None in (row.weights, weights) or row.weights == weights
            same_settings = row.settings_hash == settings_hash and row.content_hash is not None
            equal = same_settings and same_weights and row.content_hash == file_hash(Path(candidate.path))
            renamed = "{index" not in options.output.name and not is_name_of(row.output, planned.output, row.key)
            if equal and not renamed and self._is_whole(row):
                counts.done_before += 1
                return self._met(
                    row,
                    candidate,
                    size=candidate.size,
                    mtime_ns=candidate.mtime_ns,
                    sidecar=candidate.sidecar_mark,
                    fingerprint=fingerprint,
                )
            if there and not options.output.overwrite:
                counts.kept += 1
                counts.kept_keys.add(candidate.key)
                return self._met(row, candidate)

        def write() -> None:
            if row is not None:
                state = self._db.execute("SELECT state FROM items WHERE id = ?", (row.id,)).fetchone()
                if state is not None and state[0] in ("running", "saving"):
                    return self._met(row, candidate)()  # a joined process works on it
            self._write(
                candidate,
                planned,
                row=row,
                options=options,
                settings_hash=settings_hash,
                weights=weights,
                fingerprint=fingerprint,
                ranks=ranks,
                counts=counts,
            )

        return write

    def _row_of(self, candidate: Candidate, fingerprint: str) -> _Known | None:
        """Return the row of a file. It is known by its path, whatever a command names beside it, else by its key: then
        it has moved, or is a copy; None too where that key is another file's."""
        path, key = to_db(candidate.path), to_db(candidate.key)
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM items WHERE source = ? "
            "ORDER BY (state = 'done' AND fingerprint = ?) DESC, key = ? DESC LIMIT 1",
            (path, fingerprint, key),
        ).fetchone()
        if row is not None:
            return _Known.of(row)
        row = self._db.execute(f"SELECT {_COLUMNS} FROM items WHERE key = ?", (key,)).fetchone()
        known = None if row is None else _Known.of(row)
        return None if known is None or _is_anothers(known, candidate) else known

    def _free_key(self, key: str) -> str:
        """Return a key, or the first numbered form of it that no row has."""
        keys = itertools.chain((key,), (numbered(key, number) for number in itertools.count(2)))
        taken = "SELECT 1 FROM items WHERE key = ?"
        return next(one for one in keys if self._db.execute(taken, (to_db(one),)).fetchone() is None)

    def _met(self, row: _Known, candidate: Candidate, **values: Any) -> Callable[[], None]:  # noqa: ANN401
        """Return what writes that this plan met a row, which else stays as it is but for `values` of its columns."""
        values["plan"] = self._plan
        if row.source != candidate.path:
            values["source"] = to_db(candidate.path)
        names = ", ".join(f"{name} = ?" for name in values)
        statement = f"UPDATE items SET {names} WHERE id = ?", (*values.values(), row.id)

        def write() -> None:
            self._db.execute(*statement)

        return write

    def _spare_sources(self, counts: PlanCounts) -> None:
        """Fail what would replace a source, by whatever name the source is reached."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT id, output FROM items WHERE state = 'pending' AND plan = ?", (self._plan,)
            ).fetchall()
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
        found = identities(path)
        if not found:
            return False
        if self._sources is None:
            with self._mutex:
                rows = self._db.execute("SELECT source FROM items").fetchall()
            self._sources = frozenset(one for (source,) in rows for one in identities(from_db(source)))
        return not self._sources.isdisjoint(found)

    def _stands(self, row: _Known, options: Job) -> bool:
        """Return whether an unchanged row needs nothing: done and still there, or waiting for its turn. One that waited
        to replace its output, and may no longer, is planned anew."""
        if row.state == "done":
            return self._is_whole(row)
        if row.state == "pending" and not options.output.overwrite and row.output is not None:
            return not os.path.lexists(self._below(row.output))
        if row.state in ("pending", "running", "saving"):
            return True
        # in a WebUI, where nothing else tries it again, a start after the one that failed it gives it one more try
        in_webui = options.renderer.name == WEBUI
        return row.deaths >= MAX_DEATHS and (not in_webui or row.id in self._just_failed)

    def _is_whole(self, row: _Known) -> bool:
        """Return whether a finished row's output is there, and as large as it was written."""
        try:
            return row.output is not None and os.stat(self._below(row.output)).st_size == row.bytes
        except OSError:
            return False

    def _write(
        self,
        candidate: Candidate,
        planned: Planned,
        *,
        row: _Known | None,
        options: Job,
        settings_hash: str,
        weights: str | None,
        fingerprint: str,
        ranks: _Ranks,
        counts: PlanCounts,
    ) -> None:
        state, error = "pending", None
        output: str | None = None
        if planned.problem is not None:
            state, error = "failed", planned.problem
        elif planned.skip is not None:
            state, error = "skipped", planned.skip
        else:
            output, error = self._place(candidate, planned, row=row, overwrite=options.output.overwrite)
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
            "key": to_db(self._free_key(candidate.key)) if row is None else to_db(row.key),
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
            "deaths": 0 if row is None or row.deaths < MAX_DEATHS or row.fingerprint != fingerprint else 1,
            "error": error,
            "notes": json.dumps(planned.notes) if planned.notes else None,
            "seconds": None,
            "bytes": None,
            "finished": None,
            "owner": None,
            "program": planned.program,
            "ran": None,
            "plan": self._plan,
            "weights": weights,
        }
        if row is None:
            self._db.execute(insert_statement(tuple(values)), tuple(values.values()))
        else:
            names = ", ".join(f"{name} = ?" for name in values)
            self._db.execute(f"UPDATE items SET {names} WHERE id = ?", (*values.values(), row.id))

    def _place(
        self, candidate: Candidate, planned: Planned, *, row: _Known | None, overwrite: bool
    ) -> tuple[str | None, str | None]:
        """Return the output's name, with the reason to skip it, or None with the problem."""
        wanted = fold(planned.output)
        start = self._numbers.get(wanted, 2)
        for tried, name in enumerate(alternatives(planned.output, candidate.key, start=start)):
            holder = self._db.execute("SELECT id FROM items WHERE output_fold = ?", (to_db(fold(name)),)).fetchone()
            if holder is not None and (row is None or holder[0] != row.id):
                # another file's output; the numbers up to it are taken for all that want this name
                self._numbers[wanted] = max(start, start + tried - 2)
                continue
            target = self._below(name)
            if is_too_long(target):  # drawn, it could not be written
                why = f"has {len(target)} characters, and Windows takes {LONGEST_PATH} until its long paths are enabled"
                return None, f"the output's path {why}; choose a shorter output folder or name pattern"
            if not os.path.lexists(target):
                return name, None
            if same_file(target, candidate.path):
                return None, IS_OWN_SOURCE
            return name, None if overwrite else EXISTS
        return None, "no free name was found; choose another name pattern"


def _is_anothers(row: _Known, candidate: Candidate) -> bool:
    """Return whether a row is of another file that is still there, and differs from the candidate."""
    if not os.path.lexists(row.source) or same_file(row.source, candidate.path):
        return False
    if row.content_hash is not None:  # pictures of one size may have one time too: unpacked together
        return row.content_hash != file_hash(Path(candidate.path))
    return (row.size, row.mtime_ns) != (candidate.size, candidate.mtime_ns)


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
def insert_statement(names: tuple[str, ...]) -> str:
    return f"INSERT INTO items ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
