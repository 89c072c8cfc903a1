"""Which pairs are scored together: blocks of bases on either side, a task each."""

from collections.abc import Collection, Iterator, Mapping

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.stages.bases import BasedSpace
from lfm_tasks.stages.blocks import BlockJob, ScoreSettings, part_side, reads_activations
from lfm_tasks.stages.knowledge import Knowledge
from lfm_tasks.stages.pair_places import ScoredPair
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.score_settings import Way
from lfm_tasks.stores.digests import digest

# Bases on a side of a block, and groups of them at most: among many spaces sides grow, so that blocks, and their files,
# are 528 at most. Closed forms without chance take 20 µs a pair: few and large blocks, else storing them takes longer.
# Where maps are grown a pair takes a second: no more in a block, a task that dies would take half an hour with it.
BLOCK_SIDE = 16
_MOST_GROUPS, _MOST_GROUPS_OF_CLOSED_FORMS = 32, 16


def block_jobs(
    run: Run, missing: Collection[ScoredPair], spaces: Mapping[str, BasedSpace], ways: Mapping[ScoreSettings, Way]
) -> Iterator[BlockJob]:
    """Yield the missing pairs in blocks, one setting (a design and measures) each."""
    knowledge = {own: way.knowledge for own, way in ways.items()}
    for settings, block in blocks(missing, knowledge, run.catalog.atlas.null):
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
    missing: Collection[ScoredPair], knowledge: Mapping[ScoreSettings, Knowledge], null: NullConfig
) -> Iterator[tuple[ScoreSettings, tuple[tuple[str, str], ...]]]:
    """Yield settings and pairs (keys of bases) of every block, in order; ``knowledge``: what maps are fitted from."""
    keys = sorted({key for _, *pair in missing for key in pair})
    by_settings: dict[ScoreSettings, list[tuple[str, str]]] = {}
    for settings, first, second in sorted(missing):
        by_settings.setdefault(settings, []).append((first, second))
    for settings, pairs in by_settings.items():
        side = _block_side(len(keys), settings, knowledge[settings], null)
        group = {key: position // side for position, key in enumerate(keys)}
        found: dict[tuple[int, int], list[tuple[str, str]]] = {}
        for pair in pairs:
            found.setdefault((group[pair[0]], group[pair[1]]), []).append(pair)
        yield from ((settings, tuple(found[block])) for block in sorted(found))


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
