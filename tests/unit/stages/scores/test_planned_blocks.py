"""Blocks that are counted for a plan: the same as those that a run lists pair by pair."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lfm_tasks.catalog import Catalog
from lfm_tasks.config import AtlasConfig
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.correspondence import Correspondence
from lfm_tasks.stages.inventory.requests import PairSelection
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.pair_index import (
    ScoringInputs,
    all_settings,
    correspondence_of_maps,
    find_stored,
    pair_indexes,
    requested_pairs,
)
from lfm_tasks.stages.scores.pair_runs import runs_of_pairs
from lfm_tasks.stages.scores.planned_blocks import count_pairs
from lfm_tasks.stages.scores.stage import blocks
from lfm_tasks.stores.units.store import Receipt, UnitStore

ATLAS = AtlasConfig()
CATALOG = cast(Catalog, SimpleNamespace(atlas=ATLAS))
FEW = Correspondence(regime="anchors", n_anchors=5)


class Stored:
    """A store of receipts."""

    def __init__(self, receipts: list[Receipt]) -> None:
        self._receipts = receipts

    def receipts(self, kind: str) -> list[Receipt]:
        assert kind == "scores"
        return self._receipts


def eigenpairs(atlas: AtlasConfig) -> dict[str, int]:
    """Return the numbers of eigenpairs of the datasets, of which the second is larger."""
    return {"d": 25, "d0": 25, "d1": 33}


def a_zoo(rng: np.random.Generator, n_spaces: int, n_parts: int) -> tuple[Zoo, dict[Space, str]]:
    """Return parts of spaces drawn at random, some of one content, and the basis of each space."""
    spaces = [Space(f"d{rng.integers(2)}", f"model{index:03}", "layer") for index in range(n_spaces)]
    parts = []
    for part in range(n_parts):
        dataset = f"d{part % 2}"
        members = [space for space in spaces if space.dataset == dataset]
        sides = [tuple(space for space in members if rng.random() < 0.6) for _ in range(2)]
        measures = (("lfm",), ("cka_linear",), ("cka_linear", "overlap"))[part % 3]
        parts.append(PairSelection(f"part{part}", dataset, measures, sides[0], sides[part % 2], FEW))
    # What no comparison requests is in no zoo.
    requested = sorted({space for part in parts for space in part.spaces()})
    keys = {space: f"{space.dataset}-key{rng.integers(n_spaces):03}" for space in requested}
    return cast(Zoo, SimpleNamespace(parts=tuple(parts), exchangeability={}, labels={}, n_eigenpairs=eigenpairs)), keys


def listed(zoo: Zoo, keys: dict[Space, str], store: Any) -> tuple[int, int, list[tuple[Any, ...]]]:
    """Return how many pairs are missing and stored, and the blocks, as a run lists them."""
    pairs = requested_pairs(zoo.parts, keys)
    settings = all_settings(ATLAS, pairs, {}, {})
    tables = pair_indexes(pairs, settings, keys)
    find_stored(store, tables.values())
    requests = {of_pairs: pairs.requests[index] for (_, index), of_pairs in settings.items()}
    found = [
        (of_pairs.measures, block.bases, len(block.sides))
        for of_pairs, table in tables.items()
        for block in blocks(table, ScoringInputs(correspondence_of_maps(requests[of_pairs]), "", ""), ATLAS.null)
    ]
    n_missing = sum(int(table.missing.sum()) for table in tables.values())
    return n_missing, sum(int(table.requested.sum()) for table in tables.values()) - n_missing, found


def counted(zoo: Zoo, keys: dict[Space, str], store: Any) -> tuple[int, int, list[tuple[Any, ...]]]:
    tables = count_pairs(CATALOG, zoo, keys, store)
    found = [
        (table.settings.measures, tuple(bases), n_pairs)
        for table in tables
        for bases, n_pairs in table.blocks(ATLAS.null)
    ]
    return sum(table.n_missing for table in tables), sum(len(table.stored) for table in tables), found


@pytest.mark.parametrize("seed", range(12))
def test_blocks__are_those_of_a_run_whatever_is_stored(seed: int) -> None:
    rng = np.random.default_rng(seed)
    zoo, keys = a_zoo(rng, n_spaces=80, n_parts=1 + seed % 4)
    receipts: list[Receipt] = []
    for _ in range(3):
        store = Stored(receipts)
        expected = listed(zoo, keys, store)
        assert counted(zoo, keys, store) == expected
        # Score some of the missing blocks, or part of one.
        pairs_of_zoo = requested_pairs(zoo.parts, keys)
        tables = pair_indexes(pairs_of_zoo, all_settings(ATLAS, pairs_of_zoo, {}, {}), keys)
        find_stored(cast(UnitStore, store), tables.values())
        for of_pairs, table in tables.items():
            for number, block in enumerate(blocks(table, ScoringInputs(FEW, "", ""), ATLAS.null)):
                if rng.random() < 0.5:
                    sides = block.sides[: rng.integers(1, len(block.sides) + 1)]
                    facts = {"scored_by": list(of_pairs), "bases": [*block.bases, "of-another-zoo"], "codes": []}
                    runs = runs_of_pairs(np.concatenate([sides, [[0, len(block.bases)]]])).tolist()
                    receipts.append(Receipt("scores", f"{number}", "", facts | {"pair_runs": runs}))
    assert receipts


def test_zoo_of_one_comparison__is_counted_by_arithmetic(tmp_path: Path) -> None:
    spaces = tuple(Space("d", f"model{index:05}", "layer") for index in range(20_000))
    part = PairSelection("", "d", ("lfm",), spaces, spaces)
    zoo = cast(Zoo, SimpleNamespace(parts=(part,), exchangeability={}, labels={}, n_eigenpairs=eigenpairs))

    [table] = count_pairs(CATALOG, zoo, {space: space.model for space in spaces}, UnitStore(tmp_path))

    assert (len(table.groups.sizes), table.n_missing) == (1, 20_000 * 20_001 // 2)
    found = list(table.blocks(ATLAS.null))
    assert len(found) == 79 * 80 // 2
    assert sum(n_pairs for _, n_pairs in found) == table.n_missing


def test_nothing_requested__is_nothing_to_count(tmp_path: Path) -> None:
    zoo = cast(Zoo, SimpleNamespace(parts=(), exchangeability={}, labels={}, n_eigenpairs=eigenpairs))
    assert count_pairs(CATALOG, zoo, {}, UnitStore(tmp_path)) == []
