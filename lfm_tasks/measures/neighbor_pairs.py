"""Shared nearest neighbors for all pairs of spaces: whole, and in each half of the points, exactly.

One list of neighbors serves every set of points. An entry is among the k nearest of a set if fewer than k entries
before it are in the set: one bit a set, kept with the entry. Two points share a neighbor in the sets whose bits both
have.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt

from lfm_tasks.compiling import compiled
from lfm_tasks.measures.neighborhoods import N_NEIGHBORS, Metric, nearest_rows
from lfm_tasks.measures.point_sets import PointSets


@dataclass(frozen=True)
class NeighborLists:
    """Of each point its nearest ones, nearest first, and the sets each is a neighbor in; none where there are no more.

    Bit 0: the whole; then the sets in the order of `PointSets`. Both in the smallest type that holds them.
    """

    indices: Shaped[np.ndarray, "points entries"]
    masks: UInt[np.ndarray, "points entries"]


def neighbor_lists(
    rows: Float[np.ndarray, "points features"],
    sets: PointSets,
    known: Int[np.ndarray, "points neighbors"] | None = None,
    n_neighbors: int = N_NEIGHBORS,
    metric: Metric = "angular",
) -> NeighborLists:
    """Return the lists of one space, long enough to hold so many neighbors in every set; points in their given order.

    Parameters
    ----------
    rows
        The activations; no row of zeros if neighbors are those by direction.
    sets
        The sets of points: at most 63.
    known
        The nearest points of each, nearest first, where a graph has them.
    n_neighbors, metric
        How many neighbors, and whether by direction or by distance.
    """
    members = np.zeros((len(rows), sets.n_sets), dtype=bool)
    members[sets.order] = sets.points.T
    # Of 60, fewer than ten are in a random half once in 10 million points; of 75, fewer than 15.
    length = min(len(rows) - 1, max(30 + 3 * n_neighbors, 0 if known is None else known.shape[1]))
    while True:
        is_known = known is not None and known.shape[1] >= length
        nearest = known if known is not None and is_known else nearest_rows(rows, length, metric)
        masks, n_short = _masks(nearest.astype(np.int64), members, n_neighbors)
        if not n_short or length == len(rows) - 1:
            break
        length = min(len(rows) - 1, 2 * length)
    return _trimmed(nearest, masks, sets.n_sets)


def neighbors_in_set(lists: NeighborLists, points: Int[np.ndarray, " some"], place: int) -> Int[np.ndarray, "some _"]:
    """Return the neighbors of each point of a set, nearest first, numbered among these; ``place``: of its bit.

    ``points``, rising, are the set, which has more points than there are neighbors.
    """
    number = np.full(len(lists.indices), -1)
    number[points] = np.arange(len(points))
    is_neighbor = ((lists.masks[points] >> place) & 1).astype(bool)
    found = number[lists.indices[points][is_neighbor]]
    return found.reshape(len(points), -1)


def neighbor_shares(
    sources: list[NeighborLists],
    targets: list[NeighborLists],
    sets: PointSets,
    value_of_count: Float[np.ndarray, " counts"],
    wanted: Bool[np.ndarray, "sources targets"],
) -> Float[np.ndarray, "sets sources targets"]:
    """Return the mean over points of a function of how many of the ten neighbors are shared; NaN for unwanted pairs.

    Parameters
    ----------
    value_of_count
        The value of 0, 1, … 10 shared neighbors; 0 for none.
    wanted
        The pairs that are needed.
    """
    n_points = len(sets.order)
    # Different spaces have lists of different lengths.
    width = max(lists.indices.shape[1] for lists in targets)
    indices, masks = (np.zeros((len(targets), n_points, width), dtype=kind) for kind in _types(n_points, sets.n_sets))
    for place, lists in enumerate(targets):
        indices[place, :, : lists.indices.shape[1]] = lists.indices
        masks[place, :, : lists.masks.shape[1]] = lists.masks
    of_points = _sets_of_points(sets)
    shares = np.full((sets.n_sets, len(sources), len(targets)), np.nan)
    for place, source in enumerate(sources):
        chosen = np.flatnonzero(wanted[place])
        by_cell, by_set = _against_some(
            (source.indices, source.masks), (indices, masks, chosen), of_points, value_of_count, sets.n_sets
        )
        # Contiguous, or the order of a sum would depend on how many targets there are.
        sums = [np.ascontiguousarray(by_cell[:, cells]).sum(axis=1) for cells in sets.cells] + by_set.T
        shares[:, place, chosen] = sums / sets.points.sum(axis=1)[:, None]
    return shares


def _sets_of_points(sets: PointSets) -> tuple[UInt[np.ndarray, " points"], Int[np.ndarray, " points"]]:
    """Return, of each point in the given order, the bits of its sets, and its cell."""
    bits, cells = np.zeros(len(sets.order), dtype=np.uint64), np.zeros(len(sets.order), dtype=np.int64)
    powers = np.uint64(1) << np.arange(sets.n_sets, dtype=np.uint64)
    bits[sets.order] = (sets.points * powers[:, None]).sum(axis=0, dtype=np.uint64)
    cells[sets.order] = np.repeat(np.arange(len(sets.bounds) - 1), np.diff(sets.bounds))
    return bits, cells


def _types(n_points: int, n_sets: int) -> tuple[type[np.integer[Any]], type[np.unsignedinteger[Any]]]:
    """Return the types of indices and masks: lists of 1,200 spaces are kept, and read for each pair."""
    return (np.uint16 if n_points <= 1 << 16 else np.int32), (np.uint8 if n_sets <= 8 else np.uint64)


def _trimmed(
    nearest: Int[np.ndarray, "points entries"], masks: UInt[np.ndarray, "points entries"], n_sets: int
) -> NeighborLists:
    """Return lists without the entries that are a neighbor in no set."""
    order = np.argsort(masks == 0, axis=1, kind="stable")
    order = order[:, : int((masks != 0).sum(axis=1).max())]
    of_indices, of_masks = _types(len(nearest), n_sets)
    indices, kept = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(masks, order, axis=1)
    return NeighborLists(np.where(kept == 0, 0, indices).astype(of_indices), kept.astype(of_masks))


@compiled
@no_type_check
def _masks(nearest, members, k):
    """Return the bits of every entry, and for how many points and sets the list was too short.

    A set of up to k points has fewer neighbors, in any list: nothing is scored on it.
    """
    n_points, length = nearest.shape
    n_sets = members.shape[1]
    sizes = members.sum(axis=0)
    masks = np.zeros((n_points, length), dtype=np.uint64)
    n_short = 0
    for i in range(n_points):
        found = np.zeros(n_sets, dtype=np.int64)
        for entry in range(length):
            j = nearest[i, entry]
            bits = np.uint64(0)
            for one in range(n_sets):
                if members[i, one] and members[j, one]:
                    if found[one] < k:
                        bits |= np.uint64(1) << np.uint64(one)
                    found[one] += 1
            masks[i, entry] = bits
        for one in range(n_sets):
            if members[i, one] and found[one] < k < sizes[one]:
                n_short += 1
    return masks, n_short


@compiled
@no_type_check
def _against_some(source, targets_masks_chosen, of_points, value_of_count, n_sets):
    """Return sums over points of the value of the number of shared neighbors, for each chosen target.

    By cell: of the number in the whole. By set: by how much the value of the number in the set differs from that.
    """
    (indices, masks), (targets, target_masks, chosen), (sets_of_point, cell_of_point) = (
        source,
        targets_masks_chosen,
        of_points,
    )
    n_points, width = targets.shape[1:]
    by_cell = np.zeros((len(chosen), cell_of_point.max() + 1))
    by_set = np.zeros((len(chosen), n_sets))
    bits_of = np.zeros(n_points, dtype=np.uint64)
    extra = np.zeros(n_sets, dtype=np.int64)
    one = np.uint64(1)
    for i in range(n_points):
        for entry in range(indices.shape[1]):
            if masks[i, entry]:
                bits_of[indices[i, entry]] = masks[i, entry]
        for place in range(len(chosen)):
            target = chosen[place]
            n_common = 0
            touched = np.uint64(0)
            for entry in range(width):
                mask = np.uint64(target_masks[target, i, entry])
                if mask == 0:
                    break
                both = bits_of[targets[target, i, entry]] & mask
                if both == 0:
                    continue
                # A shared neighbor is so in nearly all sets of the point: it is counted once, less the other sets.
                step = 1
                if both & one:
                    n_common += 1
                    step = -1
                    both = sets_of_point[i] & ~both
                touched |= both
                while both:
                    lowest = both & (~both + one)
                    extra[_bit_number(lowest)] += step
                    both ^= lowest
            value = value_of_count[n_common]
            by_cell[place, cell_of_point[i]] += value
            while touched:
                lowest = touched & (~touched + one)
                number = _bit_number(lowest)
                by_set[place, number] += value_of_count[n_common + extra[number]] - value
                extra[number] = 0
                touched ^= lowest
        for entry in range(indices.shape[1]):
            if masks[i, entry]:
                bits_of[indices[i, entry]] = 0
    return by_cell, by_set


@compiled
@no_type_check
def _bit_number(bit):
    """Return which bit of 64 is set."""
    number = 0
    if bit & np.uint64(0xFFFFFFFF00000000):
        number += 32
    if bit & np.uint64(0xFFFF0000FFFF0000):
        number += 16
    if bit & np.uint64(0xFF00FF00FF00FF00):
        number += 8
    if bit & np.uint64(0xF0F0F0F0F0F0F0F0):
        number += 4
    if bit & np.uint64(0xCCCCCCCCCCCCCCCC):
        number += 2
    if bit & np.uint64(0xAAAAAAAAAAAAAAAA):
        number += 1
    return number
