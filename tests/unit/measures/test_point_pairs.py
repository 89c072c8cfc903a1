"""Measures of all pairs of points, many spaces at once: the numbers of the measures one by one, and of permutations."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import Float
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from lfm_tasks.config import NullConfig
from lfm_tasks.errors import DataError
from lfm_tasks.measures.matrix_moments import matrix_chance, moments_of_cosines
from lfm_tasks.measures.matrix_pairs import matrix_cosines, pair_products, self_products
from lfm_tasks.measures.measure import Measure
from lfm_tasks.measures.neighborhoods import nearest_by_cosine, permuted_neighborhoods
from lfm_tasks.measures.point_sets import KeptTiles, PointSets, point_sets, space_rows
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.products import narrow_type
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.list_measures import score_lists
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.point_pair_measures import FamilyScores, SpacesOnPoints, knows_chance, score_family
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.resampling import Exchange, halves_of, interval_reach, of_groups, within_strata


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Multiply as workers do: more threads give other bits, and wait for each other in small products."""
    with threadpool_limits(1):
        yield


TOGETHER = sorted(name for name, measure in MEASURES.items() if measure.compares_point_pairs)
OF_MATRICES = [name for name in TOGETHER if MEASURES[name].matrix is not None]
WITH_BANDWIDTH = [name for name in OF_MATRICES if MEASURES[name].matrix.has_bandwidth]  # type: ignore[union-attr]
RANKED = "rsa_pearson_rdm_spearman"
SCORE, MEAN, Q95, P, LOW, HIGH = (
    STATISTICS.index(name) for name in ("score", "null_mean", "null_q95", "p_value", "ci_low", "ci_high")
)
HALVES = slice(STATISTICS.index("half_1"), STATISTICS.index("half_4") + 1)


