"""Measures of lists of neighbors: their compiled loops against the definitions, written out with dense matrices."""

import numpy as np
import pytest

from lfm_tasks.measures.manifold_kernels import manifold_kernel
from lfm_tasks.measures.neighbor_loops import largest_of_rows
from lfm_tasks.measures.neighborhoods import nearest_by_cosine
from lfm_tasks.measures.registry import MEASURES


def spaces(n_points: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_points)
    rows = rng.standard_normal((n_points, 5))
    return rows, np.tanh(rows @ rng.standard_normal((5, 7)) + rng.standard_normal((n_points, 7)))


def masked_products(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines of all rows, and where the ten nearest of each are."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mask = np.zeros((len(rows), len(rows)), dtype=bool)
    np.put_along_axis(mask, nearest_by_cosine(rows).indices, True, axis=1)
    return units @ units.T, mask


def hsic(first: np.ndarray, second: np.ndarray) -> float:
    """Return HSIC₁ of two matrices without a diagonal (Song et al. 2012, equation 5)."""
    n, ones = len(first), np.ones(len(first))
    found = np.trace(first @ second) + ones @ first @ ones * (ones @ second @ ones) / ((n - 1) * (n - 2))
    return float((found - 2 / (n - 2) * (ones @ first @ second @ ones)) / (n * (n - 3)))


@pytest.mark.parametrize("n_chosen", [1, 10, 39])
def test_largest_numbers__are_those_of_a_stable_sort(n_chosen: int) -> None:
    numbers = np.random.default_rng(0).integers(0, 12, (30, 40)).astype(float)
    own = np.arange(30)
    without = numbers.copy()
    without[own, own] = -np.inf
    expected = np.argsort(-without, axis=1, kind="stable")[:, :n_chosen]
    np.testing.assert_array_equal(largest_of_rows(numbers, own, n_chosen), expected)


def test_cknna__is_cka_on_the_neighbors_that_both_spaces_share() -> None:
    source, target = spaces()
    (kernel, of_source), (other, of_target) = masked_products(source), masked_products(target)
    both = of_source & of_target
    scale = np.sqrt(hsic(kernel * of_source, kernel * of_source) * hsic(other * of_target, other * of_target)) + 1e-6
    measure = MEASURES["cknna_10_l2"]
    assert measure(source, target) == pytest.approx(hsic(kernel * both, other * both) / scale, abs=1e-12)
    assert measure(target, source) == pytest.approx(hsic(other * both, kernel * both) / scale, abs=1e-12)


def test_cknna__has_one_value_each_way_whichever_way_both_are_computed() -> None:
    measure = MEASURES["cknna_10_l2"]
    source, target = (measure.prepare(rows) for rows in spaces())
    assert measure.compare_both_ways is not None
    there, back = measure.compare_both_ways(source, target)
    expected = measure.compare(source, target), measure.compare(target, source)
    assert (there, back) == pytest.approx(expected, abs=1e-14)
    assert abs(there - back) > 1e-6


def test_rank_similarity__is_the_mean_agreement_of_ranks() -> None:
    source, target = (nearest_by_cosine(rows).indices.tolist() for rows in spaces())
    agreements = []
    for first, second in zip(source, target, strict=True):
        ranks = [(first.index(point) + 1, second.index(point) + 1) for point in first if point in second]
        total = sum(2 / ((1 + abs(r - s)) * (r + s)) for r, s in ranks)
        agreements.append(total / sum(1 / rank for rank in range(1, len(ranks) + 1)) if ranks else 0.0)
    assert MEASURES["rank_similarity_10"](*spaces()) == pytest.approx(np.mean(agreements), abs=1e-12)


def test_manifold_alignment__is_the_cosine_of_kernels_with_centered_rows() -> None:
    centered = []
    for rows in spaces():
        kernel, matrix = manifold_kernel(rows), np.zeros((60, 60))
        np.put_along_axis(matrix, kernel.indices, kernel.values, axis=1)
        centered.append(matrix - matrix.mean(axis=1, keepdims=True))
    expected = np.vdot(*centered) / (np.linalg.norm(centered[0]) * np.linalg.norm(centered[1]))
    assert MEASURES["mka_15"](*spaces()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["cknna_10_l2", "rank_similarity_10", "mka_15", "mutual_knn_10_cosine"])
def test_prepared_space_in_another_order__is_that_of_the_permuted_rows(name: str) -> None:
    measure, (source, target) = MEASURES[name], spaces()
    order = np.random.default_rng(1).permutation(60)
    assert measure.permute is not None
    permuted = measure.permute(measure.prepare(target), order)
    assert measure.compare(measure.prepare(source), permuted) == pytest.approx(
        measure(source, target[order]), abs=1e-12
    )
    # Both sides in one order: the same pairs of points.
    both = measure(source[order], target[order])
    assert both == pytest.approx(measure(source, target), abs=1e-12)
