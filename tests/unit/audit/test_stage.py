"""All checks together: what is off is skipped, what stops is an error of its own."""

import logging
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from lfm_tasks.audit.files import CheckResult, junit
from lfm_tasks.audit.stage import Audit, evaluate, evaluate_check, guarded
from lfm_tasks.catalog.sections import Checks
from lfm_tasks.checks import BaselineCheck, ZooCheck, check_classes
from lfm_tasks.errors import DataError


def test_every_check_of_the_catalog__is_evaluated(publish_atlas: Any, similarities: Any) -> None:
    names = [result.name for result in evaluate(Checks(), publish_atlas(similarities()), None)]

    assert names == list(Checks.model_fields) == list(check_classes())


def test_check_that_is_off__is_skipped(publish_atlas: Any, similarities: Any) -> None:
    results = evaluate(Checks(drift=None), publish_atlas(similarities()), None)
    [drift] = [result for result in results if result.name == "drift"]

    assert (drift.status, drift.message, drift.breaks) == ("skipped", "switched off in the catalog", False)


@pytest.mark.parametrize("name", list(Checks.model_fields))
def test_check_that_stops__is_an_error_and_leaves_the_others(
    publish_atlas: Any, similarities: Any, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyError("no such cell")

    monkeypatch.setattr(check_classes()[name], "evaluate", stop)
    atlas = publish_atlas(similarities())
    with caplog.at_level(logging.CRITICAL):
        results = {result.name: result for result in evaluate(Checks(), atlas, atlas)}

    assert results[name].status == "error"
    assert "could not be judged: KeyError: 'no such cell'" in results[name].message
    assert results[name].breaks == results[name].enforced
    assert all(result.status != "error" for other, result in results.items() if other != name)


class HalfAdded(ZooCheck):
    """A check without an evaluation."""


class HalfAddedToo(BaselineCheck):
    """A check against the baseline without an evaluation."""


class Forgetful(ZooCheck):
    """A check that returns nothing."""

    def evaluate(self, current: Any) -> Any:
        """Return nothing."""


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (HalfAdded(), r"got no method evaluate(self, current) in HalfAdded of"),
        (HalfAddedToo(), r"got no method evaluate(self, current, baseline) in HalfAddedToo of"),
        (Forgetful(), r"got None as result, expected a Measurement, Skipped or Unjudged"),
    ],
)
def test_half_added_check__is_an_error_that_names_what_is_missing(
    publish_atlas: Any, similarities: Any, check: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    atlas = publish_atlas(similarities())
    with caplog.at_level(logging.CRITICAL):
        result = evaluate_check(check, atlas, atlas)

    assert (result.name, result.status, result.breaks) == (check.key(), "error", True)
    assert message in result.message


def test_damaged_baseline__is_an_error_of_the_checks_that_need_it(publish_atlas: Any, similarities: Any) -> None:
    broken = DataError("missing_source", "the baseline is damaged")
    results = {result.name: result for result in evaluate(Checks(), publish_atlas(similarities()), broken)}

    needing = {name for name, kind in check_classes().items() if issubclass(kind, BaselineCheck)}
    assert needing == {"drift", "changed_weights_same_version", "missing", "stale_baseline"}
    assert {name for name, result in results.items() if result.status == "error"} == needing
    assert results["drift"].message == "the baseline is damaged"


def test_full_disk__ends_the_audit() -> None:
    def full() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        guarded("drift", True, full)


def test_zoo_without_calibrated_values__does_not_pass(publish_atlas: Any, similarities: Any) -> None:
    atlas = publish_atlas(np.full((8, 8), np.nan))
    results = {result.name: result for result in evaluate(Checks(), atlas, None)}

    duplicate, lineage = results["near_duplicate"], results["undeclared_lineage"]
    assert (duplicate.status, duplicate.breaks) == ("error", True)
    assert duplicate.message == (
        "no two models have a calibrated similarity by overlap, so copies cannot be found. Add overlap to "
        "atlas.measures, or set atlas.null.n_permutations to 100."
    )
    assert (lineage.status, lineage.breaks) == ("unjudged", False)


def test_sentence__counts_every_status_and_names_what_is_to_be_looked_at() -> None:
    statuses: list[Any] = ["pass", "warn", "skipped", "pass", "fail", "unjudged", "skipped"]
    checks = tuple(CheckResult(f"c{number}", status, status == "fail") for number, status in enumerate(statuses))
    audit = Audit(checks, "key", None, False, Path())

    assert audit.sentence == "1 failed (c4), 1 warned (c1), 2 passed, 1 could not be judged (c5), 2 skipped"
    assert Audit(checks[2:4], "key", None, True, Path()).sentence == "1 passed, 1 skipped"


def test_junit__counts_what_was_not_judged_as_skipped() -> None:
    result = CheckResult("c", "unjudged", False, message="too few", seconds=1.25)
    suite = ElementTree.fromstring(junit((result,), "2026-11-29T09:00:00+00:00"))  # noqa: S314

    assert suite.get("skipped") == "1"
    assert (suite.get("timestamp"), suite.get("time")) == ("2026-11-29T09:00:00", "1.250")
    assert suite[0].get("time") == "1.250"
    assert [(case.get("name"), case[0].tag, case[0].get("message")) for case in suite] == [("c", "skipped", "too few")]
