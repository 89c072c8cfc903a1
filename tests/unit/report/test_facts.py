"""What the page draws from: the numbers of the atlas, of which none is lost and none twice."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lfm_tasks.report.encoding import dataset_rows, matches_on_page, statistic_matrix
from lfm_tasks.report.facts import DIAGNOSTICS, page_facts
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
        matches = matches_on_page(score, halves, rows.groups)
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
