"""What recording costs: time by the amounts of its work, memory, bytes written."""

from collections.abc import Sequence

from lfm_tasks.runtime.load import MIB, Load, SpaceSize, _chunk_bytes, _chunk_rows, id_array, unit_bytes


def record_load(spaces: Sequence[SpaceSize]) -> Load:
    """Return the cost of recording the missing layers of one model, in one pass."""
    chunks = [_chunk_bytes(own) for own in spaces]
    n_points = max(own.n_points for own in spaces)
    weights = max(own.weight_bytes for own in spaces)
    values = sum(own.n_bytes for own in spaces)
    work = {
        "record task": 1.0,
        "record layer": float(len(spaces)),
        "record bytes": float(values),
        "record run": float(weights * n_points),
        "record model": float(weights > 0),
    }
    # Rows wait until they fill a chunk; one chunk at a time is encoded. A batch of a file has 16 MiB, and is copied.
    peak = 2 * sum(chunks) + 4 * max(chunks) + max(own.held_bytes for own in spaces)
    peak += 2 * min(16 * MIB, values) + n_points * (200 + 8 * spaces[0].id_bytes)
    peak += 3 * weights + (64 * MIB if weights else 0)
    written = sum(unit_bytes((own.n_bytes, own.n_points, _chunk_rows(own)), id_array(own)) for own in spaces)
    return Load(1, work, peak, spaces[0].name, written)
