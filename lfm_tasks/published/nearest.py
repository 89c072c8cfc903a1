"""What is near: the other models by a model, the other spaces by a space."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.published.matrices import default_statistic, matrix, refuse_distances
from lfm_tasks.published.names import Names
from lfm_tasks.statistics.model_pairs import symmetrised

_TOLD = ("score", "ci_low", "ci_high", "p_value", "q_value", "unrelated_rank")


def nearest_models(
    scores: xr.Dataset, names: Names, model: str, measure: str, similarity: np.ndarray | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row for each other model, nearest first, with the pair of layers that is most alike.

    ``similarity``: (model, model), for who asks for many and has it; else it is made here.
    """
    if similarity is None:
        similarity = symmetrised(matrix(scores, names, measure, "best_match").values)
    own = dict(zip(names.models, similarity[names.models.index(model)], strict=True))
    ranked = _ranked([other for other in names.models if other != model], own)
    ours = names.layers(model)
    for row in ranked:
        theirs = names.layers(row["name"])
        block = scores.sel(dataset=names.dataset, measure=measure, source=ours, target=theirs)
        values = _high_is_alike(block, measure)
        place: dict[str, Any] = {}
        if np.isfinite(values).any():
            first, second = np.unravel_index(np.nanargmax(values), values.shape)
            place = {"source": ours[first], "target": theirs[second]}
            place |= _numbers(block.isel(source=first, target=second))
        yield row | place


def nearest_spaces(scores: xr.Dataset, names: Names, space: str, measure: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each other space, nearest first."""
    spaces = [name for name in names.model_of if name != space]
    row = scores.sel(dataset=names.dataset, measure=measure, source=space, target=spaces)
    values = dict(zip(spaces, _high_is_alike(row, measure), strict=True))
    statuses = row["status"].attrs["flag_meanings"].split()
    loaded = row[[*_TOLD, "status"]].load()
    for ranked in _ranked(spaces, values):
        cell = loaded.sel(target=ranked["name"])
        yield ranked | _numbers(cell) | {"status": statuses[int(cell["status"])]}


def _high_is_alike(cells: xr.Dataset, measure: str) -> np.ndarray:
    statistic = default_statistic(cells)
    refuse_distances(cells, measure, statistic)
    values: np.ndarray = cells[statistic].values
    return values


def _ranked(names: list[str], values: dict[str, float]) -> list[dict[str, Any]]:
    # Rounded, so that equals stand in the order of their names and not of their last bits; none is ahead of the other.
    known = [name for name in names if np.isfinite(values[name])]
    known.sort(key=lambda name: (-round(float(values[name]), 6), name))
    rows = []
    for name, behind in zip_longest(known, known[1:]):
        margin = None if behind is None else max(0.0, float(values[name] - values[behind]))
        rows.append({"name": name, "value": float(values[name]), "margin": margin})
    return rows


def _numbers(cell: xr.Dataset) -> dict[str, float | None]:
    found = {name: float(cell[name]) for name in _TOLD}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}
