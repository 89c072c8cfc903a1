"""Maps from one source to many targets in float32: two products a pair, where `fit_closed_form` solves row by row.

Every product has the shape of its pair, so the bits of a map depend on its two spaces and on nothing beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float, Float32

from lfm_tasks.spectral.bases.full_map import MAP_SCORES, MapSums
from lfm_tasks.spectral.batched import loops as map_loops
from lfm_tasks.spectral.maps.closed_form import (
    SPECTRUM_BOUND,
    DescriptorCoefficients,
    Mask,
    check_fit,
    fit_closed_form,
    penalty_strength,
    with_trivial_mode,
)


@dataclass(frozen=True)
class SourceFactor:
    """The poles Λ (Im > 0), L, and N A of M(μ)⁻¹ = 2 Re L (μ − Λ)⁻¹ N, for the modes above the trivial one."""

    mask: Mask
    poles: Complex[np.ndarray, " inner"]
    left: Complex[np.ndarray, "inner_modes inner"]
    right: Complex[np.ndarray, "inner descriptors"]


def factor_source(source: DescriptorCoefficients, *, mask: Mask = "resolvent", weight: float = 1.0) -> SourceFactor:
    """Return the factorization that the fits from ``source`` to all targets share.

    Row i of the map solves M(μ_i) c_i = f_i A b_i, where M(μ) = μ²P + μQ + S is quadratic in one number of the row:

    - ``commutativity``: μ = λ_i, f = 1, P = αI, Q = −2α diag(λ), S = AAᵀ + α diag(λ²);
    - ``resolvent``: μ = √(λ_i/2), f = μ² + 1, and with a = √(λ/2), q = 1/(a² + 1):
      P = AAᵀ + α diag(q), Q = −2α diag(qa), S = AAᵀ + α diag(qa²).

    The linearisation [[0, I], [−P⁻¹S, −P⁻¹Q]] = XΛX⁻¹ gives L (top rows of X) and N (right half of X⁻¹, times P⁻¹).
    Its eigenvalues come in conjugate pairs, so half of them are kept.

    Parameters
    ----------
    source
        Eigenvalues and descriptor coefficients of the source, as `project_descriptors` returns them.
    mask
        The penalty of mixed frequencies: ``commutativity`` or ``resolvent``, as in `fit_closed_form`.
    weight
        α in units of the mean diagonal of AAᵀ, > 0.

    Raises
    ------
    ValueError
        If ``weight`` is not positive.

    References
    ----------
    Tisseur, Meerbergen (2001), "The quadratic eigenvalue problem", section 3.
    """
    check_fit(source, source, weight)
    leading, linear, constant = _quadratic(source, mask, penalty_strength(source, weight))
    n_modes = len(leading)
    inverse = np.linalg.inv(leading)
    companion = np.block([[np.zeros((n_modes, n_modes)), np.eye(n_modes)], [-inverse @ constant, -inverse @ linear]])
    poles, vectors = np.linalg.eig(companion)
    right = np.linalg.solve(vectors, np.vstack([np.zeros_like(inverse), inverse]) @ source.coefficients[1:])
    upper = poles.imag > 0
    return SourceFactor(mask, poles[upper], vectors[:n_modes, upper], right[upper])


def fit_map_from_factor(
    factor: SourceFactor, target: DescriptorCoefficients, *, single_precision: bool = False
) -> Float[np.ndarray, "target source"]:
    """Return the map C of `fit_closed_form` as ((f B (NA)ᵀ)_i / (μ_i − Λ)) Lᵀ, twice its real part.

    ``single_precision`` computes in float32 (relative error about 1e-6): half the time.

    Parameters
    ----------
    factor
        The source, factored by `factor_source`.
    target
        Eigenvalues and coefficients of the target; as many descriptors, in the same order, as the source has.
    single_precision
        Whether to compute in float32.
    """
    complex_type, real_type = (np.complex64, np.float32) if single_precision else (np.complex128, np.float64)
    numbers, factors = row_numbers(target.eigenvalues[1:], factor.mask)
    rows = (target.coefficients[1:] * factors[:, None]).astype(real_type)
    spread = rows @ factor.right.astype(complex_type).T
    resolvents = (1 / (numbers[:, None] - factor.poles)).astype(complex_type)
    inner = 2 * ((spread * resolvents) @ factor.left.astype(complex_type).T).real
    return with_trivial_mode(inner)


def _quadratic(
    source: DescriptorCoefficients, mask: Mask, strength: float
) -> tuple[
    Float[np.ndarray, "inner inner"],
    Float[np.ndarray, "inner inner"],
    Float[np.ndarray, "inner inner"],
]:
    """Return P, Q and S of M(μ) = μ²P + μQ + S."""
    values = source.eigenvalues[1:]
    inner = source.coefficients[1:]
    gram = inner @ inner.T
    if mask == "commutativity":
        return strength * np.eye(len(gram)), -2 * strength * np.diag(values), gram + strength * np.diag(values**2)
    a = np.sqrt(values / SPECTRUM_BOUND)
    q = strength / (a**2 + 1)
    return gram + np.diag(q), -2 * np.diag(q * a), gram + np.diag(q * a**2)


def row_numbers(
    eigenvalues: Float[np.ndarray, "*inner"], mask: Mask
) -> tuple[Float[np.ndarray, "*inner"], Float[np.ndarray, "*inner"]]:
    """Return μ_i and f_i of every row."""
    if mask == "commutativity":
        return eigenvalues, np.ones_like(eigenvalues)
    b = np.sqrt(eigenvalues / SPECTRUM_BOUND)
    return b, b**2 + 1


# The map of a space to itself is the identity: what float32 products miss of it, relative to 1.
LARGEST_ERROR = 1e-4
# Targets whose maps lie in the cache together, with what they are made of (460 KiB at 50 eigenpairs).
STEP = 16


@dataclass(frozen=True, eq=False)
class TileSource:
    """A source ready for any target: NA and L as real matrices, real parts left, imaginary parts right.

    ``right`` is None where float32 is too coarse for this source: its maps are solved row by row in float64.
    """

    described: DescriptorCoefficients
    mask: Mask
    poles: Float32[np.ndarray, "3 inner"]
    left: Float32[np.ndarray, "twice_inner inner_source"]
    right: Float32[np.ndarray, "descriptors twice_inner"] | None

    @property
    def eigenvalues(self) -> Float32[np.ndarray, " inner_source"]:
        """The eigenvalues above the trivial one."""
        return self.described.eigenvalues[1:].astype(np.float32)

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        arrays = (self.described.coefficients, self.left, self.right)
        return sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True)
class TileTargets:
    """Targets of one size: their descriptors, and for each row above the trivial one f_i b_i and μ_i (two float32)."""

    described: tuple[DescriptorCoefficients, ...]
    rows: Float32[np.ndarray, "targets inner_target descriptors"]
    numbers: Float32[np.ndarray, "targets inner_target 2"]
    eigenvalues: Float32[np.ndarray, "targets inner_target"]


def tile_source(described: DescriptorCoefficients, *, mask: Mask = "resolvent") -> TileSource:
    """Return the factors that all maps from a space share; ``right`` is None if float32 fails on the map to itself."""
    narrow = _narrow(described, factor_source(described, mask=mask))
    n_inner = len(described.eigenvalues) - 1
    if narrow.left.shape[0] == 2 * n_inner:
        itself = fit_tile(narrow, tile_targets([described], mask=mask))[0]
        if np.abs(itself - np.eye(n_inner, dtype=np.float32)).max() <= LARGEST_ERROR:
            return narrow
    return TileSource(described, mask, narrow.poles, narrow.left, None)


def tile_targets(described: Sequence[DescriptorCoefficients], *, mask: Mask = "resolvent") -> TileTargets:
    """Return targets of equally many eigenpairs and descriptors, side by side."""
    values = np.stack([one.eigenvalues[1:] for one in described])
    numbers, factors = row_numbers(values, mask)
    rows = np.stack([one.coefficients[1:] for one in described])
    rows *= factors[:, :, None]
    high = numbers.astype(np.float32)
    pairs = np.stack([high, (numbers - high).astype(np.float32)], axis=-1)
    return TileTargets(tuple(described), rows.astype(np.float32), pairs, values.astype(np.float32))


def fit_tile(source: TileSource, targets: TileTargets) -> Float32[np.ndarray, "targets inner_target inner_source"]:
    """Return the maps of `fit_closed_form` without their trivial modes, to about 1e-6 of their largest entries."""
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
    """Fill in the maps that `fit_tile` returns, of some of the targets."""
    if source.right is None:
        maps[:] = [fit_closed_form(source.described, one, mask=source.mask)[1:, 1:] for one in targets.described[step]]
        return
    spread = np.matmul(targets.rows[step], source.right)
    map_loops.weigh(spread, targets.numbers[step], source.poles)
    np.matmul(spread, source.left, out=maps)


def _narrow(described: DescriptorCoefficients, factor: SourceFactor) -> TileSource:
    """Return a factorization in float32; of the map only the real part is wanted: twice Re W Re Lᵀ − Im W Im Lᵀ."""
    left = np.ascontiguousarray(2 * np.vstack([factor.left.real.T, -factor.left.imag.T]), dtype=np.float32)
    right = np.ascontiguousarray(np.hstack([factor.right.real.T, factor.right.imag.T]), dtype=np.float32)
    high = factor.poles.real.astype(np.float32)
    poles = np.stack([high, factor.poles.real - high, factor.poles.imag]).astype(np.float32)
    return TileSource(described, factor.mask, poles, left, right)


# Maps that wait for the eigenvalues of their Gram matrices, which are found for 128 at a time.
_WAITING = 2 * map_loops.LANES


# Each score from its sums; of fitted maps, whose singular values may be anything, overlap is `capped_overlap`.
TILE_SCORES = {name: score.of_sums for name, score in MAP_SCORES.items()}


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
    sums = np.empty((6, n_maps), dtype=np.float32)
    waiting = np.empty((min(_WAITING, n_maps), n_target, n_source), dtype=np.float32)
    summed = reached = 0
    for source, targets in tiles:
        columns = source.eigenvalues
        for start in range(0, len(targets.described), STEP):
            step = slice(start, min(start + STEP, len(targets.described)))
            end = reached + step.stop - step.start
            if end - summed > len(waiting):
                map_loops.gram_sums(waiting[: reached - summed], sums[:5, summed:reached])
                summed = reached
            maps = waiting[reached - summed : end - summed]
            fit_step(source, targets, step, maps)
            map_loops.cross_sums(maps, targets.eigenvalues[step], columns, sums[5, reached:end])
            reached = end
    map_loops.gram_sums(waiting[: reached - summed], sums[:5, summed:reached])
    if (sums[3] == 0).any():
        raise ValueError("got a map of zeros only, which has no score: its descriptors say nothing of the target")
    if not np.isfinite(sums).all():
        raise ValueError("got a map with entries that are not finite. Check the descriptors")
    off, diagonal, apart, squares, capped, crossed = sums.astype(np.float64)
    return MapSums(off, diagonal, apart, squares, capped, crossed, (n_target, n_source))
