"""PWCCA and matching on many sets of points: the values of their definitions, and their chance."""

from dataclasses import replace

import numpy as np
import pytest

from lfm_tasks.config import NullConfig
from lfm_tasks.measures import alignments
from lfm_tasks.measures.alignments import principal_directions, unit_features
from lfm_tasks.measures.point_sets import point_sets
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores import alignment_measures
from lfm_tasks.stages.scores.block import HALVES, STATISTICS
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.resampling import Exchange, halves_of
from tests.unit.measures.test_cross_covariances import N_POINTS, related, scored

ALIGNED = sorted(name for name, measure in MEASURES.items() if measure.alignment is not None)
MATCHED = ["hard_match", "soft_match"]


@pytest.fixture
def only_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no rotations speak for the permutations of matching."""
    monkeypatch.setattr(alignments, "_MOST_KURTOSIS", -1.0)


def of(values: np.ndarray) -> dict[str, float]:
    return dict(zip(STATISTICS, values.tolist(), strict=True))


# More features than points of a half: PWCCA has no interval. As many as directions of both: 1 is a canonical
# correlation of many directions, whose weights no definition tells.
@pytest.mark.parametrize("widths", [(12, 20), (60, 70), (180, 220)], ids=["narrow", "wider", "wide"])
@pytest.mark.parametrize("name", ALIGNED)
def test_values__are_those_of_the_definition_both_ways(name: str, widths: tuple[int, int]) -> None:
    spaces, measure = {"a": related(widths[0], 0), "b": related(widths[1], 1)}, MEASURES[name]
    values = scored(name, spaces, [("a", "b")], n_permutations=0)[0]
    sets = [half for second in halves_of(map(str, range(N_POINTS))) for half in (~second, second)]
    for way, (source, target) in zip(values, [("a", "b"), ("b", "a")], strict=True):
        found, rows = of(way), (spaces[source], spaces[target])
        if sum(widths) < N_POINTS or name in MATCHED:
            assert found["score"] == pytest.approx(measure(*rows), rel=1e-10)
        halves = [found[half] for half in HALVES]
        if min(map(np.count_nonzero, sets)) < measure.least_points(max(widths)):
            assert np.isnan(halves).all()
        else:
            np.testing.assert_allclose(halves, [measure(*(one[half] for one in rows)) for half in sets], rtol=1e-9)


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (7, 7)])
@pytest.mark.parametrize("smallest", [0.3, 1e-4, 1e-9, 0.0])
def test_principal_directions__are_those_of_an_svd(shape: tuple[int, int], smallest: float) -> None:
    generator, rank = np.random.default_rng(4), min(shape)
    left, right = (np.linalg.qr(generator.standard_normal((n, n)))[0][:, :rank] for n in shape)
    values = np.append(np.linspace(0.9, 0.4, rank - 1), smallest)

    # Beside one whose directions squares determine.
    products = np.stack([(left * values) @ right.T, left @ right.T])
    theirs, found, ours = (together[0] for together in principal_directions(products))

    order = np.argsort(-found)
    np.testing.assert_allclose(found[order], values, atol=1e-10)
    # Directions of a correlation of 1e-9 are known to some 1e-7, and those of 0 are any.
    known, error = slice(None if smallest else -1), 1e-6 if smallest < 1e-5 else 1e-9
    for directions, expected in ((theirs, left), (ours, right)):
        np.testing.assert_allclose(directions @ directions.T, np.eye(rank), atol=1e-9)
        cosines = np.abs(np.vecdot(directions[order], expected.T))
        np.testing.assert_allclose(cosines[known], 1, atol=error)


@pytest.mark.parametrize("name", ALIGNED)
def test_rotations__are_the_same_ones_wherever_they_begin(name: str) -> None:
    form, sets = MEASURES[name].alignment, point_sets(N_POINTS, None)
    assert form is not None
    source, target = (form.prepare(related(width, width), sets) for width in (9, 12))
    every = form.by_rotations(N_POINTS, source, target, (0, 25))
    parts = [form.by_rotations(N_POINTS, source, target, numbers) for numbers in ((0, 10), (10, 25))]
    np.testing.assert_array_equal(np.concatenate(parts), every)
    assert len(np.unique(every[:, 0])) == 25


@pytest.mark.usefixtures("only_permutations")
@pytest.mark.parametrize("name", MATCHED)
def test_first_permutations__are_the_same_together_and_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = {key: related(width, seed) for seed, (key, width) in enumerate({"a": 12, "b": 20, "c": 16}.items())}
    pairs = [("a", "b"), ("b", "c"), ("c", "a")]
    together = scored(name, spaces, pairs)
    monkeypatch.setattr(alignment_measures, "MOST_PERMUTED", 0)
    np.testing.assert_allclose(scored(name, spaces, pairs), together, rtol=1e-5)


@pytest.mark.parametrize("most_bytes", [alignment_measures.MOST_PERMUTED, 0])
@pytest.mark.parametrize("n_permutations", [5, 10, 11, 25])
def test_permuted_products__are_those_of_each_permutation(
    n_permutations: int, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment_measures, "MOST_PERMUTED", most_bytes)
    sets = point_sets(N_POINTS, None)
    form = MEASURES["hard_match"].alignment
    assert form is not None
    source, target = (form.prepare(related(width, width), sets) for width in (9, 12))
    exchange = Exchange(N_POINTS)
    permutations = alignment_measures._Permutations(exchange, NullConfig(n_permutations=n_permutations), sets)
    found = np.concatenate(list(permutations.products(source, target)))
    for draw in range(n_permutations):
        permuted = target.narrow_rows[exchange.permutation(draw, seed=permutations.null.seed)]
        np.testing.assert_allclose(found[draw], permuted.T @ source.narrow_rows, atol=1e-6)
    assert len(found) == n_permutations


@pytest.mark.parametrize("kind", ["free", "few points"])
@pytest.mark.parametrize("name", ALIGNED)
def test_chance__is_that_of_permutations(name: str, kind: str) -> None:
    generator, measure = np.random.default_rng(5), MEASURES[name]
    spaces = {
        "a": generator.standard_normal((N_POINTS, 12)) * np.linspace(1, 5, 12),
        "b": generator.exponential(size=(N_POINTS, 15)),
    }
    if kind == "few points":  # rectified far out: most rows are zeros, and chance is drawn
        spaces = {
            key: np.maximum(generator.standard_normal((N_POINTS, 8)) @ generator.standard_normal((8, 25)) - 6, 0)
            for key in "ab"
        }
    resampling = Resampling(Exchange(N_POINTS), None)
    scores = score_rows(name, Activations(spaces, {}), [("a", "b")], resampling, NullConfig(n_permutations=400))
    found = of(scores.values[0, 0])
    assert bool(scores.localized) == (kind == "few points" and name not in MATCHED)
    source, target = (measure.prepare(rows) for rows in spaces.values())
    assert measure.permute is not None
    drawn = np.array(
        [measure.compare(source, measure.permute(target, generator.permutation(N_POINTS))) for _ in range(600)]
    )
    error = 4 * drawn.std() * np.sqrt(1 / 600 + 1 / 400)
    assert found["null_mean"] == pytest.approx(drawn.mean(), abs=error)
    assert found["null_q95"] == pytest.approx(np.quantile(drawn, 0.95), abs=0.5 * drawn.std())
    assert found["p_value"] == pytest.approx((drawn >= found["score"]).mean(), abs=0.12)


def _features(kind: str, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((N_POINTS, 20)) @ generator.standard_normal((20, 30)) / np.sqrt(20)
    shapes = {"normal": values, "exponential": np.exp(values / 2.5), "rectified": np.maximum(values, 0)}
    return shapes[kind] if kind in shapes else generator.standard_t(2.5, size=values.shape)


# Against 4,000 permutations; 400 rotations know the mean to .05 deviations. Without the skewness of correlations they
# are off by .3 to .7.
@pytest.mark.parametrize(
    "kinds", [("rectified", "rectified"), ("rectified", "exponential"), ("exponential", "exponential")]
)
@pytest.mark.parametrize("name", MATCHED)
def test_rotations__have_the_moments_of_permutations_of_skewed_features(name: str, kinds: tuple[str, str]) -> None:
    form, sets, measure = MEASURES[name].alignment, point_sets(N_POINTS, None), MEASURES[name]
    assert form is not None
    assert measure.permute is not None
    rows = [_features(kind, seed) for seed, kind in enumerate(kinds)]
    source, target = (form.prepare(one, sets) for one in rows)
    assert form.has_rotations(N_POINTS, source, target)
    drawn = form.by_rotations(N_POINTS, source, target, (0, 400))
    np.testing.assert_array_equal(*drawn.T)
    first, second = map(measure.prepare, rows)
    exchange = Exchange(N_POINTS)
    expected = [
        measure.compare(first, measure.permute(second, exchange.permutation(draw, seed=5))) for draw in range(4000)
    ]
    deviation = np.std(expected)
    assert drawn[:, 0].mean() == pytest.approx(np.mean(expected), abs=0.15 * deviation)
    assert drawn[:, 0].std() == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize("name", MATCHED)
def test_permutations__are_drawn_for_features_that_few_points_have(name: str) -> None:
    form, sets = MEASURES[name].alignment, point_sets(N_POINTS, None)
    assert form is not None
    normal, tailed, other = (
        form.prepare(_features(kind, seed), sets) for seed, kind in enumerate(["normal", "tailed", "tailed"])
    )
    assert form.has_rotations(N_POINTS, normal, tailed)
    assert not form.has_rotations(N_POINTS, tailed, other)
    wide = form.prepare(np.random.default_rng(1).standard_normal((N_POINTS, N_POINTS)), sets)
    assert not form.has_rotations(N_POINTS, normal, wide)


@pytest.mark.parametrize("name", ALIGNED)
def test_related_spaces__are_far_from_chance(name: str) -> None:
    values = of(scored(name, {"a": related(12, 0), "b": related(20, 1)}, [("a", "b")])[0, 0])
    assert values["p_value"] < 1e-8
    assert 0 < values["null_mean"] < values["score"] < 1


@pytest.mark.parametrize("name", MATCHED)
def test_chance__of_points_in_groups_moves_groups(name: str) -> None:
    # All points of a group are alike, so that free permutations would find every pair related.
    generator = np.random.default_rng(8)
    groups = np.repeat(np.arange(20), N_POINTS // 20)
    spaces = {key: generator.standard_normal((20, 6))[groups] for key in "ab"}

    def p_of(exchange: Exchange) -> float:
        activations, null = Activations(spaces, {}), NullConfig(n_permutations=200)
        return of(score_rows(name, activations, [("a", "b")], Resampling(exchange, None), null).values[0, 0])["p_value"]

    sets = tuple(np.flatnonzero(groups == one) for one in range(20))
    assert p_of(Exchange(N_POINTS, sets, "sets")) > 0.01
    assert p_of(Exchange(N_POINTS)) < 1e-3


def test_pairs__have_the_same_bits_alone_and_beside_others_either_way() -> None:
    spaces = {key: related(width, seed) for seed, (key, width) in enumerate({"a": 12, "b": 20, "c": 16}.items())}
    for name in ALIGNED:
        together = scored(name, spaces, [("a", "b"), ("b", "c"), ("a", "c")])
        np.testing.assert_array_equal(scored(name, spaces, [("c", "b")])[0, ::-1], together[1])


def test_constant_features__are_zero_whatever_their_value_rounds_to() -> None:
    rows = np.random.default_rng(7).standard_normal((7, 4))
    rows[:, 1], rows[:, 3] = 0.1, 1e9 + 1 / 3
    columns = unit_features(rows)
    assert not columns[:, [1, 3]].any()
    np.testing.assert_allclose(np.linalg.norm(columns[:, [0, 2]], axis=0), 1)
    assert MEASURES["soft_match"](rows, rows) == pytest.approx(0.5)


@pytest.fixture
def with_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a measure that is compared pair by pair, with chance by permutations."""
    monkeypatch.setitem(MEASURES.by_name, "plugin", replace(MEASURES["rank_similarity_10"], lists=None))


