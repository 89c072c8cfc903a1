"""How far the ids of models overlap, before anything is joined on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stores.units.digests import ids_digest

Ids = Shaped[np.ndarray, " points"]


@dataclass(frozen=True)
class Overlap:
    """Common ids of the models that are compared, in percent of the smaller one's: the worst pair, and the median."""

    dataset: str
    pairs: int
    min: float
    worst: tuple[str, str]
    median: float

    def __str__(self) -> str:
        """One line for people."""
        least = f"{self.min:.1f} % ({' and '.join(self.worst)}) of their ids or more, median {self.median:.1f} %"
        return f"{self.dataset}: {self.pairs} pairs of models share {least}"


def id_overlaps(zoo: Zoo, ids: Mapping[str, Ids], least: float) -> tuple[tuple[Overlap, ...], list[str]]:
    """Return the overlaps on each dataset, and a sentence where pairs share too few ids to be scored."""
    asked: dict[str, set[tuple[str, str]]] = {}
    for part in zoo.parts:
        sides = ({space.model for space in side if space.model in ids} for side in (part.sources, part.targets))
        pairs = {(min(pair), max(pair)) for pair in product(*sides) if pair[0] != pair[1]}
        asked.setdefault(part.dataset, set()).update(pairs)
    digests = {name: ids_digest(np.sort(own)) for name, own in ids.items()}  # most models have the same ids
    known: dict[frozenset[str], float] = {}
    overlaps, problems = [], []
    for dataset, pairs in asked.items():
        shares = {}
        for first, second in sorted(pairs):
            both = frozenset((digests[first], digests[second]))
            if both not in known:
                known[both] = _share(ids[first], ids[second]) if len(both) > 1 else 1.0
            shares[first, second] = known[both]
        if not shares:
            continue
        worst = min(shares, key=shares.__getitem__)
        median = float(np.median(list(shares.values())))
        overlaps.append(Overlap(dataset, len(shares), 100 * shares[worst], worst, 100 * median))
        if too_few := sum(share < least or share == 0 for share in shares.values()):
            found = f"found {too_few} pairs of models with fewer common ids than atlas.min_overlap ({least}), worst "
            advice = "record both on the same samples, or lower it [little_overlap]"
            problems.append(f"dataset {dataset}: {found}{worst[0]} and {worst[1]}: {advice}")
    return tuple(overlaps), problems


def _share(first: Ids, second: Ids) -> float:
    """Return the share of the smaller set of ids that is in the other one, in [0, 1]."""
    return len(np.intersect1d(first, second, assume_unique=True)) / min(len(first), len(second))
