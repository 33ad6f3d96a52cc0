"""A folder job before it runs: the plan as a list, and what Start asks. No gradio, no host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, islice

from fam_ext.jobs.journal import Item, Journal
from fam_ext.jobs.plan import Planned, check_job, plan_file
from fam_ext.jobs.walk import Candidate, others, walk
from fam_ext.options.job import Job
from fam_ext.options.request import HiresRequest
from fam_ext.ui.compare import KEPT, duration, table_html

MAX_LISTED = 300
_COLUMNS = ("file", "native", "target", "output", "prompt", "program", "notes", "plan")


def question(options: Job) -> str:
    """Return what Start asks before a job with files that carry no prompt, "" when there is nothing to ask.

    Reads headers only, and nothing where the job brings a prompt of its own. Raises `UsageError` where the places
    cannot be used.
    """
    check_job(options)
    if options.picture.every_rule["prompt"].value:
        return ""
    with Journal(options.places.output, memory=True) as journal:
        journal.plan(walk(options.places), options, plan_file)
        wordless, pending = journal.wordless()
    if not wordless:
        return ""
    return (
        f"{_wordless(wordless, pending)}: write one, or put .txt files beside them; press Start again to go on without"
    )


def _wordless(wordless: int, pending: int) -> str:
    return f"{wordless} of {pending} carry no prompt"


def plan_pages(options: Job) -> Iterator[str]:
    """Yield the dry run as HTML: at once the first files of a large folder, then the whole with its totals.

    Each file has its target size, prompt and outcome. Writes nothing. Raises `UsageError` where the places cannot be
    used.
    """
    began = time.perf_counter()
    check_job(options)
    files = walk(options.places)
    first = list(islice(files, MAX_LISTED + 1))
    if len(first) > MAX_LISTED:
        planned = (plan_file(candidate, options, index=index) for index, candidate in enumerate(first[:MAX_LISTED]))
        rows = [
            _row(entry.candidate.key, entry, entry.request, entry.output, entry.problem or entry.skip or "")
            for entry in planned
        ]
        note = f"the first {MAX_LISTED} files; the rest is being read"
        yield table_html(_COLUMNS, rows, element_id="fam_hires_plan_table", note=note)
    asked: dict[str, HiresRequest] = {}
    """What this job asks for, where it is not what the journal holds: a kept file's row tells of its own making."""

    keys: set[str] = set()

    def plan(candidate: Candidate, options: Job, *, index: int) -> Planned:
        entry = plan_file(candidate, options, index=index)
        if entry.request is not None and len(asked) < MAX_LISTED:
            asked[candidate.key] = entry.request
        return entry

    with Journal(options.places.output, memory=True) as journal:
        found = journal.plan(_noting(chain(first, files), keys), options, plan)
        counts = journal.counts()
        history = journal.history()
        pixels = journal.pending_pixels()
        wordless = journal.wordless()
        rows = [
            _row(
                item.key,
                item,
                asked.get(item.key, item.request),
                item.output or "",
                "kept: made with other settings" if item.key in found.kept_keys else _outcome(item),
            )
            for item in journal.items(limit=MAX_LISTED)
        ]
    total = sum(counts.values())
    waiting = counts["pending"] + counts["running"] + counts["saving"]
    parts = [f"{total} files", f"{waiting} to do"]
    for number, word in (
        (counts["done"] - found.kept, "done"),
        (found.kept, KEPT),
        (counts["skipped"], "skipped"),
        (counts["failed"], "unreadable"),
    ):
        if number:
            parts.append(f"{number} {word}")
    if wordless[0]:
        parts.append(_wordless(*wordless))
    if (rest := others(options.places, keys)) is not None:
        parts.append(rest)
    parts.append(f"{pixels / 1e6:.1f} megapixels to make")
    if history is not None:
        parts.append(f"about {duration(history[0] * pixels / 1e6)} and {history[1] * pixels / 1e12:.1f} MB")
    parts.append(f"planned in {time.perf_counter() - began:.1f} s")
    note = ", ".join(parts)
    if total > MAX_LISTED:
        note += f"; the first {MAX_LISTED} are listed"
    yield table_html(_COLUMNS, rows, element_id="fam_hires_plan_table", note=note)


def _noting(candidates: Iterator[Candidate], keys: set[str]) -> Iterator[Candidate]:
    for candidate in candidates:
        keys.add(candidate.key)
        yield candidate


def _outcome(item: Item) -> str:
    return item.error or ("to do" if item.state == "pending" else item.state)


def _row(
    key: str, found: Item | Planned, request: HiresRequest | None, output: str, outcome: str
) -> tuple[str, str, str, str, str, str, str, str]:
    size = f"{found.native[1]} x {found.native[0]}" if found.native != (0, 0) else ""
    target = f"{request.size[1]} x {request.size[0]}" if request else ""
    prompt = "" if request is None else request.prompt[:80]
    return key, size, target, output, prompt, found.program or "", "; ".join(found.notes), outcome
