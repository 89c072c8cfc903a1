"""The answer in words: what is said of which zoo, how urgent it is, and where its links lead."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from lfm_tasks.lineage.families import families_of
from lfm_tasks.lineage.levels import Level
from lfm_tasks.lineage.relations import Outlier, Relation
from lfm_tasks.report import render_report
from lfm_tasks.report.answer import Link, Sentence, answer, points_sentence
from lfm_tasks.report.tables import ZooView, texts
from lfm_tasks.statistics.model_pairs import base_models

NOTHING_FAILED = {"counts": {"failures": 0, "directed_pairs_without_score": 0}}


def relation(source: str, target: str, level: Level, declared: bool = False, similarity: float = 0.5) -> Relation:
    probability = {Level.COPY: 1.0, Level.RELATED: 0.99}.get(level, 0.1)
    return Relation("probe", source, target, level, probability, similarity, similarity, 1, 2, declared)


def zoo(meta: Mapping[str, Mapping[str, Any]], *relations: Relation, **more: Any) -> ZooView:
    """Return a zoo of these models; pairs that are not named are beyond chance."""
    names = list(meta)
    named = {frozenset((one.source, one.target)) for one in relations}
    others = [
        relation(a, b, Level.BEYOND_CHANCE)
        for place, a in enumerate(names)
        for b in names[place + 1 :]
        if frozenset((a, b)) not in named
    ]
    every = (*relations, *others)
    facts = {"outliers": (), "findings": [], "spaces": []} | more
    return ZooView(
        "overlap", ("probe",), every, families_of(every, meta), facts["outliers"], facts["findings"], facts["spaces"],
        {name: texts(of) for name, of in meta.items()}, {name: base_models(of) for name, of in meta.items()},
    )  # fmt: skip


def said(view: ZooView, **more: Any) -> dict[str, Sentence]:
    return {one.about: one for one in answer(view, NOTHING_FAILED, **more)}


def addresses(sentence: Sentence) -> list[str]:
    return [part.to for part in sentence.parts if isinstance(part, Link)]


def test_copies__that_nobody_declared_need_action_and_stand_first() -> None:
    view = zoo({"a": {}, "b": {}, "c": {}}, relation("a", "b", Level.COPY, similarity=0.99))

    first = answer(view, NOTHING_FAILED)[0]

    assert (first.about, first.urgency) == ("Action", "act")
    assert "1 pair needs action: a and b are copies of each other (similarity 0.99)" in first.text
    assert addresses(first) == ["#pairs", "#pair-1"]


def test_many_pairs__are_counted_and_the_first_named() -> None:
    names = [f"m{n}" for n in range(6)]
    view = zoo({name: {} for name in names}, *(relation("m0", name, Level.RELATED) for name in names[1:]))

    assert "5 pairs need action" in said(view)["Action"].text
    assert said(view)["Action"].text.count(" are related") == 3
    assert "and 2 more" in said(view)["Action"].text


def test_descent__is_told_as_declared_and_where_activations_say_otherwise() -> None:
    meta = {"base": {}, "child": {"base_model": "base"}, "stranger": {"base_model": "base"}}
    view = zoo(
        meta, relation("base", "child", Level.RELATED, declared=True),
        relation("base", "stranger", Level.BEYOND_CHANCE, declared=True),
        relation("child", "stranger", Level.BEYOND_CHANCE, declared=True),
    )  # fmt: skip

    descent = said(view)["Descent"]

    assert descent.urgency == "look"
    assert descent.text.startswith("child (related) comes from base, as declared. stranger names base (beyond chance)")
    assert "activations do not confirm it" in descent.text
    assert said(view)["Action"].urgency == "fine"


def test_family_without_a_declaration__has_no_oldest() -> None:
    view = zoo({"a": {}, "b": {}}, relation("a", "b", Level.RELATED))

    assert "a, b are one family; which of them is older is unknown" in said(view)["Descent"].text


def test_groups__are_held_against_the_first_facet_and_outliers_named() -> None:
    meta = {f"m{n}": {"family": "x" if n < 3 else "y"} for n in range(6)}
    apart = (Outlier("probe", "m5", 0.2, 0.6),)

    groups = said(zoo(meta, outliers=apart), groups=[["m0", "m1", "m2"], ["m3", "m4"]])["Families"]

    assert groups.text == (
        "2 groups of like models hold 5 of 6, all of them beside models of their own family. "
        "m5 stands apart: 0.20 alike in the median, others 0.60."
    )
    assert groups.urgency == "look"
    assert addresses(groups) == ["#models", "#model-6"]


def test_certainty__counts_what_is_not_clear_and_says_where_nothing_was_computed() -> None:
    row = {"is_clear": True}

    some = said(zoo({"a": {}, "b": {}}, findings=[row, row | {"is_clear": False}]))["Certainty"]
    none = said(zoo({"a": {}, "b": {}}, findings=[{"is_clear": None}]))["Certainty"]

    assert "no clear nearest for 1 of 2 models" in some.text
    assert "how sure each nearest model is was not computed" in none.text


def test_what_cannot_be_told__is_not_called_fine() -> None:
    view = zoo({"a": {}, "b": {}}, relation("a", "b", Level.CANNOT_TELL, similarity=np.nan))

    assert "Copies and relatives cannot be found" in said(view)["Copies"].text
    assert said(view)["Copies"].urgency == "look"
    assert "there is one model only" in said(zoo({"a": {}}))["Copies"].text


@pytest.mark.parametrize(
    ("status", "urgency", "words"),
    [("fail", "act", "Since the baseline: gone: a"), ("pass", "fine", "changed since the baseline")],
)
def test_change__is_what_the_audit_found(status: str, urgency: str, words: str) -> None:
    checks = [{"name": "missing", "status": status, "message": "gone: a"}, {"name": "license", "status": "fail"}]

    found = said(zoo({"a": {}, "b": {}}), audit={"checks": checks, "baseline": "1", "atlas": "2"})["Change"]

    assert found.urgency == urgency
    assert words in found.text


def test_license__that_is_not_that_of_the_base_needs_action() -> None:
    meta = {"base": {"license": "mit", "owner": "x"}, "child": {"license": "unknown", "base_model": "base"}, "c": {}}

    found = said(zoo(meta, relation("base", "child", Level.RELATED, declared=True)))["License and owner"]

    assert found.urgency == "act"
    assert found.text == (
        "Licenses: mit (1), unknown (1), not set for 1; owners: x (1), not set for 2. "
        "child has another license than the base."
    )


def test_answer__has_three_to_six_sentences_whose_links_lead_somewhere(made_atlas: Callable[..., Any]) -> None:
    import re

    for n_models in (1, 2, 7):
        page = render_report(*made_atlas(n_models, 2))
        part = page.split('id="answer"')[1].split("</section>")[0]

        assert 3 <= part.count("<li class=") <= 6
        for place in re.findall(r'href="#([^"=]+)"', part):
            assert f'id="{place}"' in page, place


def test_points__are_one_number_or_the_fewest_and_the_most() -> None:
    assert points_sentence(np.array([[100, 0], [100, 100]])) == "100 points"
    assert points_sentence(np.array([80, 1200])) == "80 to 1,200 points"
    assert points_sentence(np.array([0])) == "no points"
