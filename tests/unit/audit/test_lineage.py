"""Near duplicates, undeclared relatives, declared ones that are far: each status, and what decides it."""

from typing import Any

import pytest

from lfm_tasks.audit.lineage import declared_parent_far, near_duplicate, undeclared_lineage
from lfm_tasks.catalog.audit import DeclaredParentFar, NearDuplicate, UndeclaredLineage

CHILD = {"m1": {"base_model": "m0"}}


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
    publish: Any, zoo: Any, similarity: float, meta: Any, enforced: bool, status: str
) -> None:
    check = near_duplicate(NearDuplicate(enforced=enforced), publish(zoo(pairs={(0, 1): similarity}), meta))

    assert check.status == status
    assert check.threshold == 0.97
    if status in ("warn", "fail"):
        assert "m0 and m1 (0.980): declare base_model" in check.message
        assert check.observed == pytest.approx(0.98)


def test_near_duplicate__names_declared_ones_too_and_shows_the_null(publish: Any, zoo: Any) -> None:
    check = near_duplicate(NearDuplicate(), publish(zoo(pairs={(0, 1): 0.99}), CHILD))

    [found] = check.findings
    assert (found["source"], found["target"], found["declared"]) == ("m0", "m1", True)
    assert check.null["n"] == 27
    assert 0.5 < check.null["median"] < 0.6
    assert sum(check.null["counts"]) == 27


def test_near_duplicate_of_one_model__is_skipped(publish: Any, zoo: Any) -> None:
    assert near_duplicate(NearDuplicate(), publish(zoo(1))).status == "skipped"


@pytest.mark.parametrize(
    ("similarity", "meta", "enforced", "status"),
    [(0.6, {}, True, "pass"), (0.8, CHILD, True, "pass"), (0.8, {}, False, "warn"), (0.8, {}, True, "fail")],
)
def test_undeclared_lineage__stands_out_against_the_zoos_own_pairs(
    publish: Any, zoo: Any, similarity: float, meta: Any, enforced: bool, status: str
) -> None:
    check = undeclared_lineage(UndeclaredLineage(enforced=enforced), publish(zoo(pairs={(0, 1): similarity}), meta))

    assert check.status == status
    if status in ("warn", "fail"):
        assert "m0 and m1" in check.message
        assert "evidence of a common origin, not proof" in check.message
        assert check.observed is not None
        assert check.observed > 4.5


@pytest.mark.parametrize(("n_models", "status"), [(6, "skipped"), (7, "pass")])
def test_undeclared_lineage__needs_20_unrelated_pairs(publish: Any, zoo: Any, n_models: int, status: str) -> None:
    check = undeclared_lineage(UndeclaredLineage(), publish(zoo(n_models)))

    assert check.status == status
    if status == "skipped":
        assert "found 15 pairs of models without a declared relation, needs 20" in check.message


def test_undeclared_lineage__is_not_hidden_by_other_relatives(publish: Any, zoo: Any) -> None:
    pairs = {(0, 1): 0.9, (2, 3): 0.9, (4, 5): 0.9}

    check = undeclared_lineage(UndeclaredLineage(), publish(zoo(pairs=pairs)))

    assert {(row["source"], row["target"]) for row in check.findings} == {("m0", "m1"), ("m2", "m3"), ("m4", "m5")}


@pytest.mark.parametrize(
    ("similarity", "enforced", "status"), [(0.8, True, "pass"), (0.55, False, "warn"), (0.55, True, "fail")]
)
def test_declared_parent__has_to_be_near(
    publish: Any, zoo: Any, similarity: float, enforced: bool, status: str
) -> None:
    atlas = publish(zoo(pairs={(0, 1): similarity}), CHILD)

    check = declared_parent_far(DeclaredParentFar(enforced=enforced), atlas)

    assert check.status == status
    assert check.observed == pytest.approx(similarity)
    assert ("m1 from m0 (0.550): check base_model" in check.message) == (status != "pass")


@pytest.mark.parametrize("meta", [{}, {"m1": {"base_model": "elsewhere/base"}}])
def test_declared_parent__that_is_not_in_the_zoo_is_skipped(publish: Any, zoo: Any, meta: Any) -> None:
    assert declared_parent_far(DeclaredParentFar(), publish(zoo(), meta)).status == "skipped"


def test_declared_parents__may_be_several(publish: Any, zoo: Any) -> None:
    atlas = publish(zoo(pairs={(0, 2): 0.8, (1, 2): 0.3}), {"m2": {"base_model": ["m0", "m1"]}})

    check = declared_parent_far(DeclaredParentFar(enforced=True), atlas)

    assert [row["base"] for row in check.findings] == ["m1", "m0"]
    assert check.status == "fail"
