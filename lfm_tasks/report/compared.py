"""Comparisons of the catalog: their sides, and their most alike pairs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.report.facts import default_measure

N_BEST = 5


def comparison_tables(atlas: xr.Dataset) -> list[dict[str, Any]]:
    """Return what the page says of each comparison; atlases of an earlier program have none."""
    return [_table(atlas, name, facts) for name, facts in atlas.attrs.get("comparisons", {}).items()]


def _table(atlas: xr.Dataset, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    measure = default_measure(facts["measures"])
    return {
        "name": name,
        "dataset": facts["dataset"],
        "measures": facts["measures"],
        "measure": measure,
        "n_sources": len(facts["sources"]),
        "n_targets": len(facts["targets"]),
        "best": _best(atlas, facts, measure),
    }


def _best(atlas: xr.Dataset, facts: Mapping[str, Any], measure: str) -> list[dict[str, Any]]:
    """Return the pairs of two different spaces with the highest calibrated values, each in one direction."""
    sides: dict[str, Any] = {
        side: [name for name in facts[f"{side}s"] if name in atlas[side].values] for side in ("source", "target")
    }
    if not all(sides.values()):
        return []
    cells = atlas.sel({"dataset": facts["dataset"], "measure": measure} | sides)
    calibrated, score = cells["calibrated"].values, cells["score"].values
    # Rounded, so that equals stand in the order of their names and not of their last bits.
    falling = np.argsort(-np.nan_to_num(calibrated, nan=-np.inf).round(6), axis=None, kind="stable")
    best: dict[frozenset[str], dict[str, Any]] = {}
    for s, t in zip(*np.unravel_index(falling, calibrated.shape), strict=True):
        source, target = sides["source"][s], sides["target"][t]
        if len(best) == N_BEST or not np.isfinite(calibrated[s, t]):
            break
        if source != target:
            row = {"source": source, "target": target, "calibrated": calibrated[s, t], "score": score[s, t]}
            best.setdefault(frozenset((source, target)), row)
    return list(best.values())
