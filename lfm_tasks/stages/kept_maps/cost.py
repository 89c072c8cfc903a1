"""The cost of kept maps: amounts of work, memory, bytes written."""

from collections.abc import Sequence
from math import ceil, sqrt

from lfm_tasks.runtime.load import ARRAY_BYTES, Load, SpaceSize

# A task reads its bases, which takes as long as twenty maps: few maps of many spaces are a task together.
_MAPS_A_TASK, _FEWEST_ON_A_SIDE = 64, 16


def group_side(n_spaces: int, n_maps: int) -> int:
    """Return how many spaces a group has, each two of which are a task: 16, or more where few pairs are kept."""
    return max(_FEWEST_ON_A_SIDE, ceil(n_spaces / ceil(sqrt(2 * n_maps / _MAPS_A_TASK)))) if n_maps else n_spaces


def kept_maps_load(n_maps: int, sizes: Sequence[SpaceSize], n_eigenpairs: int) -> Load:
    """Return the cost of the maps that a dataset keeps."""
    if not n_maps:
        return Load()
    n = max(size.n_points for size in sizes)
    side = group_side(len(sizes), n_maps)
    groups = ceil(len(sizes) / side)
    n_tasks = min(n_maps, groups * (groups + 1) // 2)
    n_bases = min(2 * side, 2 * ceil(n_maps / n_tasks), len(sizes))
    work = {
        "tasks": float(n_tasks),
        "units": float(n_tasks),
        "calls": float(1000 * n_maps),
        # In double precision: the map, and the rows that it carries.
        "products": float(n_maps * 4 * n * n_eigenpairs**2),
        "bytes": float(n_tasks * n_bases * 8 * n * n_eigenpairs),
    }
    per_task = ceil(n_maps / n_tasks)
    peak = (
        n_bases * n * (n_eigenpairs * 8 + 40) + 3 * per_task * (8 * n_eigenpairs**2 + 16 * n) + 4 * n * n_eigenpairs * 8
    )
    written = n_maps * (4 * n_eigenpairs**2 + 8 * n + 150) + n_tasks * (n * (4 + sizes[0].id_bytes) + 3 * ARRAY_BYTES)
    return Load(n_tasks, work, int(peak), "kept maps", written)
