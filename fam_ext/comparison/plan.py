"""What is compared: pictures or prompts as rows, by methods, at scales; all of it checked before anything runs. No
torch."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fam_ext.errors import PictureError, UsageError
from fam_ext.escapes import shown
from fam_ext.jobs.names import safe_name
from fam_ext.jobs.plan import check_job, plan_file
from fam_ext.jobs.settings import request_of_words
from fam_ext.jobs.size import is_capped, target_size
from fam_ext.jobs.walk import walk
from fam_ext.metadata import pictures
from fam_ext.methods.capabilities import STANDALONE
from fam_ext.methods.catalog import METHODS, entry_for
from fam_ext.options.job import Job
from fam_ext.options.parts import SizeRule
from fam_ext.options.request import HiresRequest

MOST_CELLS = 256
"""Pictures of one page: each travels whole, and takes the time of a pass."""
_KEY_LENGTH = 60
_LABEL_LENGTH = 70


@dataclass(frozen=True)
class Row:
    """One picture that every method makes, at every scale."""

    key: str
    """Letters, digits, - and _: the names of its files."""
    title: str
    request: HiresRequest
    """Its words and settings; `size` and `method` are each cell's own."""
    path: Path | None = None
    """The native picture; None: made from the prompt."""
    digest: str = ""
    """SHA-256 of that file."""
    native: tuple[int, int] | None = None
    """(height, width) of that picture."""
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The title in a terminal's line: of a long prompt its beginning."""
        return self.title if self.path is not None else short(self.title)


@dataclass(frozen=True)
class Plan:
    """What is to be made: each row by each method at each scale."""

    rows: Sequence[Row]
    methods: Sequence[str]
    scales: Sequence[float]

    def __post_init__(self) -> None:
        cells = len(self.rows) * len(self.methods) * len(self.scales)
        if cells > MOST_CELLS:
            raise UsageError(
                f"{len(self.rows)} pictures by {len(self.methods)} methods at {len(self.scales)} scales are {cells}; "
                f"choose at most {MOST_CELLS}"
            )


def parse_methods(text: str) -> list[str]:
    """Return the methods of a comma-separated list. Raises `UsageError` for an unknown one, and for none."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in METHODS:
            raise UsageError(f"--methods has {name!r}; choose from {', '.join(METHODS)}")
        entry_for(name, STANDALONE, where="the standalone host")
    if not names:
        raise UsageError(f"--methods is {text!r}; choose from {', '.join(METHODS)}")
    return names


def rows_of_prompts(prompts: Sequence[str], job: Job) -> list[Row]:
    """Return a row for each prompt, with the job's settings."""
    first, notes = request_of_words((64, 64), job.picture)
    keys = _unique(prompts)
    return [
        Row(key, prompt or "(no prompt)", dataclasses.replace(first, prompt=prompt), notes=notes)
        for key, prompt in zip(keys, prompts, strict=True)
    ]


def rows_of_pictures(job: Job, scales: Sequence[float]) -> list[Row]:
    """Return a row for each picture of the job's inputs. Raises `UsageError` where one of them cannot be made at one
    of the scales, and where there is none."""
    check_job(job)
    rows: list[Row] = []
    given: set[Path] = set()
    for index, candidate in enumerate(walk(job.places)):
        path = Path(candidate.path)
        if path.resolve() in given:
            continue
        given.add(path.resolve())
        if index >= MOST_CELLS:
            raise UsageError(f"the inputs hold more than {MOST_CELLS} pictures; choose fewer")
        planned = [plan_file(candidate, job.replace(scale=scale), index=index) for scale in scales]
        for scale, found in zip(scales, planned, strict=True):
            if found.request is None or found.skip is not None:
                raise UsageError(f"{shown(candidate.key)} at {scale:g}x: {found.problem or found.skip}")
        first = planned[0]
        assert first.request is not None
        try:
            data = pictures.read_file(path)
            pictures.decode(data)
        except PictureError as error:
            raise UsageError(f"{shown(candidate.key)}: {error}") from None
        digest = hashlib.sha256(data).hexdigest()
        row = Row(candidate.key, shown(candidate.key), first.request, path, digest, first.native, first.notes)
        request_of(row, first.native, row.request.method, max(scales))
        rows.append(row)
    if not rows:
        raise UsageError(f"{', '.join(map(shown, job.places.inputs))} hold no picture; name pictures or their folder")
    keys = _unique([row.key.rpartition(".")[0] or row.key for row in rows])
    return [dataclasses.replace(row, key=key) for row, key in zip(rows, keys, strict=True)]


def request_of(row: Row, native: tuple[int, int], method: str, scale: float) -> HiresRequest:
    """Return the request of a cell, for a native picture of size (height, width). Raises `UsageError` for one that is
    too large for a page."""
    rule = SizeRule(scale=scale)
    if is_capped(native, rule):
        area = native[0] * native[1] * scale**2 / 1e6
        raise UsageError(
            f"{row.label} at {scale:g}x is {area:.0f} MP; a page takes pictures of at most {rule.max_megapixels:g} MP, "
            "so choose smaller --scales"
        )
    size, _ = target_size(native, rule)
    return dataclasses.replace(row.request, size=size, method=method)


def keyed(rows: Sequence[Row], digests: Sequence[str], natives: Mapping[str, tuple[str, str]]) -> list[Row]:
    """Return the rows under the keys that their natives have in a folder, new ones under keys that are free.

    `digests` are the rows' natives', `natives` (title, digest) of those in the folder by key. A row whose title is
    there with another digest has that key: it was made with other settings.
    """
    free, found = dict(natives), dict[int, str]()
    alike = (
        lambda row, digest, native: native == (row.title, digest),
        lambda row, digest, native: native[1] == digest,
        lambda row, digest, native: native[0] == row.title,
    )
    for is_alike in alike:
        for number, (row, digest) in enumerate(zip(rows, digests, strict=True)):
            key = next((key for key, native in free.items() if is_alike(row, digest, native)), None)
            if number not in found and key is not None:
                found[number] = key
                del free[key]
    new = [number for number in range(len(rows)) if number not in found]
    found |= zip(new, _unique((rows[number].key for number in new), taken=natives), strict=True)
    return [dataclasses.replace(row, key=found[number]) for number, row in enumerate(rows)]


def short(text: str) -> str:
    """Return the beginning of a text that is longer than a terminal's line should name."""
    return text if len(text) <= _LABEL_LENGTH else f"{text[: _LABEL_LENGTH - 3]}..."


def _unique(names: Iterable[str], *, taken: Iterable[str] = ()) -> list[str]:
    """Return names that a file may have anywhere, none of them twice or one of `taken`, whatever the case of its
    letters."""
    taken = {name.lower() for name in taken}
    keys: list[str] = []
    for name in names:
        first = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:_KEY_LENGTH].strip("-") or "picture"
        first = safe_name(first)  # CON is a device of Windows
        key, number = first, 1
        while key.lower() in taken:
            number += 1
            key = f"{first}-{number}"
        taken.add(key.lower())
        keys.append(key)
    return keys
