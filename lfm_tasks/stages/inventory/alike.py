"""Items that no side of any comparison tells apart: pairs are counted by classes of these, never one by one.

Time and memory grow with the number of items and with the square of the number of classes. A zoo that is compared
with itself is one class, whatever its size; each comparison that chooses by globs or ``meta`` adds a few.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

# The positions of the items on both sides of a comparison, each once.
Sides = tuple[Int[np.ndarray, " sources"], Int[np.ndarray, " targets"]]


@dataclass(frozen=True)
class Alike:
    """The class of each item; two items of one class stand on the same sides of all comparisons."""

    classes: Int[np.ndarray, " items"]

    @cached_property
    def sizes(self) -> Int[np.ndarray, " classes"]:
        """How many items each class has."""
        return np.bincount(self.classes)

    @cached_property
    def first(self) -> Int[np.ndarray, " classes"]:
        """The first item of each class."""
        return np.unique(self.classes, return_index=True)[1]

    def compared(self, comparisons: Iterable[Sides]) -> Bool[np.ndarray, "classes classes"]:
        """Return between which classes pairs are compared, in either direction."""
        compared = np.zeros((len(self.sizes), len(self.sizes)), dtype=bool)
        for sides in comparisons:
            sources, targets = (np.unique(self.classes[side]) for side in sides)
            compared[np.ix_(sources, targets)] = True
            compared[np.ix_(targets, sources)] = True
        return compared


def alike(n_items: int, subsets: Iterable[Int[np.ndarray, " some"]]) -> Alike:
    """Return the classes of ``n_items`` items: two are alike if they are in the same of the subsets (of positions)."""
    classes, sizes = np.zeros(n_items, dtype=np.intp), np.array([n_items], dtype=np.intp)
    for subset in subsets:
        old, places, counts = np.unique(classes[subset], return_inverse=True, return_counts=True)
        is_split = counts < sizes[old]
        new = np.where(is_split, len(sizes) + np.cumsum(is_split) - 1, old)
        classes[subset] = new[places]
        sizes[old[is_split]] -= counts[is_split]
        sizes = np.concatenate([sizes, counts[is_split]])
    return Alike(classes)


def n_pairs_of_two(n_items: int, comparisons: Sequence[Sides]) -> int:
    """Return how many unordered pairs of two different items are compared at least once."""
    if not n_items:
        return 0
    groups = alike(n_items, (side for sides in comparisons for side in sides))
    compared, sizes = groups.compared(comparisons), groups.sizes
    directed = sum(int(size) * int(sizes[row].sum()) for size, row in zip(sizes, compared, strict=True))
    return (directed - int(sizes[compared.diagonal()].sum())) // 2


def first_shared_pair(n_items: int, one: Sides, other: Sides) -> tuple[int, int] | None:
    """Return the lowest pair of positions that two comparisons have in common, in either direction; None: none."""
    if not n_items:
        return None
    groups = alike(n_items, (*one, *other))
    shared = groups.compared([one]) & groups.compared([other])
    # The first item of a class stands for all of them: its partners are theirs.
    found = [(groups.first[row], groups.first[shared[row]].min()) for row in np.flatnonzero(shared.any(axis=1))]
    return (int(min(found)[0]), int(min(found)[1])) if found else None
