"""The cost of transfers: amounts of work, memory, bytes written."""

from collections.abc import Sequence

from lfm_tasks.runtime.load import ACTIVATIONS, ARRAY_BYTES, UNIT_BYTES, Load, SpaceSize, total_load


def transfers_load(sizes: Sequence[tuple[SpaceSize, SpaceSize]], most_points: int) -> Load:
    """Return the cost of fitting maps from anchors."""
    loads = []
    for source, target in sizes:
        n, d = min(most_points, max(source.n_points, target.n_points)), max(source.n_features, target.n_features)
        # Of seven folds and seven candidates of smoothing, in double precision; entries of the matrices of all pairs.
        work = {
            "tasks": 1.0,
            "units": 1.0,
            "products": float(28 * (n * n * d + n * d * d)),
            "entries": float(3000 * n * n),
        }
        peak = 14 * n * n * 8 + 12 * n * d * 8 + 4 * (ACTIVATIONS.chunk_bytes or 0)
        written = 8 * (source.n_features * (target.n_features + 1) + target.n_features + 2500)
        loads.append(Load(1, work, peak, target.name, written + 4 * ARRAY_BYTES + UNIT_BYTES + 3000))
    return total_load(loads)
