"""The chance of lfm: exact expectations by all permutations of few points, and the rest against drawn ones."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kstest

from lfm_tasks.spectral.bases.full_map import lfm_raw
from lfm_tasks.statistics.map_chance import (
    are_localized,
    chance_of_lfm,
    localization,
    map_sums,
    rotation_energies,
    sampled_spread,
)
from lfm_tasks.statistics.permutation_moments import arrangements
from lfm_tasks.statistics.resampling import upper_shares


def functions(n_points: int, n_functions: int, seed: int, *, power: float = 1.0) -> np.ndarray:
    """Return orthonormal functions without the constant; a higher ``power`` gathers them on fewer points."""
    drawn = np.random.default_rng([9, seed]).standard_normal((n_points, n_functions))
    with_constant = np.column_stack([np.ones(n_points), np.sign(drawn) * np.abs(drawn) ** power])
    return np.linalg.qr(with_constant)[0][:, 1:]


def drawn_lfm(source: np.ndarray, target: np.ndarray, n_permutations: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    orders = [generator.permutation(len(source)) for _ in range(n_permutations)]
    return lfm_raw(np.stack([target[order].T @ source for order in orders]))


def test_expected_energies__are_the_means_over_all_permutations() -> None:
    # Neither centered nor orthonormal: the sums hold for any functions.
    generator = np.random.default_rng(1)
    source, target = generator.standard_normal((6, 2)) ** 3, generator.standard_normal((6, 3)) + 0.5
    grams = []
    for order in permutations(range(6)):
        functional_map = target[list(order)].T @ source
        grams.append(functional_map.T @ functional_map)
    energies = [np.mean([(np.diag(gram) ** 2).sum() for gram in grams]), np.mean([(gram**2).sum() for gram in grams])]

    weights = map_sums(target)[30:] / arrangements(2, 6)
    found = [map_sums(source)[start : start + 15] @ weights for start in (0, 15)]
    np.testing.assert_allclose(found, energies, rtol=1e-11)


def test_rotation_energies__are_those_of_drawn_rotations() -> None:
    generator = np.random.default_rng(2)
    corners = np.stack([np.linalg.qr(generator.standard_normal((11, 11)))[0][:3, :4] for _ in range(20_000)])
    grams = np.swapaxes(corners, 1, 2) @ corners
    diagonal = (np.einsum("...ii->...i", grams) ** 2).sum(axis=1)
    np.testing.assert_allclose(rotation_energies(12, 4, 3), [diagonal.mean(), (grams**2).sum((1, 2)).mean()], rtol=0.02)
    ratios = diagonal / (grams**2).sum(axis=(1, 2))
    spread = sampled_spread(12, 4, 3)
    assert spread.deviation == pytest.approx(ratios.std(), rel=0.03)
    diagonal_energy, energy = rotation_energies(12, 4, 3)
    assert spread.bias + diagonal_energy / energy == pytest.approx(ratios.mean(), abs=0.05 * ratios.std())


@pytest.mark.parametrize(("n_points", "n_functions"), [(100, 10), (300, 24), (60, 50)])
def test_moments__are_those_of_permutations(n_points: int, n_functions: int) -> None:
    source, target = functions(n_points, n_functions, 0, power=2.0), functions(n_points, n_functions, 1)
    drawn = drawn_lfm(source, target, 4000)
    moments = chance_of_lfm(map_sums(source)[None], map_sums(target)[None], n_points, (n_functions,) * 2)
    error = 3 * drawn.std() / np.sqrt(len(drawn))
    assert moments.mean[0] == pytest.approx(drawn.mean(), abs=error + 0.02 * drawn.std())
    assert moments.deviation[0] == pytest.approx(drawn.std(), rel=0.05 + 3 / np.sqrt(2 * len(drawn)))
    shares = upper_shares((drawn - moments.mean) / moments.deviation, np.full(len(drawn), moments.skewness[0]))
    assert kstest(shares, "uniform").statistic < 0.03
    assert not are_localized(np.array(localization(source)), np.array(localization(target)), np.array(n_points))


def test_bases_that_both_live_on_few_points__are_localized_and_one_alone_is_not() -> None:
    spikes = np.linalg.qr(np.eye(100)[:, 1:11] - 0.01)[0]
    even = functions(100, 10, 3)
    assert localization(np.eye(100)[:, :5]) == pytest.approx(100)
    few, many = np.array(localization(spikes)), np.array(localization(even))
    assert are_localized(few, few, np.array(100))
    assert not are_localized(few, np.array(many / 10), np.array(100))
    assert not are_localized(many, many, np.array(100))


def test_all_functions_there_are__score_1_by_chance() -> None:
    spread = sampled_spread(11, 10, 10)
    assert spread.deviation == pytest.approx(0, abs=1e-9)
    assert spread.bias == pytest.approx(0, abs=1e-9)


def test_numbers_of_many_points__share_a_sample_and_change_little() -> None:
    one, other = (
        chance_of_lfm(*(map_sums(functions(n, 5, seed))[None] for seed in (0, 1)), n, (5, 5)) for n in (1000, 1010)
    )
    assert one.deviation == pytest.approx(other.deviation, rel=0.03)
