"""Which pairs are scored together: blocks of bases on either side, a task each."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.grouping import rows_by_value
from lfm_tasks.runtime.run import Run
from lfm_tasks.stages.bases.stage import BasedSpace
from lfm_tasks.stages.inventory.correspondence import Knowledge
from lfm_tasks.stages.scores.block import BlockJob, ScoreSettings, part_side, reads_activations
from lfm_tasks.stages.scores.pair_index import BasePairs
from lfm_tasks.stages.scores.settings import Way
from lfm_tasks.stores.units.digests import digest

# Bases on a side of a block, and groups of them at most: among many spaces sides grow, so that blocks, and their files,
# are 528 at most. Closed forms without chance take 20 µs a pair: few and large blocks, else storing them takes longer.
# Where maps are grown a pair takes a second: no more in a block, a task that dies would take half an hour with it.
BLOCK_SIDE = 16
_MOST_GROUPS, _MOST_GROUPS_OF_CLOSED_FORMS = 32, 16


@dataclass(frozen=True)
class Block:
    """Pairs to score together: ``bases``, in order, and their places among these, lower first."""

    settings: ScoreSettings
    bases: tuple[str, ...]
    sides: Int[np.ndarray, "pairs 2"]


def block_jobs(
    run: Run, tables: Iterable[BasePairs], spaces: Mapping[str, BasedSpace], ways: Mapping[ScoreSettings, Way]
) -> Iterator[BlockJob]:
    """Yield the missing pairs in blocks, one setting (a design and measures) each."""
    for table in tables:
        way, atlas = ways[table.settings], with_measures(run.catalog.atlas, table.settings.measures)
        for block in blocks(table, way.knowledge, atlas.null):
            own = [spaces[base] for base in block.bases]
            n_features = max(based.n_features for based in own)
            part = part_side(
                max(based.n_points for based in own),
                atlas.n_eigenpairs,
                n_features if reads_activations(way.knowledge, table.settings.measures) else 0,
            )
            yield BlockJob(
                run.store, _key(block), table.settings, block.bases, block.sides, atlas,
                {based.key: based.activations for based in own}, way.knowledge, way.design, way.labels, part,
            )  # fmt: skip


def blocks(table: BasePairs, knowledge: Knowledge, null: NullConfig) -> Iterator[Block]:
    """Yield the missing pairs of bases, a block after the other; ``knowledge``: what their maps are fitted from."""
    pairs = np.argwhere(table.missing)
    if not len(pairs):
        return
    keys, places = np.unique(pairs, return_inverse=True)
    side = _block_side(len(keys), table.settings, knowledge, null)
    groups = places.reshape(-1, 2) // side
    codes = groups @ [len(keys) // side + 1, 1]
    for rows in rows_by_value(codes):
        own, sides = np.unique(pairs[rows], return_inverse=True)
        yield Block(table.settings, tuple(table.keys[base] for base in own), sides.reshape(-1, 2))


def _key(block: Block) -> str:
    pairs = block.sides.tolist()
    return digest({"kind": "scores", "settings": block.settings, "bases": block.bases, "pairs": pairs})


def _block_side(n_bases: int, settings: ScoreSettings, knowledge: Knowledge, null: NullConfig) -> int:
    if knowledge.grows:
        return BLOCK_SIDE
    is_closed = knowledge.regime == "unsupervised" or (knowledge.regime == "anchors" and not null.n_permutations)
    is_quick = is_closed and not reads_activations(knowledge, settings.measures)
    n_groups = _MOST_GROUPS_OF_CLOSED_FORMS if is_quick else _MOST_GROUPS
    return BLOCK_SIDE * -(-n_bases // (BLOCK_SIDE * n_groups))


def with_measures(atlas: AtlasConfig, names: Collection[str]) -> AtlasConfig:
    """Return the same settings with other measures."""
    return atlas.model_copy(update={"measures": tuple(sorted(names))})
