"""Which pairs of spaces keep their functional map in the atlas."""

from collections.abc import Iterator, Mapping
from math import isfinite

import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.runtime.run import Run
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.bases.stage import BasedSpace
from lfm_tasks.stages.inventory.cost import KEEP_MAPS
from lfm_tasks.stages.inventory.requests import embedded_spaces
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.map_measures import STATISTICS
from lfm_tasks.stages.scores.pair_index import PairScores
from lfm_tasks.stages.scores.stage import Scored

SpacePair = tuple[BasedSpace, BasedSpace]
# Rounding must not choose among pairs that are equally alike.
_DIGITS = 9
_SCORE, _CALIBRATED = (STATISTICS.index(name) for name in ("score", "calibrated"))


def kept_pairs(run: Run, zoo: Zoo, spaces: tuple[BasedSpace, ...], scored: Scored) -> tuple[SpacePair, ...]:
    """Return (source, target) of each map that is kept, source first in the order of names, in that order."""
    refused = {failure.dataset for failure in zoo.failures if failure.model == KEEP_MAPS}
    allowed = {based.space: based for based in spaces if based.space.dataset not in refused}
    keep = run.catalog.atlas.keep_maps
    kept = set(embedded_pairs(run.catalog, zoo, allowed, scored))
    if keep == "all":
        kept |= {(source.space, target.space) for source, target, _ in _scored_pairs(zoo, allowed, scored)}
    elif keep == "best":
        kept |= _most_alike(run, zoo, allowed, scored)
    return tuple((allowed[source], allowed[target]) for source, target in sorted(kept))


def embedded_pairs(
    catalog: Catalog, zoo: Zoo, based: Mapping[Space, BasedSpace], scored: Scored
) -> set[tuple[Space, Space]]:
    """Return the pairs of spaces with pictures that were asked for and have scores, in the order of names."""
    wanted = set(embedded_spaces(catalog, based))
    asked = {
        (min(source, target), max(source, target))
        for part in zoo.parts
        for source in wanted.intersection(part.sources)
        for target in wanted.intersection(part.targets)
        if source != target
    }
    return {pair for pair in asked if _place(scored, based[pair[0]], based[pair[1]])}


def _scored_pairs(
    zoo: Zoo, based: Mapping[Space, BasedSpace], scored: Scored
) -> Iterator[tuple[BasedSpace, BasedSpace, PairScores]]:
    """Yield all pairs of different spaces that were asked for and have scores, source first in the order of names."""
    for part in zoo.parts:
        for one, other in part.pairs():
            if one == other or one not in based or other not in based:
                continue
            source, target = (based[one], based[other]) if one < other else (based[other], based[one])
            if place := _place(scored, source, target):
                yield source, target, place


def _place(scored: Scored, source: BasedSpace, target: BasedSpace) -> PairScores | None:
    """Return where the scores of a pair lie that has a map: known points give it, or it was grown and is stored."""
    asked, place = scored.asked_of(source, target), scored.place(source, target)
    if asked is None or place is None or place.refusal:
        return None
    if asked.knowledge.regime == "full" or not asked.measures & MAP_SCORES.keys():
        return place
    failed = any(name in MAP_SCORES for name, _ in place.codes)
    return None if asked.knowledge.refine == "none" or failed else place


def _most_alike(run: Run, zoo: Zoo, based: Mapping[Space, BasedSpace], scored: Scored) -> set[tuple[Space, Space]]:
    """Return the most alike layers of each two models: by overlap, or by the first other score of maps asked for.

    Among the layers' pairs the measure counts first, then how alike they are, then the names.
    """
    preference = list(dict.fromkeys(["overlap", *run.catalog.atlas.measures, *MAP_SCORES]))
    of_maps = [name for name in preference if name in MAP_SCORES]
    has_chance = run.catalog.atlas.null.n_permutations > 0
    blocks: dict[str, np.ndarray] = {}
    best: dict[tuple[str, str, str], tuple[int, float, Space, Space]] = {}
    for source, target, place in _scored_pairs(zoo, based, scored):
        first, second = source.space, target.space
        measures = scored.measures(source, target)
        name = next((name for name in of_maps if name in measures), None)
        if first.model == second.model or name is None:
            continue
        if place.block not in blocks:
            with run.store.open("scores", place.block) as unit:
                blocks[place.block] = unit.read("values")
        statistic = _CALIBRATED if has_chance and MAP_SCORES[name].has_null else _SCORE
        values = blocks[place.block][place.row, int(source.key > target.key), place.measures.index(name)]
        # Grown maps have a chance level only where it was asked for: they stand behind those that have one.
        value = values[statistic] if isfinite(values[statistic]) else values[_SCORE] - 1
        found = of_maps.index(name), -round(float(value), _DIGITS), first, second
        models = first.dataset, first.model, second.model
        if isfinite(value) and (models not in best or found < best[models]):
            best[models] = found
    return {(source, target) for _, _, source, target in best.values()}
