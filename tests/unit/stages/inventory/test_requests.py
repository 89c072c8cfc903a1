"""Requests for pairs of spaces: cells, counts and comparisons that contradict each other."""

from dataclasses import replace

import numpy as np
import pytest

from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.correspondence import Correspondence
from lfm_tasks.stages.inventory.requests import (
    PairRequest,
    PairSelection,
    clashes,
    comparison_facts,
    n_directed_pairs,
    requested_cells,
    unknown_measures,
)

SPACES = tuple(Space("d", f"model{index}", "layer") for index in range(3))
NAMES = [space.name for space in SPACES]
PART = PairSelection("first", "d", ("lfm",), SPACES[:1], SPACES[1:])
FEW = Correspondence(regime="anchors", n_anchors=5)


def test_requests__are_joined_unless_their_maps_differ() -> None:
    rows, maps = PairRequest(frozenset({"cka_linear"}), FEW), PairRequest(frozenset({"lfm"}))
    both = PairRequest(frozenset({"cka_linear", "lfm"}))
    assert rows.and_also(maps) == maps.and_also(rows) == both
    with pytest.raises(RuntimeError, match="in comparisons with different maps"):
        maps.and_also(PairRequest(frozenset({"overlap"}), FEW))


def test_cells__are_requested_in_both_directions_by_the_measures_of_the_comparison() -> None:
    cells = requested_cells([PART, replace(PART, dataset="elsewhere")], ["d"], ["overlap", "lfm"], NAMES)
    assert not cells[0, 0].any()
    np.testing.assert_array_equal(cells[0, 1], [[False, True, True], [True, False, False], [True, False, False]])


def test_pairs__are_counted_once_a_direction_whatever_comparisons_share_them() -> None:
    again = replace(PART, name="again", sources=SPACES[:2], targets=SPACES[:2])
    assert n_directed_pairs([PART], SPACES) == 4
    assert n_directed_pairs([PART, again], SPACES) == 4
    assert n_directed_pairs([PART], SPACES[:2]) == 2


def test_comparisons__clash_where_one_pair_needs_two_maps() -> None:
    other = replace(PART, name="other", targets=SPACES[2:], correspondence=FEW)
    assert list(clashes([PART, other])) == [(PART, other, SPACES[0], SPACES[2])]
    assert list(clashes([PART, replace(other, measures=("cka_linear",))])) == []
    assert list(clashes([PART, replace(other, correspondence=PART.correspondence)])) == []


def test_facts__name_the_spaces_of_comparisons_and_of_no_whole_dataset() -> None:
    facts = comparison_facts([PART, replace(PART, name="")])
    assert facts == {"first": {"dataset": "d", "measures": ["lfm"], "sources": NAMES[:1], "targets": NAMES[1:]}}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cka", "cka_linear"),
        ("CKA", "cka_linear"),
        ("linear-cka", "cka_linear"),
        ("rsa", "rsa_pearson_rdm_spearman"),
        ("knn", "mutual_knn_10_cosine"),
        ("overlop", "overlap"),
    ],
)
def test_unknown_measures__are_told_with_what_is_likely_meant(name: str, meant: str) -> None:
    content = {"atlas": {"measures": ["lfm", name, 3]}, "comparisons": {"one": {"measures": [name]}, "two": 3}}
    (first, message), (second, _) = unknown_measures(content)
    assert f"unknown measure '{name}'; did you mean '{meant}'?" in message
    assert (first, second) == (("atlas", "measures", 1), ("comparisons", "one", "measures", 0))
    assert unknown_measures({"atlas": None, "comparisons": []}) == []
