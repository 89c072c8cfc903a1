"""Licenses, and whether the numbers are good enough to judge by."""

from typing import Any

import pytest

from lfm_tasks.audit.zoo_checks import license, quality
from lfm_tasks.catalog.audit import License, Quality

FAMILY = {"m0": {"license": "apache-2.0"}, "m1": {"license": "apache-2.0", "base_model": "m0"}}
OTHER = {"m0": {"license": "apache-2.0"}, "m1": {"license": "mit", "base_model": "m0"}}


@pytest.mark.parametrize(
    ("meta", "limit", "status", "message"),
    [
        (FAMILY, {}, "pass", "every license is one that is allowed"),
        (FAMILY, {"allow": ("apache-2.0",)}, "pass", "every license is one that is allowed"),
        (FAMILY, {"allow": ("mit",)}, "warn", "m0: apache-2.0, not allowed"),
        (FAMILY, {"allow": ("mit",), "enforced": True}, "fail", "m0: apache-2.0, not allowed"),
        ({"m0": {}, "m1": {}}, {"allow": ("mit",)}, "warn", "m0: no license, says none"),
        (OTHER, {}, "warn", "m1: mit, its base m0 has apache-2.0: check meta.license"),
        (OTHER, {"enforced": True}, "fail", "m1: mit, its base m0 has apache-2.0"),
        (OTHER, {"same_as_base": False}, "skipped", "no license is asked for"),
        ({}, {}, "skipped", "no license is asked for"),
    ],
)
def test_license__is_allowed_and_that_of_the_base(
    publish: Any, zoo: Any, meta: Any, limit: Any, status: str, message: str
) -> None:
    check = license(License(**limit), publish(zoo(2), meta))

    assert check.status == status
    assert message in check.message


@pytest.mark.parametrize(
    ("facts", "enforced", "status", "message"),
    [
        ({}, True, "pass", "500 points at least, 0 failures"),
        ({"n_points": 100}, False, "warn", "found a space of 100 points, needs 200: give more"),
        ({"n_points": 100}, True, "fail", "found a space of 100 points, needs 200: give more"),
        ({"failures": 2}, True, "fail", "2 models, spaces or pairs have no score, 0 are allowed"),
        ({"reliability": 0.2}, True, "fail", "scores from halves agree by 0.20, needs 0.5"),
        ({"reliability": float("nan")}, True, "pass", "500 points at least"),
    ],
)
def test_quality__is_points_failures_and_noise(
    publish: Any, zoo: Any, facts: Any, enforced: bool, status: str, message: str
) -> None:
    check = quality(Quality(enforced=enforced), publish(zoo(3), **facts))

    assert check.status == status
    assert message in check.message
