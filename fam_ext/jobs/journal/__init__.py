"""The journal: one SQLite row a file, and the batch's only truth. Files are renamed into place before they count.

schema: its tables; rows: a row as the engine works on it; store: open, lock, recover; enter: what planning writes;
queue: what the work takes and writes; disk: the files beside it.
"""

from __future__ import annotations

from fam_ext.jobs.journal.queue import Queue


class Journal(Queue):
    """An open journal of an output folder. One process owns it; others join. Usable from several threads."""
