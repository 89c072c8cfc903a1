"""The operations of each measure of activations in a block of pairs; measures that no formula knows are timed."""

from functools import partial
from math import ceil

import numpy as np

from lfm_tasks.measures.alignments import mean_of_matched
from lfm_tasks.measures.cross_covariances import CrossForm
from lfm_tasks.measures.diffusion import LEADING
from lfm_tasks.measures.measure import Measure
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.measures.traces import TraceForm, trace_kind
from lfm_tasks.runtime.rates import thread_seconds
from lfm_tasks.stages.scores.block import tile_side
from lfm_tasks.stages.scores.pairwise_measures import MOST_POINTS_SQUARED, squared_bytes
from lfm_tasks.stages.scores.point_pair_measures import MOST_PREPARED
from lfm_tasks.statistics.resampling import FEW_DRAWS, FEWEST_FOR_TAIL
from lfm_tasks.threads import one_thread

# Of the spaces of a block that has so many, on both sides, most have been in blocks of the same worker before: of 136
# blocks each has an eighth of all spaces, which two workers read once.
SPACES_OF_MANY_BLOCKS, SHARE_OF_NEW = 32, 0.12


def measure_work(
    name: str, size: tuple[int, int], counts: tuple[int, int], n_permutations: int, n_halves: int
) -> dict[str, float]:
    """Return the amounts of one measure: (points, features) of spaces, (spaces, pairs) of a block.

    A measure that no family has has amounts that `time_measure` returns the seconds of.
    """
    n, (n_spaces, n_pairs) = size[0], counts
    measure = MEASURES[name]
    if measure.compares_point_pairs:
        return _together_work(measure, size, counts)
    if measure.cross is not None:
        return _crossed_work(measure.cross, size, counts, n_halves)
    if measure.trace is not None:
        return _trace_work(measure.trace, size, counts, n_halves, n_ways=1 if measure.is_symmetric else 2)
    if measure.alignment is not None:
        if measure.alignment.by_permutations is None:
            return _aligned_work(size, counts, n_halves)
        n_looks = 40 if measure.alignment.by_permutations is mean_of_matched else 10
        return _matched_work(size, counts, n_permutations, n_halves, n_looks=n_looks)
    if measure.has_value_for_many:
        return _powers_work(size, counts, n_permutations, n_halves)
    if measure.is_quadratic and n > MOST_POINTS_SQUARED:
        return {}
    n_drawn = _n_drawn(n_permutations)
    n_prepared = n_spaces * (1 + n_halves + (0 if measure.permute is not None else n_drawn))
    n_compared = n_pairs * (1 + n_halves + n_drawn) * (1 if measure.is_symmetric else 2)
    work: dict[str, float] = {}
    for step, number in (("prepare", n_prepared), ("compare", n_compared)):
        work |= {f"{name} {step}": float(number * n), f"{name} {step} pairs": float(number * n * n)}
    return work


