"""Matrices of models and of spaces, labelled."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.published.names import Names
from lfm_tasks.statistics.model_pairs import best_match, depth_aligned, mean_match, pairs_of_models
from lfm_tasks.stores.atlas.schema import AtlasError

Reduction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
REDUCTIONS: Mapping[str, Reduction] = {
    "best_match": lambda values, source_depths, target_depths: best_match(values),
    "depth_aligned": depth_aligned,
    "mean": lambda values, source_depths, target_depths: mean_match(values),
}


def matrix(
    scores: xr.Dataset, names: Names, measure: str, reduce: str | None, statistic: str | None = None
) -> xr.DataArray:
    """Return (source, target) of models, or of spaces if nothing is to be reduced."""
    spaces = list(names.model_of)
    chosen = scores.sel(dataset=names.dataset, measure=measure, source=spaces, target=spaces)
    name = statistic or default_statistic(chosen)
    if reduce is None:
        return chosen[name].load()
    refuse_distances(scores, measure, name)
    values, depths = chosen[name].values, chosen["source_depth"].values
    of_space = np.array(list(names.model_of.values()))
    rows = [np.flatnonzero(of_space == model) for model in names.models]
    cells = np.empty((len(rows), len(rows)))
    for own in pairs_of_models(rows):
        reduced = REDUCTIONS[reduce](own.of(values), depths[own.source_rows], depths[own.target_rows])
        cells[own.source, own.targets] = reduced
    labels: dict[str, Any] = {"source": names.models, "target": names.models}
    told = {"dataset": names.dataset, "measure": measure, "statistic": name, "reduce": reduce}
    return xr.DataArray(cells, labels, ("source", "target"), reduce, told)


def refuse_distances(scores: xr.Dataset, measure: str, statistic: str) -> None:
    """Raise `AtlasError` where a higher value would not be the more alike."""
    if statistic != "calibrated" and measure in scores.attrs["distances"]:
        raise AtlasError(
            f"found the {statistic} of {measure}, a distance, where the higher value has to be the more alike: use the "
            "calibrated value (it needs atlas.null.n_permutations above 0), or another measure"
        )


def default_statistic(chosen: xr.Dataset) -> str:
    """Return ``calibrated``, or ``score`` where chance was not sampled."""
    return "calibrated" if bool(np.isfinite(chosen["calibrated"].values).any()) else "score"
