"""Histograms of checks: every check with a limit on numbers of its own has one, in the unit of the limit."""

from typing import Any

import numpy as np
import pytest

from lfm_tasks.audit.stage import evaluate_check
from lfm_tasks.checks.histograms import histogram
from lfm_tasks.checks.lineage import DeclaredParentFar, NearDuplicate, UndeclaredLineage
from lfm_tasks.checks.stability import Drift, Quality

CHILD = {"m1": {"base_model": "m0"}}


def test_histogram__counts_what_is_beyond_its_ends_in_the_outer_bars_and_no_nan() -> None:
    (made,) = histogram([-3, 0.01, 0.5, 7, np.nan], "numbers", limit=2, found=[7, 7, None], ends=(0, 1))

    assert (made["n"], made["counts"][0], made["counts"][10], made["counts"][-1]) == (4, 2, 1, 1)
    assert (made["lowest"], made["median"], made["highest"]) == (-3, 0.255, 7)
    assert (made["limit"], made["found"]) == (2, [1])
    assert histogram([np.nan], "numbers", limit=1) == []


@pytest.mark.parametrize("check", [NearDuplicate(), UndeclaredLineage(), DeclaredParentFar(), Drift(), Quality()])
def test_check_with_a_limit__shows_its_numbers_with_the_limit(
    publish_atlas: Any, similarities: Any, check: Any
) -> None:
    now = publish_atlas(similarities(pairs={(0, 1): 0.99, (2, 3): 0.98}), CHILD)

    found = evaluate_check(check, now, publish_atlas(similarities(), CHILD))

    drawn = found.null["histograms"]
    # The fewest points and the least agreement of halves have a limit each.
    assert [one["limit"] for one in drawn] == ([200, 0.5] if isinstance(check, Quality) else [found.threshold])
    for one in drawn:
        assert one["low"] <= one["limit"] < one["high"] or one["limit"] == one["high"] == 1
        assert sum(one["counts"]) == one["n"] > 0
    observed = {"near_duplicate": "highest", "undeclared_lineage": "highest", "drift": "highest"}
    if name := observed.get(check.key()):
        assert drawn[0][name] == pytest.approx(found.observed, rel=1e-3)
    if isinstance(check, DeclaredParentFar):
        assert drawn[0]["lowest"] == pytest.approx(found.observed, rel=1e-3)
