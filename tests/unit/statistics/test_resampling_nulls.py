"""Permutations, p-values and calibration against what must hold of them."""

import numpy as np
import pytest
from scipy.stats import gamma, kstest

from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.statistics.resampling import (
    Exchange,
    are_far,
    calibrated,
    can_stop,
    few_draws_shares,
    of_groups,
    p_value,
    rows_by_value,
    tail_p_value,
    within_strata,
)


def test_permutation__depends_on_seed_and_number_only() -> None:
    rows = Exchange(100)
    np.testing.assert_array_equal(rows.permutation(7), Exchange(100).permutation(7))
    assert sorted(rows.permutation(7)) == list(range(100))
    assert (rows.permutation(7) != rows.permutation(8)).any()
    assert (rows.permutation(7, seed=1) != rows.permutation(7)).any()


def test_strata__keep_their_rows() -> None:
    strata = np.array(list("aabbbaccc"))
    order = within_strata(strata).permutation(0)
    np.testing.assert_array_equal(strata[order], strata)
    assert (order != np.arange(9)).any()


def test_groups__move_as_a_whole() -> None:
    groups = np.array([3, 3, 1, 1, 2, 2, 5, 5, 5, 9])
    moved = False
    for number in range(20):
        order = of_groups(groups).permutation(number)
        assert sorted(order) == list(range(10))
        for name in np.unique(groups):
            rows = order[groups == name]
            assert len(np.unique(groups[rows])) == 1
            assert (np.diff(rows) == 1).all()
        moved |= bool((order != np.arange(10)).any())
        assert order[9] == 9  # the only group of its size
    assert moved


def test_groups_and_strata__of_which_none_can_move_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 groups that all differ in size"):
        of_groups(np.array([1, 2, 2]))
    with pytest.raises(ValueError, match="got 2 strata of one row each"):
        within_strata(np.array([1, 2]))


def test_groups__make_the_null_of_near_duplicates_honest() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(15), 6)
    plain, whole = [], []
    for draw in range(60):
        source, target = (
            np.repeat(generator.standard_normal((15, 3)), 6, axis=0) + 0.05 * generator.standard_normal((90, 3))
            for _ in range(2)
        )

        def chance(grouped: bool, source=source, target=target, draw=draw) -> float:
            exchange = of_groups(groups) if grouped else Exchange(90)
            orders = [exchange.permutation(r, seed=draw) for r in range(39)]
            score = MEASURES["cka_linear"](source, target)
            return p_value(score, np.array([MEASURES["cka_linear"](source, target[order]) for order in orders]))

        plain.append(chance(False))
        whole.append(chance(True))
    # Unrelated spaces: an honest test calls one in twenty significant. The plain one is fooled by the duplicates.
    assert np.mean(np.array(plain) <= 0.05) > 0.5
    assert np.mean(np.array(whole) <= 0.05) < 0.2


def test_p_values__count_ties_and_are_never_zero() -> None:
    chance = np.array([0.1, 0.2, 0.2, 0.3])
    assert [p_value(score, chance) for score in (0.5, 0.3, 0.2, 0.0)] == [0.2, 0.4, 0.8, 1.0]
    assert p_value(0.05, chance, is_distance=True) == 0.2


def test_calibration__puts_chance_at_zero_and_the_best_at_one() -> None:
    assert [calibrated(score, 0.4) for score in (0.4, 1.0)] == [0, 1]
    assert [calibrated(score, 1.2, best=0.0) for score in (1.2, 0.0)] == [0, 1]
    assert np.isnan(calibrated(1.0, 1.0))


