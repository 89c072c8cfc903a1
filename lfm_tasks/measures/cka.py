"""Centered kernel alignment: linear in feature or Gram form, debiased, by radial kernels; of many spaces at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.measure import Invariance, Measure, Rows, centered, gram, squared_distances
from lfm_tasks.measures.point_matrices import MatrixForm, linear_matrix, radial_matrix
from lfm_tasks.statistics.permutation_moments import doubly_centered

_CKA = "Kornblith et al. (2019), 'Similarity of neural network representations revisited', section 3"
_SONG = "Song et al. (2012), 'Feature selection via dependence maximization', equation 5"
_ORTHOGONAL: frozenset[Invariance] = frozenset({"rotation", "permutation", "scaling", "translation"})


@dataclass(frozen=True)
class CenteredRows:
    """Centered rows, and ‖XᵀX‖: what linear CKA needs of one space."""

    rows: Float[np.ndarray, "points features"]
    self_energy: float


@dataclass(frozen=True)
class GramMatrix:
    """A Gram matrix as the estimator takes it, and the root of its product with itself."""

    matrix: Float[np.ndarray, "points points"]
    self_energy: float


def prepare_linear(rows: Rows) -> CenteredRows:
    """Return centered rows with ‖XᵀX‖, from the smaller of XᵀX and XXᵀ."""
    moved = centered(rows)
    return CenteredRows(
        moved, float(np.linalg.norm(moved.T @ moved if moved.shape[1] < len(moved) else moved @ moved.T))
    )


def compare_linear(source: CenteredRows, target: CenteredRows) -> float:
    """Return ‖YᵀX‖²/(‖XᵀX‖ ‖YᵀY‖), through features or through points by shape."""
    widths = source.rows.shape[1], target.rows.shape[1]
    if min(widths) < len(source.rows):
        cross = float(np.square(target.rows.T @ source.rows).sum())
    else:
        cross = float(np.vdot(source.rows @ source.rows.T, target.rows @ target.rows.T))
    return _ratio(cross, source.self_energy * target.self_energy)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _of_kernel(matrix: Float[np.ndarray, "points points"]) -> GramMatrix:
    return GramMatrix(matrix, float(np.sqrt(max(np.vdot(matrix, matrix), 0.0))))


def permuted_gram(prepared: GramMatrix, order: Int[np.ndarray, " points"]) -> GramMatrix:
    """Return the Gram matrix of the same rows in another order, which centering does not depend on."""
    return GramMatrix(prepared.matrix[np.ix_(order, order)], prepared.self_energy)


def _compare_kernels(source: GramMatrix, target: GramMatrix) -> float:
    return _ratio(float(np.vdot(source.matrix, target.matrix)), source.self_energy * target.self_energy)


def unbiased(kernel: Float[np.ndarray, "points points"]) -> GramMatrix:
    """Return a kernel whose inner products are n(n − 3) HSIC₁: diagonal out, centered without it (Song et al. 2012)."""
    n_points = len(kernel)
    hollow = kernel - np.diag(np.diag(kernel))
    sums = hollow.sum(axis=1) / (n_points - 2)
    total = hollow.sum() / ((n_points - 1) * (n_points - 2))
    moved = hollow - sums[:, None] - sums + total
    np.fill_diagonal(moved, 0)
    # The U-centered matrix has Σ_ij = n(n−3) HSIC₁ of the hollow kernels (Székely, Rizzo 2014).
    return _of_kernel(moved)


def _lange(rows: Rows) -> GramMatrix:
    matrix = doubly_centered(gram(rows))
    np.fill_diagonal(matrix, 0)
    return _of_kernel(matrix)


def _radial(bandwidth: Callable[[Float[np.ndarray, "points points"]], float]) -> Callable[[Rows], np.ndarray]:
    """Return a function to exp(−d²/(2σ²)) − 1, σ² computed from all squared distances, the zero diagonal among them.

    Centering takes off the 1, in which all digits of a kernel far wider than the space would be.
    """

    def kernel(rows: Rows) -> np.ndarray:
        squared = squared_distances(rows)
        variance = bandwidth(squared)
        return np.expm1(-squared / (2 * variance)) if variance > 0 else np.zeros_like(squared)

    return kernel


def _median(squared: Float[np.ndarray, "points points"]) -> float:
    return float(np.median(squared))


def _radial_cka(
    bandwidth: Callable[[Float[np.ndarray, "points points"]], float],
    matrix: MatrixForm,
    convention: str,
    *,
    scales: bool = True,
) -> Measure:
    kernel = _radial(bandwidth)
    return Measure(
        lambda rows: _of_kernel(doubly_centered(kernel(rows))),
        _compare_kernels,
        convention,
        invariances=_ORTHOGONAL if scales else _ORTHOGONAL - {"scaling"},
        is_quadratic=True,
        permute=permuted_gram,
        matrix=matrix,
        source=_CKA,
    )


MEASURES = {
    "cka_linear": Measure(
        prepare_linear,
        compare_linear,
        "linear kernels, centered, biased: tends to 1 for n < d",
        invariances=_ORTHOGONAL,
        n_factor=1.0,
        smallest_n=6,
        matrix=linear_matrix("double"),
        source=_CKA,
    ),
    "cka_linear_debiased_song": Measure(
        lambda rows: unbiased(gram(rows)),
        _compare_kernels,
        "linear kernels, HSIC₁: chance is 0, values below 0 occur",
        value_range=(-1.0, 1.0),
        invariances=_ORTHOGONAL,
        is_quadratic=True,
        permute=permuted_gram,
        matrix=linear_matrix("unbiased"),
        source=_SONG,
    ),
    "cka_linear_zero_diagonal_lange": Measure(
        _lange,
        _compare_kernels,
        "linear kernels, centered, then the diagonal set to 0",
        value_range=(-1.0, 1.0),
        invariances=_ORTHOGONAL,
        is_quadratic=True,
        permute=permuted_gram,
        matrix=linear_matrix("zero_diagonal"),
        source="Lange et al. (2023), 'Deep networks as paths on the manifold of neural representations'",
    ),
    "cka_angular_arccos": Measure(
        prepare_linear,
        lambda source, target: float(np.arccos(np.clip(compare_linear(source, target), -1, 1))),
        "arccos of linear CKA: a metric on centered Gram matrices",
        kind="distance",
        matrix=replace(linear_matrix("double"), of_cosine=np.arccos, precision=np.float64),
        is_metric=True,
        value_range=(0.0, float(np.pi / 2)),
        invariances=_ORTHOGONAL,
        n_factor=1.0,
        source="Williams et al. (2021), 'Generalized shape metrics on neural representations'",
    ),
    "cka_rbf_median_all_squared_distances": _radial_cka(
        _median, radial_matrix(lambda median, unit: median, "double"), "σ² = median of all n² squared distances"
    ),
    "cka_rbf_half_median": _radial_cka(
        lambda squared: _median(squared) / 4,
        radial_matrix(lambda median, unit: median / 4, "double"),
        "σ² = median/4: σ is half the median",
    ),
    "cka_rbf_sigma_5": _radial_cka(
        lambda squared: 25.0,
        # Beyond these, every kernel is 1, or 0 between different points: squares would leave the floating-point range.
        radial_matrix(lambda median, unit: min(max(5 / unit, 1e-150), 1e150) ** 2, "double", fixed=True),
        "σ = 5 in the units of the space",
        scales=False,
    ),
    "cka_rbf_debiased": Measure(
        lambda rows: unbiased(_radial(_median)(rows)),
        _compare_kernels,
        "σ² = median of all n² squared distances, HSIC₁",
        value_range=(-1.0, 1.0),
        invariances=_ORTHOGONAL,
        is_quadratic=True,
        matrix=radial_matrix(lambda median, unit: median, "unbiased"),
        permute=permuted_gram,
        source=_SONG,
    ),
}


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

    Parameters
    ----------
    spaces
        Spaces on disk, with the same points in the same order.
    block_rows
        Rows of a tile, ≥ 1.

    Raises
    ------
    ValueError
        If there are spaces of different numbers of points.
    """
    n_points = {space.shape[0] for space in spaces}
    if len(n_points) != 1:
        raise ValueError(f"got spaces of {sorted(n_points)} points, expected the same points in each")
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
            source_rows = (source[rows].astype(np.float64) - means[s]).T
            for t, target in enumerate(spaces[s:]):
                cross[t] += source_rows @ (target[rows].astype(np.float64) - means[s + t])
        products[s, s:] = products[s:, s] = [np.square(one).sum() for one in cross]
    return products


def _mean(space: RowsOnDisk, n: int, block_rows: int) -> Float[np.ndarray, " features"]:
    total = np.zeros(space.shape[1])
    for start in range(0, n, block_rows):
        total += space[slice(start, min(start + block_rows, n))].sum(axis=0, dtype=np.float64)
    return total / n
