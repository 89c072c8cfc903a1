"""Maps from descriptors: against brute force, against an optimizer, against each other; bad anchors are told."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.batched.tiles import factor_source, fit_map_from_factor
from lfm_tasks.spectral.maps.closed_form import (
    DescriptorCoefficients,
    descriptor_operators,
    fit_closed_form,
    fit_commuting_map,
    penalty_strength,
    project_descriptors,
    spectral_mask,
)
from lfm_tasks.spectral.maps.descriptors import Anchors, check_anchors


def side(seed, n_eigenpairs=12, n_descriptors=5, shared=0):
    """Return made-up eigenvalues in [0, 1.4] and coefficients; ``shared`` mixes in the same ones for every seed."""
    generator = np.random.default_rng(seed)
    values = np.concatenate([[0], np.sort(generator.uniform(0.02, 1.4, n_eigenpairs - 1))])
    common = np.random.default_rng(99).standard_normal((n_eigenpairs, n_descriptors))
    return DescriptorCoefficients(values, shared * common + generator.standard_normal((n_eigenpairs, n_descriptors)))


def penalties(source, target, mask, weight):
    return penalty_strength(source, weight) * spectral_mask(source.eigenvalues[1:], target.eigenvalues[1:], mask=mask)


def energy(inner, source, target, *, mask, weight, operators=None, beta=0.0):
    """Return ‖CA − B‖² + α Σ C² M + β Σ ‖C S^x − S^y C‖² of a map without its trivial mode, straight from the words."""
    a, b = source.coefficients[1:], target.coefficients[1:]
    penalty = penalties(source, target, mask, weight)
    total = np.square(inner @ a - b).sum() + (penalty * inner**2).sum()
    if operators is not None:
        for of_source, of_target in zip(*operators, strict=True):
            total += beta * np.square(inner @ of_source[1:, 1:] - of_target[1:, 1:] @ inner).sum()
    return total


@pytest.mark.parametrize("mask", ["resolvent", "commutativity"])
@pytest.mark.parametrize("n_descriptors", [2, 11, 12, 40])
def test_fit__has_an_energy_that_no_optimizer_undercuts(mask, n_descriptors):
    source, target = side(0, 10, n_descriptors), side(1, 13, n_descriptors)
    fitted = fit_closed_form(source, target, mask=mask, weight=0.3)
    options = {"mask": mask, "weight": 0.3}
    own = energy(fitted[1:, 1:], source, target, **options)

    def gradient(flat):
        a, b, inner = source.coefficients[1:], target.coefficients[1:], flat.reshape(12, 9)
        return (2 * ((inner @ a - b) @ a.T + penalties(source, target, mask, 0.3) * inner)).ravel()

    found = minimize(
        lambda flat: energy(flat.reshape(12, 9), source, target, **options),
        np.zeros(12 * 9), jac=gradient, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10},
    )  # fmt: skip

    assert own <= found.fun * (1 + 1e-8)
    assert fitted[0].tolist() == [1] + [0] * 9
    assert not fitted[1:, 0].any()


@pytest.mark.parametrize("mask", ["resolvent", "commutativity"])
@pytest.mark.parametrize("n_descriptors", [2, 9, 30])
@pytest.mark.parametrize("weight", [1e-4, 1e-2, 1.0, 10.0])
def test_factored_fit__is_the_direct_one(mask, n_descriptors, weight):
    source = side(2, 10, n_descriptors)
    factor = factor_source(source, mask=mask, weight=weight)
    for seed, n_target in ((3, 10), (4, 17), (5, 6)):
        target = side(seed, n_target, n_descriptors)
        direct = fit_closed_form(source, target, mask=mask, weight=weight)
        scale = np.abs(direct).max()
        np.testing.assert_allclose(fit_map_from_factor(factor, target), direct, atol=1e-9 * scale)
        narrow = fit_map_from_factor(factor, target, single_precision=True)
        np.testing.assert_allclose(narrow, direct, atol=1e-4 * scale)


def test_resolvent_mask__is_the_squared_difference_of_resolvents():
    # Ren et al. (2019): Re and Im of 1/(a − i) differ by these two terms, a the root of the scaled eigenvalue.
    a, b = np.sqrt(np.array([0.1, 0.7, 1.9]) / 2), np.sqrt(np.array([0.3, 1.1]) / 2)[:, None]
    expected = (b / (b**2 + 1) - a / (a**2 + 1)) ** 2 + (1 / (b**2 + 1) - 1 / (a**2 + 1)) ** 2
    mask = spectral_mask(2 * a**2, 2 * b.ravel() ** 2, mask="resolvent")
    np.testing.assert_allclose(mask, expected, atol=1e-15)


def test_fit__ignores_the_order_of_descriptors_and_the_signs_of_a_basis():
    source, target = side(6, shared=2), side(7, shared=2)
    fitted = fit_closed_form(source, target)
    order = np.random.default_rng(0).permutation(5)
    reordered = [DescriptorCoefficients(s.eigenvalues, s.coefficients[:, order]) for s in (source, target)]
    np.testing.assert_allclose(fit_closed_form(*reordered), fitted, atol=1e-12)
    signs = np.concatenate([[1], np.random.default_rng(1).choice([-1, 1], 11)])
    flipped = DescriptorCoefficients(source.eigenvalues, signs[:, None] * source.coefficients)
    np.testing.assert_allclose(fit_closed_form(flipped, target), fitted * signs, atol=1e-12)


def mean_error(n_descriptors, weight):
    """Return the mean error of maps fitted to noisy descriptors of a true map near the identity, over 100 draws."""
    errors = []
    for draw in range(100):
        generator = np.random.default_rng([13, draw])
        turn = 0.05 * generator.standard_normal((11, 11))
        truth = np.linalg.qr(np.eye(11) + turn - turn.T)[0]
        source = side(draw, 12, n_descriptors)
        images = truth @ source.coefficients[1:] + 0.3 * generator.standard_normal((11, n_descriptors))
        target = DescriptorCoefficients(source.eigenvalues, np.vstack([source.coefficients[:1], images]))
        errors.append(np.linalg.norm(fit_closed_form(source, target, weight=weight)[1:, 1:] - truth))
    return np.mean(errors)


def test_more_descriptors__never_hurt_not_even_as_many_as_eigenpairs():
    numbers = (3, 6, 9, 10, 11, 12, 15, 24, 60)
    errors = [mean_error(n, 1.0) for n in numbers]
    assert all(later < 1.03 * earlier for earlier, later in pairwise(errors)), errors
    assert errors[-1] < errors[0] / 2
    # The same without a penalty to speak of: at as many descriptors as modes the noise blows up.
    assert mean_error(11, 1e-12) > 3 * errors[4]


def dense_commuting(source, target, operators, *, mask, weights):
    """Solve for all entries of C at once, written out as least squares over vec(C), rows first."""
    a, b = source.coefficients[1:], target.coefficients[1:]
    n_source, n_target = len(a), len(b)
    penalty = penalties(source, target, mask, weights[0])
    systems = [np.kron(np.eye(n_target), a.T), np.diag(np.sqrt(penalty).ravel())]
    sides = [b.ravel(), np.zeros(n_source * n_target)]
    for of_source, of_target in zip(*operators, strict=True):
        block = np.kron(np.eye(n_target), of_source[1:, 1:].T) - np.kron(of_target[1:, 1:], np.eye(n_source))
        systems.append(np.sqrt(weights[1]) * block)
        sides.append(np.zeros(n_source * n_target))
    return np.linalg.lstsq(np.vstack(systems), np.concatenate(sides))[0].reshape(n_target, n_source)


@pytest.mark.parametrize("mask", ["resolvent", "commutativity"])
@pytest.mark.parametrize("beta", [0.0, 0.1, 5.0])
def test_commuting_fit__is_the_dense_solution(mask, beta):
    generator = np.random.default_rng(11)
    bases = [
        Basis(np.sort(generator.uniform(0, 1, n)), np.linalg.qr(generator.standard_normal((60 + n, n)))[0], 1.5)
        for n in (8, 10)
    ]
    functions = [generator.standard_normal((len(basis.eigenvectors), 4)) for basis in bases]
    source, target = (project_descriptors(basis, f) for basis, f in zip(bases, functions, strict=True))
    operators = tuple(descriptor_operators(basis, f) for basis, f in zip(bases, functions, strict=True))

    fitted = fit_commuting_map(source, target, operators, mask=mask, weights=(0.5, beta))

    dense = dense_commuting(source, target, operators, mask=mask, weights=(0.5, beta))
    np.testing.assert_allclose(fitted[1:, 1:], dense, atol=1e-8)
    if beta == 0:
        np.testing.assert_allclose(fitted, fit_closed_form(source, target, mask=mask, weight=0.5), atol=1e-8)


def test_operators__multiply_functions_in_the_basis():
    generator = np.random.default_rng(12)
    vectors = np.linalg.qr(generator.standard_normal((30, 30)))[0]
    basis = Basis(np.linspace(0, 1, 30), vectors, 1.0)
    f, g = generator.standard_normal((2, 30))
    [operator] = descriptor_operators(basis, f[:, None])
    # A full basis loses nothing: coefficients of √n f g.
    np.testing.assert_allclose(operator @ (vectors.T @ g), vectors.T @ (np.sqrt(30) * f * g), atol=1e-12)


BAD_ANCHORS = {
    "none": ([], [], "few_anchors", "got 0 anchors, expected at least 2"),
    "one": ([3], [4], "few_anchors", "got 1 anchors, expected at least 2. Give more known pairs"),
    "twice": ([3, 3], [4, 5], "bad_anchors", "got anchor row 3 more than once. Give each row one partner"),
    "twice in the target": ([3, 4], [5, 5], "bad_anchors", "got anchor row 5 more than once"),
    "outside": (
        [3, 20],
        [4, 5],
        "bad_anchors",
        r"got anchor row 20 in a space of 20 points: rows count from 0 to 19",
    ),
    "negative": ([3, 4], [-1, 5], "bad_anchors", r"got anchor row -1 in a space of 10 points"),
}


@pytest.mark.parametrize("case", BAD_ANCHORS)
def test_bad_anchors__are_refused(case):
    source, target, reason, message = BAD_ANCHORS[case]
    anchors = Anchors(np.array(source, dtype=np.int64), np.array(target, dtype=np.int64))
    with pytest.raises(DataError, match=message) as caught:
        check_anchors(anchors, 20, 10)
    assert caught.value.reason == reason


def test_fit__refuses_descriptors_that_do_not_pair_and_penalties_that_are_none():
    with pytest.raises(ValueError, match="got 5 source and 4 target descriptors: both sides need the same ones"):
        fit_closed_form(side(0), side(1, n_descriptors=4))
    with pytest.raises(ValueError, match=r"got the weight 0\.0, expected a positive one"):
        fit_closed_form(side(0), side(1), weight=0.0)
