"""`LatentFunctionalMap`: what scikit-learn expects of an estimator, and the map that `fit_map` fits."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from lfm_atlas import LatentFunctionalMap, fit_map

# The target of these checks is one column of two or three values: a space of one dimension, in which the rows at the
# center have no direction, and with that no angular neighbors.
ONE_COLUMN = "the target is one column of few values, in which rows lie at the center and have no direction"
EXPECTED_FAILURES = dict.fromkeys(
    [
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_estimators_fit_returns_self",
        "check_estimators_overwrite_params",
        "check_f_contiguous_array_estimator",
        "check_fit2d_predict1d",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in_after_fitting",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
    ],
    ONE_COLUMN,
)


class WithWideTarget(LatentFunctionalMap):
    """Takes the rows of the source beside a target of one column: the checks above then concern all but the target."""

    def fit(self, x: Any, y: Any, anchors: Any = None) -> "WithWideTarget":
        rows, column = np.asarray(x), np.asarray(y)
        if rows.ndim == 2 and len(rows) == len(column) and rows.dtype.kind == "f":
            y = np.column_stack([rows, column])
        return super().fit(x, y, anchors)


def two_spaces(n_points: int = 120) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n_points, 6))
    return x, x @ np.linalg.qr(generator.normal(size=(6, 6)))[0]


def test_checks_of_scikit_learn__pass_but_for_targets_of_one_column() -> None:
    results = check_estimator(
        LatentFunctionalMap(), expected_failed_checks=EXPECTED_FAILURES, on_fail=None, on_skip=None
    )

    assert [one["check_name"] for one in results if one["status"] == "failed"] == []
    assert {one["check_name"] for one in results if one["status"] == "xfail"} == set(EXPECTED_FAILURES)


def test_checks_that_need_a_wider_target__pass_with_one() -> None:
    checks = [
        (estimator, check)
        for estimator, check in estimator_checks_generator(WithWideTarget())
        if check.func.__name__ in EXPECTED_FAILURES
    ]

    assert {check.func.__name__ for _, check in checks} == set(EXPECTED_FAILURES)
    for estimator, check in checks:
        check(estimator)


def test_transform__is_the_map_of_fit_map() -> None:
    x, y = two_spaces()

    carried = LatentFunctionalMap(n_eigenpairs=30, random_state=1).fit(x, y).transform(x)

    assert np.array_equal(carried, fit_map(x, y, np.arange(120), n_eigenpairs=30, seed=1).transfer(x))
    assert np.abs(carried - y).max() < 1e-6


def test_anchors__pair_rows_in_any_order() -> None:
    x, y = two_spaces()
    order = np.random.default_rng(1).permutation(120)[:100]
    anchors = np.column_stack([order[:40], np.arange(40)])

    carried = LatentFunctionalMap().fit(x, y[order], anchors=anchors).transform(x)

    distances = np.linalg.norm(carried[:, None] - y, axis=2)
    assert np.array_equal(distances.argmin(axis=1), np.arange(120))


def test_rows_that_do_not_correspond__are_refused_without_anchors() -> None:
    x, y = two_spaces()

    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LatentFunctionalMap().fit(x, y[:100])


def test_clone_and_pipeline__work() -> None:
    x, y = two_spaces()
    model = make_pipeline(StandardScaler(), clone(LatentFunctionalMap(n_eigenpairs=20)))

    assert model.fit(x, y).transform(x[:3]).shape == (3, 6)
    assert model[-1].get_feature_names_out()[0] == "latentfunctionalmap0"
