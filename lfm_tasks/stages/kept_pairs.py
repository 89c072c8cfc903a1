"""Which pairs of spaces keep their functional map in the atlas."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.spaces import Space
from lfm_tasks.stages.asked import embedded_spaces
from lfm_tasks.stages.bases import BasedSpace
from lfm_tasks.stages.kept_size import KEEP_MAPS
from lfm_tasks.stages.map_scores import MAP_SCORES
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.scores import Scored
from lfm_tasks.stages.statistics import STATISTICS
from lfm_tasks.stages.validate import Zoo

SpacePair = tuple[BasedSpace, BasedSpace]
# Rounding must not choose among pairs that are equally alike.
_DIGITS = 9


@dataclass(frozen=True)
class _Liking:
    """How alike two spaces are: by the measure that comes first, then by how much, then by name."""

    measure: int
    unlike: float
    pair: SpacePair

    @property
    def order(self) -> tuple[int, float, Space, Space]:
        return self.measure, self.unlike, self.pair[0].space, self.pair[1].space


def kept_pairs(run: Run, zoo: Zoo, spaces: tuple[BasedSpace, ...], scored: Scored) -> tuple[SpacePair, ...]:
    """Return (source, target) of each map that is kept, source first in the order of names, in that order."""
    refused = {failure.dataset for failure in zoo.failures if failure.model == KEEP_MAPS}
    allowed = {based.space: based for based in spaces if based.space.dataset not in refused}
    keep = run.catalog.atlas.keep_maps
    kept = set(embedded_pairs(run.catalog, zoo, allowed, scored))
    if keep == "all":
        kept |= {(a.space, b.space) for a, b in _scored_pairs(zoo, allowed, scored)}
    elif keep == "best":
        kept |= {(a.space, b.space) for a, b in _most_alike(run, _scored_pairs(zoo, allowed, scored), scored)}
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
    return {pair for pair in asked if _has_scores(scored, based[pair[0]], based[pair[1]])}


def _scored_pairs(zoo: Zoo, based: Mapping[Space, BasedSpace], scored: Scored) -> Iterator[SpacePair]:
    """Yield all pairs of different spaces that were asked for and have scores, source first in the order of names."""
    for part in zoo.parts:
        for pair in part.pairs():
            source, target = min(pair), max(pair)
            if source == target or source not in based or target not in based:
                continue
            if _has_scores(scored, based[source], based[target]):
                yield based[source], based[target]


def _has_scores(scored: Scored, source: BasedSpace, target: BasedSpace) -> bool:
    pair = source.space.dataset, source.key, target.key
    return scored.place(*pair) is not None and scored.refusal(*pair) is None


def _most_alike(run: Run, pairs: Iterable[SpacePair], scored: Scored) -> Iterator[SpacePair]:
    """Yield the most alike layers of each two models: by overlap, or by the first other score of maps asked for."""
    of_maps = [name for name in run.catalog.atlas.measures if name in MAP_SCORES]
    preference = list(dict.fromkeys(["overlap", *of_maps, *MAP_SCORES]))
    best: dict[tuple[str, str, str], _Liking] = {}
    for found in _likings(run, pairs, scored, preference):
        source, target = (based.space for based in found.pair)
        models = source.dataset, source.model, target.model
        if models not in best or found.order < best[models].order:
            best[models] = found
    for found in best.values():
        yield found.pair


def _likings(run: Run, pairs: Iterable[SpacePair], scored: Scored, preference: list[str]) -> Iterator[_Liking]:
    blocks: dict[str, np.ndarray] = {}
    for source, target in pairs:
        bases = source.space.dataset, source.key, target.key
        place, measures = scored.place(*bases), scored.measures(*bases)
        usable = [name for name in preference if name in measures]
        if source.space.model == target.space.model or place is None or not usable:
            continue
        if place.block not in blocks:
            with run.store.open("scores", place.block) as unit:
                blocks[place.block] = unit.read("values")
        has_chance = MAP_SCORES[usable[0]].has_null and run.catalog.atlas.null.n_permutations > 0
        statistic = STATISTICS.index("calibrated" if has_chance else "score")
        direction = int(source.key > target.key)
        value = blocks[place.block][place.row, direction, measures.index(usable[0]), statistic]
        if np.isfinite(value):
            yield _Liking(preference.index(usable[0]), -round(float(value), _DIGITS), (source, target))
