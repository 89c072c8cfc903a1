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
        assert "m0 and m1 (0.980). Declare base_model" in check.message
        assert check.observed == pytest.approx(0.98)


def test_near_duplicate__names_declared_ones_too_and_shows_the_null(publish_atlas: Any, similarities: Any) -> None:
    check = evaluate_check(NearDuplicate(), publish_atlas(similarities(pairs={(0, 1): 0.99}), CHILD))

    [finding] = check.findings
    assert (finding["source"], finding["target"], finding["declared"]) == ("m0", "m1", True)
    assert check.null["n"] == 27
    assert 0.5 < check.null["median"] < 0.6
    (drawn,) = check.null["histograms"]
    assert (sum(drawn["counts"]), drawn["limit"], drawn["found"]) == (27, 0.97, [0.99])


def test_near_duplicate_of_one_model__is_skipped(publish_atlas: Any, similarities: Any) -> None:
    assert evaluate_check(NearDuplicate(), publish_atlas(similarities(1))).status == "skipped"


@pytest.mark.parametrize(
    ("similarity", "meta", "enforced", "status"),
    [(0.6, {}, True, "pass"), (0.9, CHILD, True, "pass"), (0.9, {}, False, "warn"), (0.9, {}, True, "fail")],
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
        assert check.observed == pytest.approx(1, abs=1e-3)
        assert [(row["source"], row["target"], row["level"]) for row in check.findings] == [("m0", "m1", "related")]


@pytest.mark.parametrize(("n_models", "status"), [(1, "skipped"), (2, "unjudged"), (3, "pass"), (8, "pass")])
def test_undeclared_lineage__needs_a_third_model_or_a_second_layer(
    publish_atlas: Any, similarities: Any, n_models: int, status: str
) -> None:
    check = evaluate_check(UndeclaredLineage(), publish_atlas(similarities(n_models)))

    assert check.status == status
    if status == "unjudged":
        assert "none of 1 pairs of models can be judged by overlap. Give two layers or more" in check.message


def test_undeclared_lineage__is_not_hidden_by_other_relatives(publish_atlas: Any, similarities: Any) -> None:
    pairs = {(0, 1): 0.9, (2, 3): 0.9}

    check = evaluate_check(UndeclaredLineage(), publish_atlas(similarities(pairs=pairs)))

    assert {(row["source"], row["target"]) for row in check.findings} == {("m0", "m1"), ("m2", "m3")}


def test_undeclared_lineage__lists_every_pair_by_family(publish_atlas: Any, similarities: Any) -> None:
    alike = {(a, b): 0.99 for group in ((0, 2, 4, 6), (1, 3)) for a in group for b in group if a < b}

    check = evaluate_check(UndeclaredLineage(), publish_atlas(similarities(20, alike), {"m2": {"base_model": "m0"}}))

    # Only m2 says where it comes from.
    assert [(row["family"], row["declared"]) for row in check.findings] == [
        *[("from m0", False)] * 5, ("m1 / m3", False), ("from m0", True),
    ]  # fmt: skip


def test_pairs_that_cannot_be_judged__are_counted(publish_atlas: Any, similarities: Any) -> None:
    values = similarities(5)
    values[0, 3:] = values[3:, 0] = float("nan")

    checks = [evaluate_check(kind(), publish_atlas(values)) for kind in (NearDuplicate, UndeclaredLineage)]

    assert [check.status for check in checks] == ["pass", "pass"]
    assert all(check.message.endswith("; not judged: 2 of 10 pairs of probe") for check in checks)


@pytest.mark.parametrize(
    ("similarity", "enforced", "status"), [(0.8, True, "pass"), (0.55, False, "warn"), (0.55, True, "fail")]
)
def test_declared_parent__has_to_be_near(
    publish_atlas: Any, similarities: Any, similarity: float, enforced: bool, status: str
) -> None:
    atlas = publish_atlas(similarities(pairs={(0, 1): similarity}), CHILD)

    check = evaluate_check(DeclaredParentFar(enforced=enforced), atlas)

    assert check.status == status
    assert (check.observed < 0.5) == (status != "pass")
    assert check.findings[0]["similarity"] == pytest.approx(similarity)
    assert ("m1 from m0 (p 0.091). Check base_model" in check.message) == (status != "pass")


def test_declared_parent_of_which_there_is_no_score__is_told(publish_atlas: Any, similarities: Any) -> None:
    values = similarities()
    values[0, 1] = values[1, 0] = float("nan")
    meta = CHILD | {"m3": {"base_model": "m2"}}

    some = evaluate_check(DeclaredParentFar(), publish_atlas(values, meta))
    none = evaluate_check(DeclaredParentFar(), publish_atlas(values, CHILD))

    assert some.message.endswith("; not judged: 1 of 2 declared relations")
    assert none.status == "unjudged"
    assert "no calibrated similarity by overlap of m1 to the base that each names" in none.message


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
        (
            FAMILY,
            {},
            "pass",
            "no list of allowed licenses is set (allow); every model that names its base has its license",
        ),
        (
            FAMILY,
            {"allow": ("apache-2.0",)},
            "pass",
            "every license is one of the list; every model that names its base",
        ),
        (FAMILY, {"allow": ("apache-2.0",), "same_as_base": False}, "pass", "every license is one of the list"),
        (FAMILY, {"allow": ("mit",)}, "warn", "m0: apache-2.0, not allowed"),
        (FAMILY, {"allow": ("mit",), "enforced": True}, "fail", "m0: apache-2.0, not allowed"),
        ({"m0": {}, "m1": {}}, {"allow": ("mit",)}, "warn", "m0: no license, says none"),
        (OTHER, {}, "warn", "m1: mit, its base m0 has apache-2.0. Check meta.license"),
        (OTHER, {"enforced": True}, "fail", "m1: mit, its base m0 has apache-2.0"),
        (OTHER, {"same_as_base": False}, "skipped", "no list of allowed licenses is set (allow)"),
        ({}, {}, "skipped", "no list of allowed licenses is set (allow)"),
    ],
)
def test_license__is_allowed_and_that_of_the_base(
    publish_atlas: Any, similarities: Any, meta: Any, limit: Any, status: str, message: str
) -> None:
    check = evaluate_check(License(**limit), publish_atlas(similarities(2), meta))

    assert check.status == status
    assert message in check.message
