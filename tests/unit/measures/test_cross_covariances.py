"""Measures of cross-covariances on many sets of points: the values of their definitions, and their chance."""

import numpy as np
import pytest

from lfm_tasks.config import NullConfig
from lfm_tasks.measures.cross_covariances import (
    _log_chance_of_sum,
    corners_from,
    moments_of_nuclear_norm,
    most_rotations,
)
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import HALVES, STATISTICS
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.resampling import Exchange, halves_of, interval_reach

CROSSED = sorted(name for name, measure in MEASURES.items() if measure.cross is not None)
N_POINTS = 300


def related(n_features: int, seed: int, *, n_points: int = N_POINTS) -> np.ndarray:
    generator = np.random.default_rng([4, seed])
    latent = np.random.default_rng(4).standard_normal((n_points, 6))
    rows = np.tanh(latent @ generator.standard_normal((6, n_features)))
    return rows + 0.3 * generator.standard_normal(rows.shape) + 2


def scored(name: str, spaces: dict[str, np.ndarray], pairs: list[tuple[str, str]], **null: int) -> np.ndarray:
    n_points = len(next(iter(spaces.values())))
    resampling = Resampling(Exchange(n_points), halves_of(map(str, range(n_points))))
    return score_rows(name, Activations(spaces, {}), pairs, resampling, NullConfig(**null)).values


# The second ones are wider than half of the points.
@pytest.mark.parametrize("widths", [(12, 20), (180, 220)], ids=["narrow", "wide"])
@pytest.mark.parametrize("name", CROSSED)
def test_values__are_those_of_the_definition_and_their_spread(name: str, widths: tuple[int, int]) -> None:
    spaces, measure = {"a": related(widths[0], 0), "b": related(widths[1], 1)}, MEASURES[name]
    found = dict(zip(STATISTICS, scored(name, spaces, [("a", "b")], n_permutations=0)[0, 0], strict=True))
    sets = [half for second in halves_of(map(str, range(N_POINTS))) for half in (~second, second)]
    expected = np.array([measure(*(rows[half] for rows in spaces.values())) for half in sets])

    assert found["score"] == pytest.approx(measure(*spaces.values()), rel=1e-10)
    if min(map(np.count_nonzero, sets)) < measure.least_points(max(widths)):
        assert np.isnan([found[name] for name in (*HALVES, "ci_low", "ci_high")]).all()
        return
    np.testing.assert_allclose([found[name] for name in HALVES], expected, rtol=1e-10)
    reach = float(interval_reach(expected))
    assert found["ci_high"] - found["score"] == pytest.approx(reach, rel=1e-6)
    assert found["score"] - found["ci_low"] == pytest.approx(reach, rel=1e-6)


@pytest.mark.parametrize("name", CROSSED)
def test_half_of_equal_rows__has_no_value_but_a_distance_in_units(name: str) -> None:
    spaces, halves = {"a": related(12, 0), "b": related(20, 1)}, halves_of(map(str, range(N_POINTS)))
    spaces["a"][halves[0]] = spaces["a"][0]
    found = dict(zip(STATISTICS, scored(name, spaces, [("a", "b")], n_permutations=0)[0, 0], strict=True))
    values = np.array([found[half] for half in HALVES])
    if name == "procrustes_centered":
        rows = spaces["b"][halves[0]]
        assert values[1] == pytest.approx(np.linalg.norm(rows - rows.mean(axis=0)))
    else:
        np.testing.assert_array_equal(np.isnan(values), [False, True, False, False])


@pytest.mark.parametrize("name", CROSSED)
def test_chance__is_that_of_permutations(name: str) -> None:
    # Unrelated: 400 rotations.
    generator, measure = np.random.default_rng(5), MEASURES[name]
    spaces = {
        "a": generator.standard_normal((N_POINTS, 12)) * np.linspace(1, 5, 12),
        "b": generator.exponential(size=(N_POINTS, 15)),
    }
    found = dict(zip(STATISTICS, scored(name, spaces, [("a", "b")], n_permutations=0)[0, 0], strict=True))
    source, target = (measure.prepare(rows) for rows in spaces.values())
    assert measure.permute is not None
    drawn = np.array(
        [measure.compare(source, measure.permute(target, generator.permutation(N_POINTS))) for _ in range(600)]
    )
    error = 4 * drawn.std() * np.sqrt(1 / 600 + 1 / 400)
    assert found["null_mean"] == pytest.approx(drawn.mean(), abs=error)
    edge = np.quantile(drawn, 0.05 if measure.kind == "distance" else 0.95)
    assert found["null_q95"] == pytest.approx(edge, abs=0.5 * drawn.std())
    reached = drawn <= found["score"] if measure.kind == "distance" else drawn >= found["score"]
    assert found["p_value"] == pytest.approx(reached.mean(), abs=0.12)


