"""Scores of activations: without anything in common, their p-values are uniform."""

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from lfm_tasks.config import NullConfig
from lfm_tasks.errors import DataError
from lfm_tasks.measures import MEASURES, Measure
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores import row_measures
from lfm_tasks.stages.scores.block import STATISTICS, against_chance
from lfm_tasks.stages.scores.pairwise_measures import MOST_POINTS_SQUARED, Activations
from lfm_tasks.stages.scores.point_pair_measures import SpacesOnPoints, score_family
from lfm_tasks.stages.scores.row_measures import RowChecks, check_rows, score_rows
from lfm_tasks.statistics.exchange_moments import has_moments
from lfm_tasks.statistics.resampling import Exchange, halves_of, of_groups, within_strata

P, MEAN = STATISTICS.index("p_value"), STATISTICS.index("null_mean")


# Groups that differ in size have no chance in closed form.
UNEQUAL_GROUPS = of_groups(np.repeat(np.arange(28), [2] * 24 + [3] * 4))


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(50), 2)], ids=["rows", "groups"])
@pytest.mark.parametrize("name", ["cka_linear", "procrustes_centered_unit_norm"])
def test_p_values__of_rows_of_unrelated_spaces_are_uniform(name: str, groups: np.ndarray | None) -> None:
    n_alike = 1 if groups is None else 2
    exchange = Exchange(100) if groups is None else Exchange(100, tuple(np.arange(100).reshape(50, 2)), "sets")
    p_values = []
    for draw in range(200):
        generator = np.random.default_rng([3, draw])
        rows = [np.repeat(generator.standard_normal((100 // n_alike, 5)), n_alike, axis=0) for _ in range(2)]
        spaces, chance = Activations(dict(zip("ab", rows, strict=True)), {}), Resampling(exchange, None)
        drawn = NullConfig(n_permutations=99, seed=draw)
        p_values.append(score_rows(name, spaces, [("a", "b")], chance, drawn).values[0, 0, P])
    assert kstest(p_values, "uniform").pvalue > 1e-3
    assert np.mean(np.array(p_values) <= 0.05) < 0.11


def test_rows__that_a_measure_cannot_use_are_refused_with_their_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.ones((MOST_POINTS_SQUARED + 1, 1))
    toy = Measure(lambda rows: rows @ rows.T, lambda source, target: 0.0, "of another package", is_quadratic=True)
    monkeypatch.setitem(MEASURES.by_name, "toy", toy)
    with pytest.raises(DataError, match="expected at most 3000 for toy") as error:
        check_rows("toy", rows, rows)
    assert error.value.reason == "too_many_points"
    with pytest.raises(DataError, match="expected at least 6 for cka_linear"):
        check_rows("cka_linear", rows[:4], rows[:4])
    assert check_rows("pwcca_textbook_x_to_y", np.ones((10, 10)), np.ones((10, 10))) == "degenerate"
    assert check_rows("cka_linear", np.ones((10, 3)), np.ones((10, 3))) == "ok"


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_measures__take_any_number_of_points(name: str) -> None:
    rows = np.random.default_rng(0).standard_normal((MOST_POINTS_SQUARED + 1, 2))
    assert check_rows(name, rows, rows) in ("ok", "degenerate")


def test_pair_at_fault__is_found_without_each_pair_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {str(number): np.random.default_rng(number).standard_normal((30, 3)) for number in range(12)}
    pairs, asked = list(combinations(rows, 2)), []

    def score(name: str, measure: Measure, spaces: SpacesOnPoints, some: list[tuple[str, str]], how: Resampling) -> Any:
        asked.append(len(some))
        if pairs[41] in some:
            raise np.linalg.LinAlgError("no convergence")
        return score_family(name, measure, spaces, some, how)

    expected = score_rows("cka_linear", Activations(rows, {}), pairs, Resampling(Exchange(30), None), NullConfig())
    monkeypatch.setattr(row_measures, "score_family", score)
    found = score_rows("cka_linear", Activations(rows, {}), pairs, Resampling(Exchange(30), None), NullConfig())

    assert {index: error.reason for index, error in found.refused.items()} == {41: "measure_failed"}
    assert "no convergence" in str(found.refused[41])
    others = np.arange(len(pairs)) != 41
    np.testing.assert_array_equal(found.values[others], expected.values[others])
    assert len(asked) <= 2 * np.log2(len(pairs)) + 2


def test_tied_neighbors__are_a_reservation_of_the_measures_that_take_neighbors() -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 4, (200, 5)).astype(np.float32)
    rows = {"counts": counts, "smooth": generator.standard_normal((200, 5)).astype(np.float32), "other": 3 * counts}
    checks = RowChecks(Activations(rows, {}))
    tied = {name for name in MEASURES if checks.code(name, "counts", "smooth") == "tied"}
    assert tied == {
        "mutual_knn_10_cosine", "jaccard_knn_10_cosine", "cknna_10_l2", "rank_similarity_10", "mka_15",
    }  # fmt: skip
    # This is why: the same space in other units has other neighbors.
    (found,) = score_rows(
        "mutual_knn_10_cosine", Activations(rows, {}), [("counts", "other")], Resampling(Exchange(200), None),
        NullConfig(n_permutations=0),
    ).values  # fmt: skip
    assert found[0, 0] < 1
    assert {checks.code(name, "smooth", "smooth") for name in MEASURES} == {"ok"}


OF_MATRICES = sorted(name for name, measure in MEASURES.items() if measure.matrix is not None)


@pytest.mark.parametrize("n_permutations", [7, 10, 99])
def test_permutations_of_large_spaces__come_in_small_batches_and_give_the_same(
    n_permutations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = UNEQUAL_GROUPS
    generator = np.random.default_rng(1)
    rows = {key: generator.standard_normal((60, 4)) for key in "abc"}
    rows["a"] = rows["b"] + 0.1 * rows["a"]
    pairs, drawn = [("a", "b"), ("c", "b")], NullConfig(n_permutations=n_permutations)
    found = []
    for side in (64, 3):
        monkeypatch.setattr("lfm_tasks.stages.scores.drawn_cosines.tile_side", lambda *_, side=side: side)
        spaces, of_points = Activations(rows, {}), Resampling(exchange, None)
        found.append(score_rows("distance_correlation", spaces, pairs, of_points, drawn).values)
    assert found[0] == pytest.approx(found[1], nan_ok=True, abs=1e-7)
    assert np.isfinite(found[0][:, :, :5]).all()


@pytest.mark.parametrize("name", OF_MATRICES)
def test_chance_that_is_drawn_for_matrices__is_that_of_the_permuted_rows_one_by_one(name: str) -> None:
    exchange = UNEQUAL_GROUPS
    generator = np.random.default_rng(1)
    rows = {key: generator.standard_normal((60, 4)) for key in "abc"}
    rows["b"][:, :2] += 0.5 * rows["a"][:, :2]
    drawn = NullConfig(n_permutations=30, seed=5)
    pairs = [("a", "b"), ("c", "b"), ("a", "c")]
    values = score_rows(name, Activations(rows, {}), pairs, Resampling(exchange, None), drawn).values
    measure = MEASURES[name]
    for (source, target), found in zip(pairs, values, strict=True):
        chance = [
            measure(rows[source], rows[target][exchange.permutation(draw, seed=5)])
            for draw in range(drawn.n_permutations)
        ]
        score = measure(rows[source], rows[target])
        is_distance = measure.kind == "distance"
        expected = against_chance(score, np.array(chance), is_distance=is_distance, rounding=1e-6)
        # Ranks are counted in bins: exact to some 1e-5 of so few pairs.
        close = 2e-5 if name == "rsa_pearson_rdm_spearman" else 2e-6
        assert found[:, :5] == pytest.approx(np.array([[score, *expected]] * 2), abs=close)


CONCENTRATED = ["cka_linear", "cka_linear_debiased_song", "distance_correlation", "gulp_lambda_0.01"]


@pytest.mark.parametrize("name", CONCENTRATED)
@pytest.mark.parametrize(
    "exchange",
    [Exchange(200), within_strata(np.arange(200) % 2), of_groups(np.arange(200) // 2)],
    ids=["rows", "strata", "groups"],
)
def test_spaces_that_live_on_few_points__have_drawn_chance(name: str, exchange: Exchange) -> None:
    # One massive point in each of two unrelated spaces: in closed form one of ten such pairs has p < 1e-6.
    smallest = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        rows = {key: generator.standard_normal((200, 8)) for key in "ab"}
        for values in rows.values():
            values[generator.integers(200)] *= 100
        null = NullConfig(n_permutations=99)
        found = score_rows(name, Activations(rows, {}), [("a", "b")], Resampling(exchange, None), null)
        assert found.localized == {0}
        smallest.append(found.values[0, 0, P])
        without = NullConfig(n_permutations=0)
        [[undrawn, _]] = score_rows(
            name, Activations(rows, {}), [("a", "b")], Resampling(exchange, None), without
        ).values
        # Its mean is exact all the same, its tail is not known.
        assert np.isfinite(undrawn[MEAN])
        assert np.isnan(undrawn[P])
    assert min(smallest) > 1e-4


@pytest.mark.parametrize("name", ["cka_rbf_sigma_5", "distance_correlation"])
def test_spaces_that_one_group_dominates__have_drawn_chance(name: str) -> None:
    # Its block meets the other's in one of 40 permutations: energies of whole rows of blocks hide that.
    generator, groups = np.random.default_rng(5), np.arange(120) // 3
    rows = {key: generator.standard_normal((120, 6)) for key in "ab"}
    for values in rows.values():
        values[groups == 3] *= 30
    of_points = Resampling(of_groups(groups), None)

    found = score_rows(name, Activations(rows, {}), [("a", "b")], of_points, NullConfig(n_permutations=99))

    assert found.localized == {0}
    assert found.values[0, 0, P] >= 0.01


def test_groups_of_unlike_points__have_chance_in_closed_form() -> None:
    generator = np.random.default_rng(6)
    rows = {key: generator.standard_normal((120, 6)) for key in "abcd"}
    of_points, pairs = Resampling(of_groups(np.arange(120) // 3), None), [("a", "b"), ("c", "d"), ("a", "d")]
    for name in CONCENTRATED:
        found = score_rows(name, Activations(rows, {}), pairs, of_points, NullConfig(n_permutations=0))
        assert not found.localized
        assert np.isfinite(found.values[:, :, :5]).all()


@pytest.mark.parametrize("sizes", [[2] + [1] * 18, [2, 2] + [1] * 16, [3] + [1] * 17, [2, 2, 2]])
def test_few_permutations__are_drawn_and_p_is_not_below_the_share_of_one(sizes: list[int]) -> None:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    exchange, n_ways = within_strata(strata), np.prod([factorial(size) for size in sizes])
    rows = np.random.default_rng(0).standard_normal((len(strata), 4))

    found = score_rows(
        "cka_linear", Activations({"a": rows, "b": rows}, {}), [("a", "b")], Resampling(exchange, None), NullConfig()
    )

    assert not has_moments(exchange)
    assert found.values[0, 0, P] > 0.5 / n_ways
    assert found.values[0, 0, MEAN + 1] <= 1 + 1e-12


@pytest.mark.parametrize(
    "name", ["cca_mean", "procrustes_centered", "svcca_10_dims", "cka_linear", "pwcca_textbook_x_to_y"]
)
def test_space_without_variation__is_refused_as_constant_and_the_others_are_scored(name: str) -> None:
    generator = np.random.default_rng(0)
    rows = {key: generator.standard_normal((80, 3)) for key in "ab"} | {"c": np.full((80, 3), 0.1)}
    of_points = Resampling(Exchange(80), None)
    scores = score_rows(name, Activations(rows, {}), [("a", "b"), ("a", "c")], of_points, NullConfig())
    assert {index: error.reason for index, error in scores.refused.items()} == {1: "constant"}
    assert np.isfinite(scores.values[0, :, 0]).all()


def test_prepared_spaces_of_two_measures_that_share_a_function__are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(rows: np.ndarray) -> np.ndarray:
        return rows

    def compare(source: np.ndarray, target: np.ndarray) -> float:
        return float(np.abs(source - target).mean())

    scaled = Measure(prepare, compare, "of scaled rows", invariances=frozenset({"scaling"}))
    plain = Measure(prepare, compare, "of the rows as they are")
    generator = np.random.default_rng(0)
    rows = {key: 100 * generator.standard_normal((40, 3)) for key in "ab"}
    for name, measure in (("toy_scaled", scaled), ("toy_plain", plain)):
        monkeypatch.setitem(MEASURES.by_name, name, measure)
    spaces = Activations(rows, {}, ("a store of this test",))
    of_points = Resampling(Exchange(40), None)
    values = [
        score_rows(name, spaces, [("a", "b")], of_points, NullConfig(n_permutations=0)).values[0, 0, 0]
        for name in ("toy_scaled", "toy_plain", "toy_scaled")
    ]
    assert values[0] == values[2] < 1
    assert values[1] == compare(rows["a"], rows["b"])


def test_what_is_kept_of_spaces__is_that_of_each_measure() -> None:
    generator = np.random.default_rng(11)
    shared = generator.standard_normal((120, 4))
    rows = {key: np.tanh(shared @ generator.standard_normal((4, 6))).astype(np.float32) for key in "abc"}
    pairs = list(combinations(rows, 2))
    how = Resampling(Exchange(120), halves_of(map(str, range(120)), seed=0))
    kept = Activations(rows, {}, (test_what_is_kept_of_spaces__is_that_of_each_measure,))
    for _ in range(2):
        for name in sorted(MEASURES):
            found, fresh = (
                score_rows(name, spaces, pairs, how, NullConfig()) for spaces in (kept, Activations(rows, {}))
            )
            np.testing.assert_array_equal(found.values, fresh.values, err_msg=name)


@pytest.mark.parametrize("name", ["cknna_10_l2", "rank_similarity_10"])
def test_chance_of_spaces_with_hubs__is_drawn(name: str) -> None:
    generator = np.random.default_rng(0)

    def space(spread: float) -> np.ndarray:
        # Long rows are near few points, which are near the common mean by direction.
        noise = generator.standard_normal((240, 60)) * generator.lognormal(0, spread, (240, 1))
        return np.asarray(noise + 2 * generator.standard_normal(60))

    rows = {"hubs": space(0.5), "others": space(0.5), "plain": generator.standard_normal((240, 6))}
    pairs, how, null = [("hubs", "others"), ("hubs", "plain")], Resampling(Exchange(240), None), NullConfig(seed=3)
    found = score_rows(name, Activations(rows, {}), pairs, how, null)
    without = score_rows(name, Activations(rows, {}), pairs, how, NullConfig(n_permutations=0))
    assert np.isfinite(found.values[:, :, :5]).all()
    assert np.isnan(without.values[0, :, P]).all()
    assert np.isfinite(without.values[1, :, P]).all()
    assert not found.localized
    measure = MEASURES[name]
    drawn = [
        measure(rows["hubs"], rows["others"][how.exchange.permutation(draw, seed=3)])
        for draw in range(null.n_permutations)
    ]
    assert found.values[0, 0, MEAN] == pytest.approx(np.mean(drawn), abs=1e-9)


def test_constant_space__is_named_where_its_neighbors_are_looked_at() -> None:
    generator = np.random.default_rng(0)
    rows = {"constant": np.ones((40, 3)), "other": generator.standard_normal((40, 3))}
    for name in ("mutual_knn_10_cosine", "mka_15"):
        with pytest.raises(DataError) as error:
            RowChecks(Activations(rows, {})).code(name, "other", "constant")
        assert (error.value.reason, error.value.space) == ("constant", "constant")
