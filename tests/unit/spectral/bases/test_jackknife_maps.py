"""Maps without a part of the points: those of bases whitened on the rest; intervals that cover."""

import numpy as np

from lfm_tasks.spectral.bases.full_map import full_map, lfm, maps_without_each_part, overlap, parted_rows, whitened_rows
from lfm_tasks.statistics.intervals import interval_reach, jackknife_error, random_parts


def orthonormal(rows: np.ndarray) -> np.ndarray:
    return np.linalg.qr(np.column_stack([np.ones(len(rows)), rows]))[0]


def test_maps__are_those_of_whitened_rests() -> None:
    generator = np.random.default_rng(0)
    source, target = (orthonormal(generator.standard_normal((90, width))) for width in (5, 7))
    parts = random_parts(90, 6)
    maps = maps_without_each_part(parted_rows(source, parts, 6), parted_rows(target, parts, 6))
    for part in range(6):
        rest = parts != part
        np.testing.assert_allclose(
            maps[part], full_map(whitened_rows(source[rest]), whitened_rows(target[rest])), atol=1e-12
        )


def test_maps__of_too_few_points_are_nan() -> None:
    rows = orthonormal(np.random.default_rng(1).standard_normal((12, 7)))
    parts = random_parts(12, 2)
    assert np.isnan(maps_without_each_part(parted_rows(rows, parts, 2), parted_rows(rows, parts, 2))).all()


def test_intervals__cover_the_mean_over_draws() -> None:
    # What an interval is about: how the score moves with other points from the same source.
    def draw(seed: int) -> list[np.ndarray]:
        generator = np.random.default_rng([2, seed])
        latent = generator.standard_normal((300, 4))
        noisy = latent * [1, 0.9, 0.8, 0.7] + 0.6 * generator.standard_normal((300, 4))
        return [orthonormal(np.column_stack([rows, rows**2 - 1])) for rows in (latent, noisy)]

    for score in (overlap, lfm):
        scores, reaches = [], []
        for seed in range(200):
            source, target = draw(seed)
            parts = random_parts(300, 20)
            left = score(maps_without_each_part(parted_rows(source, parts, 20), parted_rows(target, parts, 20)))
            scores.append(float(score(full_map(source, target))))
            reaches.append(interval_reach(20) * float(jackknife_error(left)))
        covered = np.abs(np.array(scores) - np.mean(scores)) <= reaches
        assert 0.90 <= covered.mean() <= 0.99, score.__name__
