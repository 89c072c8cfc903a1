"""The cost of comparisons across datasets: amounts of work, memory, bytes written."""

from collections.abc import Collection, Sequence

from lfm_tasks.config import AtlasConfig
from lfm_tasks.runtime.load import Load, SpaceSize, total_load
from lfm_tasks.stages.inventory.requests import PairRequest, PairSelection
from lfm_tasks.stages.scores.cost import block_load, pair_work
from lfm_tasks.stages.scores.stage import BLOCK_SIDE


def across_load(sizes: Sequence[SpaceSize], n_pairs: int, atlas: AtlasConfig, part: PairSelection) -> Load:
    """Return the cost of one block of pairs of a comparison; ``sizes`` are those of all spaces that it reads."""
    request = PairRequest(frozenset(part.measures), part.correspondence)
    return block_load(sizes, n_pairs, pair_work(atlas, request, is_grouped=False, has_moments=True))


def part_load_across(
    sources: Sequence[SpaceSize], targets: Sequence[SpaceSize], n_missing: int, atlas: AtlasConfig, part: PairSelection
) -> Load:
    """Return the cost of so many missing pairs of a comparison, block by block."""
    blocks = [
        [*sources[s : s + BLOCK_SIDE], *targets[t : t + BLOCK_SIDE]]
        for s in range(0, len(sources), BLOCK_SIDE)
        for t in range(0, len(targets), BLOCK_SIDE)
    ]
    shares = _shares([len(block) for block in blocks], n_missing)
    return total_load(
        across_load(block, share, atlas, part) for block, share in zip(blocks, shares, strict=True) if share
    )


def _shares(weights: Collection[int], total: int) -> list[int]:
    """Return how ``total`` is divided among blocks, by their weights; the sum is ``total``."""
    shares, left, weight_left = [], total, sum(weights)
    for weight in weights:
        share = -(-left * weight // weight_left)
        shares.append(share)
        left, weight_left = left - share, weight_left - weight
    return shares
