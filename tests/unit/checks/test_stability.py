"""Drift, weights, models that are gone, the age of the baseline; points, failures and noise."""

from typing import Any

import numpy as np
import pytest

from lfm_tasks.audit.stage import evaluate_check
from lfm_tasks.checks import BaselineCheck, PublishedAtlas
from lfm_tasks.checks.stability import ChangedWeightsSameVersion, Drift, Missing, Quality, StaleBaseline


@pytest.mark.parametrize(
    ("similarity", "enforced", "status"),
    [(0.55, True, "pass"), (0.565, True, "pass"), (0.59, False, "warn"), (0.59, True, "fail")],
)
def test_drift__is_a_score_outside_its_interval(
    publish_atlas: Any, similarities: Any, similarity: float, enforced: bool, status: str
) -> None:
    baseline = publish_atlas(similarities(pairs={(0, 1): 0.55}))

    check = evaluate_check(Drift(enforced=enforced), publish_atlas(similarities(pairs={(0, 1): similarity})), baseline)

    assert check.status == status
    assert check.observed == pytest.approx(similarity - 0.55)
    if status in ("warn", "fail"):
        assert "2 of 56 scores left the baseline's interval, 2 of them between unchanged activations" in check.message
        assert check.findings[0]["change"] == pytest.approx(0.04)


def test_drift_of_changed_activations__is_not_the_pipelines(publish_atlas: Any, similarities: Any) -> None:
    now = publish_atlas(similarities(3, {(0, 1): 0.9}), content=["new", "b", "c"])

    check = evaluate_check(Drift(), now, publish_atlas(similarities(3), content=["old", "b", "c"]))

    assert "activations changed" in check.message
    assert not any(row["same_content"] for row in check.findings)


def test_drift_of_a_new_version__is_meant(publish_atlas: Any, similarities: Any) -> None:
    now = publish_atlas(similarities(pairs={(0, 1): 0.9}), {"m0": {"version": "2"}})

    assert evaluate_check(Drift(), now, publish_atlas(similarities(), {"m0": {"version": "1"}})).status == "pass"


def test_drift__is_skipped_where_nothing_can_be_compared_and_an_error_where_it_cannot_be_told(
    publish_atlas: Any, similarities: Any
) -> None:
    now = publish_atlas(similarities())

    assert evaluate_check(Drift(), now, None).message == "there is no baseline yet"
    other = publish_atlas(similarities(), settings={"n_eigenpairs": 9})
    check = evaluate_check(Drift(), now, other)
    assert (check.status, check.breaks) == ("error", True)
    assert check.message == "the baseline was made with other settings (n_eigenpairs). Promote a new baseline."
    assert evaluate_check(Drift(enforced=False), now, other).status == "unjudged"
    without_scores = publish_atlas(similarities() * np.nan)
    assert evaluate_check(Drift(), now, without_scores).message.startswith("no pair of spaces has a score both")
    strangers = publish_atlas(similarities(2), names=["a", "b"])
    assert evaluate_check(Drift(), now, strangers).status == "skipped"


@pytest.mark.parametrize(
    ("version", "enforced", "status"),
    [("2", True, "pass"), ("1", False, "warn"), ("1", True, "fail"), (None, True, "fail")],
)
def test_changed_weights__need_a_new_version(
    publish_atlas: Any, similarities: Any, version: str | None, enforced: bool, status: str
) -> None:
    before = {} if version is None else {"m0": {"version": "1"}}
    after = {} if version is None else {"m0": {"version": version}}

    check = evaluate_check(
        ChangedWeightsSameVersion(enforced=enforced),
        publish_atlas(similarities(2), after, content=["new", "b"]),
        publish_atlas(similarities(2), before, content=["old", "b"]),
    )

    assert check.status == status
    if status != "pass":
        assert "m0. Raise meta.version" in check.message
        assert check.findings[0]["spaces"] == ["m0/layer"]


def test_changed_weights__are_not_told_from_other_points(publish_atlas: Any, similarities: Any) -> None:
    baseline = publish_atlas(similarities(2), content=["old", "older"])
    baseline.atlas["ids"][:] = "other ids"

    check = evaluate_check(ChangedWeightsSameVersion(), publish_atlas(similarities(2)), baseline)

    assert (check.status, check.message) == ("skipped", "no space has the same points as in the baseline")


