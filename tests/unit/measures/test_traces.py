"""Measures of traces: many pairs together against pairs one by one, chance against permutations."""

import numpy as np
import pytest

from lfm_tasks.config import NullConfig
from lfm_tasks.measures import traces as of_traces
from lfm_tasks.measures.point_sets import point_sets
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.measures.traces import FactoredSpace, MatrixSpace, StretchedSpace, TraceKind, trace_kind, trace_space
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.resampling import FEW_DRAWS, Exchange, are_far, halves_of, of_groups, within_strata

OF_TRACES = sorted(name for name, measure in MEASURES.items() if measure.trace is not None)
TYPES = {"directions": StretchedSpace, "factors": FactoredSpace, "matrices": MatrixSpace}
STRETCHED = ["gulp_lambda_0", "gulp_lambda_0.01", "gulp_lambda_1", "linear_regression_r2"]
SCORE, MEAN, Q95, _, P = (STATISTICS.index(name) for name in STATISTICS[:5])
HALVES = slice(7, None)


def related(n_points: int = 90, *, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    common = generator.standard_normal((n_points, 3))
    return {
        name: np.hstack([common, generator.standard_normal((n_points, n_more))])
        @ generator.standard_normal((3 + n_more,) * 2)
        for name, n_more in (("a", 2), ("b", 4), ("c", 1))
    }


# How spaces are held, and from how few points a feature on.
WAYS = {"directions": (0, 0), "factors": (10**6, 0), "matrices": (0, 10**6)}


def set_limits(monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int]) -> None:
    monkeypatch.setattr(of_traces, "_POINTS_PER_FEATURE", limits[0])
    monkeypatch.setattr(of_traces, "_POINTS_OF_MATRICES", limits[1])


@pytest.mark.parametrize("way", WAYS)
def test_ways__are_those_of_few_and_many_points(way: TraceKind) -> None:
    form = MEASURES["gulp_lambda_1"].trace
    assert form is not None
    n_points = {"directions": 500, "factors": 400, "matrices": 300}[way]
    space = trace_space(np.random.default_rng(0).standard_normal((n_points, 100)), form, point_sets(n_points), way)
    assert (trace_kind(form, n_points, 100), type(space)) == (way, TYPES[way])


def test_packed_matrix__has_the_inner_products_of_the_whole_one() -> None:
    for n_points in (1, 255, 256, 257, 700):
        first, second = np.random.default_rng(n_points).standard_normal((2, n_points, 7))
        expected = float(np.square(second.T @ first).sum())
        packed = [of_traces._packed(factor) for factor in (first, second)]
        assert len(packed[0]) <= n_points * (n_points / 2 + 128)
        assert float(np.vdot(*packed)) == pytest.approx(expected, rel=1e-12)


def test_measures_of_traces__are_regression_and_gulp() -> None:
    powers = ["multiscale_cka_t_2", "multiscale_cka_t_4"]
    assert ["gulp_lambda_0", "gulp_lambda_0.01", "gulp_lambda_1", "linear_regression_r2", *powers] == OF_TRACES


