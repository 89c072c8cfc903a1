"""Transfers: what was tried to carry points from one space to another, what was chosen, how good it is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

OF_CANDIDATE = {
    "held_out": "Held-out anchors (MRR)",
    "accuracy": "Accuracy",
    "mrr": "MRR",
    "stitched_accuracy": "Stitched accuracy",
    "round_trip": "Round trip",
}
OF_PAIR = {"own_accuracy": "Own accuracy", "all_pairs_accuracy": "With all pairs known"}


def transfer_tables(groups: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
    """Return what the page says of transfers, a table a dataset."""
    return [
        {
            "dataset": path.partition("/")[2],
            "columns": {name: word for name, word in OF_CANDIDATE.items() if name in group},
            "pairs": [_pair(group, pair) for pair in range(group.sizes["pair"])],
        }
        for path, group in sorted(groups.items())
        if path.startswith("transfers/") and group.sizes["pair"]
    ]


def _pair(group: xr.Dataset, pair: int) -> dict[str, Any]:
    at = group.isel(pair=pair)
    chosen = _text(at, "chosen")
    candidates = [
        {"name": str(name), "is_chosen": str(name) == chosen}
        | {column: _number(at, column, place) for column in OF_CANDIDATE}
        for place, name in enumerate(group["candidate"].values)
    ]
    tried = [row for row in candidates if row["is_chosen"] or any(row[column] is not None for column in OF_CANDIDATE)]
    n_anchors = _number(at, "n_anchors")
    return {
        "source": _text(at, "source"),
        "target": _text(at, "target"),
        "comparison": _text(at, "comparison"),
        "message": _text(at, "message"),
        "n_anchors": None if n_anchors is None else int(n_anchors),
        "candidates": tried,
    } | {column: _number(at, column) for column in OF_PAIR}


def _text(at: xr.Dataset, name: str) -> str:
    return str(at[name].values) if name in at.variables else ""


def _number(at: xr.Dataset, column: str, candidate: int | None = None) -> float | None:
    if column not in at.variables:
        return None
    value = float(at[column].values if candidate is None else at[column].values[candidate])
    return value if np.isfinite(value) else None
