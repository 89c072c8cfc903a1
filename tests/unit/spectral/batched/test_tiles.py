"""Tiles of maps: each map and each score is that of the kernels for one pair, whatever stands beside it."""

from dataclasses import replace

import numpy as np
import pytest

from lfm_tasks.spectral.bases import full_map as scores
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.spectral.batched.loops import LANES
from lfm_tasks.spectral.batched.tiles import (
    STEP,
    TILE_SCORES,
    commutativity_errors,
    fit_tile,
    orthogonality_errors,
    tile_source,
    tile_sums,
    tile_targets,
)
from lfm_tasks.spectral.maps.closed_form import DescriptorCoefficients, fit_closed_form, project_descriptors
from lfm_tasks.spectral.maps.descriptors import landmark_heat_coefficients, landmark_heat_descriptors, unit_descriptors


def side(seed: int, n_eigenpairs: int = 20, n_descriptors: int = 30) -> DescriptorCoefficients:
    generator = np.random.default_rng(seed)
    values = np.concatenate([[0], np.sort(generator.uniform(0.05, 1, n_eigenpairs - 1))])
    coefficients = generator.standard_normal((n_eigenpairs, n_descriptors))
    coefficients[0] = 0
    return DescriptorCoefficients(values, coefficients / np.linalg.norm(coefficients, axis=0))


@pytest.mark.parametrize("mask", ["resolvent", "commutativity"])
@pytest.mark.parametrize("n_descriptors", [2, 6, 19, 64])
def test_tile__has_the_maps_and_scores_of_single_pairs(mask, n_descriptors):
    source = side(0, 20, n_descriptors)
    for n_target in (13, 20, 31):
        targets = [side(seed, n_target, n_descriptors) for seed in range(1, STEP + 4)]
        tile = tile_targets(targets, mask=mask)
        prepared = tile_source(source, mask=mask)
        direct = np.stack([fit_closed_form(source, target, mask=mask) for target in targets])

        largest = np.abs(direct).max(axis=(1, 2), keepdims=True)
        assert (np.abs(fit_tile(prepared, tile) - direct[:, 1:, 1:]) <= 1e-5 * largest).all()
        sums = tile_sums([(prepared, tile)])
        # Eigenvalues of a Gram matrix in float32: right to its largest entry.
        allowed = 1e-6 * float(largest.max()) ** 2 + 1e-5
        for name, score in TILE_SCORES.items():
            np.testing.assert_allclose(score(sums), MAP_SCORES[name].of_fitted(direct), atol=allowed)
        errors = scores.orthogonality_error(direct)
        np.testing.assert_allclose(orthogonality_errors(sums), errors, rtol=1e-4)
        crossed = [
            scores.commutativity_error(m, source.eigenvalues, t.eigenvalues)
            for m, t in zip(direct, targets, strict=True)
        ]
        np.testing.assert_allclose(commutativity_errors(sums), crossed, rtol=1e-4)


def test_tile_scores__are_all_that_there_are():
    assert TILE_SCORES.keys() == MAP_SCORES.keys()


def test_map_to_itself__is_perfect():
    source = side(5)
    sums = tile_sums([(tile_source(source), tile_targets([source]))])
    for name in ("lfm", "lfm_raw", "overlap"):
        assert float(TILE_SCORES[name](sums)[0]) == pytest.approx(1, abs=1e-6)
    assert float(TILE_SCORES["lfm_unsquared"](sums)[0]) == pytest.approx(1, abs=1e-5)
    assert float(orthogonality_errors(sums)[0]) < 1e-11


def test_bits_of_a_pair__do_not_depend_on_its_tile():
    sources, targets = [side(seed) for seed in range(3)], [side(seed) for seed in range(3, 3 + 2 * LANES)]
    prepared = [tile_source(source) for source in sources]
    together = tile_sums([(source, tile_targets(targets)) for source in prepared])
    order = np.random.default_rng(0).permutation(len(targets))
    shuffled = tile_sums([(prepared[2], tile_targets([targets[place] for place in order]))])
    alone = tile_sums([(prepared[2], tile_targets([targets[7]]))])

    for name in ("off", "diagonal", "apart", "squares", "capped", "crossed"):
        whole = getattr(together, name)[2 * len(targets) :]
        np.testing.assert_array_equal(getattr(shuffled, name), whole[order])
        assert getattr(alone, name)[0] == whole[7]


def test_source_that_float32_is_too_coarse_for__is_solved_in_float64(monkeypatch):
    source, targets = side(0), [side(1), side(2)]
    monkeypatch.setattr("lfm_tasks.spectral.batched.tiles.LARGEST_ERROR", 0.0)
    prepared = tile_source(source)

    assert prepared.right is None
    direct = np.stack([fit_closed_form(source, target)[1:, 1:] for target in targets])
    np.testing.assert_array_equal(fit_tile(prepared, tile_targets(targets)), direct.astype(np.float32))


def test_map_without_a_score__is_refused():
    source, nothing = side(0), side(1)
    nothing = replace(nothing, coefficients=np.zeros_like(nothing.coefficients))
    with pytest.raises(ValueError, match="got a map of zeros only, which has no score"):
        tile_sums([(tile_source(source), tile_targets([nothing]))])
    endless = replace(nothing, coefficients=np.full_like(nothing.coefficients, np.nan))
    with pytest.raises(ValueError, match="got a map with entries that are not finite"):
        tile_sums([(tile_source(source), tile_targets([endless]))])


def test_heat_coefficients__are_those_of_the_functions_on_the_points():
    vectors = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 7)))[0]
    basis = Basis(np.linspace(0, 0.8, 7), vectors, 0.1)
    anchors = np.array([3, 11, 29])
    long_way = project_descriptors(basis, unit_descriptors(basis, landmark_heat_descriptors(basis, anchors)))
    np.testing.assert_allclose(landmark_heat_coefficients(basis, anchors), long_way.coefficients, atol=1e-12)
