"""The functional map when every point is known in both spaces, and the scores of functional maps.

To add a measure of maps, write its functions here and give it a row in `MAP_SCORES`; everything else reads that table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError

# Spaces on a side of a tile: part of the convention, for the bits of a map depend on it.
TILE_SIDE = 4


def full_map(
    source_rows: Float[np.ndarray, "points source"], target_rows: Float[np.ndarray, "points target"]
) -> Float[np.ndarray, "target source"]:
    """Return C = Φ_yᵀ Φ_x: it carries coefficients of functions from the source basis to the target basis.

    Both take the same points in the same order, and their columns are orthonormal. The map back is the transpose.

    Parameters
    ----------
    source_rows
        Φ_x: eigenvectors of the source, a row for each point, orthonormal columns.
    target_rows
        Φ_y: eigenvectors of the target on the same points in the same order.

    Examples
    --------
    >>> basis = np.eye(3)[:, :2]
    >>> full_map(basis, basis[:, ::-1]).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return target_rows.T @ source_rows


def full_maps(
    sources: Float[np.ndarray, "points all_sources"], targets: Float[np.ndarray, "points all_targets"], n_spaces: int
) -> Float[np.ndarray, "targets sources target source"]:
    """Return the maps from each source to each target, which stand `side_by_side` for ``n_spaces``: one product.

    Half the time of one by one, which 50 columns are too few for.
    """
    return _by_pair(targets.T @ _apart(sources, targets), n_spaces)


def _apart(
    sources: Float[np.ndarray, "points all_sources"], targets: Float[np.ndarray, "points all_targets"]
) -> Float[np.ndarray, "points all_sources"]:
    """Return the sources in an array of their own: a product of one with itself takes another routine, other bits."""
    return sources.copy() if sources is targets else sources


def side_by_side(
    rows: Sequence[Float[np.ndarray, "points eigenpairs"]], n_spaces: int = TILE_SIDE
) -> Float[np.ndarray, "points columns"]:
    """Return the functions of up to ``n_spaces`` spaces on the same points as columns of one array, then zeros.

    The last bits of a product depend on its shape, and those of a pair must not depend on what stands beside it.
    """
    if not 0 < len(rows) <= n_spaces:
        raise ValueError(f"got {len(rows)} spaces, expected 1 to {n_spaces}")
    n_points, n_columns = rows[0].shape
    wide = np.zeros((n_points, n_spaces * n_columns), dtype=rows[0].dtype)
    for place, vectors in enumerate(rows):
        wide[:, place * n_columns : (place + 1) * n_columns] = vectors
    return wide


