"""A folder job before it runs: each file's plan, and the totals. Reads headers only, writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.rows import Item, PlanCounts
from fam_ext.jobs.plan import Planned, check_job, plan_file
from fam_ext.jobs.walk import Candidate, others, walk
from fam_ext.options.job import Job
from fam_ext.options.request import REQUEST, HiresRequest
from fam_ext.options.table import CONFIG_FIELDS

KEPT = "kept: made with other settings, or changed since"
MAX_LISTED = 300
MAX_COMPARED = 5000
"""Files whose request is held beside the journal's, to tell what has changed since an earlier run."""


_SHORT = 30
"""Characters of a value that is said; of a longer one, a prompt, only that it has changed."""


@dataclass(frozen=True)
class Row:
    """One file of the plan. Sizes are (height, width); None where there is none."""

    key: str
    native: tuple[int, int] | None
    target: tuple[int, int] | None
    output: str
    prompt: str
    program: str
    notes: tuple[str, ...]
    outcome: str


@dataclass(frozen=True)
class Totals:
    """The whole plan in numbers of files, and what is to be made."""

    files: int
    waiting: int
    done: int
    kept: int
    """Made with other settings, or changed since."""
    changes: tuple[str, ...]
    """What of those has changed since, one phrase an option: "steps 20 to 30 (40 pictures)"."""
    skipped: int
    unreadable: int
    wordless: tuple[int, int]
    """How many of the files to make carry no prompt, and how many there are to make."""
    left_out: str | None
    """What the folders hold that was not taken, on one line."""
    pixels: int
    """Target pixels to make."""
    seconds: float | None
    """How long that takes and how many bytes it gives, as this folder's earlier pictures tell; None at first."""
    bytes: float | None
    planned_in: float
    """Seconds that planning took."""


@dataclass(frozen=True)
class Preview:
    """The first files, with the totals once every file was read."""

    rows: tuple[Row, ...]
    totals: Totals | None = None


def wordless(options: Job) -> tuple[int, int]:
    """Return how many of the files to make carry no prompt, and how many there are to make; zeros, unread, where the
    job brings a prompt of its own. Raises `UsageError` where the places cannot be used."""
    check_job(options)
    if options.picture.every_rule["prompt"].value:
        return 0, 0
    with Journal(options.places.output, memory=True) as journal:
        journal.plan(walk(options.places), options, plan_file)
        return journal.wordless()


def previews(options: Job) -> Iterator[Preview]:
    """Yield at once the first files of a large folder, then the whole with its totals.

    Raises `UsageError` where the places cannot be used.
    """
    began = time.perf_counter()
    check_job(options)
    files = walk(options.places)
    first = list(islice(files, MAX_LISTED + 1))
    if len(first) > MAX_LISTED:
        planned = (plan_file(candidate, options, index=index) for index, candidate in enumerate(first[:MAX_LISTED]))
        yield Preview(
            tuple(
                _row(
                    entry.candidate.key,
                    entry,
                    request=entry.request,
                    output=entry.output,
                    outcome=entry.problem or entry.skip or "",
                )
                for entry in planned
            )
        )
    asked: dict[str, HiresRequest] = {}
    keys: set[str] = set()

    with Journal(options.places.output, memory=True) as journal:
        seconds, size = journal.history() or (None, None)  # first: what is to be replaced loses its own
        found = journal.plan(_noting(chain(first, files), keys), options, noting_requests(asked, most=MAX_COMPARED))
        counts = journal.counts()
        pixels = journal.pending_pixels()
        rows = tuple(
            _row(
                item.key,
                item,
                request=asked.get(item.key, item.request),
                output=item.output,
                outcome=KEPT if item.key in found.kept_keys else _outcome(item),
            )
            for item in journal.items(limit=MAX_LISTED, planned=True)
        )
        totals = Totals(
            files=sum(counts.values()),
            waiting=counts["pending"] + counts["running"] + counts["saving"],
            done=counts["done"] - found.kept,
            kept=found.kept,
            changes=tuple(kept_changes(journal, found, asked)),
            skipped=counts["skipped"],
            unreadable=counts["failed"],
            wordless=journal.wordless(),
            left_out=others(options.places, keys),
            pixels=pixels,
            seconds=None if seconds is None else seconds * pixels / 1e6,
            bytes=None if size is None else size * pixels / 1e6,
            planned_in=time.perf_counter() - began,
        )
    yield Preview(rows, totals)


def noting_requests(asked: dict[str, HiresRequest], *, most: int | None = None) -> Callable[..., Planned]:
    """Return `plan_file`, which then keeps in `asked`, by key, what a job asks for: a kept file's row in the journal
    tells of its own making."""

    def plan(candidate: Candidate, options: Job, *, index: int) -> Planned:
        entry = plan_file(candidate, options, index=index)
        if entry.request is not None and (most is None or len(asked) < most):
            asked[candidate.key] = entry.request
        return entry

    return plan


def kept_changes(journal: Journal, counts: PlanCounts, asked: Mapping[str, HiresRequest]) -> list[str]:
    """Return `changes` of the files that a plan keeps, as `noting_requests` noted what is asked for."""
    kept = (item for item in journal.items(planned=True) if item.key in counts.kept_keys)
    return changes((item.request, asked.get(item.key)) for item in kept)


def changes(pairs: Iterable[tuple[HiresRequest | None, HiresRequest | None]]) -> list[str]:
    """Return what differs between the requests that made files and those that are asked for now, by option: the
    values where they are the same for all files, and how many files differ."""
    found: dict[str, list[tuple[str, str]]] = {}
    unexplained = 0
    for old, new in pairs:
        if old is None or new is None:
            continue
        before, after = _said(old), _said(new)
        differing = [label for label in before if before[label] != after[label]]
        unexplained += not differing
        for label in differing:
            found.setdefault(label, []).append((before[label], after[label]))
    phrases: list[str] = []
    for label, values in found.items():
        same = len(set(values)) == 1 and max(map(len, values[0])) <= _SHORT
        between = f" {values[0][0] or 'none'} to {values[0][1] or 'none'}" if same else ""
        phrases.append(f"{label}{between} ({_pictures(len(values))})")
    if unexplained:
        phrases.append(f"the upscaler, the model, the format or the name of the files ({_pictures(unexplained)})")
    return phrases


def _said(request: HiresRequest) -> dict[str, str]:
    values = {spec.label: getattr(request, spec.name) for spec in REQUEST.values()}
    values |= {spec.label: getattr(request.config, spec.name) for spec in CONFIG_FIELDS}
    height, width = request.size
    values[REQUEST["size"].label] = f"{width} x {height}"
    return {label: f"{value:g}" if isinstance(value, float) else str(value) for label, value in values.items()}


def _pictures(number: int) -> str:
    return f"{number} picture{'' if number == 1 else 's'}"


def _noting(candidates: Iterator[Candidate], keys: set[str]) -> Iterator[Candidate]:
    for candidate in candidates:
        keys.add(candidate.key)
        yield candidate


def _outcome(item: Item) -> str:
    return item.error or ("to do" if item.state == "pending" else item.state)


def _row(key: str, found: Item | Planned, *, request: HiresRequest | None, output: str, outcome: str) -> Row:
    return Row(
        key=key,
        native=None if found.native == (0, 0) else found.native,
        target=None if request is None else request.size,
        output=output,
        prompt="" if request is None else request.prompt,
        program=found.program or "",
        notes=found.notes,
        outcome=outcome,
    )
