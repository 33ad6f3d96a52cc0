"""Intervals and set distances against their plain definitions."""

import numpy as np
import pytest

from fam_ext.quality import statistics

RNG = np.random.default_rng(1)


def sets(count, crops=3, width=6, shift=0.0, seed=0):
    return list(np.random.default_rng(seed).normal(shift, 1, (count, crops, width)))


def test_a_mean_has_the_interval_of_its_standard_error():
    values = RNG.normal(10, 2, 400)
    found = statistics.mean(list(values))
    assert found.value == pytest.approx(values.mean()) and found.n == 400
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_one_picture_has_no_interval_and_none_no_number():
    found = statistics.mean([3.0])
    assert (found.value, found.low, found.high, found.n) == (3.0, None, None, 1)
    assert statistics.mean([None, None]) is None
    assert statistics.mean([None, 1.0, 2.0]).n == 2
    assert statistics.set_distance(statistics.kernel, sets(1), sets(4), paired=False) is None


@pytest.mark.parametrize("value", [0.0, 0.1, 100.0])
def test_pictures_that_are_all_alike_have_no_interval(value):
    found = statistics.mean([value] * 7)
    assert found.value == pytest.approx(value) and (found.low, found.high, found.n) == (None, None, 7)
    assert statistics.mean([value] * 6 + [value + 1]).low == pytest.approx(value)


@pytest.mark.parametrize("paired", [True, False])
def test_a_draw_of_a_single_picture_has_no_kernel_distance(paired):
    one, two = sets(3, shift=3.0), sets(3, seed=2)
    drawn = statistics.draws(range(3))
    assert (drawn.max(axis=1) == 3).any()
    found = statistics.kernel(one, two, drawn, paired=paired)
    assert len(found) == (drawn.max(axis=1) < 3).sum() and (found > 0).all()


def test_a_difference_is_paired():
    hard = RNG.normal(0, 50, 64)
    better = hard + 1 + RNG.normal(0, 0.1, 64)
    found = statistics.difference(list(better), list(hard))
    assert 0.9 < found.low < found.value < found.high < 1.1
    alone = statistics.mean(list(better))
    assert alone.high - alone.low > 10
    assert statistics.difference([None, 2.0, 3.0], [1.0, None, 1.0]).n == 1


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_a_median_is_each_draws_own_and_one_slow_picture_does_not_move_it(count):
    values = [*np.random.default_rng(count).normal(3, 1, count - 1), 900.0]
    prompts = "abacbcdd"[:count]
    found = statistics.median([None, *values], "x" + prompts)
    counts = statistics.draws(prompts).astype(int)
    drawn = np.quantile([np.median(np.repeat(values, each)) for each in counts], statistics.MIDDLE)
    assert found.value == np.median(values) and found.n == count
    assert found.low is None if count == 1 else np.allclose((found.low, found.high), drawn)
    assert statistics.median([None]) is None and (count < 7 or found.value < 6)


def test_the_same_draws_every_time():
    assert (statistics.draws(range(9)) == statistics.draws(range(9))).all()
    assert (statistics.draws(range(9)).sum(axis=1) == 9).all()
    assert statistics.draws(range(9)).shape == (statistics.DRAWS, 9)


