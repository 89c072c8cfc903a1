"""What is near: the other models by a model, the other spaces by a space."""

from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.measures.model_pairs import symmetrised
from lfm_tasks.published.matrices import default_statistic, matrix
from lfm_tasks.published.names import Names

_TOLD = ("score", "ci_low", "ci_high", "p_value", "q_value", "unrelated_rank")


def nearest_models(scores: xr.Dataset, names: Names, model: str, measure: str) -> list[dict[str, Any]]:
    """Return a row for each other model, nearest first, with the pair of layers that is most alike."""
    similarity = symmetrised(matrix(scores, names, measure, "best_match").values)[names.models.index(model)]
    candidates = [other for other in names.models if other != model]
    ranked = _ranked(candidates, {name: float(value) for name, value in zip(names.models, similarity, strict=True)})
    ours = names.layers(model)
    rows = []
    for row in ranked:
        theirs = names.layers(row["name"])
        block = scores.sel(dataset=names.dataset, measure=measure, source=ours, target=theirs)
        values = _high_is_alike(block, measure)
        place: dict[str, Any] = {}
        if np.isfinite(values).any():
            first, second = np.unravel_index(np.nanargmax(values), values.shape)
            place = {"source": ours[first], "target": theirs[second]}
            place |= _numbers(block.isel(source=first, target=second))
        rows.append(row | place)
    return rows


def nearest_spaces(scores: xr.Dataset, names: Names, space: str, measure: str) -> list[dict[str, Any]]:
    """Return a row for each other space, nearest first."""
    spaces = [name for name in names.model_of if name != space]
    row = scores.sel(dataset=names.dataset, measure=measure, source=space, target=spaces)
    values = dict(zip(spaces, _high_is_alike(row, measure), strict=True))
    statuses = row["status"].attrs["flag_meanings"].split()
    loaded = row[[*_TOLD, "status"]].load()
    return [
        ranked | _numbers(cell := loaded.sel(target=ranked["name"])) | {"status": statuses[int(cell["status"])]}
        for ranked in _ranked(spaces, values)
    ]


def _high_is_alike(cells: xr.Dataset, measure: str) -> np.ndarray:
    statistic = default_statistic(cells)
    values: np.ndarray = cells[statistic].values
    return -values if statistic == "score" and measure in cells.attrs["distances"] else values


def _ranked(names: list[str], values: dict[str, float]) -> list[dict[str, Any]]:
    # Rounded, so that equals stand in the order of their names and not of their last bits.
    known = [name for name in names if np.isfinite(values[name])]
    known.sort(key=lambda name: (-round(float(values[name]), 6), name))
    after = [*known[1:], None]
    return [
        {"name": name, "value": float(values[name]), "margin": float(values[name] - values[next_]) if next_ else None}
        for name, next_ in zip(known, after, strict=True)
    ]


def _numbers(cell: xr.Dataset) -> dict[str, float | None]:
    found = {name: float(cell[name]) for name in _TOLD}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}
