"""Pairs that have no scores, or none of the map that was to be fitted, by reason."""

from dataclasses import dataclass, replace

from lfm_tasks.stages.bases.stage import BasedSpace
from lfm_tasks.stages.scores.stage import Scored


@dataclass(frozen=True)
class RefusedPairs:
    """Directed pairs that have no scores for one reason: how many, and the first of them with its message."""

    dataset: str
    reason: str
    count: int
    source: str
    target: str
    message: str


def refused_pairs(spaces: tuple[BasedSpace, ...], scored: Scored) -> tuple[RefusedPairs, ...]:
    """Return the pairs without scores, or without a map that was to be fitted, by dataset and reason."""
    if not scored.has_refusals:
        return ()
    found: dict[tuple[str, str], RefusedPairs] = {}
    for source in spaces:
        for target in spaces:
            if source.space.dataset != target.space.dataset or source.space == target.space:
                continue
            refusal = scored.refusal(source, target) or scored.unmapped(source, target)
            if refusal is None:
                continue
            place = (source.space.dataset, refusal.reason)
            first = RefusedPairs(*place, 0, source.space.name, target.space.name, refusal.message)
            known = found.get(place, first)
            found[place] = replace(known, count=known.count + 1)
    return tuple(found[place] for place in sorted(found))
