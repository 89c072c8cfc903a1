"""Linear CKA of all pairs of many spaces at once, in bounded memory."""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


@runtime_checkable
class RowsOnDisk(Protocol):
    """Rows that are read in slices: a NumPy array, a memory map, a Zarr array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(points, features)."""

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return some rows."""


def linear_cka_matrix(spaces: Sequence[RowsOnDisk], *, block_rows: int = 256) -> Float[np.ndarray, "spaces spaces"]:
    """Return linear CKA (`cka_linear`: biased) of all pairs; the spaces have the same points in the same order.

    Through points, Σ_ij K_ij L_ij over tiles of the centered Gram matrices, one tile of all spaces at a time:
    n²(Σd + S²/2) multiplications for S spaces, where pair by pair through features takes n(Σd)². Whichever is less is
    taken. Beside the spaces it holds S × block_rows² numbers, or through features block_rows × Σd and d².

    Raises
    ------
    ValueError
        If there are spaces of different numbers of points.
    """
    n_points = {space.shape[0] for space in spaces}
    if len(n_points) != 1:
        raise ValueError(f"found spaces of {sorted(n_points)} points, needs the same points in each")
    n, widths = n_points.pop(), [space.shape[1] for space in spaces]
    means = [_mean(space, n, block_rows) for space in spaces]
    by_points = n * (sum(widths) + len(spaces) ** 2 / 2) < sum(widths) ** 2
    products = (_through_points if by_points else _through_features)(spaces, means, n, block_rows)
    norms = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore"):  # a constant space has no CKA: NaN
        return np.asarray(products / (norms[:, None] * norms))


def _through_points(
    spaces: Sequence[RowsOnDisk], means: list[np.ndarray], n: int, block_rows: int
) -> Float[np.ndarray, "spaces spaces"]:
    starts = range(0, n, block_rows)
    products = np.zeros((len(spaces), len(spaces)))
    for first, second in combinations_with_replacement(starts, 2):
        above = [slice(start, min(start + block_rows, n)) for start in (first, second)]
        shape = above[0].stop - above[0].start, above[1].stop - above[1].start
        tiles = np.empty((len(spaces), shape[0] * shape[1]))
        for space, mean, tile in zip(spaces, means, tiles, strict=True):
            left, right = (space[rows].astype(np.float64) - mean for rows in above)
            np.matmul(left, right.T, out=tile.reshape(shape))
        # Gram matrices are symmetric: a tile off the diagonal stands for two.
        products += (1 if first == second else 2) * (tiles @ tiles.T)
    return products


def _through_features(
    spaces: Sequence[RowsOnDisk], means: list[np.ndarray], n: int, block_rows: int
) -> Float[np.ndarray, "spaces spaces"]:
    products = np.zeros((len(spaces), len(spaces)))
    for s, source in enumerate(spaces):
        cross = [np.zeros((source.shape[1], target.shape[1])) for target in spaces[s:]]
        for start in range(0, n, block_rows):
            rows = slice(start, min(start + block_rows, n))
            ours = (source[rows].astype(np.float64) - means[s]).T
            for t, target in enumerate(spaces[s:]):
                cross[t] += ours @ (target[rows].astype(np.float64) - means[s + t])
        products[s, s:] = products[s:, s] = [np.square(one).sum() for one in cross]
    return products


def _mean(space: RowsOnDisk, n: int, block_rows: int) -> Float[np.ndarray, " features"]:
    total = np.zeros(space.shape[1])
    for start in range(0, n, block_rows):
        total += space[slice(start, min(start + block_rows, n))].sum(axis=0, dtype=np.float64)
    return total / n
