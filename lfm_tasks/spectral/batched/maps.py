"""Maps from one source to many targets in float32: two products a pair, which `fit_map` needs a solve a row for.

Every product has the shape of its pair, so the bits of a map depend on its two spaces and on nothing beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from lfm_tasks.spectral.batched import kernels as map_loops
from lfm_tasks.spectral.batched.source_factor import SourceFactor, factor_source, row_numbers
from lfm_tasks.spectral.maps.closed_form import Described, Mask, fit_map

# The map of a space to itself is the identity: what float32 products miss of it, relative to 1.
LARGEST_ERROR = 1e-4
# Targets whose maps lie in the cache together, with what they are made of (460 KiB at 50 eigenpairs).
STEP = 16


@dataclass(frozen=True, eq=False)
class TileSource:
    """A source ready for any target: NA and L as real matrices, real parts left, imaginary parts right.

    ``right`` is None where float32 is too coarse for this source: its maps are solved row by row in float64.
    """

    described: Described
    mask: Mask
    poles: Float32[np.ndarray, "3 inner"]
    left: Float32[np.ndarray, "twice_inner inner_source"]
    right: Float32[np.ndarray, "descriptors twice_inner"] | None

    @property
    def eigenvalues(self) -> Float32[np.ndarray, " inner_source"]:
        """Those above the trivial one."""
        return self.described.eigenvalues[1:].astype(np.float32)

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        arrays = (self.described.coefficients, self.left, self.right)
        return sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True)
class TileTargets:
    """Targets of one size: their descriptors, and for each row above the trivial one f_i b_i and μ_i (two float32)."""

    described: tuple[Described, ...]
    rows: Float32[np.ndarray, "targets inner_target descriptors"]
    numbers: Float32[np.ndarray, "targets inner_target 2"]
    eigenvalues: Float32[np.ndarray, "targets inner_target"]


def tile_source(described: Described, *, mask: Mask = "resolvent") -> TileSource:
    """Return what all maps from a space share; a source that float32 fails on itself is told, whatever its targets."""
    narrow = _narrow(described, factor_source(described, mask=mask))
    n_inner = len(described.eigenvalues) - 1
    if narrow.left.shape[0] == 2 * n_inner:
        itself = fit_tile(narrow, tile_targets([described], mask=mask))[0]
        if np.abs(itself - np.eye(n_inner, dtype=np.float32)).max() <= LARGEST_ERROR:
            return narrow
    return TileSource(described, mask, narrow.poles, narrow.left, None)


def tile_targets(described: Sequence[Described], *, mask: Mask = "resolvent") -> TileTargets:
    """Return targets of equally many eigenpairs and descriptors, side by side."""
    values = np.stack([one.eigenvalues[1:] for one in described])
    numbers, factors = row_numbers(values, mask)
    rows = np.stack([one.coefficients[1:] for one in described])
    rows *= factors[:, :, None]
    high = numbers.astype(np.float32)
    pairs = np.stack([high, (numbers - high).astype(np.float32)], axis=-1)
    return TileTargets(tuple(described), rows.astype(np.float32), pairs, values.astype(np.float32))


def fit_tile(source: TileSource, targets: TileTargets) -> Float32[np.ndarray, "targets inner_target inner_source"]:
    """Return the maps of `fit_map` without their trivial modes, to about 1e-6 of their largest entries."""
    n_targets, n_inner, _ = targets.rows.shape
    maps = np.empty((n_targets, n_inner, source.left.shape[1]), dtype=np.float32)
    for start in range(0, n_targets, STEP):
        step = slice(start, min(start + STEP, n_targets))
        fit_step(source, targets, step, maps[step])
    return maps


def fit_step(
    source: TileSource,
    targets: TileTargets,
    step: slice,
    maps: Float32[np.ndarray, "step inner_target inner_source"],
) -> None:
    """Fill in the maps of `fit_tile` to some of the targets."""
    if source.right is None:
        maps[:] = [fit_map(source.described, one, mask=source.mask)[1:, 1:] for one in targets.described[step]]
        return
    spread = np.matmul(targets.rows[step], source.right)
    map_loops.weigh(spread, targets.numbers[step], source.poles)
    np.matmul(spread, source.left, out=maps)


def _narrow(described: Described, factor: SourceFactor) -> TileSource:
    """Return a factorisation in float32; of the map only the real part is wanted: twice Re W Re Lᵀ − Im W Im Lᵀ."""
    left = np.ascontiguousarray(2 * np.vstack([factor.left.real.T, -factor.left.imag.T]), dtype=np.float32)
    right = np.ascontiguousarray(np.hstack([factor.right.real.T, factor.right.imag.T]), dtype=np.float32)
    high = factor.poles.real.astype(np.float32)
    poles = np.stack([high, factor.poles.real - high, factor.poles.imag]).astype(np.float32)
    return TileSource(described, factor.mask, poles, left, right)
