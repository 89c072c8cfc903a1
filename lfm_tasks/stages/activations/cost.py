"""The cost of recording: amounts of work, memory, bytes written."""

from collections.abc import Sequence

from lfm_tasks.runtime.load import MIB, Load, SpaceSize, chunk_bytes, chunk_rows, id_array, unit_bytes


def record_load(sizes: Sequence[SpaceSize]) -> Load:
    """Return the cost of recording the missing layers of one model, in one pass."""
    chunks = [chunk_bytes(size) for size in sizes]
    n_points = max(size.n_points for size in sizes)
    weights = max(size.weight_bytes for size in sizes)
    run_bytes = max(size.run_bytes for size in sizes)
    values = sum(size.n_bytes for size in sizes)
    work = {
        "record task": 1.0,
        "record layer": float(len(sizes)),
        "record bytes": float(values),
        "record run": float(weights * n_points),
        "record model": float(weights > 0),
        "record flops": max(size.run_flops for size in sizes) * n_points,
        "record checkpoint": float(run_bytes > 0),
    }
    # Rows wait until they fill a chunk; one chunk at a time is encoded. A batch of a file has 16 MiB, and is copied.
    peak = 2 * sum(chunks) + 4 * max(chunks) + max(size.held_bytes for size in sizes)
    peak += 2 * min(16 * MIB, values) + n_points * (200 + 8 * sizes[0].id_bytes)
    peak += 3 * weights + (64 * MIB if weights else 0) + run_bytes
    written = sum(unit_bytes((size.n_bytes, size.n_points, chunk_rows(size)), id_array(size)) for size in sizes)
    return Load(1, work, peak, sizes[0].name, written)