@pytest.mark.usefixtures("only_permutations", "with_plugin")
@pytest.mark.parametrize("name", ["hard_match", "plugin"])
def test_few_permutations__end_only_what_lies_far_beyond_them(name: str) -> None:
    rows = related(12, 0)
    # "c" is a little of "a" in much noise: near enough to chance that all permutations are drawn.
    generator = np.random.default_rng(3)
    spaces = {"a": rows, "b": related(20, 1), "c": 0.15 * rows + generator.standard_normal(rows.shape)}
    measure = MEASURES[name]

    def chance(n_permutations: int, exchange: Exchange) -> np.ndarray:
        null, resampling = NullConfig(n_permutations=n_permutations), Resampling(exchange, None)
        return score_rows(name, Activations(spaces, {}), [("a", "b"), ("a", "c")], resampling, null).values[:, 0]

    free = Exchange(N_POINTS)
    prepared = {key: measure.prepare(space) for key, space in spaces.items()}
    assert measure.permute is not None
    for values, other, n_drawn in zip(chance(60, free), "bc", (10, 60), strict=True):
        drawn = [
            measure.compare(prepared["a"], measure.permute(prepared[other], free.permutation(draw)))
            for draw in range(n_drawn)
        ]
        assert of(values)["null_mean"] == pytest.approx(np.mean(drawn), rel=1e-5)
    assert of(chance(60, free)[0])["p_value"] < 1e-6
    # Fewer than 50 may not speak for more than they are; and of six different ones none is below 1/6.
    assert of(chance(20, free)[0])["p_value"] == pytest.approx(1 / 21)
    few = Exchange(N_POINTS, tuple(np.arange(N_POINTS).reshape(3, -1)), "sets")
    assert of(chance(60, few)[0])["p_value"] >= 1 / 6 - 1e-12


