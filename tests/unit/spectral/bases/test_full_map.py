"""Maps between known points, their scores, and maps without a part of the points."""

import json
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases import full_map as scores
from lfm_tasks.spectral.bases.eigenbasis import spectral_basis
from lfm_tasks.spectral.bases.full_map import (
    MAP_SCORES,
    full_map,
    full_maps,
    permutations_per_product,
    permuted_maps,
    permuted_rows,
    side_by_side,
    whitened_rows,
)
from lfm_tasks.spectral.bases.graph import affinity_graph
from lfm_tasks.spectral.neighbors.search import exact_neighbors

GOLDEN = Path(__file__).parents[3] / "golden"


def random_basis(seed, n_points=200, n_eigenpairs=10):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n_points, n_eigenpairs)))[0]


@pytest.mark.parametrize("pair", ["XX", "XY", "YX"])
@pytest.mark.parametrize("metric", ["angular", "euclidean"])
def test_scores__are_those_of_the_published_code(golden_spaces, pair, metric):
    expected = json.loads((GOLDEN / "lfm_values.json").read_text())[f"{pair}|gaussian|{metric}"]
    source, target = (
        spectral_basis(affinity_graph(exact_neighbors(golden_spaces[name], 49, metric=metric), kernel="gaussian"), 30)
        for name in pair
    )
    functional_map = full_map(source.eigenvectors, target.eigenvectors)
    np.testing.assert_allclose(source.eigenvalues[:6], expected["evals1"], atol=1e-10)
    # Beside 1 the unsquared form is a root of rounding errors, so its off-diagonal energies are compared.
    off_diagonal = (1 - float(scores.lfm_unsquared(functional_map))) ** 2
    assert off_diagonal == pytest.approx((1 - expected["sim_CtC"]) ** 2, abs=1e-10)
    assert float(scores.lfm_raw(functional_map)) == pytest.approx(expected["sim_CtC_squared"], abs=1e-10)


def test_full_map__carries_functions_from_source_to_target():
    source, target = random_basis(0), random_basis(1, n_eigenpairs=12)
    functional_map = full_map(source, target)
    coefficients = np.random.default_rng(2).standard_normal(10)
    np.testing.assert_allclose(functional_map @ coefficients, target.T @ (source @ coefficients))
    np.testing.assert_allclose(full_map(target, source), functional_map.T)


def test_whitened_rows__are_orthonormal_and_keep_singular_values_below_one():
    source, target = random_basis(3), random_basis(4)
    kept = np.random.default_rng(5).permutation(200)[:60]
    rows = whitened_rows(source[kept])
    np.testing.assert_allclose(rows.T @ rows, np.eye(10), atol=1e-12)
    assert np.linalg.svd(full_map(rows, whitened_rows(target[kept])))[1].max() <= 1 + 1e-12


def test_whitened_rows__refuse_fewer_points_than_eigenvectors():
    with pytest.raises(DataError, match="got 9 common points") as caught:
        whitened_rows(random_basis(3)[:9])
    assert caught.value.reason == "little_overlap"


def test_lfm__is_one_for_any_orthogonal_map_and_does_not_see_rotations_of_the_target():
    rotation = np.linalg.qr(np.random.default_rng(6).standard_normal((11, 11)))[0]
    assert float(scores.lfm_raw(rotation)) == pytest.approx(1)
    functional_map = full_map(random_basis(0), random_basis(1, n_eigenpairs=11))
    assert float(scores.lfm_raw(rotation @ functional_map)) == pytest.approx(float(scores.lfm_raw(functional_map)))


def test_lfm__has_its_floor_between_unrelated_spaces():
    floor = float(scores.lfm(full_map(random_basis(0, 2000, 31), random_basis(1, 2000, 31))))
    assert floor == pytest.approx((30 + 2) / (30 + 30 + 1), abs=0.03)


