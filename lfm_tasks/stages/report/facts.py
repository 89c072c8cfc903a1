"""Facts: the numbers of an atlas in the form that the page's script draws from."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.stages.report.matrices import best_matches, dendrogram, model_similarity

# What a cell can show, the default first.
STATISTICS = {"calibrated": "calibrated: 0 is chance, 1 the best there is", "score": "as measured"}
# int16 holds values to 4-5 digits at an eighth of the size of text; the smallest number stands for NaN.
_MISSING = -(2**15)
_LARGEST = 2**15 - 1


@dataclass(frozen=True)
class Rows:
    """The spaces of one dataset in the order of the page: by model, then by depth."""

    dataset: str
    names: list[str]
    models: list[str]
    layers: list[str]

    def of_model(self, model: str) -> list[int]:
        """Return the row numbers of one model."""
        return [row for row, name in enumerate(self.models) if name == model]


def page_facts(atlas: xr.Dataset) -> dict[str, Any]:
    """Return everything that the page draws: views by dataset, measure and statistic."""
    datasets = [str(name) for name in atlas["dataset"].values]
    measures = [str(name) for name in atlas["measure"].values]
    return {
        "datasets": [_dataset_facts(dataset_rows(atlas, name)) for name in datasets],
        "measures": [{"name": name, "convention": atlas.attrs["measures"][name]} for name in measures],
        "statistics": [{"name": name, "meaning": meaning} for name, meaning in STATISTICS.items()],
        "default_measure": measures.index(default_measure(measures)),
        "views": [[_measure_facts(atlas, dataset, measure) for measure in measures] for dataset in datasets],
    }


def default_measure(measures: list[str]) -> str:
    """Return the measure that the page opens with: ``overlap`` matches layers best."""
    return "overlap" if "overlap" in measures else measures[0]


def dataset_rows(atlas: xr.Dataset, dataset: str) -> Rows:
    """Return the spaces that the dataset has."""
    present = np.flatnonzero(atlas["n_points"].sel(dataset=dataset).values > 0)
    models = [str(name) for name in atlas["source_model"].values]
    depths = atlas["source_depth"].values
    order = sorted(present, key=lambda row: (models[row], float(depths[row])))
    names = [str(atlas["source"].values[row]) for row in order]
    layers = [str(atlas["source_layer"].values[row]) for row in order]
    return Rows(dataset, names, [models[row] for row in order], layers)


def cells(atlas: xr.Dataset, rows: Rows, measure: str, statistic: str) -> np.ndarray:
    """Return (source, target) values of one statistic in the order of ``rows``."""
    chosen = atlas[statistic].sel(dataset=rows.dataset, measure=measure, source=rows.names, target=rows.names)
    return np.asarray(chosen.values, dtype=np.float64)


def _dataset_facts(rows: Rows) -> dict[str, Any]:
    models = list(dict.fromkeys(rows.models))
    return {
        "name": rows.dataset,
        "models": [{"name": model, "rows": rows.of_model(model)} for model in models],
        "layers": rows.layers,
    }


def _measure_facts(atlas: xr.Dataset, dataset: str, measure: str) -> dict[str, Any]:
    rows = dataset_rows(atlas, dataset)
    groups = [rows.of_model(model) for model in dict.fromkeys(rows.models)]
    score = cells(atlas, rows, measure, "score")
    views = {}
    # Of a distance only the calibrated value reads like a similarity: 0 is chance, 1 the best there is.
    is_distance = measure in atlas.attrs["distances"]
    for statistic in ["calibrated"] if is_distance else STATISTICS:
        values = cells(atlas, rows, measure, statistic)
        if not np.isfinite(values).any():
            continue
        similarity = model_similarity(values, groups)
        order, xs, ys = dendrogram(similarity)
        views[statistic] = {
            "cells": packed(values),
            "models": packed(similarity),
            "order": order,
            "tree": {"xs": xs, "ys": ys},
        }
    return {
        "views": views,
        "chance": packed(cells(atlas, rows, measure, "null_mean")),
        "p": packed(cells(atlas, rows, measure, "p_value")),
        "matches": [[int(match) for match in row] for row in best_matches(-score if is_distance else score, groups)],
    }


def packed(values: np.ndarray) -> dict[str, Any]:
    """Return a matrix as base64 of little-endian int16, row by row, with the unit that one step stands for."""
    finite = np.isfinite(values)
    largest = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    unit = largest / _LARGEST if largest else 1.0
    steps = np.where(finite, np.rint(np.where(finite, values, 0) / unit), _MISSING).astype("<i2")
    return {"unit": unit, "columns": values.shape[1], "steps": base64.b64encode(steps.tobytes()).decode()}