def _by_pair(
    products: Float[np.ndarray, "all_targets all_sources"], n_spaces: int
) -> Float[np.ndarray, "targets sources target source"]:
    """Return products of spaces side by side as one map after another."""
    n_rows, n_columns = products.shape
    apart = products.reshape(n_spaces, n_rows // n_spaces, n_spaces, n_columns // n_spaces)
    return np.ascontiguousarray(np.swapaxes(apart, 1, 2))


def whitened_rows(rows: Float[np.ndarray, "points eigenpairs"]) -> Float[np.ndarray, "points eigenpairs"]:
    """Return Φ G^(-1/2) with G = ΦᵀΦ: a part of a basis, made orthonormal on the points that are left.

    Symmetric whitening moves the columns least. With it `full_map` of two partial bases has singular values ≤ 1, and
    the map back is still the transpose.

    Raises
    ------
    DataError
        ``little_overlap`` if the points left do not determine the basis.
    """
    values, vectors = np.linalg.eigh(rows.T @ rows)
    if len(rows) < rows.shape[1] or values[0] <= 1e-10 * values[-1]:
        raise DataError(
            "little_overlap",
            f"got {len(rows)} common points, too few to tell {rows.shape[1]} eigenvectors apart. Lower n_eigenpairs",
        )
    return rows @ (vectors / np.sqrt(values)) @ vectors.T


def lfm(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return the LFM similarity without the trivial mode: 1 − ‖off(CᵀC)‖²/‖CᵀC‖² with C[1:, 1:], in [0, 1].

    Two unrelated spaces get about .5, whatever their size; any orthogonal C gets 1. Asymmetric.

    Parameters
    ----------
    maps
        One C, or a stack of them; the first row and column belong to the trivial mode.

    References
    ----------
    Fumero et al. (2024), "Latent Functional Maps", section 3.3; with the trivial mode: `lfm_raw`.
    """
    return lfm_raw(maps[..., 1:, 1:])


def lfm_raw(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return the paper's score 1 − ‖off(CᵀC)‖²/‖CᵀC‖², trivial mode kept; it flatters unrelated spaces."""
    diagonal, total = _gram_energies(maps)
    return _ratio(diagonal, total)


def lfm_unsquared(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return 1 − ‖off(CᵀC)‖/‖CᵀC‖ (norms not squared, trivial mode kept): what the paper's figure 3 shows."""
    diagonal, total = _gram_energies(maps)
    return np.asarray(1 - np.sqrt(np.maximum(1 - _ratio(diagonal, total), 0)))


def overlap(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return ‖C[1:, 1:]‖²/(min(K_x, K_y) − 1), in [0, 1]: the mean squared cosine of the principal angles.

    1: both bases span the same functions; about K/n by chance. Symmetric.

    Parameters
    ----------
    maps
        One C, or a stack of them; the first row and column belong to the trivial mode.

    Examples
    --------
    Of two functions above the trivial one, the target's basis has one:

    >>> float(overlap(np.diag([1.0, 1.0, 0.0])))
    0.5
    """
    inner = maps[..., 1:, 1:]
    return np.asarray(_energy(inner) / min(inner.shape[-2:]))


def capped_overlap(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return `overlap` with singular values above 1 counted as 1: those of a fitted map may be anything.

    Equal to `overlap` itself where C = Φ_yᵀ Φ_x.
    """
    inner = maps[..., 1:, 1:]
    wide = inner if inner.shape[-2] <= inner.shape[-1] else np.swapaxes(inner, -1, -2)
    squares = np.linalg.eigvalsh(wide @ np.swapaxes(wide, -1, -2))
    return np.asarray(np.clip(squares, 0, 1).sum(axis=-1) / wide.shape[-2])


def orthogonality_error(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return ‖CᵀC − I‖²/K ≥ 0."""
    gram = np.swapaxes(maps, -1, -2) @ maps
    error = gram - np.eye(maps.shape[-1])
    return np.asarray(_energy(error) / maps.shape[-1])


def commutativity_error(
    maps: Float[np.ndarray, "*stack target source"],
    source_eigenvalues: Float[np.ndarray, "*#stack source"],
    target_eigenvalues: Float[np.ndarray, "*#stack target"],
) -> Float[np.ndarray, "*stack"]:
    """Return ‖Λ_y C − C Λ_x‖²/‖C‖² ≥ 0."""
    error = maps * (target_eigenvalues[..., :, None] - source_eigenvalues[..., None, :])
    return _ratio(_energy(error), _energy(maps))


def lfm_both_ways(
    maps: Float[np.ndarray, "*stack target source"],
) -> tuple[Float[np.ndarray, "*stack"], Float[np.ndarray, "*stack"]]:
    """Return `lfm` of maps and of their transposes, for the price of one: ‖CᵀC‖ = ‖CCᵀ‖."""
    inner = np.ascontiguousarray(maps[..., 1:, 1:])
    squares = inner * inner
    of_source, of_target = (_energy_of(squares.sum(axis=axis)) for axis in (-2, -1))
    total = _gram_energy(inner)
    return _ratio(of_source, total), _ratio(of_target, total)


def _gram_energies(
    maps: Float[np.ndarray, "*stack target source"],
) -> tuple[Float[np.ndarray, "*stack"], Float[np.ndarray, "*stack"]]:
    """Return ‖diag(CᵀC)‖² and ‖CᵀC‖²."""
    return _energy_of(np.einsum("...ij,...ij->...j", maps, maps)), _gram_energy(maps)


def _gram_energy(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return ‖CᵀC‖²; of a copy, since of one array with itself half is computed, which takes longer."""
    gram = np.swapaxes(maps, -1, -2) @ maps.copy()
    return _energy_of(gram.reshape(*gram.shape[:-2], -1))


def _energy_of(values: Float[np.ndarray, "*stack numbers"]) -> Float[np.ndarray, "*stack"]:
    return np.asarray(np.vecdot(values, values))


def _energy(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return ‖C‖²; as an array even for one map, which einsum would give as a scalar."""
    return np.asarray(np.einsum("...ij,...ij->...", maps, maps))


def _ratio(part: Float[np.ndarray, "*stack"], whole: Float[np.ndarray, "*stack"]) -> Float[np.ndarray, "*stack"]:
    """Return part/whole; a map that is all zero has no score."""
    if np.any(whole == 0):
        raise ValueError("got a map of zeros only, which has no score")
    return np.asarray(part / whole)


ScoreFunction = Callable[[Float[np.ndarray, "*stack target source"]], Float[np.ndarray, "*stack"]]


# What stands beside the scores of each map; the last two only where a map was grown by ZoomOut.
DIAGNOSTICS = {
    "orthogonality_error": "|C'C - I|^2/K: 0 for an isometry",
    "commutativity_error": "|L_y C - C L_x|^2/|C|^2: 0 for an isometry",
    "map_residual": "mean distance of target rows to their images, in units of the scaled bases: 0 for an isometry",
    "points_found": "share of the target's points that the map leads to, where their ids tell",
}


@dataclass(frozen=True)
class MapSums:
    """The sums that scores of maps C (without trivial modes) are computed from, a number a map, G = CᵀC.

    ``off`` ‖off G‖², ``diagonal`` ‖diag G‖², ``apart`` ‖diag G − I‖², ``squares`` ‖C‖², ``capped`` Σ min(σ², 1),
    ``crossed`` Σ C_ij² (λ_i − λ_j)².
    """

    off: Float[np.ndarray, " maps"]
    diagonal: Float[np.ndarray, " maps"]
    apart: Float[np.ndarray, " maps"]
    squares: Float[np.ndarray, " maps"]
    capped: Float[np.ndarray, " maps"]
    crossed: Float[np.ndarray, " maps"]
    n_inner: tuple[int, int]


@dataclass(frozen=True)
class MapScore:
    """A similarity computed from functional maps; one row of `MAP_SCORES` is all that a new one needs.

    Parameters
    ----------
    function
        The score of maps between bases of which every point is known in both spaces.
    both_ways
        The score of maps and of their transposes, if that is less work than ``function`` twice.
    of_sums
        The score of fitted maps, from the sums that `lfm_tasks.spectral.batched.tiles.tile_sums` returns.
    convention
        What the atlas says of it.
    of_fitted
        The score of fitted maps, if it differs: their singular values may be larger than 1.
    has_null
        Whether chance levels mean something for it.
    is_symmetric
        Whether the map back has the same score, where every point is known in both spaces.
    trace_scale
        The s, a function of the numbers of source and target eigenpairs, for which the score is ‖C[1:, 1:]‖²/s: then
        the moments of its chance level are known exactly. None for all other scores.
    is_energy_ratio
        Whether the score is ‖diag CᵀC‖²/‖CᵀC‖² without trivial modes: then its chance level is known in closed form.
    """

    function: ScoreFunction
    of_sums: Callable[[MapSums], Float[np.ndarray, " maps"]]
    convention: str
    of_fitted: ScoreFunction
    has_null: bool = False
    is_symmetric: bool = False
    trace_scale: Callable[[int, int], int] | None = None
    is_energy_ratio: bool = False
    both_ways: Callable[[Any], tuple[Any, Any]] | None = None

    def of_both_ways(
        self, maps: Float[np.ndarray, "*stack target source"]
    ) -> tuple[Float[np.ndarray, "*stack"], Float[np.ndarray, "*stack"]]:
        """Return the score of maps and of their transposes, which are the maps back."""
        if self.both_ways is not None:
            return self.both_ways(maps)
        there = self.function(maps)
        return there, there if self.is_symmetric else self.function(np.swapaxes(maps, -1, -2))


MAP_SCORES: dict[str, MapScore] = {
    "lfm": MapScore(
        lfm,
        lambda sums: 1 - sums.off / (sums.off + sums.diagonal),
        "1 - |off(C'C)|^2/|C'C|^2, trivial mode dropped; asymmetric, in [0, 1]",
        of_fitted=lfm,
        has_null=True,
        is_energy_ratio=True,
        both_ways=lfm_both_ways,
    ),
    "lfm_raw": MapScore(
        lfm_raw,
        lambda sums: 1 - sums.off / (1 + sums.off + sums.diagonal),
        "the same, trivial mode kept (the paper's); chance is close to 1",
        of_fitted=lfm_raw,
    ),
    "lfm_unsquared": MapScore(
        lfm_unsquared,
        lambda sums: 1 - np.sqrt(sums.off / (1 + sums.off + sums.diagonal)),
        "unsquared norms, trivial mode kept (the paper's code)",
        of_fitted=lfm_unsquared,
    ),
    "overlap": MapScore(
        overlap,
        lambda sums: sums.capped / min(sums.n_inner),
        "|C|^2/(K-1), trivial modes dropped; symmetric, in [0, 1]; of fitted maps singular values count up to 1",
        of_fitted=capped_overlap,
        has_null=True,
        is_symmetric=True,
        trace_scale=lambda n_source, n_target: min(n_source, n_target) - 1,
    ),
}


# Wide products are efficient, but not wider than this many numbers (32 MiB in float32).
_LARGEST_PRODUCT = 1 << 23


def permutations_per_product(n_points: int, n_eigenpairs: int) -> int:
    """Return how many permutations `permuted_maps` takes in one matrix product.

    Depends on the sizes of one pair only: the last bits of a product depend on its shape, so the same pair must be
    multiplied in the same shapes whatever else is computed beside it.
    """
    return max(1, min(25, _LARGEST_PRODUCT // (n_points * n_eigenpairs)))


def permuted_rows(
    target_rows: Float[np.ndarray, "points target"], permutations: Int[np.ndarray, "permutations points"]
) -> Float[np.ndarray, "points columns"]:
    """Return ``target_rows`` in every permuted order, side by side, in float32: (points, permutations × target)."""
    narrow = target_rows.astype(np.float32)
    n_maps, n_points = permutations.shape
    return narrow[permutations.T].reshape(n_points, n_maps * narrow.shape[1])


def permuted_maps(
    source_rows: Float[np.ndarray, "points source"], wide_target: Float[np.ndarray, "points columns"], n_maps: int
) -> Float[np.ndarray, "permutations target source"]:
    """Return ``Φ_y[π]ᵀ Φ_x`` for every permutation π that `permuted_rows` laid out side by side.

    In float32: a null distribution of a few hundred values needs no more.
    """
    # The narrow factor first: a sixth faster than the other way round.
    product = source_rows.astype(np.float32).T @ wide_target
    return np.ascontiguousarray(product.reshape(source_rows.shape[1], n_maps, -1).transpose(1, 2, 0))
