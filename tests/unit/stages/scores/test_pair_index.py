"""Pairs as arrays: the same as pair by pair."""

from itertools import product

import numpy as np
import pytest

from lfm_tasks.runtime.run import Scope
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.correspondence import Correspondence
from lfm_tasks.stages.inventory.requests import PairRequest, PairSelection
from lfm_tasks.stages.scores.block import ScoreSettings
from lfm_tasks.stages.scores.pair_index import PairIndex, StoredBlock, pair_indexes, pairs_in_scope, requested_pairs
from lfm_tasks.stages.scores.pair_runs import runs_of_pairs
from lfm_tasks.stores.units.store import Receipt

SPACES = [Space(dataset, f"model{number}", "layer") for dataset in ("b", "a") for number in (2, 0, 3, 1)]
OF_A, OF_B = (tuple(space for space in SPACES if space.dataset == name) for name in "ab")
FEW = Correspondence(regime="anchors", refine="none", anchor_ids=("p1",), n_anchors=1)
PARTS = (
    PairSelection("first", "a", ("lfm",), OF_A[:2], OF_A[1:], FEW),
    PairSelection("second", "a", ("cka_linear",), OF_A[2:], OF_A[:3]),
    PairSelection("third", "b", ("overlap", "cka_linear"), OF_B, OF_B),
)


def test_requested_pairs__are_those_of_all_parts_pair_by_pair() -> None:
    found = requested_pairs(PARTS, SPACES)
    for source, target in product(SPACES, SPACES):
        requests = [
            PairRequest(frozenset(part.measures), part.correspondence)
            for part in PARTS
            if {(source, target), (target, source)} & set(product(part.sources, part.targets))
        ]
        number = found.request_index(source, target)
        if not requests:
            assert number == -1
            continue
        expected = requests[0] if len(requests) == 1 else requests[0].and_also(requests[1])
        assert found.requests[number] == expected
    assert found.request_index(SPACES[0], Space("a", "unknown", "layer")) == -1
    assert len(set(found.requests)) == len(found.requests)


def test_requested_pairs__of_spaces_that_are_not_there_are_left_out() -> None:
    found = requested_pairs(PARTS, OF_A[1:])
    assert found.spaces == tuple(sorted(OF_A[1:]))
    assert found.request_index(OF_A[0], OF_A[1]) == -1
    assert requested_pairs(PARTS, []).request_indices.size == 0


def test_requested_pairs__with_two_maps_are_refused() -> None:
    other = PairSelection("fourth", "a", ("overlap",), OF_A[:2], OF_A[1:2])
    with pytest.raises(RuntimeError, match="got one pair of spaces in comparisons with different maps"):
        requested_pairs((*PARTS, other), SPACES)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope(comparisons=("first",)), {(0, 0), (0, 1), (0, 2), (0, 3), (1, 2), (2, 3)}),
        (Scope(only=("model1",), comparisons=("first",)), {(0, 1), (1, 2)}),
        (Scope(only=("model1",)), {(0, 1), (1, 2), (1, 3)}),
        (Scope(only=("model1",), comparisons=("third",)), set()),
    ],
)
def test_pairs_in_scope__are_of_chosen_comparisons_and_models(scope: Scope, expected: set[tuple[int, int]]) -> None:
    # `first` has models 2 and 0 against 0, 3 and 1; `second` 3 and 1 against 2, 0 and 3.
    found = {(int(row), int(column)) for row, column in np.argwhere(pairs_in_scope(PARTS, OF_A, scope))}
    assert found == expected


def settings_of(parts: tuple[PairSelection, ...], rest: str = "any") -> dict[tuple[str, int], ScoreSettings]:
    pairs = requested_pairs(parts, SPACES)
    return {
        (dataset, number): ScoreSettings(rest, tuple(sorted(pairs.requests[number].measures)))
        for dataset, number, _ in pairs.by_dataset()
    }


def test_base_pairs__are_named_by_keys_and_shared_by_spaces_of_one_content() -> None:
    part = PairSelection("", "b", ("overlap",), OF_B, OF_B)
    keys = dict(zip(OF_B, ("k9", "k1", "k9", "k5"), strict=True))
    (table,) = pair_indexes(requested_pairs([part], OF_B), settings_of((part,)), keys).values()
    assert table.keys == ("k1", "k5", "k9")
    np.testing.assert_array_equal(table.requested, np.triu(np.ones((3, 3), dtype=bool)))
    assert table.n_unscored == 6


def a_table(n_bases: int, *, measures: tuple[str, ...] = ("lfm", "overlap")) -> PairIndex:
    cells = np.triu(np.ones((n_bases, n_bases), dtype=bool))
    nowhere = np.full((n_bases, n_bases), -1, dtype=np.int32)
    keys = tuple(f"k{number:04}" for number in range(n_bases))
    return PairIndex(ScoreSettings("any", measures), keys, cells, cells.copy(), nowhere, nowhere.copy())


