"""Failures that say the same are told once, whoever and how many they are."""

from dataclasses import replace

import pytest

from lfm_tasks.runtime.folding import failures_as_json, fold_failures, says_the_same
from lfm_tasks.runtime.run import Failure

LOST = Failure("probe", "net", "", "validate", "missing_source", "zoo/net.npy: no such file")


def lost(n: int, dataset: str = "probe") -> list[Failure]:
    return [replace(LOST, dataset=dataset, model=f"net{i}", message=f"zoo/net{i}.npy: no such file") for i in range(n)]


def lines(failures: list[Failure]) -> list[str]:
    return [folded.line(with_dataset=True) for folded in fold_failures(failures)]


def test_twenty_thousand_that_say_the_same__are_one_line_with_a_count_and_three_names() -> None:
    assert lines(lost(20_000)) == [
        "net0, net1, net2 and 19,997 more (probe): 20,000 times: zoo/net0.npy: no such file [missing_source]"
    ]
    assert lines(lost(3)) == ["net0, net1, net2 (probe): zoo/net0.npy: no such file [missing_source]"]


def test_a_dataset_a_stimulus__is_one_line_too() -> None:
    few = [
        Failure(f"s{i:05}", f"net_s{i:05}", "", "validate", "too_few_points", f"got {i} points, expected at least 6")
        for i in range(9)
    ]
    assert lines(few) == [
        "net_s00000, net_s00001, net_s00002 and 6 more (s00000, s00001, s00002 and 6 more datasets): 9 times: "
        "got 0 points, expected at least 6 [too_few_points]"
    ]


def test_layers_of_one_model__are_named_with_it() -> None:
    same = [replace(LOST, layer=layer) for layer in ("a", "b", "c", "d", "e")]
    assert [folded.names for folded in fold_failures(same)] == ["net/a, b, c and 2 more layers"]
    of_two = same + [replace(one, model="other", message="zoo/other.npy: no such file") for one in same]
    assert [folded.names for folded in fold_failures(of_two)] == ["net, other"]


def test_few_that_differ_by_their_numbers__keep_them() -> None:
    rows = [replace(LOST, layer=f"l{i}", message=f"net.npz#l{i}: got NaN in row {7 * i}") for i in range(3)]
    assert len(lines(rows)) == 3
    assert "got NaN in row 14" in lines(rows)[2]
    assert len(lines([*rows, replace(rows[0], layer="l3", message="net.npz#l3: got NaN in row 21")])) == 1


@pytest.mark.parametrize(
    "change", [{"reason": "bad_ids"}, {"stage": "bases"}, {"message": "zoo/net.npy: cannot be read"}]
)
def test_other_reasons__stay_apart(change: dict[str, str]) -> None:
    other = replace(LOST, **change)
    assert not says_the_same(LOST, other)
    assert len(lines([LOST, other])) == 2


def test_json__counts_many_and_lists_few() -> None:
    [entry] = failures_as_json(lost(5))
    assert (entry["model"], entry["count"], entry["names"]) == ("net0", 5, "net0, net1, net2 and 2 more")
    assert [entry["model"] for entry in failures_as_json(lost(3))] == ["net0", "net1", "net2"]
    assert "count" not in failures_as_json(lost(3))[0]


def test_one_message_for_several_layers__is_told_once_even_where_it_names_them() -> None:
    message = "got the node 'r', expected none. Leave out layers: ['!r', '!b', '!logits']"
    same = [replace(LOST, layer=layer, message=message) for layer in ("r", "b", "logits")]
    assert lines(same) == [f"net/r, b, logits (probe): {message} [missing_source]"]
