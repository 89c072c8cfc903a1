"""The center that angles are seen from moves with the points, and not with what lies far out."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.neighbors.centering import center_of, from_center, spatial_median

ROWS = np.random.default_rng(0).gamma(1.0, 1.0, (300, 5))
TURN = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e150])
def test_center__moves_with_the_points(scale: float) -> None:
    center = spatial_median(ROWS)
    moved = scale * (ROWS @ TURN) + 7 * scale
    order = np.random.default_rng(2).permutation(300)
    np.testing.assert_allclose(spatial_median(moved[order]), scale * (center @ TURN) + 7 * scale, rtol=1e-9)


def test_center__hardly_follows_what_lies_far_out() -> None:
    center = spatial_median(ROWS)
    typical = np.median(np.linalg.norm(ROWS - center, axis=1))
    for n_outliers, most in ((1, 0.02), (30, 0.4)):
        far = ROWS.copy()
        far[:n_outliers] += 1e6
        assert np.linalg.norm(spatial_median(far) - center) < most * typical
        assert np.linalg.norm(far.mean(axis=0) - center) > 1000 * typical


def test_center__is_no_single_point() -> None:
    rows = np.concatenate([np.zeros((1, 2)), np.array([[1.0, 0.0], [-1.0, 0.1], [0.0, 1.0], [0.0, -1.2]])])
    assert np.linalg.norm(spatial_median(rows)) > 1e-3


def test_most_rows_alike__still_have_a_direction() -> None:
    rows = ROWS.copy()
    rows[:200] = 0
    seen = from_center(rows, center_of(rows))
    assert seen.any(axis=1).all()
    assert (seen[:200] == seen[0]).all()


def test_rows_at_the_center__are_refused() -> None:
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    with pytest.raises(DataError, match=r"got 1 rows at the center of all rows, .* Set atlas.graph.center to false"):
        from_center(rows, center_of(rows))


def test_rows_without_neighbors__have_no_center() -> None:
    assert center_of(np.ones((4, 2))) is None
    assert center_of(np.array([[1.0, np.nan], [0.0, 1.0]])) is None
    assert from_center(ROWS, None) is ROWS


@pytest.mark.parametrize(
    ("kind", "seen"), [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)]
)
def test_rows_seen_from_the_center__are_floats_of_their_width(kind: type, seen: type) -> None:
    rows = ROWS.astype(kind)
    assert from_center(rows, center_of(rows)).dtype == seen
