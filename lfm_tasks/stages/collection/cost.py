"""The cost of a collection: amounts of work, memory, bytes written."""

from collections.abc import Sequence
from math import ceil

from lfm_tasks.runtime.load import ARRAY_BYTES, UNIT_BYTES, Load, SpaceSize

# Spaces on a side of the cycles that one task closes, a multiple of the side of a block: numbers do not depend on it.
CYCLES_SIDE = 512


def collection_load(sizes: Sequence[SpaceSize], n_modes: int, n_eigenpairs: int, max_spaces: int) -> Load:
    """Return the cost of one collection."""
    n, s = max(size.n_points for size in sizes), len(sizes)
    n_modes = min(n_modes, n_eigenpairs)
    core = min(s, max_spaces)
    thirds = min(core, max(4, 24 * max_spaces // s))
    cubes = s * s / 2 * thirds * n_eigenpairs**3
    # Cycles of many spaces are tasks of their own, one for each two groups of spaces.
    n_groups = ceil(s / CYCLES_SIDE) if s > 2 * CYCLES_SIDE else 0
    n_tasks = 1 + n_groups * (n_groups + 1) // 2
    n_read = s + (n_tasks - 1) * 2 * CYCLES_SIDE
    work = {
        "tasks": float(n_tasks),
        "units": float(n_tasks),
        "calls": 30.0 * s * s,
        # Maps of all pairs and around cycles; products of small matrices run at half the rate.
        "products": float((s * s / 2 + s * core) * n * n_eigenpairs**2 + 2 * cubes),
        # The leading modes of the core's matrix, by an iteration that passes over it.
        "entries": float(16 * (core * n_eigenpairs) ** 2 * n_modes),
        "bytes": float(16 * n_read * n * n_eigenpairs),
    }
    basis = n * n_eigenpairs * 8
    peak = min(s * basis, max(1 << 30, 65 * basis)) + 2 * n * 8 * 64 + s * n * (8 + sizes[0].id_bytes * 4)
    # Bases side by side, the maps to third spaces and back, the core's maps and their matrix, distances of all pairs.
    peak += 64 * basis + 3 * 8 * s * thirds * n_eigenpairs**2
    peak += 8 * (core * n_eigenpairs) ** 2 + 8 * core * core * n_eigenpairs**2 + 6 * 8 * s * s
    written = 8 * (s * n_eigenpairs * n_modes + 2 * s * s) + 3 * ARRAY_BYTES + UNIT_BYTES + 80 * s
    return Load(n_tasks, work, int(peak), "a collection", written)
