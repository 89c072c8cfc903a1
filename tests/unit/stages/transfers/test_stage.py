"""A transfer is one directed pair of a comparison: its table has NaN and a status where the fit failed."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from lfm_tasks.spaces import Space
from lfm_tasks.spectral.transfer.selection import CANDIDATES
from lfm_tasks.stages.transfers.job import AnchorSpec
from lfm_tasks.stages.transfers.stage import TransferPair, Transfers
from lfm_tasks.workers.pool import JobFailure

PAIR = TransferPair("c", Space("probe", "a", "x"), Space("probe", "b", "x"), AnchorSpec("anchors", 12, 3))
FAILED = TransferPair("c", Space("probe", "b", "x"), Space("probe", "a", "x"), AnchorSpec("anchors", 12, 3))


@dataclass
class Store:
    facts: dict[str, Any]

    def receipt(self, kind: str, key: str) -> Any:
        assert (kind, key) == ("maps", "k")
        return self


def test_keys__name_pair_anchors_unit_and_failure() -> None:
    transfers = Transfers(((PAIR, "k"),), {FAILED: JobFailure("few_anchors", "got 2")})
    anchors = "{'regime': 'anchors', 'n_anchors': 12, 'seed': 3, 'pairs': ()}"
    source, target = (f"Space(dataset='probe', model='{model}', layer='x')" for model in "ab")
    assert transfers.keys == (
        f"({{'comparison': 'c', 'source': {source}, 'target': {target}, 'known': {anchors}}}, 'k')",
        f"({{'comparison': 'c', 'source': {target}, 'target': {source}, 'known': {anchors}}}, "
        "{'reason': 'few_anchors', 'message': 'got 2'})",
    )
    assert transfers.unit_keys == {"maps": {"k"}}


def test_table__has_the_candidates_of_each_pair_and_why_there_are_none() -> None:
    name = CANDIDATES[1]
    store = Store({"table": [{"name": name, "mrr": 0.5, "accuracy": None}], "chosen": name, "n_anchors": 12})
    transfers = Transfers(((PAIR, "k"),), {FAILED: JobFailure("few_anchors", "got 2")})

    run = SimpleNamespace(store=store, catalog=SimpleNamespace(hide_values=str))
    table = transfers.groups(run)["transfers/probe"]  # type: ignore[arg-type]

    assert table.source.values.tolist() == ["a/x", "b/x"]
    assert table.status.values.tolist() == ["ok", "few_anchors"]
    assert table.message.values.tolist() == ["", "got 2"]
    assert table.chosen.values.tolist() == [name, ""]
    np.testing.assert_array_equal(table.mrr.values[0] == 0.5, np.array(CANDIDATES) == name)
    assert np.isnan(table.accuracy.values).all()
    np.testing.assert_array_equal(table.n_anchors.values, [12, np.nan])
