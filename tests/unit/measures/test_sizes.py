"""Cross-covariances, alignments and traces of spaces, halves and directions that are far larger than others."""

from collections.abc import Callable

import numpy as np
import pytest

from lfm_tasks.config import NullConfig
from lfm_tasks.measures import cross_covariances
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import HALVES, STATISTICS
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.resampling import Exchange, halves_of

N_POINTS = 200
SPLITS = halves_of(map(str, range(N_POINTS)))
NAMES = sorted(
    name
    for name, measure in MEASURES.items()
    if measure.cross or measure.alignment or (measure.trace and measure.trace.stretches)
)


def small_half(rows: np.ndarray) -> np.ndarray:
    return rows * np.where(SPLITS[0], 1e-6, 1)[:, None]


def far_half(rows: np.ndarray) -> np.ndarray:
    return rows + 1e4 * SPLITS[0][:, None]


def massive_point(rows: np.ndarray) -> np.ndarray:
    return np.where(np.arange(N_POINTS)[:, None] == 3, 1e8 * rows, rows)


def steep_spectrum(rows: np.ndarray) -> np.ndarray:
    return rows * np.logspace(0, -6, rows.shape[1])


# For GULP without a penalty a direction that is not there: its variance is below 1e-15 of the largest.
def tiny_feature(rows: np.ndarray) -> np.ndarray:
    return np.hstack([rows[:, :-1], 1e-8 * rows[:, -1:]])


def gulp_without_penalty(source: np.ndarray, target: np.ndarray) -> float:
    """By singular vectors: covariances of graded spaces lose the digits of small directions."""
    bases = []
    for rows in (source, target):
        left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        bases.append(left[:, values**2 > 1e-15 * values[0] ** 2])
    ranks = sum(basis.shape[1] for basis in bases)
    return float(ranks - 2 * np.square(bases[0].T @ bases[1]).sum())


@pytest.mark.parametrize("change", [small_half, far_half, massive_point, steep_spectrum, tiny_feature])
@pytest.mark.parametrize("name", NAMES)
def test_score_and_halves__are_those_of_the_definition(name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((N_POINTS, 6))
    spaces = {"a": change(rows), "b": rows @ generator.standard_normal((6, 6)) + generator.standard_normal(rows.shape)}
    how = Resampling(Exchange(N_POINTS), SPLITS)
    values = score_rows(name, Activations(spaces, {}), [("a", "b")], how, NullConfig(n_permutations=0)).values
    direct = gulp_without_penalty if name == "gulp_lambda_0" else MEASURES[name]
    sets = [np.ones(N_POINTS, dtype=bool), *(half for second in SPLITS for half in (~second, second))]
    for way, (source, target) in enumerate([("a", "b"), ("b", "a")]):
        found = dict(zip(STATISTICS, values[0, way].tolist(), strict=True))
        expected = [direct(spaces[source][points], spaces[target][points]) for points in sets]
        np.testing.assert_allclose([found["score"], *(found[half] for half in HALVES)], expected, rtol=1e-6)


@pytest.mark.parametrize("rest", [0.0, 1e-15])
@pytest.mark.parametrize("width", [1, 2, 6])
# Matching takes features without variance for zeros, whose correlations are 0.
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, measure in MEASURES.items()
        if (name in NAMES and "match" not in name) or measure.matrix is not None
    ],
)
def test_half_that_is_constant_but_for_rounding__has_no_value(name: str, width: int, rest: float) -> None:
    if name.startswith("rsa") and width == 1:
        pytest.skip("rows of one feature have no correlations")
    generator = np.random.default_rng(5)
    spaces = {"a": generator.standard_normal((N_POINTS, width)), "b": generator.standard_normal((N_POINTS, 4))}
    spaces["a"][SPLITS[0]] = spaces["a"][SPLITS[0]][0] * (1 + rest * generator.standard_normal((SPLITS[0].sum(), 1)))
    how = Resampling(Exchange(N_POINTS), SPLITS)
    values = score_rows(name, Activations(spaces, {}), [("a", "b")], how, NullConfig(n_permutations=0)).values
    found = dict(zip(STATISTICS, values[0, 0].tolist(), strict=True))
    assert np.isfinite(found["score"])
    if name == "procrustes_centered":
        rows = spaces["b"][SPLITS[0]]
        assert found[HALVES[1]] == pytest.approx(np.linalg.norm(rows - rows.mean(axis=0)))
    else:
        assert np.isnan(found[HALVES[1]])


@pytest.mark.parametrize("name", NAMES)
def test_constant_space__is_refused_once_and_other_pairs_have_their_values(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(3)
    spaces = {key: generator.standard_normal((N_POINTS, 4)) for key in "abcd"} | {"e": np.ones((N_POINTS, 3))}
    pairs = [(first, second) for first in "abcde" for second in "abcde" if first < second]
    how = Resampling(Exchange(N_POINTS), SPLITS)
    expected = score_rows(name, Activations(spaces, {}), pairs[:3], how, NullConfig()).values
    n_refused, original = [], cross_covariances.constant_space
    monkeypatch.setattr(cross_covariances, "constant_space", lambda: n_refused.append(1) or original())

    found = score_rows(name, Activations(spaces, {}), pairs, how, NullConfig())

    np.testing.assert_array_equal(found.values[:3], expected)
    if MEASURES[name].alignment and MEASURES[name].alignment.by_permutations:
        return  # features without variance are zeros
    assert {index: error.reason for index, error in found.refused.items()} == {
        index: "constant" for index, pair in enumerate(pairs) if "e" in pair
    }
    assert len(n_refused) == 1


def test_equal_spaces__match_at_one_and_not_above() -> None:
    rows = np.random.default_rng(3).standard_normal((N_POINTS, 40)) + 7
    for name in ("soft_match", "hard_match"):
        how = Resampling(Exchange(N_POINTS), SPLITS)
        values = score_rows(
            name, Activations({"a": rows, "b": rows.copy()}, {}), [("a", "b")], how, NullConfig()
        ).values
        assert (values[0, :, 0] <= 1).all()
        assert values[0, 0, 0] == pytest.approx(1)