def test_pictures_of_one_prompt_are_drawn_together():
    counts = statistics.draws(["a", "b", "a", "c"])
    assert (counts[:, 0] == counts[:, 2]).all() and (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (statistics.draws(["a"] * 9) == statistics.draws(range(9))).all()
    # three alike of each of 20 prompts say no more than one of each
    each, prompts = RNG.normal(10, 2, 20), [number for number in range(20) for _ in range(3)]
    found, once = statistics.mean(list(each.repeat(3)), prompts), statistics.mean(list(each))
    assert (found.low, found.high) == pytest.approx((once.low, once.high)) and (found.n, once.n) == (60, 20)
    uneven = statistics.mean([1.0, 1.0, 1.0, None, 4.0], ["a", "a", "a", "b", "b"])
    assert (uneven.value, uneven.low, uneven.high, uneven.n) == (1.75, 1.0, 4.0, 4)


@pytest.mark.parametrize("distance", [statistics.frechet, statistics.kernel])
def test_a_distance_of_alike_pictures_is_no_surer_than_of_one_each(distance):
    each, true = sets(12, shift=0.5), sets(12, seed=2)
    once = statistics.about(statistics.set_distance(distance, each, true, paired=False))
    prompts = [number for number in range(12) for _ in range(3)]
    thrice = statistics.set_distance(distance, [one for one in each for _ in range(3)], true, prompts, paired=False)
    found = statistics.about(thrice)
    assert found.high - found.low > 0.85 * (once.high - once.low)


def test_the_frechet_distance_is_that_of_two_normal_distributions():
    one, two = sets(20, shift=0.4), sets(15, seed=2)
    first, second = np.concatenate(one), np.concatenate(two)
    c1, c2 = np.cov(first.T), np.cov(second.T)
    # the trace of (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of C1 C2
    slow = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(c1 + c2)
    slow -= 2 * np.sqrt(np.linalg.eigvals(c1 @ c2).real.clip(0)).sum()
    assert statistics.frechet(one, two)[0] == pytest.approx(slow)
    wide = np.random.default_rng(3).normal(0, 1, (20000, 1, 3))
    other = np.random.default_rng(4).normal(0, 1, (20000, 1, 3)) * [2.0, 1.0, 0.5] + 1
    # |mean|^2 + sum (s1 - s2)^2 for independent coordinates
    assert statistics.frechet(list(wide), list(other))[0] == pytest.approx(3 + 1 + 0.25, rel=0.05)


def slow_kernel(one, two, *, paired=False):
    def value(a, b):
        return (a @ b / len(a) + 1) ** 3

    def within(group):
        return np.mean([value(a, b) for i, p in enumerate(group) for j, q in enumerate(group) if i != j
                        for a in p for b in q])  # fmt: skip

    across = np.mean([value(a, b) for i, p in enumerate(one) for j, q in enumerate(two) if not paired or i != j
                      for a in p for b in q])  # fmt: skip
    return within(one) + within(two) - 2 * across


def test_the_kernel_distance_leaves_out_pairs_within_a_picture():
    one, two = sets(5, shift=0.5), sets(4, seed=2)
    assert statistics.kernel(one, two)[0] == pytest.approx(slow_kernel(one, two))
    equal = sets(5, seed=2)
    assert statistics.kernel(one, equal, paired=True)[0] == pytest.approx(slow_kernel(one, equal, paired=True))
    single, other = sets(6, crops=1), sets(7, crops=1, seed=3)
    assert statistics.kernel(single, other)[0] == pytest.approx(slow_kernel(single, other))


@pytest.mark.parametrize("distance", [statistics.frechet, statistics.kernel])
def test_a_draw_weighs_pictures_as_if_they_were_there_so_often(distance):
    one, two = sets(4, shift=0.5), sets(5, seed=2)
    counts = np.array([[2.0, 0, 1, 1]])
    # of the kernel a picture and its copy are no pair
    repeated = [one[0], one[0], one[2], one[3]]
    if distance is statistics.frechet:
        assert distance(one, two, counts)[0] == pytest.approx(distance(repeated, two)[0])
    else:
        off = [(0, 2, 2), (0, 3, 2), (2, 3, 1)]
        pairs = {(i, j): np.mean((one[i] @ one[j].T / 6 + 1) ** 3) for i, j, _ in off}
        within = sum(weight * pairs[i, j] for i, j, weight in off) / sum(weight for *_, weight in off)
        plain = distance(repeated, two)[0]
        crossed = (np.concatenate(repeated) @ np.concatenate(repeated).T / 6 + 1) ** 3
        blocks = crossed.reshape(4, 3, 4, 3).mean(axis=(1, 3))
        counted = (blocks.sum() - np.trace(blocks)) / 12
        assert distance(one, two, counts)[0] == pytest.approx(plain - counted + within)


@pytest.mark.parametrize("distance", [statistics.frechet, statistics.kernel])
@pytest.mark.parametrize("paired", [True, False])
def test_a_set_is_nearer_to_its_own_kind_and_the_interval_holds_the_value(distance, paired):
    true, same, other = sets(24, seed=5), sets(24, seed=6), sets(24, shift=1.0, seed=7)
    drawn = [statistics.set_distance(distance, group, true, paired=paired) for group in (same, other)]
    near, far = map(statistics.about, drawn)
    assert near.high < far.low
    assert near.low <= near.value <= near.high and far.low <= far.value <= far.high
    assert statistics.about_difference(drawn[1], drawn[0]).low > 0


@pytest.mark.parametrize("distance", [statistics.frechet, statistics.kernel])
@pytest.mark.parametrize("paired", [True, False])
def test_a_method_differs_from_itself_by_nothing(distance, paired):
    drawn = statistics.set_distance(distance, sets(8, seed=1), sets(8, seed=2), paired=paired)
    found = statistics.about_difference(drawn, drawn)
    assert (found.value, found.low, found.high, found.n) == (0, None, None, 8)
    same = statistics.about(statistics.set_distance(distance, sets(8), sets(8), paired=True))
    assert same.value == pytest.approx(0, abs=1e-9) and same.low is None


def test_a_picture_is_drawn_together_with_its_truth():
    """Cases far apart, each picture near its own: drawn apart, a Frechet distance moves with the cases drawn."""
    cases = [np.random.default_rng(n).normal(0, 4, 6) for n in range(24)]
    true, made = ([case + np.random.default_rng([n, which]).normal(0, 0.5, (3, 6)) for n, case in enumerate(cases)]
                  for which in (1, 2))  # fmt: skip
    paired, loose = (
        statistics.about(statistics.set_distance(statistics.frechet, made, true, paired=each)) for each in (True, False)
    )
    assert loose.high - loose.low > 5 * (paired.high - paired.low)


def test_of_equal_cases_the_kernel_distance_is_about_zero_and_its_interval_narrow():
    """Cases differ far more than a picture and the true one of its case: without pairing that is all one measures."""
    cases = [np.random.default_rng(n).normal(0, 4, 6) for n in range(40)]
    true, made = ([case + np.random.default_rng([n, which]).normal(0, 1, (3, 6)) for n, case in enumerate(cases)]
                  for which in (1, 2))  # fmt: skip
    paired = statistics.about(statistics.set_distance(statistics.kernel, made, true, paired=True))
    loose = statistics.about(statistics.set_distance(statistics.kernel, made, true, paired=False))
    assert paired.low < 0 < paired.high
    assert loose.high - loose.low > 3 * (paired.high - paired.low)
