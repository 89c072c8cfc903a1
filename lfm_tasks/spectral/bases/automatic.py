"""The numbers that follow the number of points: neighbors and eigenpairs of a basis, and landmarks."""

from typing import Literal, NamedTuple

# How many there are at 2,000 points, and the power of the points that they grow with up to 20,000. With numbers that
# do not grow, the same two networks score .69 on 20,000 points and .25 on 200; these keep most pairs within .05
# (docs/evidence.md). Beyond, memory would grow faster than the points.
_NEIGHBORS, _NEIGHBORS_POWER = 50, 0.7
_EIGENPAIRS, _EIGENPAIRS_POWER = 40, 0.2
_AT, _GROWING_TO = 2_000, 20_000
# With fewer neighbors graphs fall into pieces; with more eigenpairs than a third of the points a basis spans too much.
_FEWEST_NEIGHBORS, _LARGEST_SHARE = 5, 3
# Maps that are fitted to a few anchors want denser graphs and more functions: on 797 points maps grown from 20 anchors
# found .70 of the layers and .22 of the points with these, .40 and .14 with the numbers above (docs/evidence.md).
_FEWEST_TO_FIT, _LARGEST_SHARE_OF_NEIGHBORS = 50, 8

Count = int | Literal["auto"]


class BasisNumbers(NamedTuple):
    """How many neighbors each point of a graph has, and how many eigenpairs a basis."""

    n_neighbors: int
    n_eigenpairs: int


def basis_numbers(
    n_points: int, n_neighbors: Count = "auto", n_eigenpairs: Count = "auto", *, is_fitted: bool = False
) -> BasisNumbers:
    """Return the numbers of a basis whose graph has ``n_points``; only ``auto`` depends on these.

    50 (n/2000)^0.7 neighbors, at least 5, and 40 (n/2000)^0.2 eigenpairs, at most a third of the points; from 20,000
    points on they grow no more. Either is below the number of points, as long as there are two. ``is_fitted``: maps
    between bases are fitted; then 50 of either at least, but no more neighbors than an eighth of the points.

    Examples
    --------
    >>> [tuple(basis_numbers(n)) for n in (200, 2_000, 20_000, 200_000)]
    [(10, 25), (50, 40), (251, 63), (251, 63)]
    >>> tuple(basis_numbers(200, is_fitted=True)), tuple(basis_numbers(2_000, is_fitted=True))
    ((25, 50), (50, 50))
    >>> basis_numbers(6), basis_numbers(10**6, n_neighbors=30, n_eigenpairs=10)
    (BasisNumbers(n_neighbors=5, n_eigenpairs=2), BasisNumbers(n_neighbors=30, n_eigenpairs=10))
    """
    share = min(n_points, _GROWING_TO) / _AT
    neighbors = max(_FEWEST_NEIGHBORS, round(_NEIGHBORS * share**_NEIGHBORS_POWER))
    eigenpairs = round(_EIGENPAIRS * share**_EIGENPAIRS_POWER)
    if is_fitted:
        neighbors = max(neighbors, min(_FEWEST_TO_FIT, n_points // _LARGEST_SHARE_OF_NEIGHBORS))
        eigenpairs = max(eigenpairs, _FEWEST_TO_FIT)
    return BasisNumbers(
        max(1, min(neighbors, n_points - 1)) if n_neighbors == "auto" else n_neighbors,
        max(2, min(eigenpairs, n_points // _LARGEST_SHARE)) if n_eigenpairs == "auto" else n_eigenpairs,
    )


# Part of the convention: ``auto`` keeps every point up to here, and takes so many landmarks beyond (docs/speed.md).
# Never by the memory of a machine, which must not change a number.
AUTO_ABOVE, AUTO_LANDMARKS = 200_000, 20_000


def n_landmarks_of(n_points: int, requested: Count | None) -> int | None:
    """Return how many landmarks a space of ``n_points`` gets, or None where every point is in its graph."""
    if requested == "auto":
        return AUTO_LANDMARKS if n_points > AUTO_ABOVE else None
    return requested if requested is not None and requested < n_points else None
