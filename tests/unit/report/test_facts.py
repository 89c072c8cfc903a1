"""What the page draws from: the numbers of the atlas, of which none is lost and none twice."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lfm_tasks.report.encoding import dataset_rows, matches_on_page, model_similarity, statistic_matrix
from lfm_tasks.report.facts import DIAGNOSTICS, columns_of, near_models, page_facts
from lfm_tasks.report.tables import zoo_view

Unpack = Callable[[dict[str, Any]], np.ndarray]


def test_diagnostics__are_those_of_matched_layers_and_of_kept_maps_both_ways(
    made_atlas: Callable[..., Any], with_sections: Callable[..., Any], unpacked: Unpack
) -> None:
    atlas, summary = made_atlas(4, 3)
    atlas, groups = with_sections(atlas, n_pairs=7)

    facts = page_facts(atlas, groups, zoo_view(atlas, summary))

    rows = dataset_rows(atlas, "probe")
    kept = facts["datasets"][0]["maps"]
    for place, measure in enumerate(facts["measures"]):
        score = statistic_matrix(atlas, rows, "score", measure["name"])
        halves = statistic_matrix(atlas, rows, "half_scores", measure["name"])
        matches = matches_on_page(score, np.moveaxis(halves, -1, 0), rows.groups)
        of_measure = facts["views"][0][place]
        np.testing.assert_array_equal(unpacked(of_measure["matches"]), matches)
        for name in DIAGNOSTICS:
            whole, found = statistic_matrix(atlas, rows, name), unpacked(of_measure["diagnostics"][name])
            for space in range(len(rows.names)):
                for model, group in enumerate(rows.groups):
                    match = matches[space, model]
                    layer = -2 - match if match <= -2 else match
                    expected = np.nan if layer < 0 else whole[space, group[layer]]
                    np.testing.assert_allclose(found[space, model], expected, atol=0.00051 + np.nanmax(whole) / 2**16)
    for name in DIAGNOSTICS:
        whole, found = statistic_matrix(atlas, rows, name), unpacked(kept["diagnostics"][name])
        expected = [(whole[source, target], whole[target, source]) for source, target in kept["pairs"]]
        np.testing.assert_allclose(found, expected, atol=0.0001 + np.max(expected) / 2**16)


def test_intervals__are_told_by_their_lower_end_and_what_the_upper_one_is_beyond_its_mirror(
    made_atlas: Callable[..., Any], unpacked: Unpack
) -> None:
    atlas, summary = made_atlas(5, 2)

    facts = page_facts(atlas, {}, zoo_view(atlas, summary))

    rows = dataset_rows(atlas, "probe")
    for place, measure in enumerate(facts["measures"]):
        known = facts["views"][0][place]["known"]
        assert (known["ci_low"]["from"], known["ci_high"]["from"]) == ("score", "mirrored")
        score, low, high = (unpacked(known[name]) for name in ("score", "ci_low", "ci_high"))
        expected = [statistic_matrix(atlas, rows, name, measure["name"]) for name in ("ci_low", "ci_high")]
        np.testing.assert_allclose([score + low, score - low + high], expected, atol=0.000501)


def test_numbers_of_very_many_spaces__are_those_of_each_model_and_the_models_nearest_to_it(
    made_atlas: Callable[..., Any], unpacked: Unpack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lfm_tasks.report.facts._MOST_PAIRS", 18 * 6)  # six layers beside each of 18: its own and 3
    atlas, summary = made_atlas(6, 3)
    atlas["map_residual"] = ("dataset", "source", "target"), np.random.default_rng(0).random((1, 18, 18))

    facts = page_facts(atlas, {}, zoo_view(atlas, summary))

    rows = dataset_rows(atlas, "probe")
    for place, measure in enumerate(("lfm", "overlap")):
        of_measure = facts["views"][0][place]
        similarity = model_similarity(statistic_matrix(atlas, rows, "score", measure), rows.groups)
        np.fill_diagonal(similarity, -1)
        assert of_measure["near"] == [[model, int(row.argmax())] for model, row in enumerate(similarity)]
        score, chance = (
            statistic_matrix(atlas, rows, "score", measure),
            statistic_matrix(atlas, rows, "null_mean", measure),
        )
        diagnostics = unpacked(of_measure["diagnostics"]["map_residual"])
        for model, near in enumerate(of_measure["near"]):
            own, columns = rows.groups[model], rows.groups[near[0]] + rows.groups[near[1]]
            shown = unpacked(of_measure["known"]["score"])[own]
            np.testing.assert_allclose(shown, score[np.ix_(own, columns)], atol=0.00051)
            shown = unpacked(of_measure["known"]["null_mean"])[own]
            np.testing.assert_allclose(shown, chance[np.ix_(own, columns)], atol=0.00051)
            assert (np.isfinite(diagnostics[own]) == np.isin(np.arange(6), near)).all()


def test_near_models__have_as_many_layers_as_there_is_room_for_but_one_model_at_least() -> None:
    groups = [[0, 1], [2], [3, 4, 5], [6]]
    similarity = np.array([[1, 0.2, 0.9, 0.3], [0.2, 1, np.nan, 0.4], [0.9, np.nan, 1, 0.1], [0.3, 0.4, 0.1, 1]])

    assert near_models(similarity, groups, 6) == [[0, 2, 3], [1, 3, 0], [2, 0, 3], [3, 1, 0]]
    assert near_models(similarity, groups, 2) == [[0, 2], [1, 3], [2, 0], [3, 1]]
    expected = [[0, 1, 3, 4, 5], [0, 1, 3, 4, 5], [2, 6, -1, -1, -1], [3, 4, 5, 0, 1], [3, 4, 5, 0, 1]]
    found = columns_of(near_models(similarity, groups, 2), groups)
    assert found[:5].tolist() == expected
