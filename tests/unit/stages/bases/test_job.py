"""A basis is computed by the method for its size, and refused where its neighbors or eigenpairs are inaccurate."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lfm_tasks.config import AtlasConfig, GraphConfig
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.stages.bases.job import (
    BasisMethod,
    ComputedBasis,
    bases_of_halves,
    basis_method,
    check_accuracy,
    compute_basis,
)
from lfm_tasks.statistics.resampling import halves_of

ROWS = np.random.default_rng(0).standard_normal((120, 8))
IDS = np.array([f"{index:03}" for index in range(120)])
GRAPH = GraphConfig(metric="euclidean")


def computed(method: BasisMethod, n_rows: int = 120) -> ComputedBasis:
    return compute_basis(lambda: (ROWS[start : start + n_rows] for start in range(0, 120, n_rows)), IDS, method)


def test_method__follows_the_size_and_the_settings() -> None:
    atlas = AtlasConfig(n_eigenpairs=7, seed=3)
    method = basis_method(atlas, atlas.numbers(500), 500, 20)
    assert (method.search, method.n_neighbors, method.n_eigenpairs) == ("exact", 19, 7)
    assert (method.n_landmarks, method.seed) == (None, 3)
    assert basis_method(AtlasConfig(), atlas.numbers(5_000_000), 5_000_000, 20).search != "exact"


def test_basis__does_not_depend_on_the_chunks() -> None:
    whole, chunked = (computed(BasisMethod(GRAPH, "exact", 10, 6), n_rows) for n_rows in (120, 50))
    np.testing.assert_array_equal(whole.eigenvectors, chunked.eigenvectors)
    np.testing.assert_array_equal(whole.eigenvalues, chunked.eigenvalues)
    assert whole.landmarks is None
    check_accuracy(whole)


def test_basis_of_landmarks__is_orthonormal_on_all_points_and_near_the_whole_one() -> None:
    whole, extended = (computed(BasisMethod(GRAPH, "exact", 10, 6, n_landmarks), 50) for n_landmarks in (None, 100))
    assert extended.landmarks is not None
    assert len(extended.landmarks) == 100
    np.testing.assert_allclose(extended.eigenvectors.T @ extended.eigenvectors, np.eye(6), atol=1e-10)
    assert overlap(full_map(whole.eigenvectors, extended.eigenvectors)) > 0.5


def test_zero_rows__are_refused_where_they_have_no_direction() -> None:
    rows = ROWS.copy()
    rows[::7] = 0
    method = BasisMethod(GraphConfig(center=False), "exact", 10, 6, 60)
    with pytest.raises(DataError, match=r"got 18 all-zero rows, which have no direction. Set graph.metric") as caught:
        compute_basis(lambda: iter([rows]), IDS, method)
    assert caught.value.reason == "zero_rows"


@pytest.mark.parametrize("n_landmarks", [None, 60])
def test_translation__changes_no_basis_where_angles_are_seen_from_the_center(n_landmarks: int | None) -> None:
    turned = 3 * ROWS @ np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0] + 5

    def overlap_with_turned(*, center: bool) -> float:
        method = BasisMethod(GraphConfig(center=center), "exact", 10, 6, n_landmarks)
        bases = [compute_basis(lambda rows=rows: iter([rows]), IDS, method) for rows in (ROWS, turned)]  # type: ignore[misc]
        assert [basis.center is None for basis in bases] == [not center] * 2
        return float(overlap(full_map(bases[0].eigenvectors, bases[1].eigenvectors)))

    assert overlap_with_turned(center=True) == pytest.approx(1, abs=1e-9)
    assert overlap_with_turned(center=False) < 0.9


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"recall": 0.85}, r"recall of 0.850, at least 0.9 is needed. Set atlas.graph.method to exact"),
        ({"n_zero_eigenvalues": 2}, "2 eigenvalues are 0, a connected graph has exactly 1. Raise atlas.graph.n_neigh"),
        ({"residual": 1e-7}, r"residual of 1.0e-07 .* 1e-08 is allowed. Lower atlas.n_eigenpairs"),
        ({"orthonormality": 1e-7}, "deviate from orthonormality by 1.0e-07"),
    ],
)
def test_inaccurate_basis__is_refused(facts: dict[str, Any], message: str) -> None:
    basis = computed(BasisMethod(GRAPH, "exact", 10, 6))
    with pytest.raises(DataError, match=message) as caught:
        check_accuracy(replace(basis, facts=basis.facts | facts))
    assert caught.value.reason == "inaccurate"


@pytest.mark.parametrize("n_landmarks", [None, 40])
def test_bases_of_halves__are_those_of_the_halves_alone(n_landmarks: int | None) -> None:
    # The sixth eigenvalue of 20 landmarks may be too near to 1 to be extended.
    halves, method = halves_of(IDS), BasisMethod(GRAPH, "exact", 10, 5, n_landmarks)
    of_halves = bases_of_halves(lambda: iter([ROWS[:50], ROWS[50:]]), IDS, method, halves)
    assert (of_halves.shape, of_halves.dtype) == ((2, 120, 5), np.float32)
    for split, second in enumerate(halves):
        for half in (~second, second):
            rows = ROWS[half]
            alone = compute_basis(
                lambda rows=rows: iter([rows]),
                IDS[half],
                replace(method, n_landmarks=None if n_landmarks is None else 20),
                is_half=True,
            )
            np.testing.assert_array_equal(of_halves[split, half], alone.eigenvectors.astype(np.float32))


def test_bases_of_halves__need_more_points_than_neighbors_and_eigenpairs() -> None:
    halves = halves_of(IDS)
    for method in (BasisMethod(GRAPH, "exact", 60, 6), BasisMethod(GRAPH, "exact", 10, 60)):
        with pytest.raises(DataError, match="got 120 points, expected halves of more than 61") as caught:
            bases_of_halves(lambda: iter([ROWS]), IDS, method, halves)
        assert caught.value.reason == "too_few_points"
    with pytest.raises(DataError, match="scores have no intervals"):
        bases_of_halves(lambda: iter([ROWS]), IDS, BasisMethod(GRAPH, "exact", 10, 6), None)
