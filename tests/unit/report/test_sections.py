"""What the page shows beside the scores: transfers, functional maps, distortions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lfm_tasks.report import render_report
from lfm_tasks.report.encoding import dataset_rows
from lfm_tasks.report.sections import class_names, map_facts, transfer_tables


def test_transfers__name_what_was_chosen_and_what_has_no_number(
    made_atlas: Callable[..., Any], with_sections: Callable[..., Any]
) -> None:
    atlas, summary = made_atlas(3, 2)
    _, groups = with_sections(atlas)
    (table,) = transfer_tables(groups)

    page = render_report(atlas, summary, groups)

    assert [row["n_anchors"] for row in table["pairs"]] == [10, 20]
    assert [row["name"] for pair in table["pairs"] for row in pair["candidates"] if row["is_chosen"]] == [
        "procrustes",
        "functional_map",
    ]
    assert table["pairs"][0]["candidates"][2]["accuracy"] is None
    assert page.count("✓ chosen") == 2
    assert f"{table['pairs'][0]['candidates'][1]['stitched_accuracy']:.3f}" in page


def test_transfer_that_failed__says_why(made_atlas: Callable[..., Any], with_sections: Callable[..., Any]) -> None:
    atlas, summary = made_atlas(3, 2)
    group = with_sections(atlas)[1]["transfers/probe"]
    empty = group.assign({name: group[name] * np.nan for name in group.data_vars})
    failed = empty.assign_coords(
        chosen=("pair", np.array(["", ""], dtype=object)),
        message=("pair", np.array(["found 3 anchors, needs 5", "<b>"], dtype=object)),
    )

    page = render_report(atlas, summary, {"transfers/probe": failed})

    assert "no map: found 3 anchors, needs 5" in page
    assert "no map: &lt;b&gt;" in page


def test_classes__that_are_numbers_stand_in_their_order() -> None:
    assert class_names(["10", "9", "", "b", "a", "9"]) == ["9", "10", "a", "b"]


def test_distortion_by_class__is_the_mean_over_the_points_that_the_space_has(
    made_atlas: Callable[..., Any], with_sections: Callable[..., Any], unpacked: Callable[..., np.ndarray]
) -> None:
    atlas, _ = made_atlas(3, 2)
    atlas, groups = with_sections(atlas)
    group = groups["maps/probe"]

    facts = map_facts(group, dataset_rows(atlas, "probe"))

    assert facts is not None
    found = facts["distortion"]
    values = group["target_distortion"].values
    expected = [np.nanmean(values[:, group["label"].values == label], axis=1) for label in found["labels"]]
    np.testing.assert_allclose(unpacked(found["target"]["by_class"]), np.transpose(expected), atol=0.0006)
    worst = [found["points"][point] for point in found["target"]["worst"][0]]
    assert worst == [str(group["point"].values[place]) for place in np.argsort(-np.nan_to_num(values[0]))[:5]]


def test_maps__beyond_what_a_page_holds_are_counted(
    made_atlas: Callable[..., Any], with_sections: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lfm_tasks.report.sections.MAX_PAIRS", 5)
    atlas, summary = made_atlas(3, 2)
    atlas, groups = with_sections(atlas)

    assert "The maps of 5 of 12 pairs on probe are on this page" in render_report(atlas, summary, groups)


def test_maps__are_drawn_by_their_low_corner_where_whole_ones_are_too_large(
    made_atlas: Callable[..., Any], with_sections: Callable[..., Any]
) -> None:
    atlas, _ = made_atlas(3, 2)
    rows = dataset_rows(atlas, "probe")
    small, large = (with_sections(atlas, n_eigenpairs=n)[1]["maps/probe"] for n in (30, 300))

    assert map_facts(small, rows)["drawn"] == [30, 30]  # type: ignore[index]
    assert map_facts(large, rows)["drawn"] == [20, 20]  # type: ignore[index]
