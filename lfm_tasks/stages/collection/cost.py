"""The cost of a collection: amounts of work, memory, bytes written."""

from collections.abc import Sequence

from lfm_tasks.runtime.load import ARRAY_BYTES, UNIT_BYTES, Load, SpaceSize


def collection_load(sizes: Sequence[SpaceSize], n_modes: int, n_eigenpairs: int, max_spaces: int) -> Load:
    """Return the cost of one collection."""
    n, s = max(size.n_points for size in sizes), len(sizes)
    n_modes = min(n_modes, n_eigenpairs)
    core = min(s, max_spaces)
    thirds = min(core, max(4, 24 * max_spaces // s))
    cubes = s * s / 2 * thirds * n_eigenpairs**3
    work = {
        "tasks": 1.0,
        "units": 1.0,
        "calls": 30.0 * s * s,
        # Maps of all pairs and around cycles; products of small matrices run at half the rate.
        "products": float((s * s / 2 + s * core) * n * n_eigenpairs**2 + 2 * cubes),
        # The leading modes of the core's matrix, by an iteration that passes over it.
        "entries": float(16 * (core * n_eigenpairs) ** 2 * n_modes),
        "bytes": float(16 * s * n * n_eigenpairs),
    }
    basis = n * n_eigenpairs * 8
    peak = min(s * basis, max(1 << 30, 65 * basis)) + 2 * n * 8 * 64 + s * n * (8 + sizes[0].id_bytes * 4)
    # Bases side by side, the maps to third spaces and back, the core's maps and their matrix, distances of all pairs.
    peak += 64 * basis + 3 * 8 * s * thirds * n_eigenpairs**2
    peak += 8 * (core * n_eigenpairs) ** 2 + 8 * core * core * n_eigenpairs**2 + 6 * 8 * s * s
    written = 8 * (s * n_eigenpairs * n_modes + 2 * s * s) + 3 * ARRAY_BYTES + UNIT_BYTES + 80 * s
    return Load(1, work, int(peak), "a collection", written)
