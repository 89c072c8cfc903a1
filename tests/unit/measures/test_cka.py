"""Linear CKA: debiased, through features and through points, of all pairs at once."""

from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.measures.cka import MEASURES as CKA
from lfm_tasks.measures.cka import compare_linear, linear_cka_matrix, prepare_linear
from lfm_tasks.measures.registry import MEASURES


def test_debiased_cka__of_unrelated_spaces_is_zero_on_average_and_the_biased_one_is_not() -> None:
    generator = np.random.default_rng(5)
    pairs = [(generator.standard_normal((30, 20)), generator.standard_normal((30, 20))) for _ in range(200)]
    debiased = [CKA["cka_linear_debiased_song"](*pair) for pair in pairs]
    assert abs(np.mean(debiased)) < 4 * np.std(debiased) / np.sqrt(200)
    assert np.mean([CKA["cka_linear"](*pair) for pair in pairs]) > 0.3


def test_linear_cka__is_the_same_through_features_and_through_points() -> None:
    generator = np.random.default_rng(6)
    for n_points, widths in ((50, (10, 20)), (15, (30, 40)), (25, (10, 60))):
        source, target = (generator.standard_normal((n_points, width)) for width in widths)
        kernels = [m @ m.T for m in (rows - rows.mean(axis=0) for rows in (source, target))]
        expected = np.vdot(*kernels) / (np.linalg.norm(kernels[0]) * np.linalg.norm(kernels[1]))
        assert compare_linear(prepare_linear(source), prepare_linear(target)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("widths", [(3, 5, 4), (40, 60, 200)], ids=["through features", "through points"])
@pytest.mark.parametrize("block_rows", [7, 256])
def test_matrix__holds_the_pairs(widths: tuple[int, ...], block_rows: int) -> None:
    generator = np.random.default_rng(0)
    shared = generator.standard_normal((50, 3)) + 2
    spaces = [
        (shared @ generator.standard_normal((3, d)) + 0.5 * generator.standard_normal((50, d)) + 7).astype(np.float32)
        for d in widths
    ]
    found = linear_cka_matrix(spaces, block_rows=block_rows)
    expected = [[MEASURES["cka_linear"](a, b) for b in spaces] for a in spaces]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_matrix__reads_files_in_slices(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    spaces = []
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", generator.standard_normal((90, 6)).astype(np.float16))
        spaces.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    found = linear_cka_matrix(spaces, block_rows=16)
    assert found[0, 2] == pytest.approx(MEASURES["cka_linear"](np.array(spaces[0]), np.array(spaces[2])), rel=1e-9)


def test_matrix__of_other_points_is_refused_and_of_a_constant_space_is_nan() -> None:
    with pytest.raises(ValueError, match=r"got spaces of \[4, 5\] points"):
        linear_cka_matrix([np.ones((4, 2)), np.ones((5, 2))])
    found = linear_cka_matrix([np.ones((6, 2)), np.random.default_rng(2).standard_normal((6, 2))])
    assert np.isnan(found[0, 1])
    assert found[1, 1] == pytest.approx(1)
