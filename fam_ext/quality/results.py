"""From rows to numbers: each method's means and set distances with intervals, and its paired differences to FAM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fam_ext.methods.catalog import FAM
from fam_ext.quality import statistics
from fam_ext.quality.columns import GROUPS, SETS, Column, set_columns
from fam_ext.quality.extractors import Extractor, Features
from fam_ext.quality.protocol import Case, Row, Size
from fam_ext.quality.statistics import Array, Distance, Estimate
from fam_ext.quality.store import Made

References = Mapping[Case, dict[str, Features]] | Sequence[dict[str, Features]]
"""Features of the true picture of each case, or of pictures that belong to none."""
_DISTANCES: Mapping[str, Distance] = {"frechet": statistics.frechet, "kernel": statistics.kernel}


@dataclass(frozen=True)
class Cell:
    """One method's number, and how far it lies from FAM's; None where there is none."""

    value: Estimate | None
    less_fam: Estimate | None = None


@dataclass(frozen=True)
class Table:
    """The numbers of one group at one size: a row a method, a column a measure."""

    title: str
    size: Size
    n: int
    prompts: int
    """How many the pictures are of."""
    columns: tuple[Column, ...]
    rows: dict[str, list[Cell]]


def tables(made: Sequence[tuple[Row, Made]], extractors: tuple[Extractor, ...], references: References) -> list[Table]:
    """Return the tables of every size. Only cases that every method has are counted, so that n is one number; a method
    that has none at a size is left out there. Times of different machines are left out."""
    found: list[Table] = []
    timed = len(machines(made)) == 1
    for size in dict.fromkeys(row.case.size for row, _ in made):
        by_method = _by_method([(row, one) for row, one in made if row.case.size == size])
        cases = _shared(by_method.values())
        if not cases:
            continue
        prompts = [case.prompt for case in cases]
        different = len({*prompts})
        ordered = {method: [ones[case] for case in cases] for method, ones in by_method.items()}
        values = {method: [numbers(one) for one in ones] for method, ones in ordered.items()}
        for title, columns in GROUPS.items():
            held = tuple(
                column
                for column in columns
                if (timed or column.key != "seconds")
                and any(one.get(column.key) is not None for ones in values.values() for one in ones)
            )
            if held:
                rows = {method: [_mean_cell(column, method, values, prompts) for column in held] for method in values}
                found.append(Table(title, size, len(cases), different, held, rows))
        if isinstance(references, Mapping):
            real, paired = [references[case] for case in cases if case in references], True
        else:
            real, paired = references, False
        if real:
            columns = set_columns(extractors)
            cells = [_set_cells(column, ordered, real, prompts, paired=paired) for column in columns]
            rows = {method: [each[method] for each in cells] for method in ordered}
            title = f"{SETS.format('true' if paired else 'reference')} ({len(real)} of them)"
            found.append(Table(title, size, len(cases), different, columns, rows))
    return found


def machines(made: Sequence[tuple[Row, Made]]) -> list[str]:
    """Return on which machines the times were measured; "unknown" for rows of an older version."""
    return sorted({one.machine or "unknown" for _, one in made})


def drawn_by(made: Iterable[tuple[Row, Made]]) -> str:
    """Return the libraries that drew the rows; where they were several, each with the methods that it drew."""
    labels: dict[str, list[str]] = {}
    for row, one in made:
        labels.setdefault(one.libraries or "unknown libraries", []).append(row.label)
    if len(labels) == 1:
        return next(iter(labels))
    return "; ".join(f"{name} ({', '.join(dict.fromkeys(own))})" for name, own in sorted(labels.items()))


def numbers(made: Made) -> dict[str, float | None]:
    """Return a row's numbers by key, cost included."""
    peak = None if made.peak_memory is None else made.peak_memory / 2**30
    return {**made.measured.values, "seconds": made.seconds, "peak_memory": peak}


def _by_method(made: Iterable[tuple[Row, Made]]) -> dict[str, dict[Case, Made]]:
    found: dict[str, dict[Case, Made]] = {}
    for row, one in made:
        found.setdefault(row.label, {})[row.case] = one
    return found


def _shared(ones: Iterable[Mapping[Case, Made]]) -> list[Case]:
    every = list(ones)
    return [case for case in every[0] if all(case in one for one in every)]


def _mean_cell(
    column: Column, method: str, values: Mapping[str, Sequence[Mapping[str, float | None]]], prompts: Sequence[str]
) -> Cell:
    middle = statistics.median if column.key == "seconds" else statistics.mean  # another job makes a picture slow
    own = [one.get(column.key) for one in values[method]]
    if method == FAM or FAM not in values:
        return Cell(middle(own, prompts))
    fam = [one.get(column.key) for one in values[FAM]]
    return Cell(middle(own, prompts), statistics.difference(own, fam, prompts, middle=middle))


def _set_cells(
    column: Column,
    made: Mapping[str, Sequence[Made]],
    real: Sequence[dict[str, Features]],
    prompts: Sequence[str],
    *,
    paired: bool,
) -> dict[str, Cell]:
    name, _, kind = column.key.rpartition(" ")
    wanted = [one[name].astype(np.float64) for one in real]
    drawn = {
        method: statistics.set_distance(_DISTANCES[kind], _features(ones, name), wanted, prompts, paired=paired)
        for method, ones in made.items()
    }
    return {
        method: Cell(statistics.about(own))
        if method == FAM
        else Cell(statistics.about(own), statistics.about_difference(own, drawn.get(FAM)))
        for method, own in drawn.items()
    }


def _features(made: Sequence[Made], name: str) -> list[Array]:
    return [one.measured.features[name].astype(np.float64) for one in made]
