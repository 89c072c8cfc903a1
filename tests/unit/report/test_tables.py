"""The rows of the page's tables: models and their nearest, spaces that need a look, comparisons."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lfm_tasks.report import render_report
from lfm_tasks.report.tables import pair_rows, similarity_scale, zoo_view
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
    # Of the similarity and of the lead of each model.
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

    assert zoo_view(changed, summary).doubtful == [
        f"{atlas['source_model'].values[0]}/{atlas['source_layer'].values[0]}: {doubt}"
    ]
    assert doubt in render_report(changed, summary)


def test_related_pairs__say_who_declares_whom_and_the_owners_and_licenses_of_both(
    made_atlas: Callable[..., Any],
) -> None:
    atlas, summary = made_atlas(4, 2)
    facts = [
        {"owner": "ads", "license": "mit"}, {"owner": "maps", "license": "mit", "base_model": "model000"},
        {"base_model": "model000"}, {},
    ]  # fmt: skip
    summary["models"] = [{"name": f"model{n:03}", "meta": meta} for n, meta in enumerate(facts)]

    view = zoo_view(atlas, summary)
    rows = {(row["relation"].source, row["relation"].target): row for row in pair_rows(view, {})}

    assert rows["model000", "model001"]["declared"] == "by model001"
    assert rows["model001", "model002"]["declared"] == "through others"
    assert rows["model000", "model001"]["facts"] == {"owner": "ads / maps", "license": "mit"}
    assert rows["model000", "model002"]["facts"]["license"] == "mit / –"
    assert view.meta_columns == ["owner", "license", "base_model"]


def test_scale__counts_every_pair_and_is_absent_without_calibrated_numbers(made_atlas: Callable[..., Any]) -> None:
    atlas, summary = made_atlas(5, 2)

    scale = similarity_scale(zoo_view(atlas, summary))

    assert scale is not None
    assert sum(scale["counts"]) == scale["n"] == 10
    nothing = atlas.assign(calibrated=atlas["calibrated"] * float("nan"))
    assert similarity_scale(zoo_view(nothing, summary)) is None
    page = render_report(nothing, summary)
    assert "no chance was computed" in page
    assert "calibrated against chance; each layer" not in page


def test_nearest__that_is_not_clear_names_both(made_atlas: Callable[..., Any]) -> None:
    atlas, summary = made_atlas(4, 2)
    halves = atlas["half_scores"].copy()
    halves[:] = halves + 0.3 * np.array([1, -1, 1, -1]) * np.random.default_rng(0).random((*halves.shape[:-1], 1))

    page = render_report(atlas.assign(half_scores=halves), summary)

    assert re.search(r'class="unclear">no clear nearest</span> model\d+ or model\d+', page)
