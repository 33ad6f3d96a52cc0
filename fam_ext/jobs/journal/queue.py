"""The work: which picture is next, how each ended, and what the journal says of it all."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence

from fam_ext.jobs.contract import Ran
from fam_ext.jobs.journal.enter import Entry
from fam_ext.jobs.journal.rows import COLUMNS, Item, item_of
from fam_ext.jobs.journal.store import MAX_DEATHS
from fam_ext.jobs.lock import is_held

log = logging.getLogger(__name__)

STATES = ("pending", "running", "saving", "done", "failed", "skipped")


class Queue(Entry):
    """A journal that pictures are taken from, and their outcomes written to."""

    def claim(self, *, suspect: bool = False, at_risk: bool = True) -> Item | None:
        """Return the next file in the queue, now ours; None when the queue is empty.

        The attempt is written at once. `suspect` asks for those during which a process died before, which are worked
        on alone; `at_risk` says that this process would die with the picture (a worker's death is not ours).
        """
        with self._transaction() as db:
            row = db.execute(
                f"SELECT {COLUMNS} FROM items WHERE state = 'pending' AND plan = ? "
                f"AND deaths {'>' if suspect else '<='} 0 ORDER BY deaths, model_rank, size_rank, id LIMIT 1",
                (self._plan,),
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE items SET state = 'running', attempts = attempts + 1, at_risk = ?, owner = ? WHERE id = ?",
                (at_risk, self.token, row[0]),
            )
        return item_of(row)

    def release(self, item: Item) -> None:
        """Put a claimed file back into the queue, as if it had not been touched. One that is being saved may stand in
        its place already: `recover` looks."""
        with self._transaction() as db:
            db.execute(
                "UPDATE items SET state = 'pending', attempts = MAX(0, attempts - 1), at_risk = 0, owner = NULL "
                "WHERE id = ? AND state = 'running'",
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
        """Record that this picture is left out; the next plan takes it up again."""
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
        """Queue every failed file that has a request again, whichever plan met it, and return how many. One that ended
        the process twice gets one try."""
        with self._transaction() as db:
            cursor = db.execute(
                "UPDATE items SET state = 'pending', error = NULL, deaths = MIN(deaths, 1), plan = ? "
                "WHERE state = 'failed' AND request IS NOT NULL "
                "AND output_fold IS NOT NULL",
                (self._plan,),
            )
            return cursor.rowcount

    def counts(self, *, whole: bool = False) -> dict[str, int]:
        """Return the number of the plan's files in each state; of the `whole` journal's, whichever plan met them."""
        with self._mutex:
            rows = self._db.execute(
                "SELECT state, COUNT(*) FROM items WHERE plan = ? OR ? GROUP BY state", (self._plan, whole)
            ).fetchall()
        found = dict(rows)  # a stranger's may hold any other state too
        return {state: found.get(state, 0) for state in STATES}

    def hopeless(self) -> tuple[int, int]:
        """Return how many of the plan's failed files no try can help, and how many ended the process too often."""
        with self._mutex:
            row = self._db.execute(
                "SELECT SUM(request IS NULL), SUM(request IS NOT NULL AND deaths >= ?) FROM items "
                "WHERE state = 'failed' AND plan = ?",
                (MAX_DEATHS, self._plan),
            ).fetchone()
        return int(row[0] or 0), int(row[1] or 0)

    def wordless(self) -> tuple[int, int]:
        """Return how many of the plan's pending files have no prompt, and how many are pending."""
        with self._mutex:
            row = self._db.execute(
                # a quotation mark within a JSON text is escaped: this is the field and nothing else
                """SELECT SUM(request LIKE '%"prompt": ""%'), COUNT(*) FROM items """
                "WHERE state = 'pending' AND plan = ?",
                (self._plan,),
            ).fetchone()
        return int(row[0] or 0), int(row[1])

    def pending_pixels(self) -> int:
        """Return the target pixels of the plan still to be made."""
        with self._mutex:
            row = self._db.execute(
                "SELECT SUM(pixels) FROM items WHERE state IN ('pending', 'running') AND plan = ?", (self._plan,)
            ).fetchone()
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

    def items(self, *, state: str | None = None, limit: int | None = None, planned: bool = False) -> Iterator[Item]:
        """Yield rows in order, few at a time; with `planned` those of the plan alone."""
        last = -1
        yielded = 0
        while True:
            where, values = "id > ?", [last]
            if planned:
                where += " AND plan = ?"
                values.append(self._plan)
            if state is not None:
                where += " AND state = ?"
                values.append(state)  # type: ignore[arg-type]  # SQLite takes both
            with self._mutex:
                rows = self._db.execute(
                    f"SELECT {COLUMNS} FROM items WHERE {where} ORDER BY id LIMIT 1000", values
                ).fetchall()
            if not rows:
                return
            for row in rows:
                if limit is not None and yielded >= limit:
                    return
                yield item_of(row)
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
