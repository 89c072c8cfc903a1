"""Scores of many fitted maps at once, from one Gram matrix each; the trivial modes are left out of the maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.spectral.batched import kernels as map_loops
from lfm_tasks.spectral.batched.maps import STEP, TileSource, TileTargets, fit_step

# Maps that wait for the eigenvalues of their Gram matrices, which are found for 128 at a time.
_WAITING = 2 * map_loops.LANES


@dataclass(frozen=True)
class MapSums:
    """What the scores of maps C (without trivial modes) are made of, a number a map, G = CᵀC.

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


# By the names of `scores`; overlap is `capped_overlap`, singular values of fitted maps may be anything.
TILE_SCORES: Mapping[str, Callable[[MapSums], Float[np.ndarray, " maps"]]] = {
    "lfm": lambda sums: 1 - sums.off / (sums.off + sums.diagonal),
    "lfm_raw": lambda sums: 1 - sums.off / (1 + sums.off + sums.diagonal),
    "lfm_unsquared": lambda sums: 1 - np.sqrt(sums.off / (1 + sums.off + sums.diagonal)),
    "overlap": lambda sums: sums.capped / min(sums.n_inner),
}


def orthogonality_errors(sums: MapSums) -> Float[np.ndarray, " maps"]:
    """Return ‖CᵀC − I‖²/K, the trivial mode (which has none) counted in K."""
    return (sums.off + sums.apart) / (sums.n_inner[1] + 1)


def commutativity_errors(sums: MapSums) -> Float[np.ndarray, " maps"]:
    """Return ‖Λ_y C − C Λ_x‖²/‖C‖² with the trivial mode, which adds 1 to ‖C‖²."""
    return sums.crossed / (sums.squares + 1)


def tile_sums(tiles: Sequence[tuple[TileSource, TileTargets]]) -> MapSums:
    """Return the sums of the maps from each source to each of its targets, tile after tile; the maps are not kept.

    All sources have equally many eigenpairs, and all targets. Products are float32: a sum is right to about 1e-6 of the
    largest singular value's square.

    Raises
    ------
    ValueError
        For a map of zeros only, which has no score, or one with entries that are not finite.
    """
    n_maps = sum(len(targets.described) for _, targets in tiles)
    n_source, n_target = (side.eigenvalues.shape[-1] for side in tiles[0])
    found = np.empty((6, n_maps), dtype=np.float32)
    waiting = np.empty((min(_WAITING, n_maps), n_target, n_source), dtype=np.float32)
    summed = reached = 0
    for source, targets in tiles:
        columns = source.eigenvalues
        for start in range(0, len(targets.described), STEP):
            step = slice(start, min(start + STEP, len(targets.described)))
            end = reached + step.stop - step.start
            if end - summed > len(waiting):
                map_loops.gram_sums(waiting[: reached - summed], found[:5, summed:reached])
                summed = reached
            maps = waiting[reached - summed : end - summed]
            fit_step(source, targets, step, maps)
            map_loops.cross_sums(maps, targets.eigenvalues[step], columns, found[5, reached:end])
            reached = end
    map_loops.gram_sums(waiting[: reached - summed], found[:5, summed:reached])
    if (found[3] == 0).any():
        raise ValueError("found a map of zeros only, which has no score: its descriptors say nothing of the target")
    if not np.isfinite(found).all():
        raise ValueError("found a map with entries that are not finite: check the descriptors")
    off, diagonal, apart, squares, capped, crossed = found.astype(np.float64)
    return MapSums(off, diagonal, apart, squares, capped, crossed, (n_target, n_source))