def test_changed_weights__cannot_be_told_without_digests(publish_atlas: Any, similarities: Any) -> None:
    baseline = publish_atlas(similarities(2))
    without = type(baseline)(baseline.atlas.drop_vars(["content", "ids"]), baseline.summary)

    check = evaluate_check(ChangedWeightsSameVersion(), publish_atlas(similarities(2)), without)

    assert (check.status, "kept no digests" in check.message) == ("error", True)


@pytest.mark.parametrize(
    ("names", "enforced", "status"), [("ab", True, "pass"), ("a", False, "warn"), ("a", True, "fail")]
)
def test_missing__names_models_that_are_gone(
    publish_atlas: Any, similarities: Any, names: str, enforced: bool, status: str
) -> None:
    check = evaluate_check(
        Missing(enforced=enforced),
        publish_atlas(similarities(len(names)), names=names),
        publish_atlas(similarities(2), names="ab"),
    )

    assert check.status == status
    assert ("missing since the baseline: b" in check.message) == (status != "pass")


def test_model__that_is_gone_from_one_of_its_datasets_is_missed(publish_atlas: Any, similarities: Any) -> None:
    one = publish_atlas(similarities(3), names="abc")
    both = one.atlas.isel(dataset=[0, 0]).assign_coords(dataset=["probe", "film"]).copy(deep=True)
    fewer = both.copy(deep=True)
    fewer["n_points"].loc[{"dataset": "film", "source": "b/layer"}] = 0
    now = PublishedAtlas(fewer, one.summary)

    check = evaluate_check(Missing(), now, PublishedAtlas(both, one.summary))
    of_one = evaluate_check(Missing(), one, PublishedAtlas(both, one.summary))

    assert (check.status, check.observed) == ("fail", 1)
    assert "missing since the baseline: b on film. Restore them" in check.message
    assert check.findings == ({"gone": "model", "name": "b", "dataset": "film"},)
    assert of_one.status == "pass"  # the dataset is gone, and no model of it


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
    publish_atlas: Any,
    similarities: Any,
    days: float,
    key: str,
    settings: Any,
    enforced: bool,
    status: str,
    message: str,
) -> None:
    baseline = publish_atlas(similarities(2), key=key, days=days, settings=settings)

    check = evaluate_check(StaleBaseline(enforced=enforced), publish_atlas(similarities(2)), baseline)

    assert check.status == status
    assert message in check.message


@pytest.mark.parametrize("check", [Drift(), ChangedWeightsSameVersion(), Missing(), StaleBaseline()])
def test_without_a_baseline__it_is_skipped(publish_atlas: Any, similarities: Any, check: BaselineCheck) -> None:
    result = evaluate_check(check, publish_atlas(similarities(2)))

    assert (result.status, result.enforced) == ("skipped", check.enforced)


def test_other_convention__is_another_setting(publish_atlas: Any, similarities: Any) -> None:
    baseline = publish_atlas(similarities(2))
    baseline.atlas.attrs["convention"] = "1"

    now = publish_atlas(similarities(2))
    now.atlas.attrs["convention"] = "2"
    assert now.differing_settings(baseline) == ["convention"]
    for check in (Drift(), ChangedWeightsSameVersion()):
        result = evaluate_check(check, now, baseline)
        assert (result.status, result.breaks) == ("error", True)
        assert result.message == "baseline: convention 1, atlas: 2. Promote a new baseline."
    assert evaluate_check(Missing(), now, baseline).status == "pass"


@pytest.mark.parametrize(
    ("facts", "enforced", "status", "message"),
    [
        ({}, True, "pass", "500 points at least, 0 failures"),
        ({"n_points": 100}, False, "warn", "got a space of 100 points, expected 200. Give more"),
        ({"n_points": 100}, True, "fail", "got a space of 100 points, expected 200. Give more"),
        ({"failures": 2}, True, "fail", "2 models, spaces or pairs have no score, 0 are allowed"),
        ({"reliability": 0.2}, True, "fail", "scores from halves agree by 0.20, expected 0.5"),
        ({"reliability": float("nan")}, True, "pass", "500 points at least"),
    ],
)
def test_quality__is_points_failures_and_noise(
    publish_atlas: Any, similarities: Any, facts: Any, enforced: bool, status: str, message: str
) -> None:
    check = evaluate_check(Quality(enforced=enforced), publish_atlas(similarities(3), **facts))

    assert check.status == status
    assert message in check.message
