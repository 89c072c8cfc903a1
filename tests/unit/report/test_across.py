"""The view across datasets: a model once, its datasets side by side, and what cannot be shown left out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.report import render_report
from lfm_tasks.report.across import MOST_PAIRS, across_tables, across_view


def on_two(made_atlas: Callable[..., Any], n_models: int = 4) -> tuple[xr.Dataset, dict[str, Any]]:
    """Return an atlas of two datasets whose last model is on the first one only."""
    atlas, summary = made_atlas(n_models, 2, datasets=("photos", "texts"))
    last = atlas["source_model"].values == atlas["source_model"].values[-1]
    atlas["n_points"].loc[{"dataset": "texts"}] = np.where(last, 0, atlas["n_points"].sel(dataset="texts"))
    return atlas, summary


def view(atlas: xr.Dataset) -> dict[str, Any]:
    nearest = {"model": "model000", "dataset": "texts", "nearest": "model001", "value": 0.5}
    found = across_view(atlas, [nearest], "overlap")
    assert found is not None
    return found


def test_models__are_rows_and_datasets_are_columns(made_atlas: Callable[..., Any]) -> None:
    found = view(on_two(made_atlas)[0])

    assert found["datasets"] == ["photos", "texts"]
    assert [[one["is_there"] for one in model["on"]] for model in found["models"]] == [[True, True]] * 3 + [
        [True, False]
    ]
    assert [one["nearest"] is None for one in found["models"][0]["on"]] == [True, False]
    assert found["n_pairs"] == 3
    assert [one["n_pairs"] for one in found["agreements"]] == [3]


def test_table_of_models__has_a_row_for_each_dataset_that_a_model_is_on(made_atlas: Callable[..., Any]) -> None:
    atlas, summary = on_two(made_atlas)

    page = render_report(atlas, summary)
    verdict = page[page.index('id="findings"') : page.index('id="datasets"')]

    assert verdict.count('<tr id="model-') == 4
    assert (verdict.count(">model000</th>"), verdict.count(">model003</th>")) == (2, 1)
    assert "not on it" in page


def test_models_of_one_dataset__have_no_such_view(made_atlas: Callable[..., Any]) -> None:
    atlas, summary = made_atlas(3, 2)

    assert across_view(atlas, [], "overlap") is None
    assert "Across datasets" not in render_report(atlas, summary)


def test_pairs_beyond_what_the_page_lists__are_counted(made_atlas: Callable[..., Any]) -> None:
    atlas, summary = made_atlas(8, 1, datasets=("photos", "texts"))

    assert view(atlas)["n_pairs"] == 28
    assert len(view(atlas)["pairs"]) == MOST_PAIRS
    assert "8 more pairs of models stand in <code>models.parquet</code>" in render_report(atlas, summary)


def comparison() -> xr.Dataset:
    """Return a comparison of two sources with two targets, one pair without a score."""
    dims = ("direction", "measure", "source", "target")
    score = np.array([[[[0.9, 0.3], [np.nan, 0.5]]], [[[0.8, 0.2], [np.nan, 0.4]]]])
    message = np.array([["", ""], ["found 1 classes", ""]], dtype=object)
    return xr.Dataset(
        {name: (dims, score if name == "score" else np.full(score.shape, np.nan)) for name in ("score", "calibrated")}
        | {
            "map_residual": (("direction", "source", "target"), score[:, 0]),
            "message": (("source", "target"), message),
        },
        {"direction": ["forward", "back"], "measure": ["lfm"], "source": ["<b>/x", "a/y"], "target": ["a/x", "a/y"]},
        {"comparison": "seen", "source_dataset": "photos", "target_dataset": "texts", "regime": "unsupervised"},
    )


def test_comparison_across__shows_the_most_alike_and_why_others_have_no_score(made_atlas: Callable[..., Any]) -> None:
    atlas, summary = made_atlas(3, 2)

    (table,) = across_tables({"across/seen": comparison(), "maps/probe": xr.Dataset()})
    page = render_report(atlas, summary, {"across/seen": comparison()})

    assert [(pair["source"], pair["target"], pair["score"], pair["back"]) for pair in table["pairs"]] == [
        ("<b>/x", "a/x", 0.9, 0.8),
        ("a/y", "a/y", 0.5, 0.4),
        ("<b>/x", "a/y", 0.3, 0.2),
    ]
    assert (table["n_unscored"], table["message"]) == (1, "found 1 classes")
    assert "seen: photos to texts" in page
    assert "1 pair has no score: found 1 classes" in page
    assert "&lt;b&gt;/x" in page
