"""The cost of kept maps: amounts of work, memory, bytes written."""

from collections.abc import Sequence
from math import ceil

from lfm_tasks.runtime.load import ARRAY_BYTES, Load, SpaceSize


def kept_maps_load(n_maps: int, sizes: Sequence[SpaceSize], n_eigenpairs: int) -> Load:
    """Return the cost of the maps that a dataset keeps, 16 x 16 spaces a task."""
    if not n_maps:
        return Load()
    n = max(size.n_points for size in sizes)
    groups = ceil(len(sizes) / 16)
    n_tasks = min(n_maps, groups * (groups + 1) // 2)
    n_bases = min(32, len(sizes))
    work = {
        "kept task": float(n_tasks),
        "kept map": float(n_maps),
        "kept rows": float(n_maps * n * n_eigenpairs**2),
        "kept bases": float(n_tasks * n_bases * n * n_eigenpairs),
    }
    per_task = ceil(n_maps / n_tasks)
    peak = (
        n_bases * n * (n_eigenpairs * 8 + 40) + 3 * per_task * (8 * n_eigenpairs**2 + 16 * n) + 4 * n * n_eigenpairs * 8
    )
    written = n_maps * (4 * n_eigenpairs**2 + 8 * n + 150) + n_tasks * (n * (4 + sizes[0].id_bytes) + 3 * ARRAY_BYTES)
    return Load(n_tasks, work, int(peak), "kept maps", written)
