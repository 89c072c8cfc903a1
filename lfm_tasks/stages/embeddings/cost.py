"""The cost of embeddings and their probes: amounts of work, memory, bytes written."""

from collections.abc import Sequence

from lfm_tasks.runtime.load import ACTIVATIONS, MIB, Load, SpaceSize, unit_bytes


def embeddings_load(sizes: Sequence[SpaceSize], max_points: int, n_probed: int) -> Load:
    """Return the cost of embedding spaces, and of the probes of pairs of them."""
    if not sizes:
        return Load()
    n, d = min(max_points, max(size.n_points for size in sizes)), max(size.n_features for size in sizes)
    n_probes = len(sizes) + 2 * n_probed if n_probed else 0
    work = {
        "tasks": float(len(sizes) + n_probes),
        "units": float(len(sizes) + n_probes),
        # t-SNE: a thousand rounds, each some thousands of operations a point; distances of all pairs.
        "entries": float(len(sizes) * (1000 * 5000 * n + 10 * n * n)),
        # A probe: a thousand passes of gradients over the rows.
        "products": float(n_probes * 1000 * n * min(n, d)),
    }
    peak = 6 * 8 * n * d + 3 * 8 * n * n + 200 * MIB + 4 * (ACTIVATIONS.chunk_bytes or 0)
    ids = (n * (4 + sizes[0].id_bytes), n, 1 << 16)
    written = len(sizes) * unit_bytes((8 * n, n, 1 << 16), ids)
    written += unit_bytes(ids, (6 * n, n, 1 << 16), (4 * n, n, 1 << 16))
    written += len(sizes) * unit_bytes((8 * len(sizes), 1, 1)) if n_probed else 0
    return Load(len(sizes) * (2 if n_probed else 1), work, int(peak), sizes[0].name, int(written))