@pytest.mark.usefixtures("with_plugin")
@pytest.mark.parametrize("name", ["hard_match", "plugin"])
def test_spaces_on_few_points__have_all_permutations(name: str) -> None:
    # Three far points that both have: none of a few permutations brings them together.
    generator, measure = np.random.default_rng(9), MEASURES[name]
    spaces = {key: generator.standard_normal((N_POINTS, 12)) for key in "ab"}
    for rows in spaces.values():
        rows[:3] += 200 * np.eye(3, 12)
    resampling, null = Resampling(Exchange(N_POINTS), None), NullConfig(n_permutations=60)
    values = of(score_rows(name, Activations(spaces, {}), [("a", "b")], resampling, null).values[0, 0])
    prepared = {key: measure.prepare(rows) for key, rows in spaces.items()}
    assert measure.permute is not None
    drawn = [
        measure.compare(prepared["a"], measure.permute(prepared["b"], resampling.exchange.permutation(draw)))
        for draw in range(60)
    ]
    assert values["null_mean"] == pytest.approx(np.mean(drawn), rel=1e-5)


# One massive point, the same in both spaces, which have nothing else in common: some share of all permutations, about
# one in n, brings it together with itself.
@pytest.mark.parametrize(
    "name", ["cca_mean", "cka_linear", "hard_match", "linear_regression_r2", "procrustes_centered_unit_norm",
             "pwcca_textbook_x_to_y", "soft_match"],
)  # fmt: skip
def test_one_massive_point__makes_no_p_value_that_permutations_do_not_show(name: str) -> None:
    generator = np.random.default_rng(0)
    spaces = {key: generator.standard_normal((100, 12)) for key in "ab"}
    for rows in spaces.values():
        rows[0] *= 30
    resampling = Resampling(Exchange(100), None)
    values = score_rows(name, Activations(spaces, {}), [("a", "b")], resampling, NullConfig()).values[0, 0]
    assert of(values)["p_value"] >= 1 / 101


