"""Near duplicates, undeclared relatives, declared ones that are far, licenses: each status, and what decides it."""

from typing import Any

import pytest

from lfm_tasks.audit.stage import evaluate_check
from lfm_tasks.checks.lineage import DeclaredParentFar, License, NearDuplicate, UndeclaredLineage

CHILD = {"m1": {"base_model": "m0"}}
FAMILY = {"m0": {"license": "apache-2.0"}, "m1": {"license": "apache-2.0", "base_model": "m0"}}
OTHER = {"m0": {"license": "apache-2.0"}, "m1": {"license": "mit", "base_model": "m0"}}


@pytest.mark.parametrize(
    ("similarity", "meta", "enforced", "status"),
    [
        (0.55, {}, True, "pass"),
        (0.98, CHILD, True, "pass"),
        (0.98, {}, False, "warn"),
        (0.98, {}, True, "fail"),
    ],
)
def test_near_duplicate__is_told_unless_it_is_declared(
    publish_atlas: Any, similarities: Any, similarity: float, meta: Any, enforced: bool, status: str
) -> None:
    check = evaluate_check(
        NearDuplicate(enforced=enforced), publish_atlas(similarities(pairs={(0, 1): similarity}), meta)
    )

    assert check.status == status
    assert check.threshold == 0.97
    if status in ("warn", "fail"):
        assert "m0 and m1 (0.980): declare base_model" in check.message
        assert check.observed == pytest.approx(0.98)


def test_near_duplicate__names_declared_ones_too_and_shows_the_null(publish_atlas: Any, similarities: Any) -> None:
    check = evaluate_check(NearDuplicate(), publish_atlas(similarities(pairs={(0, 1): 0.99}), CHILD))

    [finding] = check.findings
    assert (finding["source"], finding["target"], finding["declared"]) == ("m0", "m1", True)
    assert check.null["n"] == 27
    assert 0.5 < check.null["median"] < 0.6
    assert sum(check.null["counts"]) == 27


def test_near_duplicate_of_one_model__is_skipped(publish_atlas: Any, similarities: Any) -> None:
    assert evaluate_check(NearDuplicate(), publish_atlas(similarities(1))).status == "skipped"


@pytest.mark.parametrize(
    ("similarity", "meta", "enforced", "status"),
    [(0.6, {}, True, "pass"), (0.8, CHILD, True, "pass"), (0.8, {}, False, "warn"), (0.8, {}, True, "fail")],
)
def test_undeclared_lineage__stands_out_against_the_zoos_own_pairs(
    publish_atlas: Any, similarities: Any, similarity: float, meta: Any, enforced: bool, status: str
) -> None:
    check = evaluate_check(
        UndeclaredLineage(enforced=enforced), publish_atlas(similarities(pairs={(0, 1): similarity}), meta)
    )

    assert check.status == status
    if status in ("warn", "fail"):
        assert "m0 and m1" in check.message
        assert "evidence of a common origin, not proof" in check.message
        assert check.observed is not None
        assert check.observed > 4.5


@pytest.mark.parametrize(("n_models", "status"), [(6, "skipped"), (7, "pass")])
def test_undeclared_lineage__needs_20_unrelated_pairs(
    publish_atlas: Any, similarities: Any, n_models: int, status: str
) -> None:
    check = evaluate_check(UndeclaredLineage(), publish_atlas(similarities(n_models)))

    assert check.status == status
    if status == "skipped":
        assert "found 15 pairs of models without a declared relation, needs 20" in check.message


def test_undeclared_lineage__is_not_hidden_by_other_relatives(publish_atlas: Any, similarities: Any) -> None:
    pairs = {(0, 1): 0.9, (2, 3): 0.9, (4, 5): 0.9}

    check = evaluate_check(UndeclaredLineage(), publish_atlas(similarities(pairs=pairs)))

    assert {(row["source"], row["target"]) for row in check.findings} == {("m0", "m1"), ("m2", "m3"), ("m4", "m5")}


@pytest.mark.parametrize(
    ("similarity", "enforced", "status"), [(0.8, True, "pass"), (0.55, False, "warn"), (0.55, True, "fail")]
)
def test_declared_parent__has_to_be_near(
    publish_atlas: Any, similarities: Any, similarity: float, enforced: bool, status: str
) -> None:
    atlas = publish_atlas(similarities(pairs={(0, 1): similarity}), CHILD)

    check = evaluate_check(DeclaredParentFar(enforced=enforced), atlas)

    assert check.status == status
    assert check.observed == pytest.approx(similarity)
    assert ("m1 from m0 (0.550): check base_model" in check.message) == (status != "pass")


@pytest.mark.parametrize("meta", [{}, {"m1": {"base_model": "elsewhere/base"}}])
def test_declared_parent__that_is_not_in_the_zoo_is_skipped(publish_atlas: Any, similarities: Any, meta: Any) -> None:
    assert evaluate_check(DeclaredParentFar(), publish_atlas(similarities(), meta)).status == "skipped"


def test_declared_parents__may_be_several(publish_atlas: Any, similarities: Any) -> None:
    atlas = publish_atlas(similarities(pairs={(0, 2): 0.8, (1, 2): 0.3}), {"m2": {"base_model": ["m0", "m1"]}})

    check = evaluate_check(DeclaredParentFar(enforced=True), atlas)

    assert [row["base"] for row in check.findings] == ["m1", "m0"]
    assert check.status == "fail"


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
    publish_atlas: Any, similarities: Any, meta: Any, limit: Any, status: str, message: str
) -> None:
    check = evaluate_check(License(**limit), publish_atlas(similarities(2), meta))

    assert check.status == status
    assert message in check.message
