"""sampling.py."""

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.catalog import Catalog
from lfm_tasks.stores.units.digests import digest


def selected_rows(ids: Shaped[np.ndarray, " points"], catalog: Catalog) -> Int[np.ndarray, " selected"]:
    """Return the row numbers to record, in the order of their ids.

    With a cap (``atlas.max_points``), the ids with the smallest seeded digests stay: every source keeps the same ones,
    whatever else it holds.
    """
    order = np.argsort(ids, kind="stable")
    cap = catalog.atlas.max_points
    if cap is None or len(ids) <= cap:
        return order
    return order[drawn_rows(ids[order], cap, kind="cap", seed=catalog.atlas.seed)]


def drawn_rows(
    ids: Shaped[np.ndarray, " points"], n_drawn: int, *, kind: str, seed: int
) -> Int[np.ndarray, " selected"]:
    """Return the rows whose ids have the smallest seeded digests, ascending; ``kind`` makes draws independent."""
    digests = (digest({"kind": kind, "seed": seed, "id": str(name)}).encode() for name in ids)
    ranks = np.fromiter(digests, dtype="S64", count=len(ids))
    return np.sort(np.argsort(ranks, kind="stable")[:n_drawn])