@pytest.mark.parametrize("name", ["cca_mean", "shape_angular_alpha_0", "pwcca_textbook_x_to_y"])
@pytest.mark.parametrize("is_related", [True, False])
def test_points_with_directions_of_their_own__ask_for_permutations_only_near_chance(
    name: str, is_related: bool
) -> None:
    # Three other points of each space. Rotations do not have them; what they could add does not explain a score that
    # lies far beyond rotations.
    generator = np.random.default_rng(3)
    common, spaces = generator.standard_normal((300, 12)), dict[str, np.ndarray]()
    for key in "ab":
        own = np.zeros((300, 3))
        own[generator.choice(300, 3, replace=False), range(3)] = 5
        rows = 0.3 * generator.standard_normal((300, 12)) + is_related * common
        spaces[key] = np.hstack([rows @ generator.standard_normal((12, 12)), own])
    found = score_rows(name, Activations(spaces, {}), [("a", "b")], Resampling(Exchange(300), None), NullConfig())
    assert found.localized == (set() if is_related else {0})
    p_values = found.values[0, :, STATISTICS.index("p_value")]
    assert (p_values < 1e-9).all() if is_related else (p_values > 1e-3).all()


@pytest.mark.parametrize("name", MATCHED)
def test_ties__reach_the_score_in_single_precision(name: str) -> None:
    # Six points, three of them 1: one in ten permutations with the same value.
    rows = np.array([[0.0], [0], [0], [1], [1], [1]])
    resampling = Resampling(Exchange(6), None)
    values = score_rows(name, Activations({"a": rows, "b": rows}, {}), [("a", "b")], resampling, NullConfig(seed=1))
    exact = np.mean([np.array_equal(rows[Exchange(6).permutation(draw, seed=1)], rows) for draw in range(100)])
    assert of(values.values[0, 0])["p_value"] == pytest.approx((1 + 100 * exact) / 101)


@pytest.mark.parametrize("factor", [1e6, 1e10])
@pytest.mark.parametrize("name", MATCHED)
def test_halves_beside_a_far_point__are_those_of_the_definition(name: str, factor: float) -> None:
    spaces = {"a": related(12, 0), "b": related(20, 1)}
    for rows in spaces.values():
        rows[5] *= factor
    values = of(scored(name, spaces, [("a", "b")], n_permutations=0)[0, 0])
    sets = [half for second in halves_of(map(str, range(N_POINTS))) for half in (~second, second)]
    expected = [MEASURES[name](*(rows[half] for rows in spaces.values())) for half in sets]
    np.testing.assert_allclose([values[half] for half in HALVES], expected, rtol=1e-6)


