"""Which pairs are scored together: blocks of bases on either side, a task each."""

from collections.abc import Collection, Iterator, Mapping

from lfm_tasks.config import AtlasConfig
from lfm_tasks.stages.bases import BasedSpace
from lfm_tasks.stages.blocks import BlockJob, ScoreSettings, part_side, reads_activations
from lfm_tasks.stages.pair_places import ScoredPair
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.score_settings import Way
from lfm_tasks.stores.digests import digest

# Bases on a side of a block. Among many spaces more, so that the blocks are 528 at most, and so are their files; not
# where maps are grown, which takes a second each: a task that dies would take half an hour with it.
BLOCK_SIDE = 16
_MOST_GROUPS = 32


def block_jobs(
    run: Run, missing: Collection[ScoredPair], spaces: Mapping[str, BasedSpace], ways: Mapping[ScoreSettings, Way]
) -> Iterator[BlockJob]:
    """Yield the missing pairs in blocks, one setting (a design and measures) each."""
    for settings, block in blocks(missing, {own for own, way in ways.items() if way.knowledge.grows}):
        key = digest({"kind": "scores", "settings": settings, "pairs": block})
        own = {base: spaces[base] for pair in block for base in pair}
        activations = {base: based.activations for base, based in own.items()}
        way, atlas = ways[settings], with_measures(run.catalog.atlas, settings.measures)
        n_features = max(based.n_features for based in own.values())
        part = part_side(
            max(based.n_points for based in own.values()),
            atlas.n_eigenpairs,
            n_features if reads_activations(way.knowledge, settings.measures) else 0,
        )
        yield BlockJob(run.store, key, settings, block, atlas, activations, way.knowledge, way.design, way.labels, part)


def blocks(
    missing: Collection[ScoredPair], growing: Collection[ScoreSettings]
) -> Iterator[tuple[ScoreSettings, tuple[tuple[str, str], ...]]]:
    """Yield settings and pairs (keys of bases) of every block, in order; ``growing``: settings that grow maps."""
    keys = sorted({key for _, *pair in missing for key in pair})
    wide = BLOCK_SIDE * -(-len(keys) // (BLOCK_SIDE * _MOST_GROUPS))
    by_settings: dict[ScoreSettings, list[tuple[str, str]]] = {}
    for settings, first, second in sorted(missing):
        by_settings.setdefault(settings, []).append((first, second))
    for settings, pairs in by_settings.items():
        side = BLOCK_SIDE if settings in growing else wide
        group = {key: position // side for position, key in enumerate(keys)}
        found: dict[tuple[int, int], list[tuple[str, str]]] = {}
        for pair in pairs:
            found.setdefault((group[pair[0]], group[pair[1]]), []).append(pair)
        yield from ((settings, tuple(found[block])) for block in sorted(found))


def with_measures(atlas: AtlasConfig, names: Collection[str]) -> AtlasConfig:
    """Return the same settings with other measures."""
    return atlas.model_copy(update={"measures": tuple(sorted(names))})