def drawn_work(
    measure: Measure, size: tuple[int, int], counts: tuple[int, int], n_permutations: int
) -> dict[str, float]:
    """Return the amounts of chance that is drawn of a measure of matrices: permuted spaces are made, then compared."""
    (n, d), (n_spaces, n_pairs), n_drawn = size, counts, _n_drawn(n_permutations)
    if not measure.is_quadratic:
        return {"calls": 20.0 * n_pairs * n_drawn, "products": 2.0 * n_pairs * n_drawn * n * d**2}
    # Of each target, ten permutations at a time pass over the tiles with its sources.
    n_targets = max(1, n_spaces // 2)
    n_made = n_targets * n_drawn + n_pairs * ceil(n_drawn / FEW_DRAWS)
    return {
        "calls": 400.0 * n_made + 80.0 * n_pairs * n_drawn,
        "products": float(2 * n_made * n * n * d + n_pairs * n_drawn * n * n),
        "entries": 12.0 * n_made * n * n,
    }


def listed_work(size: tuple[int, int], counts: tuple[int, int], n_permutations: int) -> dict[str, float]:
    """Return the amounts of chance that is drawn of a measure of lists of neighbors: lists of targets, and of pairs."""
    (n, _), (n_spaces, n_pairs), n_drawn = size, counts, _n_drawn(n_permutations)
    return {"calls": 20.0 * n_pairs * n_drawn, "entries": 200.0 * n * n_drawn * (n_pairs + n_spaces)}


def _powers_work(
    size: tuple[int, int], counts: tuple[int, int], n_permutations: int, n_halves: int
) -> dict[str, float]:
    """Return the amounts of a measure of powers of distances: whole matrices, or the leading eigenvectors of more."""
    (n, d), (n_spaces, n_pairs), n_compared = size, counts, 1 + n_halves / 4 + _n_drawn(n_permutations)
    is_factor = n > MOST_POINTS_SQUARED
    of_sets = 1 + n_halves / 4 if is_factor else 1 + n_halves / 8
    n_made = n_read(n_spaces, n_pairs, max(1, MOST_PREPARED // (2 * squared_bytes(n, is_factor=is_factor))))
    if not is_factor:
        return {
            "calls": 200.0 * n_pairs * n_compared,
            # Two products on average, in double precision; one more for chance.
            "products": 2.0 * n_made * of_sets * (2 * n**3 + n * n * d) + 2.0 * n_spaces * n**3,
            # Products of all entries; of a target, permutations.
            "entries": 10.0 * n_made * n * n + 2.0 * n_pairs * n_compared * n * n,
        }
    # Columns of all passes of the subspace iteration, from 64 to twice as many as are kept at most.
    n_columns = 4 * 4 * LEADING
    return {
        "calls": 200.0 * n_pairs * n_compared,
        "products": 2.0 * n_made * of_sets * n * n * (n_columns + 16 * d)
        + 2.0 * n_spaces * n * n * LEADING / 2
        + 2.0 * n_pairs * n_compared * n * LEADING**2,
        "entries": 16.0 * 16 * n_made * of_sets * n * n,
    }


def _n_drawn(n_permutations: int) -> int:
    """Return how many permutations are drawn of spaces that have to do with each other; of others all are."""
    return n_permutations if n_permutations < FEWEST_FOR_TAIL else min(n_permutations, FEW_DRAWS)


def n_read(n_spaces: int, n_pairs: int, side: int) -> int:
    """Return how many spaces the parts of a block read, ``side`` spaces a side: each once a part that it is in."""
    # Of one group of spaces with itself there are more pairs than of two halves with each other.
    n_on_a_side = n_spaces if n_pairs > (n_spaces / 2) ** 2 else n_spaces / 2
    return n_spaces * ceil(n_on_a_side / side)


def _together_work(measure: Measure, size: tuple[int, int], counts: tuple[int, int]) -> dict[str, float]:
    """Return the amounts of a measure of all pairs of points: how often each tile is made, and products of tiles."""
    (n, d), (n_spaces, n_pairs) = size, counts
    if measure.matrix is None:
        # Products in double precision, then the nearest of each row, kept for later blocks; of a pair both lists of
        # each point.
        n_made = n_spaces * (0.5 if n_spaces >= SPACES_OF_MANY_BLOCKS else 1.0)
        # What lists weigh is made once more in each part of a block.
        n_weighed = 0 if measure.lists is None else n_read(n_spaces, n_pairs, tile_side(n, d))
        return {
            "calls": 100.0 * n_pairs,
            "products": 2.0 * n_made * n * n * d,
            "entries": 15.0 * n_made * n * n + 150.0 * n_pairs * n + 20_000.0 * n_weighed * n,
        }
    # The pass itself; bandwidths, tables and sums for chance are computed once a run, or kept from earlier blocks of a
    # process, of three in four spaces in zoos of several blocks. With a bandwidth a tile has a product for all points
    # and one for each half that has its points.
    n_once = 2 if measure.matrix.has_bandwidth or measure.matrix.has_table else 1
    n_products = 2 if measure.matrix.has_bandwidth else 1
    n_parts = n_read(n_spaces, n_pairs, tile_side(n, d)) / n_spaces
    n_passes = n_parts + n_once * (0.25 if n_spaces >= SPACES_OF_MANY_BLOCKS else 1.0)
    return {
        # A tile has 128 x 256 entries.
        "calls": n_spaces * (n_passes * 30 * ceil(n * n / (128 * 256)) + 2000 * n_parts) + 80 * n_pairs,
        # Those of features in double precision, each tile of two that mirror each other once.
        "products": n_spaces * n_passes * n * n * d + n_pairs * n_products * n * n / 2,
        "entries": 8.0 * n_spaces * n_passes * n * n,
    }


def _as_of_160(rank: int, amount: float) -> float:
    """Return an amount of decompositions in units of those of rank 160, the ones that are timed.

    LAPACK takes a third to a seventh of the time for as many operations at rank 768 as at 64.
    """
    return amount * float(np.sqrt(160 / max(1, rank)))


def _crossed_work(form: CrossForm, size: tuple[int, int], counts: tuple[int, int], n_halves: int) -> dict[str, float]:
    """Return the amounts of a measure of cross-covariances: singular vectors of spaces, products, values of pairs.

    How many directions a share of the variance has is not known before: all, as if they were alike.
    """
    (n, d), (n_spaces, n_pairs) = size, counts
    rank = min(n, d)
    n_kept = min(rank, form.stretch.n_kept(np.ones(rank)))
    n_rotations = 0 if form.stretch.lengths is None else FEW_DRAWS
    return {
        "calls": 4000.0 * n_spaces + 700.0 * n_pairs,
        # Singular vectors of spaces; singular values of pairs: of all points, halves, and ten rotations if those depend
        # on the pair.
        "decompositions": n_spaces * _as_of_160(rank, n * d * rank + n_halves * 1.5 * rank**3)
        + n_pairs * _as_of_160(n_kept, 0.5 * (1 + n_halves + n_rotations) * n_kept**3),
        # In double precision, cells of 128 points.
        "products": 5.0 * n_pairs * n * rank**2,
    }


def _trace_work(
    form: TraceForm, size: tuple[int, int], counts: tuple[int, int], n_halves: int, *, n_ways: int
) -> dict[str, float]:
    """Return the amounts of a measure of traces: factors of spaces, their sums for chance, products of pairs."""
    (n, d), (n_spaces, n_pairs) = size, counts
    rank = min(n, d)
    # In double precision, by blocks of points. A worker keeps these sums.
    n_summed = n_spaces * (SHARE_OF_NEW if n_spaces >= SPACES_OF_MANY_BLOCKS else 1.0)
    of_chance = 12.0 * n_ways * n_summed * min(n * n * rank / 2, n * rank**3 / 3)
    kind = trace_kind(form, n, rank)
    if kind == "directions":
        return {
            "calls": 2000.0 * n_spaces + 500 * n_ways * n_pairs,
            # Singular vectors of spaces, directions of their halves.
            "decompositions": n_spaces * _as_of_160(rank, n * d * rank + n_ways * n_halves * 1.5 * rank**3),
            "products": of_chance + n_ways * n_pairs * (3.5 * n * rank**2 + 4.0 * (1 + n_halves) * rank**3),
        }
    of_sets = 1 + n_halves / 2
    of_spaces = n_spaces * _as_of_160(rank, n_ways * n * d * rank * of_sets)
    if kind == "matrices":
        n_entries = n_ways * n * n / 2 * (1 + n_halves / 4)
        return {
            "calls": 12_000.0 * n_spaces + 1400 * n_ways * n_pairs,
            "decompositions": of_spaces,
            "products": of_chance + 2.0 * n_spaces * n_entries * rank,
            "entries": 2.0 * n_pairs * n_entries,
        }
    return {
        "calls": 12_000.0 * n_spaces + 1400 * n_ways * n_pairs,
        "decompositions": of_spaces,
        "products": of_chance + 3.0 * n_ways * n_pairs * n * rank**2 * of_sets,
    }


def _aligned_work(size: tuple[int, int], counts: tuple[int, int], n_halves: int) -> dict[str, float]:
    """Return the amounts of a measure of singular vectors: products, vectors of pairs, rotations of a block."""
    (n, d), (n_spaces, n_pairs) = size, counts
    rank = min(n, d)
    return {
        "calls": 4000.0 * n_spaces + 1500.0 * n_pairs,
        # Singular vectors of spaces; of pairs: of all points, halves, from squares; the weights of ten rotations.
        "decompositions": n_spaces * _as_of_160(rank, n * d * rank + n_halves * 1.5 * rank**3)
        + _as_of_160(rank, (2.5 * n_pairs * (3 + n_halves) + 30) * rank**3),
        "products": 5.0 * n_pairs * n * rank**2,
    }


def _matched_work(
    size: tuple[int, int], counts: tuple[int, int], n_permutations: int, n_halves: int, *, n_looks: int
) -> dict[str, float]:
    """Return the amounts of a measure of matched features: products, random rotations, matching."""
    (n, d), (n_spaces, n_pairs) = size, counts
    n_drawn = _n_drawn(n_permutations)
    return {
        "calls": 2000.0 * n_spaces + 700.0 * n_pairs,
        "decompositions": n_spaces * _as_of_160(d, 2.0 * d**3),
        # In double precision of all points and halves, in single precision of rotations: of points, of a pair in eight.
        "products": 1.5 * n_pairs * (n * d**2 * (4 + n_drawn / 8) + 2 * n_drawn * d**3),
        # Correlations, each looked at so many times; rows once.
        "entries": float(n_looks) * n_pairs * (1 + n_halves + n_drawn) * d**2 + 16.0 * n_spaces * n * d,
    }


def is_counted(name: str) -> bool:
    """Return whether the operations of a measure of activations are known; the others are timed."""
    return MEASURES[name].has_family or MEASURES[name].has_value_for_many


# Points, twice, and at most so many features that a measure is timed on: milliseconds for most.
_TIMED_POINTS, _TIMED_FEATURES = (150, 450), 512


def time_measure(name: str, n_features: int) -> dict[str, float]:
    """Return the CPU seconds that a measure takes here for a point, and for each pair of points.

    Both follow from spaces of 150 and of 450 points, the best of 3 on random rows of ``n_features``, or 512 if that is
    less, on one thread.
    """
    measure, d = MEASURES[name], max(1, min(n_features, _TIMED_FEATURES))
    numbers = [max(n, (1 + place) * measure.smallest_n) for place, n in enumerate(_TIMED_POINTS)]
    spent: dict[str, list[float]] = {"prepare": [], "compare": []}
    for n in numbers:
        source, target = np.random.default_rng(0).standard_normal((2, n, d))
        prepared = measure.prepare(source), measure.prepare(target)
        with one_thread():
            spent["prepare"].append(thread_seconds(partial(measure.prepare, source), 3))
            spent["compare"].append(thread_seconds(partial(measure.compare, *prepared), 3))
    few, many = numbers
    rates: dict[str, float] = {}
    for step, (first, second) in spent.items():
        of_pairs = min(max(second / many - first / few, 0.0) / (many - few), second / many**2)
        rates |= {f"{name} {step}": max(second / many - of_pairs * many, 0.0), f"{name} {step} pairs": of_pairs}
    return rates