def _rows_of_unlike_lengths(generator: np.random.Generator, kind: str) -> np.ndarray:
    rows = generator.standard_normal((N_POINTS, 40))
    if kind == "lengths":
        return rows * np.exp(0.5 * generator.standard_normal((N_POINTS, 1)))
    rows = np.clip(rows, -1.7, 1.7)
    far = generator.choice(N_POINTS, 5, replace=False)
    rows[far] = 4 * np.sign(generator.standard_normal((5, 40)))
    return rows


# All correlations are larger if long rows meet, and rotations have no long rows: without that one in fifteen of these
# pairs had p below .01, and one in a hundred below 1e-6.
@pytest.mark.parametrize("kind", ["lengths", "far rows"])
@pytest.mark.parametrize(
    "name", ["soft_match", "procrustes_centered_unit_norm", "shape_angular_alpha_half", "cca_mean"]
)
def test_p_values_of_unrelated_rows_of_unlike_lengths__are_uniform(name: str, kind: str) -> None:
    generator = np.random.default_rng(5)
    spaces = {f"{number:02}": _rows_of_unlike_lengths(generator, kind) for number in range(15)}
    pairs = [(one, other) for one in spaces for other in spaces if one < other]
    found = score_rows(name, Activations(spaces, {}), pairs, Resampling(Exchange(N_POINTS), None), NullConfig())
    p_values = found.values[:, 0, STATISTICS.index("p_value")]
    assert len(p_values) == 105
    assert (p_values < 0.05).sum() <= 11
    assert (p_values < 0.009).sum() <= 3
    assert p_values.min() > 3e-4
    assert 35 <= (p_values < 0.5).sum() <= 70


# A row far out in a few features, moderately so in each, the same one of both spaces: one in 300 permutations brings it
# together with itself.
@pytest.mark.parametrize(("size", "width"), [(6, 64), (8, 10), (8, 32), (40, 3)])
@pytest.mark.parametrize("name", ["soft_match", "hard_match", "procrustes_centered_unit_norm"])
def test_one_row_in_some_features__makes_no_p_value_that_permutations_do_not_show(
    name: str, size: float, width: int
) -> None:
    generator = np.random.default_rng(21)
    spaces = {key: generator.standard_normal((N_POINTS, 64)) for key in "abcdefgh"}
    for rows in spaces.values():
        rows[0, :width] += size * np.sign(generator.standard_normal(width))
    pairs = list(zip("aceg", "bdfh", strict=True))
    found = score_rows(name, Activations(spaces, {}), pairs, Resampling(Exchange(N_POINTS), None), NullConfig())
    assert found.values[:, 0, STATISTICS.index("p_value")].min() > 1e-3


@pytest.mark.parametrize("name", MATCHED)
def test_values_of_few_points__have_the_chance_of_permutations(name: str) -> None:
    # One-hot classes of 20 points: correlations take a handful of values.
    generator = np.random.default_rng(2)
    spaces = {key: np.eye(5)[generator.permutation(np.arange(20) % 5)] for key in "ab"}
    resampling, null = Resampling(Exchange(20), None), NullConfig(n_permutations=400)
    values = of(score_rows(name, Activations(spaces, {}), [("a", "b")], resampling, null).values[0, 0])
    prepared = {key: MEASURES[name].prepare(rows) for key, rows in spaces.items()}
    permute = MEASURES[name].permute
    assert permute is not None
    orders = [resampling.exchange.permutation(draw) for draw in range(400)]
    drawn = [MEASURES[name].compare(prepared["a"], permute(prepared["b"], order)) for order in orders]
    assert values["null_mean"] == pytest.approx(np.mean(drawn), rel=1e-5)


def test_constant_features__do_not_thin_out_the_kurtosis_of_others() -> None:
    generator = np.random.default_rng(4)
    rare = (generator.random((N_POINTS, 5)) < 0.02).astype(float)
    form, sets = MEASURES["soft_match"].alignment, point_sets(N_POINTS, None)
    assert form is not None
    alone, beside = form.prepare(rare, sets), form.prepare(np.hstack([rare, np.ones((N_POINTS, 200))]), sets)
    assert not form.has_rotations(N_POINTS, alone, alone)
    assert not form.has_rotations(N_POINTS, beside, beside)
