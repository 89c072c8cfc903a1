"""Collections: maps that compose, some of them wrong; one basis, a space that comes later."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.maps.collection import (
    Collection,
    cycle_residuals,
    fit_new_space,
    fit_shared_basis,
    synchronized_map,
)


def rotations(n_spaces, size, seed=0):
    generator = np.random.default_rng(seed)
    return np.stack([np.linalg.qr(generator.standard_normal((size, size)))[0] for _ in range(n_spaces)])


def collection(frames, *, wrong=(), noise=0.0, seed=1, both_ways=True):
    """Return maps frame_j frame_iᵀ between all spaces; those between pairs in ``wrong`` are unrelated rotations."""
    generator = np.random.default_rng(seed)
    n_spaces, size, _ = frames.shape
    edges = [(i, j) for i in range(n_spaces) for j in range(n_spaces) if i != j and (both_ways or i < j)]
    maps = []
    for i, j in edges:
        true = frames[j] @ frames[i].T
        random = np.linalg.qr(generator.standard_normal((size, size)))[0]
        maps.append(
            (random if (min(i, j), max(i, j)) in wrong else true) + noise * generator.standard_normal((size,) * 2)
        )
    return Collection(n_spaces, np.array(edges), np.array(maps))


# 7 of the 15 pairs of 6 spaces; the others still hang together.
WRONG = {(0, 1), (0, 3), (1, 2), (1, 4), (2, 5), (3, 5), (4, 5)}


def test_cycles__close_in_a_consistent_collection_and_not_through_a_wrong_map():
    frames = rotations(5, 8)
    np.testing.assert_allclose(cycle_residuals(collection(frames)), 0, atol=1e-20)
    broken = collection(frames, wrong={(1, 3)})
    residuals = cycle_residuals(broken)
    is_wrong = [set(edge) == {1, 3} for edge in broken.edges.tolist()]
    assert residuals[np.logical_not(is_wrong)].max() < 0.5
    assert residuals[is_wrong].min() > 0.7


def test_cycles__are_composed_in_the_right_order():
    # Maps of no group commute: any other order of the three would not close.
    frames = rotations(3, 6)
    one_way = Collection(3, np.array([[0, 1], [1, 2], [2, 0]]), collection(frames).maps[[0, 3, 4]])
    np.testing.assert_allclose(cycle_residuals(one_way), 0, atol=1e-20)


def test_cycles__of_a_sample_of_triples_tell_the_same():
    broken = collection(rotations(12, 6), wrong={(2, 6)})
    is_wrong = np.array([set(edge) == {2, 6} for edge in broken.edges.tolist()])
    some = cycle_residuals(broken, n_triples=150)
    np.testing.assert_array_equal(some, cycle_residuals(broken, n_triples=150))
    assert np.isfinite(some).all()
    assert some[is_wrong].min() > 0.5
    assert np.median(some[~is_wrong]) < 1e-9


def test_map_in_no_triple__has_no_residual():
    frames = rotations(3, 4)
    chain = Collection(3, np.array([[0, 1], [1, 2]]), collection(frames).maps[[0, 3]])
    assert np.isnan(cycle_residuals(chain)).all()


@pytest.mark.parametrize("both_ways", [True, False])
def test_synchronized_maps__are_the_true_ones(both_ways):
    frames = rotations(6, 8)
    shared = fit_shared_basis(collection(frames, both_ways=both_ways), 8)
    for i in range(6):
        for j in range(6):
            np.testing.assert_allclose(synchronized_map(shared, i, j), frames[j] @ frames[i].T, atol=1e-9)


def test_synchronized_maps__are_true_although_half_of_the_pairs_are_wrong():
    frames = rotations(6, 10)
    noisy = collection(frames, wrong=WRONG, noise=0.02)
    shared = fit_shared_basis(noisy, 10)
    errors = [np.linalg.norm(synchronized_map(shared, i, j) - frames[j] @ frames[i].T) for i, j in noisy.edges.tolist()]
    assert max(errors) < 0.15  # of a norm of 3.2
    is_wrong = np.array([tuple(sorted(edge)) in WRONG for edge in noisy.edges.tolist()])
    assert shared.weights[is_wrong].max() < 0.2 * shared.weights[~is_wrong].min()


def test_synchronized_maps__do_not_depend_on_the_order_of_spaces_or_edges():
    frames = rotations(5, 6)
    original = collection(frames, noise=0.05)
    order = np.random.default_rng(2).permutation(5)
    place = np.argsort(order)
    shuffle = np.random.default_rng(3).permutation(len(original.edges))
    renamed = Collection(5, place[original.edges][shuffle], original.maps[shuffle])
    one, other = fit_shared_basis(original, 6), fit_shared_basis(renamed, 6)
    np.testing.assert_allclose(
        synchronized_map(other, int(place[1]), int(place[4])), synchronized_map(one, 1, 4), atol=1e-8
    )


def test_large_collections__take_the_sparse_solver_to_the_same_end(monkeypatch):
    from lfm_tasks.spectral.maps import collection as module

    maps = collection(rotations(6, 10), noise=0.02)
    dense = fit_shared_basis(maps, 6)
    monkeypatch.setattr(module, "_DENSE_BELOW", 0)
    sparse = fit_shared_basis(maps, 6)
    np.testing.assert_allclose(synchronized_map(sparse, 0, 3), synchronized_map(dense, 0, 3), atol=1e-6)


def test_new_space__is_fitted_by_one_map():
    frames = rotations(6, 8)
    known = collection(frames[:5])
    shared = fit_shared_basis(known, 8)
    new = fit_new_space(shared, (frames[5] @ frames[2].T)[None], np.array([2]))
    np.testing.assert_allclose(new @ shared.coefficients[4].T, frames[5] @ frames[4].T, atol=1e-9)


BAD = {
    "pieces": (4, [[0, 1], [2, 3]], DataError, "got 2 of 4 spaces that no map leads to"),
    "twice": (2, [[0, 1], [0, 1]], ValueError, "got an ordered pair twice"),
    "itself": (2, [[0, 1], [1, 1]], ValueError, "from a space to itself"),
    "outside": (2, [[0, 1], [1, 2]], ValueError, "got an edge outside 2 spaces"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_collections__are_refused(case):
    n_spaces, edges, error, message = BAD[case]
    with pytest.raises(error, match=message):
        fit_shared_basis(Collection(n_spaces, np.array(edges), np.stack([np.eye(3)] * 2)), 2)


def test_more_modes_than_eigenpairs__are_refused():
    with pytest.raises(DataError, match="got 4 eigenpairs, expected 5 for the shared modes"):
        fit_shared_basis(collection(rotations(3, 4)), 5)
    shared = fit_shared_basis(collection(rotations(3, 4)), 3)
    with pytest.raises(ValueError, match="got 0 maps for 0 spaces"):
        fit_new_space(shared, np.zeros((0, 4, 4)), np.zeros(0, dtype=np.int64))
