"""A collection of spaces: how well the cycles through each map close, and one basis that all maps agree on."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh
from scipy.sparse import bsr_array
from scipy.sparse.linalg import eigsh

from lfm_tasks.errors import DataError

# Below this many unknowns (spaces × eigenpairs) the dense eigensolver is as fast.
_DENSE_BELOW = 4000
# Of the residuals of a map's triples: few have to close.
_LOW = 0.1


@dataclass(frozen=True)
class Collection:
    """Maps between spaces of one number of eigenpairs: ``maps[e]`` carries space ``edges[e, 0]`` to ``edges[e, 1]``.

    Every ordered pair at most once.
    """

    n_spaces: int
    edges: Int[np.ndarray, "edges 2"]
    maps: Float[np.ndarray, "edges eigenpairs eigenpairs"]


def check_collection(collection: Collection) -> Collection:
    """Return ``collection`` if its edges are distinct pairs of different spaces that hang together.

    Raises
    ------
    DataError
        ``disconnected`` if some space cannot be reached from another.
    """
    edges = collection.edges
    if len(edges) != len(collection.maps) or not len(edges):
        raise ValueError(f"got {len(edges)} edges and {len(collection.maps)} maps, expected a map an edge, at least 1")
    if edges.min() < 0 or edges.max() >= collection.n_spaces or (edges[:, 0] == edges[:, 1]).any():
        raise ValueError(f"got an edge outside {collection.n_spaces} spaces, or from a space to itself")
    if len(np.unique(edges, axis=0)) < len(edges):
        raise ValueError("got an ordered pair twice, expected each once")
    reached = {0}
    for _ in range(collection.n_spaces):
        reached |= {int(b) for a, b in edges if a in reached} | {int(a) for a, b in edges if b in reached}
    if len(reached) < collection.n_spaces:
        n_apart = collection.n_spaces - len(reached)
        message = f"got {n_apart} of {collection.n_spaces} spaces that no map leads to"
        raise DataError("disconnected", f"{message}, expected one collection. Add maps")
    return collection


def cycle_residuals(collection: Collection, *, n_triples: int = 2000, seed: int = 0) -> Float[np.ndarray, " edges"]:
    """Return, for every map, the lower decile of ‖C_ki C_jk C_ij − I‖²/(2K) over its triples: 0 is consistent.

    The lower decile, because a right map is part of many triples with wrong ones, and a wrong map closes none. With
    half of the shipped zoo's maps wrong the decile ranks them behind the others with AUC .96, the quartile with .85;
    with a third wrong .98 and .96. Two orthogonal maps that have nothing to do with one another are 1 apart. Both ways
    round a triple count; triples whose three maps are not all there do not. Of more than ``n_triples`` triples that
    many are drawn. NaN for a map that is part of no triple.

    Parameters
    ----------
    collection
        Maps between spaces.
    n_triples
        The most triples of spaces to go around, ≥ 1.
    seed
        Draws the triples where there are more.

    References
    ----------
    Huang, Guibas (2013), "Consistent shape maps via semidefinite programming", section 3.
    """
    check_collection(collection)
    edge_of = {(int(a), int(b)): e for e, (a, b) in enumerate(collection.edges)}
    triples = list(combinations(range(collection.n_spaces), 3))
    if len(triples) > n_triples:
        chosen = np.random.default_rng(seed).choice(len(triples), n_triples, replace=False)
        triples = [triples[t] for t in np.sort(chosen)]
    residuals_of: list[list[float]] = [[] for _ in collection.edges]
    for a, b, c in triples:
        for cycle in (((a, b), (b, c), (c, a)), ((a, c), (c, b), (b, a))):
            if not all(pair in edge_of for pair in cycle):
                continue
            first, second, third = (edge_of[pair] for pair in cycle)
            around = collection.maps[third] @ collection.maps[second] @ collection.maps[first]
            residual = float(_distances_from_identity(around))
            for edge in (first, second, third):
                residuals_of[edge].append(residual)
    return np.array([np.quantile(values, _LOW, method="lower") if values else np.nan for values in residuals_of])


def residuals_through(
    direct: Float[np.ndarray, "targets target source"],
    onward: Float[np.ndarray, "targets thirds third target"],
    back: Float[np.ndarray, "thirds source third"],
) -> Float[np.ndarray, " targets"]:
    """Return the residuals of the maps C_ij of one space as `cycle_residuals`, through third spaces.

    Parameters
    ----------
    direct
        C_ij from space i to each space j.
    onward, back
        C_jk and C_ki for each third space k. NaN: there is no such map, and no cycle through k. A map through no third
        space has the residual NaN.
    """
    rising = np.sort(_distances_from_identity(back @ (onward @ direct[:, None])), axis=1)  # NaN last
    n_cycles = np.isfinite(rising).sum(axis=1)
    # The lower quantile, for which numpy takes longer than for the cycles.
    lower = (_LOW * np.maximum(n_cycles - 1, 0)).astype(int)
    return np.asarray(rising[np.arange(len(rising)), lower])


def _distances_from_identity(around: Float[np.ndarray, "*cycles K K"]) -> Float[np.ndarray, "*cycles"]:
    apart = around - np.eye(around.shape[-1], dtype=around.dtype)
    return np.asarray(np.square(apart).sum(axis=(-2, -1)) / (2 * around.shape[-1]))


@dataclass(frozen=True)
class SharedBasis:
    """Y_i of every space, orthonormal columns: Φ_i Y_i are the same functions in all spaces; weights of the maps."""

    coefficients: Float[np.ndarray, "spaces eigenpairs modes"]
    weights: Float[np.ndarray, " edges"]


def fit_shared_basis(collection: Collection, n_modes: int, *, n_rounds: int = 30) -> SharedBasis:
    """Return the basis that minimizes Σ w_ij ‖C_ij Y_i − Y_j‖² over orthonormal Y, maps that disagree counting less.

    The M = ``n_modes`` smallest eigenvectors of the block matrix W with W_ii += w C_ijᵀC_ij, W_jj += w I,
    W_ij −= w C_ijᵀ, W_ji −= w C_ij; each Y_i is made orthonormal. The weights start at 1 and become
    1/(residual² + ε²), ε the median residual (iteratively reweighted least squares): wrong maps agree with nobody and
    lose their say. Y is fixed up to one rotation for all spaces.

    Parameters
    ----------
    collection
        Maps between spaces; the graph of their edges is connected.
    n_modes
        Functions of the shared basis; 1 ≤ n_modes ≤ eigenpairs.
    n_rounds
        Rounds of reweighting; 0 counts all maps alike.

    Raises
    ------
    DataError
        ``disconnected``, see `check_collection`; ``too_few_points`` for more modes than eigenpairs.

    References
    ----------
    Wang, Huang, Guibas (2013), "Image co-segmentation via consistent functional maps", section 4; Huang, Achlioptas,
    Guibas, Ovsjanikov (2019), "Limit shapes", section 4; Chatterjee, Govindu (2013) for the weights.
    """
    check_collection(collection)
    n_eigenpairs = collection.maps.shape[1]
    if not 1 <= n_modes <= n_eigenpairs:
        raise DataError("too_few_points", f"got {n_eigenpairs} eigenpairs, expected {n_modes} for the shared modes")
    weights = np.ones(len(collection.edges))
    coefficients = _smallest_modes(collection, weights, n_modes)
    for _ in range(n_rounds):
        apart = np.sqrt(_disagreements(collection, coefficients))
        scale = max(float(np.median(apart)), 1e-6)
        before, weights = weights, 1 / (1 + (apart / scale) ** 2) ** 2
        coefficients = _smallest_modes(collection, weights, n_modes)
        if np.abs(weights - before).max() < 1e-4:
            break
    return SharedBasis(coefficients, weights)


def synchronized_map(shared: SharedBasis, source: int, target: int) -> Float[np.ndarray, "eigenpairs eigenpairs"]:
    """Return Y_target Y_sourceᵀ: the map that goes through the shared basis; such maps agree round every cycle.

    Parameters
    ----------
    shared
        The shared basis of a collection.
    source
        Number of the source space in the collection.
    target
        Number of the target space.
    """
    return shared.coefficients[target] @ shared.coefficients[source].T


def fit_new_space(
    shared: SharedBasis,
    maps: Float[np.ndarray, "known eigenpairs eigenpairs"],
    spaces: Int[np.ndarray, " known"],
) -> Float[np.ndarray, "eigenpairs modes"]:
    """Return Y of a space that arrives later, the orthonormal mean of C_{i→new} Y_i; one map is enough."""
    if len(maps) != len(spaces) or not len(maps):
        raise ValueError(f"got {len(maps)} maps for {len(spaces)} spaces, expected one a space, at least 1")
    return _orthonormal(np.einsum("nij,njm->im", maps, shared.coefficients[spaces]))


def _smallest_modes(
    collection: Collection, weights: Float[np.ndarray, " edges"], n_modes: int
) -> Float[np.ndarray, "spaces eigenpairs modes"]:
    n_spaces, n_eigenpairs = collection.n_spaces, collection.maps.shape[1]
    matrix = _block_matrix(collection, weights)
    size = n_spaces * n_eigenpairs
    if size < _DENSE_BELOW:
        vectors = eigh(matrix.toarray(), subset_by_index=(0, n_modes - 1))[1]
    else:
        # Shifted by a bound of the spectrum, so that the smallest are the largest in magnitude.
        start = np.random.default_rng(0).standard_normal(size)
        vectors = eigsh(matrix, k=n_modes, which="SA", v0=start)[1]
    blocks = vectors.reshape(n_spaces, n_eigenpairs, n_modes)
    return np.stack([_orthonormal(block) for block in blocks])


def _block_matrix(collection: Collection, weights: Float[np.ndarray, " edges"]) -> bsr_array:
    n_spaces, n_eigenpairs = collection.n_spaces, collection.maps.shape[1]
    blocks: dict[tuple[int, int], np.ndarray] = {(s, s): np.zeros((n_eigenpairs,) * 2) for s in range(n_spaces)}
    identity = np.eye(n_eigenpairs)
    for (a, b), functional_map, weight in zip(collection.edges.tolist(), collection.maps, weights, strict=True):
        blocks[a, a] = blocks[a, a] + weight * (functional_map.T @ functional_map)
        blocks[b, b] = blocks[b, b] + weight * identity
        blocks[a, b] = blocks.get((a, b), 0) - weight * functional_map.T
        blocks[b, a] = blocks.get((b, a), 0) - weight * functional_map
    places = sorted(blocks)
    columns = np.array([column for _, column in places])
    starts = np.searchsorted([row for row, _ in places], np.arange(n_spaces + 1))
    return bsr_array((np.stack([blocks[place] for place in places]), columns, starts))


def _disagreements(
    collection: Collection, coefficients: Float[np.ndarray, "spaces eigenpairs modes"]
) -> Float[np.ndarray, " edges"]:
    """Return ‖C_ij Y_i − Y_j‖²/M of every map."""
    source, target = (coefficients[collection.edges[:, side]] for side in (0, 1))
    return np.square(collection.maps @ source - target).sum(axis=(1, 2)) / coefficients.shape[2]


def _orthonormal(block: Float[np.ndarray, "eigenpairs modes"]) -> Float[np.ndarray, "eigenpairs modes"]:
    """Return the nearest matrix with orthonormal columns."""
    left, _, right = np.linalg.svd(block, full_matrices=False)
    return np.asarray(left @ right)
