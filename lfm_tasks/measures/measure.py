"""`Measure`: a function of the rows of two spaces, prepared once a space, and the properties that it claims.

To add one, put a `Measure` into the mapping ``MEASURES`` of a module of this folder, of a new module or of one that is
there: catalog, plan, scores and tests/unit/measures find it by themselves. Give it its values in
tests/golden/values.json and a row in docs/measures.md. Other packages bring measures by entry points (`registry`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.alignments import AlignmentForm
from lfm_tasks.measures.cross_covariances import CrossForm
from lfm_tasks.measures.point_matrices import MatrixForm
from lfm_tasks.measures.point_sets import centered
from lfm_tasks.measures.side_by_side import SideBySide
from lfm_tasks.measures.traces import TraceForm
from lfm_tasks.statistics.exchange_moments import TraceSums
from lfm_tasks.statistics.permutation_moments import MomentArrays
from lfm_tasks.statistics.resampling import Exchange

__all__ = [
    "Invariance",
    "ListForm",
    "Measure",
    "Rows",
    "TraceChance",
    "centered",
    "gram",
    "of_order_one",
    "order_of",
    "squared_distances",
]

Invariance = Literal["rotation", "scaling", "translation", "invertible", "permutation"]
Rows = Float[np.ndarray, "points features"]


@dataclass(frozen=True)
class ListForm:
    """How a measure follows from lists of nearest points, of one space and many others on one set of points.

    Parameters
    ----------
    of_neighbors
        Prepares a space as the measure does, of its rows and the nearest points of each, nearest first.
    compare
        Takes a prepared space, such spaces side by side, and the places of some of these, rising; returns the values
        from the one to each, and back.
    sums
        Returns what a prepared space contributes to the moments of chance over all permutations of its points.
    moments
        Takes the sums of spaces, those of the spaces that they are compared with, and the number of points; returns
        the moments of each pair, NaN where they do not speak for permutations.
    fewest_points
        Points below which they do not.
    """

    of_neighbors: Callable[[Rows, Int[np.ndarray, "points neighbors"]], Any]
    compare: Callable[[Any, SideBySide[Any], Int[np.ndarray, " chosen"]], Float[np.ndarray, "chosen 2"]]
    sums: Callable[[Any], Any]
    moments: Callable[[Sequence[Any], Sequence[Any], int], MomentArrays]
    fewest_points: int = 0


@dataclass(frozen=True)
class TraceChance:
    """Chance of a score that follows from Σ A_ij B_ij, A and B a symmetric matrix of each prepared space.

    Parameters
    ----------
    sums
        Returns what a prepared space contributes, for an exchange of its points.
    of_trace, to_trace
        The score of the sum, and the sum of a score; rising.
    """

    sums: Callable[[Any, Exchange], TraceSums]
    of_trace: Callable[[Float[np.ndarray, " pairs"]], Float[np.ndarray, " pairs"]]
    to_trace: Callable[[Float[np.ndarray, " pairs"]], Float[np.ndarray, " pairs"]]


@dataclass(frozen=True)
class Measure:
    """A similarity or distance of two spaces on the same points, rows in the same order.

    Parameters
    ----------
    prepare
        Does what concerns one space only, once.
    compare
        Takes two prepared spaces, source and target, and returns the value.
    convention
        What the atlas says of it.
    kind
        Whether high is alike, or low.
    is_symmetric, is_metric
        Whether the value is the same from target to source, and obeys the triangle inequality.
    value_range
        The range of the value in exact arithmetic.
    invariances
        What each side alone may undergo: *rotation* of features by any orthogonal matrix, *permutation* of features,
        isotropic *scaling*, *translation*, any *invertible* linear map.
    n_factor
        With n ≤ n_factor × (the larger number of features) points the value is degenerate, whatever the spaces.
    smallest_n
        Below so many points there is no value.
    is_quadratic
        Whether memory grows with n²; then there is no value of more than 3,000 points, except by `matrix`, or with
        ``has_value_for_many``.
    has_value_for_many
        Whether a quadratic measure is a power of an n × n matrix, of whose leading eigenvectors it is computed for more
        than 3,000 points: memory grows with n then.
    needs_directions
        Whether rows of zeros have no value.
    permute
        Returns a prepared space with its rows in another order, where that is cheaper than to prepare it again.
    compare_both_ways
        Returns the values from source to target and back, where that is cheaper than each alone.
    of_cosine_neighbors
        Prepares a space from a graph that exists: the nearest points by cosine of each, nearest first.
    neighbors
        How many nearest points of each it takes, and whether by direction or by distance. Where these are tied with the
        next, the value depends on rounding.
    matrix
        The measure as the cosine of two centered n × n matrices: then all pairs are computed together, with chance in
        closed form, and `prepare` and `compare` say what it is.
    of_shared_neighbors
        The measure as a mean over points of this function of how many of the ten nearest by cosine (0, 1, … 10) are
        shared: computed in the same way.
    lists
        The measure of which of these `neighbors` are shared, and how they are weighted: computed in the same way.
    cross
        The measure of the singular values of ZᵧᵀZₓ, Z the centered rows: all sets of points from one product.
    trace
        The measure of ‖F_yᵀF_x‖², F a factor of each space: chance in closed form.
    alignment
        The measure of singular vectors of that product, or of the correlations of all features.
    trace_chance
        Chance in closed form of a measure that is computed pair by pair.
    source
        The publication that defines it.
    """

    prepare: Callable[[Rows], Any]
    compare: Callable[[Any, Any], float]
    convention: str
    kind: Literal["similarity", "distance"] = "similarity"
    is_symmetric: bool = True
    is_metric: bool = False
    value_range: tuple[float, float] = (0.0, 1.0)
    invariances: frozenset[Invariance] = field(default_factory=frozenset)
    n_factor: float = 0.0
    smallest_n: int = 4
    is_quadratic: bool = False
    has_value_for_many: bool = False
    needs_directions: bool = False
    permute: Callable[[Any, Int[np.ndarray, " points"]], Any] | None = None
    compare_both_ways: Callable[[Any, Any], tuple[float, float]] | None = None
    of_cosine_neighbors: Callable[[Int[np.ndarray, "points neighbors"]], Any] | None = None
    neighbors: tuple[int, Literal["angular", "euclidean"]] | None = None
    matrix: MatrixForm | None = None
    of_shared_neighbors: Float[np.ndarray, " counts"] | None = None
    lists: ListForm | None = None
    cross: CrossForm | None = None
    trace: TraceForm | None = None
    alignment: AlignmentForm | None = None
    trace_chance: TraceChance | None = None
    source: str = ""

    def least_points(self, n_features: int) -> int:
        """Return how many points spaces of so many features need for a value that not any two spaces would have."""
        return max(self.smallest_n, int(self.n_factor * n_features) + 1 if self.n_factor else 0)

    @property
    def compares_point_pairs(self) -> bool:
        """Whether many pairs of spaces are computed together, with chance in closed form."""
        return any(form is not None for form in (self.matrix, self.of_shared_neighbors, self.lists))

    @property
    def has_family(self) -> bool:
        """Whether many pairs of spaces are computed from what is prepared once a space, halves of points included."""
        forms = (self.cross, self.trace, self.alignment)
        return self.compares_point_pairs or any(form is not None for form in forms)

    def __call__(
        self,
        source: Float[np.ndarray, "source_points source_features"],
        target: Float[np.ndarray, "target_points target_features"],
    ) -> float:
        """Return the value for two spaces whose rows are the same points."""
        if len(source) != len(target):
            raise ValueError(f"got {len(source)} and {len(target)} rows, expected the same points in the same order")
        return self.compare(self.prepare(source), self.prepare(target))


def of_order_one(rows: Rows) -> Rows:
    """Return rows times the power of 2 that brings the largest number into [½, 1): no digit changes.

    Squares of numbers beyond 1e154, or below 1e-154, leave the range of float64, and those of float32 do far earlier.
    """
    largest = float(np.abs(rows).max(initial=0.0))
    return rows if largest == 0 else np.ldexp(rows, -int(np.frexp(largest)[1]))


def order_of(rows: Rows) -> float:
    """Return the power of 2 that the rows are times those `of_order_one`; 1 of zeros."""
    largest = float(np.abs(rows).max(initial=0.0))
    return float(np.ldexp(1.0, int(np.frexp(largest)[1]))) if largest else 1.0


def gram(rows: Rows) -> Float[np.ndarray, "points points"]:
    """Return the inner products of all rows, in float64."""
    wide = rows.astype(np.float64)
    return wide @ wide.T


def squared_distances(rows: Rows) -> Float[np.ndarray, "points points"]:
    """Return squared euclidean distances of all rows, zero on the diagonal."""
    wide = rows.astype(np.float64)
    products = gram(wide - wide.mean(axis=0))
    squares = np.diag(products)
    squared = np.maximum(squares[:, None] + squares - 2 * products, 0)
    np.fill_diagonal(squared, 0)
    return squared