def test_overlap__is_the_mean_squared_cosine_of_the_principal_angles():
    functional_map = full_map(random_basis(0), random_basis(1, n_eigenpairs=13))
    cosines = np.linalg.svd(functional_map[1:, 1:])[1]
    assert float(scores.overlap(functional_map)) == pytest.approx(np.mean(cosines**2))
    assert float(scores.overlap(functional_map.T)) == pytest.approx(np.mean(cosines**2))
    assert float(scores.overlap(np.eye(7))) == 1


def test_diagnostics__of_a_map_by_hand():
    functional_map = np.array([[1.0, 0.0], [2.0, 2.0]])
    assert float(scores.orthogonality_error(functional_map)) == pytest.approx((16 + 16 + 16 + 9) / 2)
    error = scores.commutativity_error(functional_map, np.array([0.0, 1.0]), np.array([0.0, 3.0]))
    assert float(error) == pytest.approx((36 + 16) / 9)


def test_scores__work_on_stacks_of_maps():
    stack = np.random.default_rng(7).standard_normal((3, 2, 9, 8))
    for score in (scores.lfm, scores.lfm_raw, scores.lfm_unsquared, scores.overlap):
        assert score(stack).shape == (3, 2)
        assert float(score(stack)[2, 1]) == pytest.approx(float(score(stack[2, 1])))


def test_scores__refuse_a_map_of_zeros():
    with pytest.raises(ValueError, match="map of zeros"):
        scores.lfm(np.zeros((4, 4)))


def test_permuted_maps__are_the_maps_of_permuted_rows():
    source, target = random_basis(0), random_basis(1, n_eigenpairs=12)
    permutations = np.stack([np.random.default_rng(seed).permutation(200) for seed in range(4)])
    maps = permuted_maps(source, permuted_rows(target, permutations), 4)
    expected = np.stack([target[order].T @ source for order in permutations])
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_permutations_per_product__stays_between_one_and_25():
    assert permutations_per_product(100, 10) == 25
    assert permutations_per_product(10**6, 50) == 1


def test_full_maps__of_a_tile_are_those_of_its_pairs_and_the_maps_back_their_transposes() -> None:
    spaces = [random_basis(seed, n_eigenpairs=13) for seed in range(4)]
    others = [random_basis(seed, n_eigenpairs=9) for seed in range(4, 7)]
    sources, targets = side_by_side(spaces), side_by_side(others)
    maps = full_maps(sources, targets, 4)

    assert maps.shape == (4, 4, 9, 13)
    for place in np.ndindex(3, 4):
        np.testing.assert_allclose(maps[place], full_map(spaces[place[1]], others[place[0]]), atol=1e-14)
    assert not maps[3].any()
    np.testing.assert_allclose(full_maps(targets, sources, 4), maps.transpose(1, 0, 3, 2), atol=1e-14)
    np.testing.assert_array_equal(full_maps(side_by_side(spaces[2:]), side_by_side(others[1:2]), 4)[0, 0], maps[1, 2])
    turned = full_maps(side_by_side(spaces[::-1]), side_by_side(others[::-1]), 4)
    np.testing.assert_array_equal(turned[:3], maps[:3][::-1, ::-1])
    with pytest.raises(ValueError, match="got 5 spaces, expected 1 to 4"):
        side_by_side([*spaces, spaces[0]])


def test_full_maps__of_a_side_with_itself_have_the_bits_of_those_with_a_copy() -> None:
    side = side_by_side([random_basis(seed, n_eigenpairs=50) for seed in range(4)])
    np.testing.assert_array_equal(full_maps(side, side, 4), full_maps(side, side.copy(), 4))


def test_scores__of_both_ways_are_those_of_maps_and_their_transposes() -> None:
    maps = np.random.default_rng(8).standard_normal((3, 2, 9, 8))
    for score in MAP_SCORES.values():
        there, back = score.of_both_ways(maps)
        np.testing.assert_allclose(there, score.function(maps), rtol=1e-12)
        np.testing.assert_allclose(back, score.function(np.swapaxes(maps, -1, -2)), rtol=1e-12)


def with_constant(rows: np.ndarray) -> np.ndarray:
    return np.linalg.qr(np.column_stack([np.ones(len(rows)), rows]))[0]