def related(n_points: int, seed: int = 0, widths: tuple[int, ...] = (9, 14, 6)) -> dict[str, np.ndarray]:
    """Return spaces of different widths that share some directions, far from the origin, in units of their own."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((n_points, 5))
    return {
        f"space{place}": (
            scale
            * (
                np.tanh(shared @ generator.standard_normal((5, width)) + generator.standard_normal((n_points, width)))
                + generator.standard_normal(width)
            )
        ).astype(np.float32)
        for place, (width, scale) in enumerate(zip(widths, (1.0, 30.0, 1e-3), strict=False))
    }


def scored(name: str, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], how: Resampling) -> FamilyScores:
    """Return the statistics from source to target."""
    measure = MEASURES[name]
    if measure.lists is None:
        return score_family(name, measure, spaces, pairs, how)
    values = score_lists(measure, measure.lists, spaces, pairs, how)[:, 0]
    return FamilyScores(values, {}, knows_chance(measure, how.exchange), np.zeros(len(pairs), dtype=bool))


def halved(n_points: int, seed: int = 0) -> Resampling:
    return Resampling(Exchange(n_points), halves_of(map(str, range(n_points)), seed=seed))


def of_halves(
    measure: Measure, rows: Mapping[str, np.ndarray], pair: tuple[str, str], how: Resampling
) -> Float[np.ndarray, " halves"]:
    assert how.halves is not None
    sets = [half for second in how.halves for half in (~second, second)]
    return np.array([one_by_one(measure, rows, pair, half) for half in sets])


def one_by_one(measure: Measure, rows: Mapping[str, np.ndarray], pair: tuple[str, str], kept: np.ndarray) -> float:
    return measure(*(rows[key][kept].astype(np.float64) for key in pair))


@pytest.mark.parametrize("name", TOGETHER)
def test_scores__are_those_of_spaces_one_by_one(name: str) -> None:
    rows, how, measure = related(150), halved(150), MEASURES[name]
    pairs = [("space0", "space1"), ("space2", "space0"), ("space2", "space1")]

    found = scored(name, SpacesOnPoints(rows, {}), pairs, how).values

    for pair, values in zip(pairs, found, strict=True):
        assert values[SCORE] == pytest.approx(one_by_one(measure, rows, pair, np.arange(150)), abs=1e-6)
        halves = of_halves(measure, rows, pair, how)
        # A bandwidth follows its set of points to first order; ranks are those among all points.
        tolerance = 5e-3 if name in WITH_BANDWIDTH or name == RANKED else 1e-6
        np.testing.assert_allclose(values[HALVES], halves, atol=tolerance)
        reach, (low, high) = float(interval_reach(values[HALVES])), measure.value_range
        assert values[HIGH] == pytest.approx(min(values[SCORE] + reach, high), abs=1e-9)
        assert values[LOW] == pytest.approx(max(values[SCORE] - reach, low), abs=1e-9)


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("kind", ["strata", "groups of like points", "groups"])
def test_chance_within_strata_and_of_groups__is_that_of_permutations(name: str, kind: str) -> None:
    rows, measure, n_drawn = related(60, seed=4), MEASURES[name], 2000
    generator = np.random.default_rng(2)
    if kind == "strata":
        # Classes tell much of both spaces, and are of unlike sizes; their points lie in no order.
        classes = generator.permutation(np.repeat(range(4), [30, 20, 9, 1]))
        exchange = within_strata(classes)
    else:
        classes = generator.permutation(np.arange(60) // 2)
        exchange = of_groups(classes)
    if kind != "groups":
        rows = {
            key: values + 2 * generator.standard_normal((30, values.shape[1]))[classes] for key, values in rows.items()
        }
    pair = [("space0", "space1")]
    (values,) = scored(name, SpacesOnPoints(rows, {}), pair, Resampling(exchange, None)).values
    if not knows_chance(measure, exchange):
        assert np.isnan(values[MEAN])
        return
    source, target = (rows[key].astype(np.float64) for key in pair[0])
    prepared = measure.prepare(source)
    drawn = np.array(
        [measure.compare(prepared, measure.prepare(target[exchange.permutation(draw)])) for draw in range(n_drawn)]
    )
    edge = np.quantile(drawn, 0.05 if measure.kind == "distance" else 0.95)
    assert values[MEAN] == pytest.approx(drawn.mean(), abs=0.1 * drawn.std())
    assert values[Q95] == pytest.approx(edge, abs=0.25 * drawn.std())


@pytest.mark.parametrize("name", TOGETHER)
def test_chance__is_that_of_permutations(name: str) -> None:
    measure, n_drawn = MEASURES[name], 4000
    n_points = max(60, 0 if measure.lists is None else measure.lists.fewest_points)
    rows = related(n_points, seed=4)
    found = scored(name, SpacesOnPoints(rows, {}), [("space0", "space1")], Resampling(Exchange(n_points), None))
    (values,) = found.values
    generator = np.random.default_rng(1)
    source = measure.prepare(rows["space0"].astype(np.float64))
    target = rows["space1"].astype(np.float64)
    drawn = np.array(
        [measure.compare(source, measure.prepare(target[generator.permutation(n_points)])) for _ in range(n_drawn)]
    )
    is_distance = measure.kind == "distance"
    edge = np.quantile(drawn, 0.05 if is_distance else 0.95)
    assert values[MEAN] == pytest.approx(drawn.mean(), abs=0.08 * drawn.std())
    if found.concentrated[0]:  # a kernel of one fixed width: most points are alone
        assert name == "cka_rbf_sigma_5"
        assert np.isnan(values[[Q95, P]]).all()
        return
    assert values[Q95] == pytest.approx(edge, abs=0.15 * drawn.std())
    # The spaces are related: few permutations, if any, reach the score.
    reached = (drawn <= values[SCORE] if is_distance else drawn >= values[SCORE]).mean()
    assert values[P] == pytest.approx(reached, abs=0.02)


@pytest.mark.parametrize(
    "name",
    [
        "cka_linear_debiased_song",
        "cka_rbf_half_median",
        "mutual_knn_10_cosine",
        "cknna_10_l2",
        "rank_similarity_10",
        "mka_15",
    ],
)
@pytest.mark.parametrize("n_points", [24, 130, 400])
def test_values__have_the_same_bits_whatever_else_is_scored(name: str, n_points: int) -> None:
    rows = related(n_points, widths=(9, 14, 6)) | {
        f"other{place}": one
        for place, one in enumerate(np.random.default_rng(3).standard_normal((12, n_points, 8)).astype(np.float32))
    }
    keys, how = sorted(rows), halved(n_points)
    every = [(first, second) for place, first in enumerate(keys) for second in keys[place + 1 :]]

    def of_pairs(pairs: list[tuple[str, str]]) -> np.ndarray:
        return scored(name, SpacesOnPoints(rows, {}), pairs, how).values

    together = dict(zip(every, of_pairs(every), strict=True))
    for some in (every[:1], every[5:30], [pair for pair in every if "space1" in pair], every[::-7]):
        for pair, values in zip(some, of_pairs(some), strict=True):
            np.testing.assert_array_equal(values, together[pair], err_msg=str(pair))
    if MEASURES[name].is_symmetric:
        turned = of_pairs([(second, first) for first, second in every[:20]])
        np.testing.assert_array_equal(turned, np.stack([together[pair] for pair in every[:20]]))


@pytest.mark.parametrize("name", TOGETHER)
def test_space__with_itself_and_with_a_copy_is_as_alike_as_can_be(name: str) -> None:
    rows = related(80)
    rows["copy"] = rows["space0"].copy()
    how = halved(80)
    values = scored(name, SpacesOnPoints(rows, {}), [("space0", "copy"), ("space0", "space0")], how).values
    best = 0.0 if MEASURES[name].kind == "distance" else 1.0
    # CKNNA has 1e-6 in its denominator.
    of_score, of_interval = (1e-3, 1e-2) if name == "cknna_10_l2" else (1e-12, 1e-7)
    np.testing.assert_allclose(values[:, SCORE], best, atol=of_score)
    np.testing.assert_allclose(values[:, LOW:], best, atol=of_interval)


@pytest.mark.parametrize("n_numbers", [36, 2500, 16384])
def test_products__have_the_same_bits_at_any_place_among_any_others(n_numbers: int) -> None:
    generator = np.random.default_rng(0)
    sources, targets = generator.standard_normal((2, 40, n_numbers)).astype(narrow_type())
    together = pair_products(sources, targets)
    for _ in range(40):
        rows, columns = (generator.permutation(40)[: generator.integers(1, 41)] for _ in range(2))
        np.testing.assert_array_equal(pair_products(sources[rows], targets[columns]), together[np.ix_(rows, columns)])
    np.testing.assert_array_equal(self_products(sources), np.diag(pair_products(sources, sources.copy())))


CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "scaling": lambda rows: rows * 2.0**70,
    "translation": lambda rows: rows + 3 * rows.std(),
    "rotation": lambda rows: rows @ np.linalg.qr(np.random.default_rng(0).standard_normal((rows.shape[1],) * 2))[0],
    "permutation": lambda rows: rows[:, ::-1],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", TOGETHER)
def test_values__do_not_change_by_what_the_measure_is_invariant_to(name: str, change: str) -> None:
    measure = MEASURES[name]
    if change not in measure.invariances:
        pytest.skip(f"{name} is not invariant to {change}")
    rows = {key: one.astype(np.float64) for key, one in related(120).items()}
    how, pairs = halved(120), [("space0", "space1"), ("space0", "space2")]
    before = scored(name, SpacesOnPoints(rows, {}), pairs, how).values
    rows["space0"] = CHANGES[change](rows["space0"])
    after = scored(name, SpacesOnPoints(rows, {}), pairs, how).values
    # Where chance hardly varies, an error of 1e-7 moves a p-value by a hundredth of itself.
    np.testing.assert_allclose(after[:, P], before[:, P], rtol=0.03)
    np.testing.assert_allclose(np.delete(after, P, axis=1), np.delete(before, P, axis=1), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
@pytest.mark.parametrize("name", [name for name in TOGETHER if "scaling" in MEASURES[name].invariances])
def test_numbers_at_the_ends_of_the_range__change_nothing(name: str, scale: float) -> None:
    rows = {key: one.astype(np.float64) for key, one in related(60).items()}
    pairs, how = [("space0", "space1"), ("space0", "space2")], halved(60)
    before = scored(name, SpacesOnPoints(rows, {}), pairs, how).values
    rows["space1"] = rows["space1"] * scale
    after = scored(name, SpacesOnPoints(rows, {}), pairs, how).values
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", OF_MATRICES)
def test_constant_space__is_refused_by_name_and_the_others_have_their_values(name: str) -> None:
    rows = related(60)
    rows["space1"] = np.full((60, 4), 0.1, dtype=np.float32)
    pairs = [("space0", "space1"), ("space0", "space2")]
    found = scored(name, SpacesOnPoints(rows, {}), pairs, halved(60))
    assert {key: error.reason for key, error in found.refused.items()} == {"space1": "constant"}
    assert np.isnan(found.values[0]).all()
    assert np.isfinite(found.values[1]).all()


def test_rows_without_spread__do_not_correlate_and_are_counted() -> None:
    rows = related(60)
    rows["space1"][[3, 40]] = 0.25 * rows["space1"].std()
    name = "rsa_pearson_rdm_pearson"
    found = scored(name, SpacesOnPoints(rows, {}), [("space0", "space1")], halved(60))
    assert found.refused["space1"].reason == "constant_rows"
    assert "got 2 rows whose features are all the same" in str(found.refused["space1"])


def test_points_in_tight_groups__keep_their_digits() -> None:
    # One far point takes the mean with it: distances of the others are then small differences of large numbers.
    rows = {key: one.astype(np.float64) for key, one in related(90).items()}
    rows["space0"][0] += 1e4
    for name in ("cka_rbf_half_median", "distance_correlation"):
        (values,) = scored(name, SpacesOnPoints(rows, {}), [("space0", "space1")], halved(90)).values
        expected = one_by_one(MEASURES[name], rows, ("space0", "space1"), np.arange(90))
        assert values[SCORE] == pytest.approx(expected, abs=1e-5)


def test_known_neighbors__give_what_rows_give() -> None:
    rows, how = related(200), halved(200)
    pairs, name = [("space0", "space1"), ("space1", "space2")], "mutual_knn_10_cosine"
    lists = {key: nearest_by_cosine(one, 50).indices for key, one in rows.items()}
    expected = scored(name, SpacesOnPoints(rows, {}), pairs, how).values
    short = {key: nearest[:, :12] for key, nearest in lists.items()}  # too few without some parts
    for known in (lists, short):
        found = scored(name, SpacesOnPoints(rows, known), pairs, how).values
        np.testing.assert_array_equal(found, expected)


def test_halves_without_enough_points__have_no_score() -> None:
    rows, name = related(22), "mutual_knn_10_cosine"
    (values,) = scored(name, SpacesOnPoints(rows, {}), [("space0", "space1")], halved(22)).values
    assert np.isfinite(values[: P + 1]).all()
    assert np.isnan(values[[LOW, HIGH]]).all()
    # Ten neighbors need eleven points.
    assert np.isnan(values[HALVES]).any()


def sets_of(n_points: int) -> PointSets:
    # Halves of whole groups differ in size.
    return point_sets(n_points, np.random.default_rng(0).random((2, n_points)) < [[0.1], [0.6]])


def test_point_sets__hold_every_point_once_in_cells_of_one_half() -> None:
    halves = np.random.default_rng(0).random((2, 300)) < [[0.1], [0.6]]
    sets = point_sets(300, halves)
    assert sorted(sets.order) == list(range(300))
    assert np.diff(sets.bounds).min() > 0
    assert np.diff(sets.bounds).max() <= 128
    assert sets.points[0].all()
    expected = np.stack([half for second in halves for half in (~second, second)])[:, sets.order]
    np.testing.assert_array_equal(sets.points[1:], expected)
    for start in range(len(sets.bounds) - 1):
        runs = sets.runs(start)
        assert [cells.start for cells, _ in runs] == [start, *(cells.stop for cells, _ in runs[:-1])]
        assert runs[-1][1].stop == 300


def test_moments_of_many_points__are_close_to_those_of_few() -> None:
    form = MEASURES["cka_rbf_half_median"].matrix
    assert form is not None
    generator = np.random.default_rng(0)
    means = generator.standard_normal((8, 12)) * 2
    rows = (means[generator.integers(8, size=1500)] + generator.standard_normal((1500, 12))).astype(np.float32)
    skewness = []
    for n_points in (700, 1500):  # the whole, and 768 of them
        sets = point_sets(n_points)
        space = space_rows(rows[:n_points], sets.order)
        chance = matrix_chance(space, form.of_rows(space, sets, None), sets, form)
        skewness.append(float(moments_of_cosines([chance], [chance], n_points).skewness[0, 0]))
    assert skewness[1] == pytest.approx(skewness[0], rel=0.06)


def test_wanted_pairs__are_those_of_all_pairs() -> None:
    form, sets = MEASURES["cka_linear_debiased_song"].matrix, sets_of(100)
    assert form is not None
    spaces = [space_rows(rows, sets.order) for rows in np.random.default_rng(1).standard_normal((7, 100, 4))]
    matrices = [form.of_rows(space, sets, None) for space in spaces]
    places = np.arange(7)
    every = matrix_cosines(matrices, (places, places), sets, form)
    wanted = np.zeros((3, 4), dtype=bool)
    wanted[[0, 2], [1, 3]] = True
    some = matrix_cosines(matrices, (places[:3], places[3:]), sets, form, wanted)
    for row, column in ((0, 1), (2, 3)):
        np.testing.assert_array_equal(some[:, row, column], every[:, row, 3 + column])


@pytest.mark.parametrize("name", ["cka_linear_debiased_song", "cka_rbf_half_median"])
def test_energies_of_an_earlier_call__leave_every_bit_as_it_is(name: str) -> None:
    form, sets = MEASURES[name].matrix, point_sets(200, halves_of([str(row) for row in range(200)]))
    assert form is not None
    spaces = [space_rows(rows, sets.order) for rows in np.random.default_rng(1).standard_normal((40, 200, 4))]
    matrices = [form.of_rows(space, sets, None) for space in spaces]
    sides = np.arange(20), np.arange(20, 40)
    energies = np.full((sets.n_sets, 40), np.nan)
    fresh = matrix_cosines(matrices, sides, sets, form, energies=energies)
    assert np.isfinite(energies).all()
    known = energies.copy()
    known[:, 5:30] = np.nan  # of some spaces they are known
    np.testing.assert_array_equal(matrix_cosines(matrices, sides, sets, form, energies=known), fresh)
    np.testing.assert_array_equal(known, energies)
    known *= 4  # and they count: four times the energy of both is a fourth of the cosine
    taken = matrix_cosines(matrices, sides, sets, replace(form, centering="pairs"), energies=known)
    assert (np.abs(taken[0]) < np.abs(matrix_cosines(matrices, sides, sets, replace(form, centering="pairs"))[0])).all()


@pytest.mark.parametrize("name", TOGETHER)
def test_spaces_that_were_in_an_earlier_block__have_the_same_bits(name: str) -> None:
    rows, how = related(90) | {"space3": related(90, seed=1)["space1"]}, halved(90)
    keys = sorted(rows)
    kept = SpacesOnPoints(rows, {}, ("a store of this test", name))
    fresh = SpacesOnPoints(rows, {})
    for places in ([(0, 1)], [(0, 2), (1, 2)], [(1, 0)], [(3, 0)]):
        pairs = [(keys[first], keys[second]) for first, second in places]
        found, expected = (scored(name, spaces, pairs, how).values for spaces in (kept, fresh))
        np.testing.assert_array_equal(found, expected)


def test_small_angle__is_right_to_a_millionth() -> None:
    rows = {key: one.astype(np.float64) for key, one in related(100).items()}
    generator = np.random.default_rng(0)
    turn = np.linalg.qr(generator.standard_normal((9, 9)))[0]
    rows["turned"] = rows["space0"] @ turn
    rows["near"] = rows["turned"] + 1e-4 * generator.standard_normal((100, 9))
    name, pairs = "cka_angular_arccos", [("space0", "turned"), ("space0", "near")]
    found = scored(name, SpacesOnPoints(rows, {}), pairs, halved(100)).values[:, SCORE]
    assert found[0] < 1e-6
    assert found[1] > 1e-5
    assert found[1] == pytest.approx(one_by_one(MEASURES[name], rows, pairs[1], np.arange(100)), abs=1e-6)


def test_far_point__leaves_the_others_their_digits() -> None:
    # What an outlier of 1e6 makes of halves, too: massive activations do occur.
    how, pair = halved(60), ("space0", "space1")
    for far in (1e4, 1e6):
        rows = {key: one.astype(np.float64) for key, one in related(60).items()}
        rows["space0"][0] += far
        for name in TOGETHER:
            measure = MEASURES[name]
            (values,) = scored(name, SpacesOnPoints(rows, {}), [pair], how).values
            expected = one_by_one(measure, rows, pair, np.arange(60))
            assert values[SCORE] == pytest.approx(expected, abs=1e-5), (name, far)
            if name in WITH_BANDWIDTH or name == RANKED:
                continue
            halves = of_halves(measure, rows, pair, how)
            np.testing.assert_allclose(values[HALVES], halves, atol=1e-4, err_msg=f"{name} {far}")


@pytest.mark.parametrize("name", [name for name in OF_MATRICES if "rsa" not in name])
def test_rows_that_are_all_as_far_apart__make_every_permutation_reach_the_score(name: str) -> None:
    rows = {"space0": np.eye(12), "space1": np.eye(12)}
    how = Resampling(Exchange(12), None)
    (values,) = scored(name, SpacesOnPoints(rows, {}), [("space0", "space1")], how).values
    # Either there is no value, or it says nothing.
    assert np.isnan(values[SCORE]) or values[P] == 1


@pytest.mark.parametrize("scale", [1e-4, 1e-6])
def test_kernel_far_wider_than_the_space__is_the_linear_one(scale: float) -> None:
    # Its numbers are 1 but for 1e-9, and their digits those of the distances.
    rows = {key: scale / np.ptp(one) * one.astype(np.float64) for key, one in related(80).items()}
    of_kernel, of_products = (
        scored(name, SpacesOnPoints(rows, {}), [("space0", "space1")], halved(80)).values[0]
        for name in ("cka_rbf_sigma_5", "cka_linear")
    )
    np.testing.assert_allclose(of_kernel[[SCORE, MEAN]], of_products[[SCORE, MEAN]], rtol=1e-6)
    np.testing.assert_allclose(of_kernel[HALVES], of_products[HALVES], rtol=1e-6)


def test_clusters__move_the_bandwidth_of_a_half_with_its_points() -> None:
    generator = np.random.default_rng(5)
    shared = np.repeat([0.0, 6.0], 100)[:, None] + generator.standard_normal((200, 3))
    rows = {key: np.tanh(shared @ generator.standard_normal((3, 8)) / 4) for key in ("space0", "space1")}
    how, pair = halved(200), ("space0", "space1")
    for name in WITH_BANDWIDTH:
        (values,) = scored(name, SpacesOnPoints(rows, {}), [pair], how).values
        halves = of_halves(MEASURES[name], rows, pair, how)
        np.testing.assert_allclose(values[HALVES], halves, atol=0.03, err_msg=name)


@pytest.mark.parametrize("kind", ["normal", "ties", "far clusters", "copies"])
def test_medians__are_those_of_all_squared_distances_of_each_half(kind: str) -> None:
    generator = np.random.default_rng(4)
    rows = {
        "normal": generator.standard_normal((300, 3)),
        "ties": generator.integers(0, 3, (300, 2)).astype(float),
        "far clusters": generator.standard_normal((300, 2)) + 1e3 * (np.arange(300) % 5 == 0)[:, None],
        "copies": np.where(np.arange(300)[:, None] % 9 > 0, generator.standard_normal((300, 2)), 1.0),
    }[kind]
    how = halved(300)
    sets = point_sets(300, how.halves)
    space = space_rows(rows, sets.order)
    form = MEASURES["cka_rbf_half_median"].matrix
    assert form is not None
    constants = form.of_rows(space, sets, None).constants
    assert constants is not None
    assert constants.variance is not None
    assert constants.shifts is not None
    squared = np.square(space.rows[:, None] - space.rows).sum(axis=2)
    expected = np.array([np.median(squared[np.ix_(points, points)]) for points in sets.points])
    # This σ is half of the median distance: σ² is a quarter of that of squares.
    assert constants.variance == pytest.approx(expected[0] / 4, rel=1e-6)
    np.testing.assert_allclose(np.exp(constants.shifts), expected / expected[0], rtol=1e-6)


def test_permuted_targets__have_permuted_lists() -> None:
    rows, order = related(50)["space0"], np.random.default_rng(2).permutation(50)
    expected = np.sort(nearest_by_cosine(rows[order]).indices, axis=1)
    np.testing.assert_array_equal(
        np.sort(permuted_neighborhoods(nearest_by_cosine(rows), order).indices, axis=1), expected
    )


def test_space__that_is_refused_says_why() -> None:
    with pytest.raises(DataError, match="got a space whose rows are all the same, expected rows that differ"):
        space_rows(np.zeros((10, 3)), np.arange(10))


def test_ranks__of_ties_are_their_mean_rank() -> None:
    # Features of 0 and 1: a few dissimilarities, each many times, that differ by rounding.
    generator = np.random.default_rng(9)
    rows = {key: (generator.random((90, 6)) < 0.5).astype(float) + np.arange(6) for key in ("space0", "space1")}
    (values,) = score_family(
        RANKED, MEASURES[RANKED], SpacesOnPoints(rows, {}), [("space0", "space1")], Resampling(Exchange(90), None)
    ).values
    dissimilarities = [(1 - np.corrcoef(one))[np.triu_indices(90, k=1)].round(9) for one in rows.values()]
    assert len(np.unique(dissimilarities[0])) < 1000
    # Two values that lie .0002 apart or less may share a bin, and are ranked as if spread in it.
    assert values[SCORE] == pytest.approx(spearmanr(*dissimilarities).statistic, abs=3e-5)


@pytest.mark.parametrize("n_points", [40, 300, 1100])
def test_ranks__of_ties_at_the_median_are_their_mean_rank(n_points: int) -> None:
    # Classes as one-hot rows: few dissimilarities, of which the middle one is a tie that rounding would take apart.
    generator = np.random.default_rng(n_points)
    rows = {
        key: np.eye(7)[generator.integers(0, 7, n_points)] * generator.uniform(0.5, 2) + generator.uniform(1, 2)
        for key in ("space0", "space1")
    }
    (values,) = score_family(
        RANKED, MEASURES[RANKED], SpacesOnPoints(rows, {}), [("space0", "space1")], Resampling(Exchange(n_points), None)
    ).values
    upper = np.triu_indices(n_points, k=1)
    dissimilarities = [(1 - np.corrcoef(one))[upper].round(9) for one in rows.values()]
    assert values[SCORE] == pytest.approx(spearmanr(*dissimilarities).statistic, abs=3e-5)


@pytest.mark.parametrize("name", ["cka_rbf_debiased", "rsa_pearson_rdm_spearman", "distance_correlation"])
def test_many_points__whose_tiles_are_not_kept_have_the_same_scores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tiles of more than 4,096 points are made again each time they are looked at.
    how, pair = halved(150), [("space0", "space1")]
    kept = scored(name, SpacesOnPoints(related(150), {}), pair, how).values
    monkeypatch.setattr(KeptTiles, "most_points", 1)

    found = scored(name, SpacesOnPoints(related(150), {}), pair, how).values

    np.testing.assert_array_equal(found, kept)


def test_halves_of_other_bandwidths__keep_their_digits() -> None:
    # Halves of other scales have medians that differ by a factor: what their kernels have beside that of all is large.
    generator = np.random.default_rng(3)
    how, form = halved(500), MEASURES["cka_rbf_debiased"].matrix
    assert form is not None
    assert how.halves is not None
    sets = point_sets(500, how.halves)
    first = generator.standard_normal((500, 300))
    second = 0.5 * first + generator.standard_normal((500, 300))
    first[how.halves[0]] *= 0.55
    second[~how.halves[0]] *= 0.6
    matrices = []
    for rows in (first, second):
        moved = space_rows(rows, sets.order)
        matrices.append(form.of_rows(moved, sets, form.of_rows(moved, sets, None).constants))
    sides = np.array([0]), np.array([1])

    found = matrix_cosines(matrices, sides, sets, form)[:, 0, 0]

    exact = matrix_cosines(matrices, sides, sets, replace(form, precision=np.float64))[:, 0, 0]
    np.testing.assert_allclose(found, exact, atol=1e-6)


def test_ranks__are_right_where_all_dissimilarities_are_almost_one() -> None:
    generator = np.random.default_rng(10)
    for size in (1e-3, 1e-5):
        rows = {key: np.eye(60) + size * generator.standard_t(3, (60, 60)) for key in ("space0", "space1")}
        rows["space1"] += rows["space0"]
        (values,) = score_family(
            RANKED, MEASURES[RANKED], SpacesOnPoints(rows, {}), [("space0", "space1")], Resampling(Exchange(60), None)
        ).values
        expected = one_by_one(MEASURES[RANKED], rows, ("space0", "space1"), np.arange(60))
        assert values[SCORE] == pytest.approx(expected, abs=1e-4), size


def test_halves_that_any_two_spaces_would_score_alike__give_no_interval() -> None:
    rows = {key: np.random.default_rng(seed).standard_normal((150, 100)) for seed, key in enumerate(("a", "b"))}
    how = halved(150)
    for name in ("cca_mean", "shape_angular_alpha_0", "linear_regression_r2", "cka_linear"):
        (values,) = score_rows(name, Activations(rows, {}), [("a", "b")], how, NullConfig(n_permutations=0)).values[
            :, 0
        ]
        assert np.isfinite(values[SCORE]), name
        assert np.isnan(values[[LOW, HIGH]]).all(), name
