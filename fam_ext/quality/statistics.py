"""How sure a number is: a bootstrap by prompt, the same draws for every method, so that differences are paired.

Pictures of one prompt are alike, so they are drawn together; where all are of one prompt, each for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DRAWS = 2000
FRECHET_DRAWS = 200
"""Each takes the singular values of a matrix as wide as the features."""
MIDDLE = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, which is None for fewer than two pictures, and where none differs from another:
    a bootstrap of 0 of 4 says 0 to 0, though 60 % may be."""

    value: float
    low: float | None
    high: float | None
    n: int


def draws(prompts: Sequence[object], *, count: int = DRAWS, seed: int = 0) -> Array:
    """Return (count, n): how often each of n pictures, of these `prompts`, is in each of `count` draws. A draw takes as
    many prompts as there are, with replacement, and all pictures of each."""
    place = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    places = [place[prompt] for prompt in prompts] if len(place) > 1 else list(range(len(prompts)))
    n = max(places) + 1
    drawn = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=count)
    return drawn[:, places].astype(np.float64)


def mean(values: Sequence[float | None], prompts: Sequence[object] | None = None) -> Estimate | None:
    """Return the mean of one value a picture; those without one are left out. None where none has one. Without
    `prompts` each picture is of its own."""
    given, counts = _held(values, prompts)
    return _estimate(float(given.mean()), counts @ given / counts.sum(axis=1), len(given)) if len(given) else None


