"""What is asked of each pair of spaces, as a table of numbers: among 2,000 spaces there are two million pairs."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Int

from lfm_tasks.runtime.scope import Scope
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.requests import Asked, Part


@dataclass(frozen=True)
class AskedPairs:
    """What is asked of pairs of ``spaces``, which are in order: ``which`` numbers a wish, −1 for none.

    Of a pair, the lower space is the row. Of spaces and not of their bases: two names of one content may be in
    comparisons with different maps.
    """

    spaces: tuple[Space, ...]
    wishes: tuple[Asked, ...]
    which: Int[np.ndarray, "spaces spaces"]

    @cached_property
    def positions(self) -> dict[Space, int]:
        """The place of each space."""
        return {space: position for position, space in enumerate(self.spaces)}

    def wish(self, first: Space, second: Space) -> int:
        """Return the number of what is asked of two spaces, in any order; −1: nothing."""
        row, column = self.positions.get(first), self.positions.get(second)
        if row is None or column is None:
            return -1
        return int(self.which.item(row, column) if row <= column else self.which.item(column, row))

    def by_dataset(self) -> Iterator[tuple[str, int, tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]]]:
        """Yield dataset, number of a wish, and the positions of both spaces of all pairs that have it."""
        start = 0
        for dataset, own in groupby(self.spaces, key=lambda space: space.dataset):
            end = start + len(list(own))
            which = self.which[start:end, start:end]
            for number in np.unique(which[which >= 0]).tolist():
                rows, columns = np.nonzero(which == number)
                yield dataset, number, (rows + start, columns + start)
            start = end


def asked_pairs(parts: Iterable[Part], spaces: Collection[Space]) -> AskedPairs:
    """Return what is asked of each pair of ``spaces``; RuntimeError if two parts want different maps of one."""
    none = AskedPairs(tuple(sorted(spaces)), (), np.full((len(spaces), len(spaces)), -1, dtype=np.int32))
    which, wishes = none.which, list[Asked]()
    for part in parts:
        own, cells = Asked(frozenset(part.measures), part.knowledge), _cells(part, none.positions)
        before = which[cells]
        after = np.empty_like(before)
        for number in np.unique(before).tolist():
            wish = own if number < 0 else wishes[number].and_also(own)
            if wish not in wishes:
                wishes.append(wish)
            after[before == number] = wishes.index(wish)
        which[cells] = after
    return AskedPairs(none.spaces, tuple(wishes), which)


def pairs_now(parts: Iterable[Part], spaces: Collection[Space], scope: Scope) -> Bool[np.ndarray, "spaces spaces"]:
    """Return which pairs a run of this scope computes: both comparisons and models are chosen."""
    ordered = sorted(spaces)
    found = np.zeros((len(ordered), len(ordered)), dtype=bool)
    positions = {space: position for position, space in enumerate(ordered)}
    for part in parts:
        if not scope.comparisons or part.name in scope.comparisons:
            found |= _cells(part, positions)
    chosen = np.array([scope.has(space.model) for space in ordered], dtype=bool)
    return found & (chosen[:, None] | chosen)


def _cells(part: Part, positions: dict[Space, int]) -> Bool[np.ndarray, "spaces spaces"]:
    """Return which pairs a part has, the lower space as the row."""
    cells = np.zeros((len(positions), len(positions)), dtype=bool)
    sources, targets = (
        np.array([positions[space] for space in side if space in positions], dtype=np.intp)
        for side in (part.sources, part.targets)
    )
    cells[np.ix_(sources, targets)] = True
    return np.triu(cells | cells.T)
