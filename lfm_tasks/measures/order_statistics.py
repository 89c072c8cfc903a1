"""Medians, and ranks, of numbers of all pairs of points: counted in bins tile by tile, never sorted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.compiling import compiled
from lfm_tasks.measures.point_sets import KeptTiles, PointSets, Tile, TileFunction

# Numbers of at least 0 are counted by the upper bits of their float32, which order as they do: 32 bins to a power of 2.
_DROPPED_BITS = 18
_N_BINS = 1 << (31 - _DROPPED_BITS)
# Factor between medians beyond which no derivative leads from one to the other.
_LARGEST_CHANGE = 4


def medians_of_sets(squared: TileFunction, sets: PointSets, tiles: KeptTiles) -> Float[np.ndarray, " numbers"]:
    """Return the median of all n² squared distances; and by how much its logarithm differs in each set of points.

    NaN where it differs too much. Numbers are counted by their upper bits, then those in the bins of medians by the
    rest: no more than counts is held.
    ``tiles``: where they are kept.
    """
    runs, bounds, classes = sets.runs(), sets.bounds, sets.classes.tolist()
    places = [(one, other) for place, one in enumerate(runs) for other in runs[place:]]
    kept: list[Int[np.ndarray, "rows columns"]] = []

    def by_cells() -> Iterator[tuple[tuple[int, int], int, Int[np.ndarray, "rows columns"]]]:
        """Yield the classes of two cells, for how many tiles theirs stands, and its numbers as bits of float32."""
        for index, ((cells, rows), (others, columns)) in enumerate(places):
            if index < len(kept):
                values = kept[index]
            else:
                tile = squared(rows, columns)
                # 0 is added since the bits of −0 are not those of 0.
                values = (tile + 0.0).astype(np.float32).view(np.int32)
                tiles.keep(rows, columns, tile)
                if tiles.is_on:
                    kept.append(values)
            for cell in range(cells.start, cells.stop):
                of_cell = values[bounds[cell] - rows.start : bounds[cell + 1] - rows.start]
                for other in range(max(cell, others.start), others.stop):
                    inside = of_cell[:, bounds[other] - columns.start : bounds[other + 1] - columns.start]
                    yield (classes[cell], classes[other]), 1 + (cell != other), inside

    n_classes = max(classes) + 1
    counts = np.zeros((n_classes, n_classes, _N_BINS), dtype=np.int64)
    for pair, weight, bits in by_cells():
        _count_in_bins(bits, _DROPPED_BITS, weight, counts[pair])
    members = np.zeros((sets.n_sets, n_classes), dtype=bool)
    members[:, classes] = sets.cells
    together = members[:, :, None] & members[:, None, :]
    n_below = np.tensordot(together.astype(np.int64), counts, 2).cumsum(axis=1)
    ranks = np.stack([np.maximum(n_below[:, -1] - 1, 0) // 2, n_below[:, -1] // 2], axis=1)
    bins = np.array([np.searchsorted(below, both, side="right") for below, both in zip(n_below, ranks, strict=True)])
    bins = np.minimum(bins, _N_BINS - 1)  # of a set without points
    # The upper bits of both middle numbers of each set are known: now those in their bins are counted by the rest.
    inside = {
        (place, of_rank): np.zeros(1 << _DROPPED_BITS, dtype=np.int64)
        for place in np.flatnonzero(n_below[:, -1]).tolist()
        for of_rank in set(bins[place].tolist())
    }
    for pair, weight, bits in by_cells():
        for (place, of_rank), counted in inside.items():
            if together[place][pair]:
                _count_in_bin(bits, _DROPPED_BITS, weight, of_rank, counted)
    medians = np.full(sets.n_sets, np.nan)
    for place in sorted({place for place, _ in inside}):
        middle = []
        for of_rank, rank in zip(bins[place].tolist(), ranks[place].tolist(), strict=True):
            n_before = int(n_below[place, of_rank - 1]) if of_rank else 0
            rest = int(np.searchsorted(inside[place, of_rank].cumsum(), rank - n_before, side="right"))
            middle.append(of_rank << _DROPPED_BITS | rest)
        medians[place] = np.array(middle, dtype=np.int32).view(np.float32).astype(np.float64).mean()
    if not medians[0] > 0:
        return np.zeros(1 + sets.n_sets)
    with np.errstate(divide="ignore"):
        changes = np.log(medians / medians[0])
    changes[~(np.abs(changes) <= np.log(_LARGEST_CHANGE))] = np.nan
    return np.concatenate([medians[:1], changes])


# Bits of a rising key that tell where in its bin a number is: bins have 2,048 steps to a power of two, or 256 where
# there are enough numbers in each that their order hardly differs from a uniform one.
_FEW_POINTS, _BITS_OF_FEW, _BITS_OF_MANY = 1024, 12, 15
# 1 − r of two equal rows, but for rounding.
_NO_DISSIMILARITY = 1e-12


@dataclass(frozen=True)
class RankTable:
    """The distribution of 1 − r in bins, each bin as a uniform distribution of its mean and deviation.

    A bin: a power of two, in steps, of the distance from ``center``, which most numbers are near. Ties have their
    mean rank: alone in a bin, they have no deviation. ``index``: of the bins from ``first`` on, which row of ``shares``
    they are. ``shares``: see `_shares_below`.
    """

    center: float
    bits_in_bin: int
    first: int
    index: Shaped[np.ndarray, " bins"]
    shares: Float[np.ndarray, "present 4"]

    def shares_below(self, correlations: Tile) -> Tile:
        """Return the share of numbers below each 1 − r, half of its equals counted."""
        return np.asarray(
            _shares_below(
                correlations,
                self.center,
                self.bits_in_bin,
                self.first,
                self.index,
                self.shares,
            )
        )


def rank_table(correlations: TileFunction, sets: PointSets, tiles: KeptTiles) -> RankTable:
    """Return the distribution of 1 − r of all pairs of points; ``tiles``: where they are kept."""
    runs, n_points = sets.runs(), len(sets.order)
    bits_in_bin = _BITS_OF_FEW if n_points < _FEW_POINTS else _BITS_OF_MANY
    center = float(np.median(1 - correlations(runs[0][1], runs[-1][1])))
    # As floats: of 100,000 points squares exceed 64 bits.
    counts, sums, squares = np.zeros((3, 1 << (32 - bits_in_bin)))
    for place, (_, rows) in enumerate(runs):
        for _, columns in runs[place:]:
            tile = correlations(rows, columns)
            tiles.keep(rows, columns, tile)
            _count_keys(tile, center, bits_in_bin, rows == columns, counts, sums, squares)
    # A product of another shape may differ in its last bit and lie in a bin that was empty: it is in the next one then.
    present = np.flatnonzero(counts)
    first = int(present[0])
    # As small as it can be: a table is kept of each space.
    narrow = np.uint16 if len(present) < 1 << 16 else np.int32
    index = np.searchsorted(present, np.arange(first, int(present[-1]) + 1)).astype(narrow)
    of_bins, middles = counts[present], sums[present] / counts[present]
    deviations = np.sqrt(np.maximum(squares[present] / of_bins - middles**2, 0))
    n_pairs = n_points * (n_points - 1)
    shares, upper = of_bins / n_pairs, of_bins.cumsum() / n_pairs
    # Places are whole numbers: within rounding of one there is only one.
    slopes = np.where(deviations > 1e-3, shares / (np.sqrt(12) * np.maximum(deviations, 1e-3)), 0.0)
    table = np.stack([upper - shares, upper, slopes, middles], axis=1).astype(np.float32)
    return RankTable(center, bits_in_bin, first, index, table)


@compiled
@no_type_check
def _count_in_bins(bits, n_dropped, weight, counts):
    """Add the weight to the bin of each number: its bits less the last ``n_dropped``."""
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            counts[bits[i, j] >> n_dropped] += weight


@compiled
@no_type_check
def _count_in_bin(bits, n_dropped, weight, chosen, counts):
    """Add the weight to the dropped bits of each number of one bin."""
    first = np.int64(chosen) << n_dropped
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            rest = bits[i, j] - first
            if 0 <= rest < len(counts):
                counts[rest] += weight


@compiled
@no_type_check
def _count_keys(correlations, center, bits_in_bin, is_diagonal, counts, sums, squares):
    """Count 1 − r in bins of `_keys_of_row`; also sums, and squares, of the places in each bin.

    ``is_diagonal``: whether the points of rows are those of columns; one with itself is left out, others count once,
    those of other tiles twice.
    """
    n_rows, n_columns = correlations.shape
    numbers = np.empty(n_columns, dtype=np.float32)
    weight = 1 if is_diagonal else 2
    for i in range(n_rows):
        keys = _keys_of_row(correlations[i], center, numbers)
        for j in range(n_columns):
            if is_diagonal and i == j:
                continue
            place = np.int64(keys[j] & np.uint32((1 << bits_in_bin) - 1))
            bin_ = keys[j] >> np.uint32(bits_in_bin)
            counts[bin_] += weight
            sums[bin_] += weight * place
            squares[bin_] += weight * np.float64(place) * place


@compiled
@no_type_check
def _shares_below(correlations, center, bits_in_bin, first, index, table):
    """Return the share of all numbers below each 1 − r, half of its equals counted.

    ``table``: of each present bin the share below it, that of all numbers up to its end, what a step in it adds, and
    the mean place of its numbers.
    """
    n_rows, n_columns = correlations.shape
    numbers = np.empty(n_columns, dtype=np.float32)
    shares = np.empty((n_rows, n_columns))
    for i in range(n_rows):
        keys = _keys_of_row(correlations[i], center, numbers)
        for j in range(n_columns):
            bin_ = np.int64(keys[j] >> np.uint32(bits_in_bin)) - first
            row = np.int64(index[min(max(bin_, 0), len(index) - 1)])
            place = keys[j] & np.uint32((1 << bits_in_bin) - 1)
            low, high = np.float64(table[row, 0]), np.float64(table[row, 1])
            share = (low + high) / 2 + table[row, 2] * (np.float64(place) - table[row, 3])
            shares[i, j] = min(max(share, low), high)
    return shares


@compiled
@no_type_check
def _keys_of_row(correlations, center, numbers):
    """Return whole numbers that rise with 1 − r: the bits, in float32, of their difference to the center.

    ``numbers``: where to compute.
    """
    for j in range(len(correlations)):
        dissimilarity = 1 - correlations[j]
        step = (0.0 if dissimilarity < _NO_DISSIMILARITY else dissimilarity) - center
        # What ties with the center differs from it by rounding.
        numbers[j] = np.float32(0.0 if abs(step) < _NO_DISSIMILARITY else step)
    keys = numbers.view(np.uint32)
    for j in range(len(keys)):
        bits = keys[j]
        keys[j] = ~bits if bits >> np.uint32(31) else bits | np.uint32(1 << 31)
    return keys