def median(values: Sequence[float | None], prompts: Sequence[object] | None = None) -> Estimate | None:
    """Return the median in the same way: a few pictures that are far off do not move it."""
    given, counts = _held(values, prompts)
    if not len(given):
        return None
    order = given.argsort()
    so_far = counts[:, order].cumsum(axis=1)
    # of each draw's pictures the one in the middle, or the two
    places = [(so_far > (so_far[:, -1:] - 1 + more) // 2).argmax(axis=1) for more in (0, 1)]
    return _estimate(float(np.median(given)), given[order][places].mean(axis=0), len(given))


def difference(
    values: Sequence[float | None],
    others: Sequence[float | None],
    prompts: Sequence[object] | None = None,
    *,
    middle: Callable[..., Estimate | None] = mean,
) -> Estimate | None:
    """Return the mean, or the median, of `values` less `others`, picture by picture; all in the same order."""
    apart = [None if one is None or two is None else one - two for one, two in zip(values, others, strict=True)]
    return middle(apart, prompts)


def _held(values: Sequence[float | None], prompts: Sequence[object] | None) -> tuple[Array, Array]:
    """Return the values that there are, (n), and the draws of their pictures, (draws, n)."""
    every = range(len(values)) if prompts is None else prompts
    held = [(value, prompt) for value, prompt in zip(values, every, strict=True) if value is not None]
    if not held:
        return np.empty(0), np.empty((0, 0))
    return np.asarray([value for value, _ in held], np.float64), draws([prompt for _, prompt in held])


class Distance(Protocol):
    """How far two sets of features are apart, each entry one picture's (crops, D): a value a draw, and where `drawn` is
    None one of the sets as they are. `paired`: the sets are of the same cases in the same order, and drawn together."""

    def __call__(
        self,
        pictures: Sequence[Array],
        references: Sequence[Array],
        drawn: Array | None = None,
        *,
        paired: bool = False,
    ) -> Array: ...


@dataclass(frozen=True)
class Drawn:
    """A distance of two sets of `n` pictures: its value, and that of each draw."""

    value: float
    draws: Array
    n: int


def set_distance(
    distance: Distance,
    pictures: Sequence[Array],
    references: Sequence[Array],
    prompts: Sequence[object] | None = None,
    *,
    paired: bool,
) -> Drawn | None:
    """Return a distance of two sets; None where one has no two pictures. `prompts` are of `pictures`.

    References that are not paired stay in each draw. A draw holds a picture twice, which alone moves a distance: the
    interval (`about`) is that of the draws about their own mean, laid about the value.
    """
    if min(len(pictures), len(references)) < 2:
        return None
    value = float(distance(pictures, references, paired=paired)[0])
    counts = draws(range(len(pictures)) if prompts is None else prompts)
    return Drawn(value, distance(pictures, references, counts, paired=paired), len(pictures))


def about(drawn: Drawn | None) -> Estimate | None:
    """Return the distance with its interval."""
    return None if drawn is None else _about(drawn.value, drawn.draws, drawn.n)


def about_difference(drawn: Drawn | None, other: Drawn | None) -> Estimate | None:
    """Return how much farther `drawn` is than `other`, of the same cases in the same order, with its interval."""
    if drawn is None or other is None:
        return None
    return _about(drawn.value - other.value, drawn.draws - other.draws, drawn.n)


def frechet(
    pictures: Sequence[Array], references: Sequence[Array], drawn: Array | None = None, *, paired: bool = False
) -> Array:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the features' means and covariances; see `Distance`.

    With few pictures it is biased upwards: compare equal n only.
    """
    first, second = np.concatenate(list(pictures)), np.concatenate(list(references))
    crops, other_crops = [len(one) for one in pictures], [len(one) for one in references]
    found: list[float] = []
    for counts in np.ones((1, len(crops))) if drawn is None else drawn[:FRECHET_DRAWS]:
        m1, root1 = _moments(first, np.repeat(counts, crops))
        m2, root2 = _moments(second, np.repeat(counts if paired else np.ones(len(other_crops)), other_crops))
        # the trace of (C1 C2)^(1/2) is the sum of the singular values of X1 X2^T, where C = X^T X
        both = root1 @ root2.T
        cross = np.sqrt(np.linalg.eigvalsh(both @ both.T if len(both) < both.shape[1] else both.T @ both).clip(0)).sum()
        found.append(float(((m1 - m2) ** 2).sum() + (root1**2).sum() + (root2**2).sum() - 2 * cross))
    return np.asarray(found)


def kernel(
    pictures: Sequence[Array], references: Sequence[Array], drawn: Array | None = None, *, paired: bool = False
) -> Array:
    """Return the unbiased squared MMD with kernel (x.y / D + 1)^3; see `Distance`.

    What is of one picture, or of one case, is alike: only pairs of different pictures count, and of different cases.
    A draw that holds a single picture has none, and is left out.
    """
    (first, crops), (second, other_crops) = _joined(pictures), _joined(references)
    counts = np.ones((1, len(crops))) if drawn is None else drawn[(drawn > 0).sum(axis=1) > 1]
    others = counts if paired else np.ones((len(counts), len(other_crops)))
    within = _pairs(_block(first, first), crops, crops, counts, counts, apart=True)
    other = _pairs(_block(second, second), other_crops, other_crops, others, others, apart=True)
    return within + other - 2 * _pairs(_block(first, second), crops, other_crops, counts, others, apart=paired)


def _moments(features: Array, weight: Array) -> tuple[Array, Array]:
    """Return the mean of features (N, D) that are there `weight` (N) times, and X of at most D rows: X^T X is their
    covariance."""
    features, weight = features[weight > 0], weight[weight > 0, None]
    total = weight.sum()
    mean_ = (features * weight).sum(axis=0) / total
    away = (features - mean_) * np.sqrt(weight / (total - 1))
    return mean_, away if len(away) <= away.shape[1] else np.asarray(np.linalg.qr(away, mode="r"))


def _joined(pictures: Sequence[Array]) -> tuple[tuple[Array, list[int]], Array]:
    crops = [len(one) for one in pictures]
    return (np.concatenate(list(pictures)), [0, *np.cumsum(crops)[:-1].tolist()]), np.asarray(crops, np.float64)


def _block(first: tuple[Array, list[int]], second: tuple[Array, list[int]]) -> Array:
    """Return the kernel's sums over the crops of each pair of pictures."""
    (left, rows), (right, columns) = first, second
    values = (left @ right.T / left.shape[1] + 1) ** 3
    return np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)


def _pairs(sums: Array, crops: Array, others: Array, counts: Array, other_counts: Array, *, apart: bool) -> Array:
    """Return the mean over pairs of crops, a value a draw; `apart`: without those of equal place."""
    pairs = np.outer(crops, others)
    if apart:
        sums, pairs = sums - np.diag(np.diag(sums)), pairs - np.diag(np.diag(pairs))
    whole, number = (((counts @ one) * other_counts).sum(axis=1) for one in (sums, pairs))
    return whole / number


def _about(value: float, drawn: Array, n: int) -> Estimate:
    return _estimate(value, drawn - drawn.mean() + value, n)


def _estimate(value: float, drawn: Array, n: int) -> Estimate:
    if n < 2:
        return Estimate(value, None, None, n)
    low, high = np.quantile(drawn, MIDDLE)
    if math.isclose(low, high, abs_tol=1e-9):  # equal but for rounding
        return Estimate(value, None, None, n)
    return Estimate(value, float(low), float(high), n)
