"""What is held against the baseline: drift, weights, models that are gone, its age."""

from collections.abc import Callable
from typing import Any

import pytest

from lfm_tasks.audit.changes import changed_weights_same_version, drift, missing, stale_baseline
from lfm_tasks.catalog.audit import ChangedWeights, Drift, Missing, StaleBaseline


@pytest.mark.parametrize(
    ("similarity", "enforced", "status"),
    [(0.55, True, "pass"), (0.565, True, "pass"), (0.59, False, "warn"), (0.59, True, "fail")],
)
def test_drift__is_a_score_outside_its_interval(
    publish: Any, zoo: Any, similarity: float, enforced: bool, status: str
) -> None:
    baseline = publish(zoo(pairs={(0, 1): 0.55}))

    check = drift(Drift(enforced=enforced), publish(zoo(pairs={(0, 1): similarity})), baseline)

    assert check.status == status
    assert check.observed == pytest.approx(similarity - 0.55)
    if status in ("warn", "fail"):
        assert "2 of 56 scores left the baseline's interval, 2 of them between unchanged activations" in check.message
        assert check.findings[0]["change"] == pytest.approx(0.04)


def test_drift_of_changed_activations__is_not_the_pipelines(publish: Any, zoo: Any) -> None:
    now = publish(zoo(3, {(0, 1): 0.9}), content=["new", "b", "c"])

    check = drift(Drift(), now, publish(zoo(3), content=["old", "b", "c"]))

    assert "activations changed" in check.message
    assert not any(row["same_content"] for row in check.findings)


def test_drift_of_a_new_version__is_meant(publish: Any, zoo: Any) -> None:
    now = publish(zoo(pairs={(0, 1): 0.9}), {"m0": {"version": "2"}})

    assert drift(Drift(), now, publish(zoo(), {"m0": {"version": "1"}})).status == "pass"


def test_drift__is_skipped_where_nothing_can_be_compared(publish: Any, zoo: Any) -> None:
    now = publish(zoo())

    assert drift(Drift(), now, None).message == "there is no baseline yet"
    assert "other settings (n_eigenpairs)" in drift(Drift(), now, publish(zoo(), settings={"n_eigenpairs": 9})).message
    strangers = publish(zoo(2), names=["a", "b"])
    assert drift(Drift(), now, strangers).status == "skipped"


@pytest.mark.parametrize(
    ("version", "enforced", "status"),
    [("2", True, "pass"), ("1", False, "warn"), ("1", True, "fail"), (None, True, "fail")],
)
def test_changed_weights__need_a_new_version(
    publish: Any, zoo: Any, version: str | None, enforced: bool, status: str
) -> None:
    before = {} if version is None else {"m0": {"version": "1"}}
    after = {} if version is None else {"m0": {"version": version}}

    check = changed_weights_same_version(
        ChangedWeights(enforced=enforced),
        publish(zoo(2), after, content=["new", "b"]),
        publish(zoo(2), before, content=["old", "b"]),
    )

    assert check.status == status
    if status != "pass":
        assert "m0: raise meta.version" in check.message
        assert check.findings[0]["spaces"] == ["m0/layer"]


def test_changed_weights__are_not_told_from_other_points(publish: Any, zoo: Any) -> None:
    baseline = publish(zoo(2), content=["old", "older"])
    baseline.atlas["ids"][:] = "other ids"

    check = changed_weights_same_version(ChangedWeights(), publish(zoo(2)), baseline)

    assert (check.status, check.message) == ("skipped", "no space has the same points as in the baseline")


def test_changed_weights__are_skipped_without_digests(publish: Any, zoo: Any) -> None:
    baseline = publish(zoo(2))
    without = type(baseline)(baseline.atlas.drop_vars(["content", "ids"]), baseline.summary)

    check = changed_weights_same_version(ChangedWeights(), publish(zoo(2)), without)

    assert (check.status, "kept no digests" in check.message) == ("skipped", True)


@pytest.mark.parametrize(
    ("names", "enforced", "status"), [("ab", True, "pass"), ("a", False, "warn"), ("a", True, "fail")]
)
def test_missing__names_models_that_are_gone(publish: Any, zoo: Any, names: str, enforced: bool, status: str) -> None:
    check = missing(Missing(enforced=enforced), publish(zoo(len(names)), names=names), publish(zoo(2), names="ab"))

    assert check.status == status
    assert ("gone since the baseline: b" in check.message) == (status != "pass")


@pytest.mark.parametrize(
    ("days", "key", "settings", "enforced", "status", "message"),
    [
        (10, "old", {}, True, "pass", "can be compared"),
        (100, "key", {}, True, "pass", "can be compared"),
        (100, "old", {}, False, "warn", "100 days old"),
        (100, "old", {}, True, "fail", "100 days old"),
        (1, "old", {"n_eigenpairs": 9}, True, "fail", "other settings (n_eigenpairs)"),
    ],
)
def test_stale_baseline__is_old_or_of_other_settings(
    publish: Any, zoo: Any, days: float, key: str, settings: Any, enforced: bool, status: str, message: str
) -> None:
    baseline = publish(zoo(2), key=key, days=days, settings=settings)

    check = stale_baseline(StaleBaseline(enforced=enforced), publish(zoo(2)), baseline)

    assert check.status == status
    assert message in check.message


@pytest.mark.parametrize(
    ("check", "limit"),
    [
        (drift, Drift()),
        (changed_weights_same_version, ChangedWeights()),
        (missing, Missing()),
        (stale_baseline, StaleBaseline()),
    ],
)
def test_without_a_baseline__it_is_skipped(publish: Any, zoo: Any, check: Callable[..., Any], limit: Any) -> None:
    found = check(limit, publish(zoo(2)), None)

    assert (found.status, found.enforced) == ("skipped", limit.enforced)


def test_other_convention__is_another_setting(publish: Any, zoo: Any) -> None:
    baseline = publish(zoo(2))
    baseline.atlas.attrs["convention"] = "1"

    assert publish(zoo(2)).other_settings(baseline) == ["convention"]
