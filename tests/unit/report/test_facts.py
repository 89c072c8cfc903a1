"""The rows of the page's tables: findings, spaces that need a look, comparisons."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from lfm_tasks.report import render_report
from lfm_tasks.report.facts import page_facts, page_tables
from lfm_tasks.stores.atlas.schema import GOOD_RECALL


def test_one_source__is_not_called_sources(made_atlas: Callable[..., Any]) -> None:
    atlas, summary = made_atlas(3, 2)
    names = [str(name) for name in atlas["source"].values]
    facts = {"dataset": "probe", "measures": ["overlap"], "sources": names[:1], "targets": names[1:]}

    page = render_report(atlas.assign_attrs(atlas.attrs | {"comparisons": {"one": facts}}), summary)

    assert "1 source × 5 targets" in page


def test_findings__of_a_distance_are_those_of_the_similarity_that_it_mirrors(made_atlas: Callable[..., Any]) -> None:
    atlas, summary = made_atlas(4, 3)
    similar = atlas.isel(measure=[1])
    mirrored = {name: 1 - similar[name] for name in ("score", "null_mean", "null_q95")}
    mirrored |= {"ci_low": 1 - similar["ci_high"], "ci_high": 1 - similar["ci_low"]}
    mirrored["half_scores"] = 1 - similar["half_scores"]
    distant = similar.assign(mirrored).assign_attrs(atlas.attrs | {"distances": ["overlap"]})

    pages = [render_report(each, summary) for each in (similar, distant)]

    findings = [re.findall(r"<tbody>(.*?)</tbody>", page, flags=re.DOTALL)[0] for page in pages]
    assert findings[0] == findings[1]
    # Of the similarity and of the margin of each model.
    assert len(re.findall(r"-?\d\.\d{3} to -?\d\.\d{3}", findings[0])) == 8


@pytest.mark.parametrize(
    ("column", "value", "doubt"),
    [
        ("n_components", 3, "its graph was in 3 pieces before it was joined"),
        ("recall", GOOD_RECALL - 0.01, "94% of its neighbors were found"),
        ("eigengap", 1e-9, "its eigenvalues are cut within a cluster of equals"),
    ],
)
def test_space__that_needs_a_look_is_named_with_the_reason(
    column: str, value: float, doubt: str, made_atlas: Callable[..., Any]
) -> None:
    atlas, summary = made_atlas(2, 1)
    values = atlas[column].copy()
    values[0, 0] = value

    changed = atlas.assign({column: values})
    doubtful = page_tables(changed, summary, page_facts(changed, summary, {}))["doubtful"]

    assert doubtful == [f"{atlas['source_model'].values[0]}/{atlas['source_layer'].values[0]}: {doubt}"]
    assert doubt in render_report(changed, summary)
