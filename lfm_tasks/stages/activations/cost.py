"""The cost of recording: amounts of work, memory, bytes written."""

from collections.abc import Sequence

from lfm_tasks.runtime.load import MIB, Load, SpaceSize, chunk_bytes, chunk_rows, id_array, unit_bytes

# Seconds until a worker has the modules of sources and of the store.
_IMPORTS = 0.1


def record_load(sizes: Sequence[SpaceSize]) -> Load:
    """Return the cost of recording the missing layers of one model, in one pass."""
    chunks = [chunk_bytes(size) for size in sizes]
    n_points = max(size.n_points for size in sizes)
    weights = max(size.weight_bytes for size in sizes)
    run_bytes = max(size.run_bytes for size in sizes)
    values = sum(size.n_bytes for size in sizes)
    # A weight of 4 bytes is one multiply-add a point at half the rate of large products; two operations are one.
    products = n_points * (weights / 2 + max(size.run_flops for size in sizes) / 2)
    work = {
        "tasks": 1.0,
        "units": float(len(sizes)),
        "bytes": float(values),
        "products": float(products),
        # The runtime, or the library of checkpoints.
        "seconds": (0.03 if weights else 0.0) + (3.0 if run_bytes else 0.0),
    }
    # Rows wait until they fill a chunk; one chunk at a time is encoded. A batch of a file has 16 MiB, and is copied.
    peak = 2 * sum(chunks) + 4 * max(chunks) + max(size.held_bytes for size in sizes)
    peak += 2 * min(16 * MIB, values) + n_points * (200 + 8 * sizes[0].id_bytes)
    peak += 3 * weights + (64 * MIB if weights else 0) + run_bytes
    written = sum(unit_bytes((size.n_bytes, size.n_points, chunk_rows(size)), id_array(size)) for size in sizes)
    return Load(1, work, peak, sizes[0].name, written, starting_seconds=_IMPORTS)