@pytest.mark.parametrize("is_distance", [False, True])
def test_tail_p_values__resolve_more_than_the_permutations_drawn(is_distance: bool) -> None:
    # Gamma of shape 9 is a Pearson III curve: the truth is known.
    generator, truth = np.random.default_rng(5), gamma(9)
    sign = -1 if is_distance else 1
    for p in (1e-3, 1e-5):
        found = [
            tail_p_value(sign * truth.isf(p), sign * generator.gamma(9, size=200), is_distance=is_distance)
            for _ in range(400)
        ]
        assert p / 3 < np.median(found) < 10 * p
        # Rough with 200 permutations, but rarely far too bold.
        assert np.mean(np.array(found) < p / 30) < 0.05


def _chance_p(values: np.ndarray) -> float:
    return tail_p_value(float(values[0]), values[1:])


def test_tail_p_values__are_uniform_under_chance() -> None:
    generator = np.random.default_rng(6)
    found = np.array([_chance_p(generator.gamma(4, size=101)) for _ in range(2000)])
    assert kstest(found, "uniform").statistic < 0.04
    for level in (0.01, 0.05):
        assert np.mean(found <= level) < level + 3 * np.sqrt(level / 2000)


def test_tail_p_values__of_few_or_equal_permutations_are_the_plain_ones() -> None:
    chance = np.linspace(0, 1, 49)
    assert tail_p_value(2.0, chance) == p_value(2.0, chance) == 1 / 50
    assert tail_p_value(2.0, np.ones(100)) == 1 / 101


@pytest.mark.parametrize("values", [[3, 1, 3, 2, 1], [7], ["b", "a", "b"], [False, True, False]])
def test_rows_by_value__are_all_rows_by_ascending_value_in_their_order(values: list[object]) -> None:
    found = rows_by_value(np.array(values))
    expected = [[row for row, own in enumerate(values) if own == value] for value in sorted(set(values))]  # type: ignore[type-var]
    assert [rows.tolist() for rows in found] == expected


def test_rows_by_value__of_nothing_are_none() -> None:
    assert rows_by_value(np.array([], dtype=int)) == ()


def test_p_values_of_few_draws__claim_no_more_than_ten_draws_know() -> None:
    # Of unrelated scores with a normal chance one in a thousand has p below .001, and so on, far down.
    drawn = np.random.default_rng(2).standard_normal((11, 400_000))
    score, few = drawn[0], drawn[1:]
    p_values = few_draws_shares((score - few.mean(axis=0)) / few.std(axis=0), np.full(score.shape, 10))
    for level in (0.1, 1e-3, 1e-5):
        expected = level * drawn.shape[1]
        assert (p_values <= level).sum() == pytest.approx(expected, abs=5 * np.sqrt(expected) + 1)


def test_stopped_permutations__have_the_tail_of_ten_draws() -> None:
    chance = np.random.default_rng(3).standard_normal(10)
    assert are_far(np.array([30.0, 3.0]), np.repeat(chance[:, None], 2, axis=1)).tolist() == [True, False]
    assert 1e-14 < tail_p_value(30.0, chance, tail="stopped") < 1e-7
    assert tail_p_value(30.0, chance) == pytest.approx(1 / 11)
    many = np.random.default_rng(3).standard_normal(100)
    assert tail_p_value(30.0, many, tail="counted") == pytest.approx(1 / 101)
    assert tail_p_value(30.0, many) < 1e-6
    # All alike: more of them would say no more, and fewer may not stand for them.
    assert not are_far(np.array(1.0), np.zeros(10))


@pytest.mark.parametrize(
    ("exchange", "n_ways"),
    [
        (Exchange(5), 120),
        (within_strata(np.array([0, 0, 0, 1, 1])), 12),
        (of_groups(np.array([0, 0, 1, 1, 2, 2, 3])), 6),
    ],
    ids=["free", "strata", "groups"],
)
def test_least_p__is_one_over_the_permutations_that_there_are(exchange: Exchange, n_ways: int) -> None:
    assert exchange.least_p == pytest.approx(1 / n_ways)
    assert not can_stop(exchange, 100)
    assert can_stop(Exchange(100), 50)
    assert not can_stop(Exchange(100), 49)