@pytest.mark.parametrize("limits", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("name", OF_TRACES)
def test_scores__are_those_of_spaces_one_by_one_both_ways(
    name: str, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, limits)
    rows, measure = related(), MEASURES[name]
    # A direction that nothing but division by its variance can find, and one that is not there.
    rows["a"] = np.hstack([rows["a"], 1e-3 * rows["b"][:, :1], rows["a"][:, :1] + rows["a"][:, 1:2]])
    halves = halves_of(map(str, range(90)), seed=1)
    pairs = [("b", "a"), ("a", "c")]

    found = score_rows(name, Activations(rows, {}), pairs, Resampling(Exchange(90), halves), NullConfig()).values

    sets = [half for second in halves for half in (~second, second)]
    for pair, both in zip(pairs, found, strict=True):
        for (source, target), values in zip((pair, pair[::-1]), both, strict=True):
            assert values[SCORE] == pytest.approx(measure(rows[source], rows[target]), rel=1e-9)
            one_by_one = [measure(rows[source][half], rows[target][half]) for half in sets]
            np.testing.assert_allclose(values[HALVES], one_by_one, rtol=1e-8)


@pytest.mark.parametrize("name", STRETCHED)
def test_both_ways_to_traces__have_the_same_chance(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = related()

    def scored(way: str, exchange: Exchange) -> np.ndarray:
        set_limits(monkeypatch, WAYS[way])
        how = Resampling(exchange, halves_of(map(str, range(90)), seed=1))
        return score_rows(name, Activations(rows, {}), [("c", "a"), ("a", "b")], how, NullConfig()).values

    for exchange in (Exchange(90), of_groups(np.random.default_rng(5).permutation(90) // 3)):
        for way in ("factors", "matrices"):
            np.testing.assert_allclose(scored(way, exchange), scored("directions", exchange), rtol=1e-6)


@pytest.mark.parametrize("limits", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("name", OF_TRACES)
def test_half_of_equal_rows__has_no_value(name: str, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, limits)
    rows, halves = related(), halves_of(map(str, range(90)), seed=1)
    rows["a"][halves[0]] = rows["a"][0]
    values = score_rows(
        name, Activations(rows, {}), [("a", "b")], Resampling(Exchange(90), halves), NullConfig()
    ).values
    assert np.isfinite(values[0, :, SCORE]).all()
    np.testing.assert_array_equal(np.isnan(values[0, :, HALVES]), [[False, True, False, False]] * 2)


@pytest.mark.parametrize("name", OF_TRACES)
def test_narrow_and_wide_spaces__are_scored_together_with_an_address_or_without(name: str) -> None:
    rows, measure, generator = related(), MEASURES[name], np.random.default_rng(1)
    rows["wide"] = rows["b"] @ generator.standard_normal((7, 24)) + 0.1 * generator.standard_normal((90, 24))
    pairs = [("wide", "a"), ("a", "b"), ("b", "wide"), ("c", "a")]
    how, address = Resampling(Exchange(90), halves_of(map(str, range(90)), seed=1)), ("a store of this test", name)
    found = score_rows(name, Activations(rows, {}), pairs, how, NullConfig()).values
    for _ in range(2):
        again = score_rows(name, Activations(rows, {}, address), pairs, how, NullConfig()).values
        np.testing.assert_array_equal(again, found)
    for (source, target), both in zip(pairs, found, strict=True):
        assert both[0, SCORE] == pytest.approx(measure(rows[source], rows[target]), rel=1e-9)
        assert both[1, SCORE] == pytest.approx(measure(rows[target], rows[source]), rel=1e-9)


@pytest.mark.parametrize("name", OF_TRACES)
@pytest.mark.parametrize("kind", ["rows", "strata", "groups"])
def test_chance__is_that_of_permutations(name: str, kind: str) -> None:
    rows, measure, n_drawn = related(60, seed=4), MEASURES[name], 2000
    generator = np.random.default_rng(5)
    exchange = {
        "rows": Exchange(60),
        "strata": within_strata(generator.permutation(np.repeat(["a", "b", "c"], [30, 20, 10]))),
        "groups": of_groups(generator.permutation(np.arange(60) // 2)),
    }[kind]
    scored = score_rows(name, Activations(rows, {}), [("a", "b")], Resampling(exchange, None), NullConfig())
    [[values, _]] = scored.values

    source = measure.prepare(rows["a"])
    drawn = np.array(
        [measure.compare(source, measure.prepare(rows["b"][exchange.permutation(draw)])) for draw in range(n_drawn)]
    )
    edge = np.quantile(drawn, 0.05 if measure.kind == "distance" else 0.95)
    # Powers of a matrix live on few points: of a hundred permutations the mean is known to a tenth of a deviation.
    assert values[MEAN] == pytest.approx(drawn.mean(), abs=(0.3 if scored.localized else 0.08) * drawn.std())
    assert values[Q95] == pytest.approx(edge, abs=(0.6 if scored.localized else 0.25) * drawn.std())
    reached = drawn <= values[SCORE] if measure.kind == "distance" else drawn >= values[SCORE]
    assert values[P] == pytest.approx(reached.mean(), rel=0.5, abs=0.03 if scored.localized else 1e-3)


@pytest.mark.parametrize("name", OF_TRACES)
def test_unequal_groups__have_drawn_chance(name: str) -> None:
    rows = related(60)
    exchange = of_groups(np.repeat(np.arange(20), [2] * 8 + [3] * 8 + [5] * 4))
    null = NullConfig(n_permutations=60)

    [both] = score_rows(name, Activations(rows, {}), [("a", "b")], Resampling(exchange, None), null).values

    measure = MEASURES[name]
    orders = [exchange.permutation(draw) for draw in range(60)]
    there = np.array([measure(rows["a"], rows["b"][order]) for order in orders])
    back = np.array([measure(rows["b"][order], rows["a"]) for order in orders])
    drawn, few = np.stack([there, back], axis=1), slice(FEW_DRAWS)
    is_far = are_far(both[:, 0], drawn[few], is_distance=measure.kind == "distance").all()
    np.testing.assert_allclose(both[:, MEAN], drawn[few if is_far else slice(None)].mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("name", OF_TRACES)
def test_scale_and_companions__change_nothing(name: str) -> None:
    rows, how = related(), Resampling(Exchange(90), halves_of(map(str, range(90)), seed=1))

    def of_pair(spaces: dict[str, np.ndarray], pairs: list[tuple[str, str]]) -> np.ndarray:
        return score_rows(name, Activations(spaces, {}), pairs, how, NullConfig()).values[0]

    alone = of_pair(rows, [("a", "b")])
    np.testing.assert_array_equal(of_pair(rows, [("a", "b"), ("c", "a"), ("b", "c")]), alone)
    np.testing.assert_allclose(of_pair(rows | {"a": 2.0**-99 * rows["a"]}, [("a", "b")]), alone, rtol=1e-7)
