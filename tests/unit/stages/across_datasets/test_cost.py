"""The cost of comparisons across datasets: all missing pairs are counted, once."""

import pytest

from lfm_tasks.config import AtlasConfig
from lfm_tasks.runtime.load import SpaceSize
from lfm_tasks.spaces import Space
from lfm_tasks.stages.across_datasets.cost import across_load, part_load_across
from lfm_tasks.stages.inventory.correspondence import Correspondence
from lfm_tasks.stages.inventory.requests import PairSelection

SIZES = [SpaceSize(f"m{number}/x", 100, 8, 4, 4, 0, 0) for number in range(40)]
PART = PairSelection(
    "c", "a", ("overlap",), (Space("a", "m", "x"),), (Space("b", "m", "x"),), Correspondence("unsupervised"), "b"
)


@pytest.mark.parametrize(("n_missing", "n_tasks"), [(0, 0), (1, 1), (40 * 20, 6), (790, 6)])
def test_missing_pairs__are_shared_among_blocks(n_missing: int, n_tasks: int) -> None:
    load = part_load_across(SIZES, SIZES[:20], n_missing, AtlasConfig(), PART)

    assert load.tasks == n_tasks
    # Spaces of one size: all maps, there and back, are of as many products.
    one_pair = across_load(SIZES[:2], 1, AtlasConfig(), PART).work["products"]
    assert load.work.get("products", 0) == pytest.approx(n_missing * one_pair)


def test_more_pairs__cost_more() -> None:
    few, many = (across_load(SIZES[:4], n_pairs, AtlasConfig(), PART) for n_pairs in (1, 4))

    assert many.work["products"] == pytest.approx(4 * few.work["products"])
    assert few.work["products"] > 0
    assert many.written_bytes > few.written_bytes