@pytest.mark.parametrize("name", ["cca_mean", "procrustes_centered_unit_norm"])
def test_related_spaces__are_far_from_chance_and_copies_are_the_best_there_is(name: str) -> None:
    rows = related(12, 0)
    turned = 3 * rows @ np.linalg.qr(np.random.default_rng(6).standard_normal((12, 12)))[0]
    values = scored(name, {"a": rows, "b": related(20, 1), "c": turned}, [("a", "b"), ("a", "c")])[:, 0]
    p, level = STATISTICS.index("p_value"), STATISTICS.index("calibrated")
    # Of ten rotations more is not known.
    assert (values[:, p] < 1e-8).all()
    assert 0 < values[0, level] < 1
    assert values[1, level] == pytest.approx(1, abs=1e-6)


def test_pairs__have_the_same_bits_alone_and_beside_others_either_way() -> None:
    spaces = {key: related(width, seed) for seed, (key, width) in enumerate({"a": 12, "b": 20, "c": 16}.items())}
    for name in CROSSED:
        together = scored(name, spaces, [("a", "b"), ("b", "c"), ("a", "c")])
        np.testing.assert_array_equal(scored(name, spaces, [("c", "b")])[0, ::-1], together[1])


def test_wide_spaces__have_the_same_value_pair_by_pair() -> None:
    spaces = {"a": related(12, 0, n_points=400), "b": related(300, 1, n_points=400), "c": related(14, 2, n_points=400)}
    values = scored("svcca_10_dims", spaces, [("a", "b"), ("a", "c")], n_permutations=20)
    for row, other in enumerate("bc"):
        assert values[row, 0, 0] == pytest.approx(MEASURES["svcca_10_dims"](spaces["a"], spaces[other]), rel=1e-10)
    assert np.isfinite(values).all()


def test_corners__are_those_of_rotations() -> None:
    corners = np.concatenate(list(corners_from(40, 5, 7, 0, 300)))
    assert corners.shape == (300, 7, 5)
    np.testing.assert_array_equal(np.concatenate(list(corners_from(40, 5, 7, 3, 10))), corners[3:10])
    assert [len(some) for some in corners_from(2000, 600, 700, 0, 6)] == [4, 2]  # 3 MB each
    assert (most_rotations(2000, 64, 90), most_rotations(2000, 768, 768)) == (400, 40)
    assert (np.linalg.svd(corners, compute_uv=False) <= 1 + 1e-9).all()
    assert float((corners**2).mean()) == pytest.approx(1 / 39, rel=0.1)
    assert float(abs(corners.mean(axis=0)).max()) < 4 / np.sqrt(39 * 300)


def test_no_room_to_turn__is_no_spread() -> None:
    moments = moments_of_nuclear_norm(np.ones(9), np.ones(4), 10, 4.0)
    assert moments.mean[0] == pytest.approx(4)
    assert moments.deviation[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n_first", "n_second", "tail"), [(5, 8, 0.0), (60, 40, 0.0), (60, 40, 1.0)])
def test_bound_of_points_that_meet__holds_and_is_near_their_frequency(n_first: int, n_second: int, tail: float) -> None:
    generator = np.random.default_rng(n_first)
    n_points, n_permutations = 300, 20_000
    sides = [np.sort(np.exp(tail * generator.standard_normal(n)))[::-1] for n in (n_first, n_second)]
    first, second = (np.pad(side, (0, n_points - len(side))) for side in sides)
    sums = np.array([first @ second[generator.permutation(n_points)] for _ in range(n_permutations)])
    for share in (0.99, 0.999):
        least = float(np.quantile(sums, share)) - 1e-9
        frequency = float((sums >= least).mean())
        bound = _log_chance_of_sum(*sides, n_points, least)
        # Chernoff's bound is a few times the probability, far less than what a wrong exponent would make of it.
        assert np.log(max(frequency, 0.5 / n_permutations)) <= bound <= np.log(max(frequency, 1e-4)) + 3.5