def a_receipt(key: str, bases: list[str], pairs: list[list[int]], **facts: object) -> Receipt:
    runs = runs_of_pairs(np.array(pairs, dtype=int).reshape(-1, 2)).tolist()
    return Receipt(
        "scores", key, "", {"scored_by": ["any", ["lfm"]], "bases": bases, "pair_runs": runs, "codes": []} | facts
    )


def test_base_pairs__lie_where_the_last_block_has_them_whatever_else_it_holds() -> None:
    table = a_table(3)
    table.add(a_receipt("old", ["k0000", "k0001", "unknown"], [[0, 0], [0, 1], [0, 2], [2, 2]]))
    codes = [[1, "lfm", "joined"], [1, "overlap", "joined"]]
    refused = [[1, "little_overlap", "got none"]]
    table.add(a_receipt("new", ["k0001", "k0002"], [[0, 1], [0, 0]], codes=codes, refusals=refused))
    table.add(a_receipt("of others", ["unknown"], [[0, 0]]))

    places = {pair: table.place(*pair) for pair in product(table.keys, table.keys)}
    assert places["k0001", "k0000"] == places["k0000", "k0001"]
    place = places["k0000", "k0001"]
    assert place is not None
    assert (place.block, place.row, place.measures, place.refusal, place.codes) == ("old", 1, ("lfm",), None, ())
    other = places["k0001", "k0001"]
    assert other is not None
    assert other.refusal is not None
    assert (other.block, other.row, other.refusal.reason) == ("new", 1, "little_overlap")
    assert other.codes == (("lfm", "joined"), ("overlap", "joined"))
    assert places["k0000", "k0002"] is None
    assert table.n_unscored == 2
    assert [block.key for block in table.used] == ["old", "new"]


def test_base_pairs__are_in_the_block_that_their_scores_are_taken_from() -> None:
    table = a_table(3)
    table.add(a_receipt("old", ["k0000", "k0001", "unknown"], [[0, 0], [0, 1], [0, 2]]))
    table.add(a_receipt("new", ["k0001", "k0002"], [[0, 1], [1, 1]]))
    table.add(a_receipt("newest", ["k0000", "k0001"], [[0, 0]]))

    found = [tuple(one.tolist() for one in table.pairs_in(index)) for index in range(3)]
    assert found == [([[0, 1]], [1]), ([[1, 2], [2, 2]], [0, 1]), ([[0, 0]], [0])]


def test_places_of_very_many_pairs__get_wider_types_when_they_have_to() -> None:
    part = PairSelection("", "b", ("overlap",), OF_B, OF_B)
    keys = dict(zip(OF_B, ("k0", "k1", "k2", "k3"), strict=True))
    (table,) = pair_indexes(requested_pairs([part], OF_B), settings_of((part,)), keys).values()
    assert (table.block.dtype, table.row.dtype, table.in_scope is table.requested) == (np.int16, np.uint16, True)
    table.blocks.extend([StoredBlock.of(a_receipt("any", [], []), {})] * 40_000)
    others = [[1, 2]] * 70_000
    table.add(a_receipt("late", ["k0", "k1", "unknown"], [*others, [0, 1]]))

    place = table.place("k1", "k0")
    assert place is not None
    assert (place.block, place.row) == ("late", 70_000)
    np.testing.assert_array_equal(table.block >= 0, [[0, 1, 0, 0]] + 3 * [[0] * 4])


def test_very_many_requests__are_told_apart() -> None:
    spaces = [Space("d", f"model{number:03}", "layer") for number in range(150)]
    parts = [
        PairSelection(f"part{number}", "d", (f"measure{number}",), (space,), (space,))
        for number, space in enumerate(spaces)
    ]
    found = requested_pairs(parts, spaces)
    indices = [found.request_index(space, space) for space in spaces]
    assert [found.requests[index].measures for index in indices] == [frozenset(part.measures) for part in parts]


def test_pairs_of_a_run_of_some_models__are_all_that_its_spaces_have() -> None:
    # Two names of one content: the pair of bases is computed if either name is chosen.
    spaces = tuple(Space("d", name, "layer") for name in ("a", "b", "c"))
    part = PairSelection("", "d", ("overlap",), spaces, spaces)
    keys = dict(zip(spaces, ("k0", "k1", "k1"), strict=True))
    pairs, scope = requested_pairs([part], spaces), Scope(only=("b",))
    settings = {("d", 0): ScoreSettings("any", ("overlap",))}
    (table,) = pair_indexes(pairs, settings, keys, pairs_in_scope([part], spaces, scope)).values()
    np.testing.assert_array_equal(table.in_scope, [[False, True], [False, True]])
    np.testing.assert_array_equal(table.requested, [[True, True], [False, True]])


def test_blocks_of_an_older_version__are_passed_over() -> None:
    receipt = a_receipt("new", ["k0"], [[0, 0]])
    assert ScoreSettings.of(receipt) == ("any", ("lfm",))
    facts = {name: fact for name, fact in receipt.facts.items() if name != "pair_runs"} | {"pairs": [[0, 0]]}
    assert ScoreSettings.of(Receipt("scores", "old", "", facts)) == ("", ())
