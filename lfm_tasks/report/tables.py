"""Tables: the same facts for those who read rather than look, and for the machine that checks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.report.facts import default_measure
from lfm_tasks.report.matrices import at_best_match, best_matches, model_similarity
from lfm_tasks.report.rows import calibrated_ends, cells, dataset_rows

# A space is called the same as another from here on.
IDENTICAL = 0.999
# Of the layer pairs called above chance, so many may be there by chance.
_ABOVE_CHANCE = 0.05
_GOOD_RECALL = 0.95
# Eigenvalues closer than this are one eigenspace to the solver, and cutting it takes an arbitrary part.
_SMALL_GAP = 1e-7


def page_tables(atlas: xr.Dataset, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of the page by name."""
    measure = default_measure([measure["name"] for measure in facts["measures"]])
    verdicts = [row for dataset in facts["datasets"] for row in _verdicts(atlas, dataset["name"], measure)]
    spaces = [row for dataset in facts["datasets"] for row in _spaces(atlas, dataset["name"])]
    return {
        "measure": measure,
        "verdicts": verdicts,
        "same": sorted({tuple(sorted((row["model"], row["nearest"]))) for row in verdicts if row["verdict"] == "same"}),
        "spaces": spaces,
        "doubtful": [f"{row['model']}/{row['layer']}: {doubt}" for row in spaces if (doubt := _doubt(row))],
    }


def _verdicts(atlas: xr.Dataset, dataset: str, measure: str) -> list[dict[str, Any]]:
    rows = dataset_rows(atlas, dataset)
    models, groups = list(dict.fromkeys(rows.models)), rows.groups
    if len(models) < 2:
        return []
    score, calibrated, q_values = (cells(atlas, rows, name, measure) for name in ("score", "calibrated", "q_value"))
    if measure in atlas.attrs["distances"]:
        score = calibrated  # high is alike, 1 is the same
    similarity = model_similarity(calibrated if np.isfinite(calibrated).any() else score, groups)
    low, high = (at_best_match(end, calibrated, groups) for end in calibrated_ends(atlas, rows, measure))
    np.fill_diagonal(similarity, np.nan)
    usual = float(np.nanmedian(similarity)) if np.isfinite(similarity).any() else np.nan
    matches = best_matches(score, groups)
    found = []
    for model, name in enumerate(models):
        if not np.isfinite(similarity[model]).any():
            continue
        # Rounded, so that equals stand in the order of their names and not of their last bits.
        falling = np.argsort(-np.nan_to_num(similarity[model], nan=-np.inf).round(6), kind="stable")
        nearest, *others = [int(other) for other in falling][:2]
        block = np.ix_(groups[model], groups[nearest])
        chance = q_values[block]
        value, second = float(similarity[model, nearest]), float(similarity[model, others[0]])
        is_same = min(score[block].max(axis=1).min(), score[block].max(axis=0).min()) >= IDENTICAL
        found.append(
            {
                "dataset": dataset,
                "model": name,
                "nearest": models[nearest],
                "value": value,
                "interval": _interval(low[model, nearest], high[model, nearest]),
                "margin": max(0.0, value - second) if len(models) > 2 and np.isfinite(second) else None,
                "same_layers": int((matches[groups[model], nearest] == np.arange(len(groups[model]))).sum()),
                "n_layers": len(groups[model]),
                "above_chance": int((chance <= _ABOVE_CHANCE).sum()) if np.isfinite(chance).any() else None,
                "n_pairs": chance.size,
                "verdict": _verdict(bool(is_same), value, usual, chance),
            }
        )
    return found


def _interval(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}" if np.isfinite(low) and np.isfinite(high) else "–"


def _verdict(is_same: bool, value: float, usual: float, q_values: np.ndarray) -> str:
    """Return the verdict in a word; the page explains the words."""
    if is_same:
        return "same"
    if np.isfinite(q_values).any() and not (q_values <= _ABOVE_CHANCE).any():
        return "not above chance"
    return "close" if value > usual else "apart"


def _spaces(atlas: xr.Dataset, dataset: str) -> list[dict[str, Any]]:
    rows = dataset_rows(atlas, dataset)
    chosen = atlas.sel(dataset=dataset, source=rows.names)
    columns = ("n_points", "n_features", "method", "n_components", "recall", "residual", "orthonormality", "eigengap")
    values = {name: chosen[name].values for name in columns}
    return [
        {"dataset": dataset, "model": model, "layer": layer} | {name: column[row] for name, column in values.items()}
        for row, (model, layer) in enumerate(zip(rows.models, rows.layers, strict=True))
    ]


def _doubt(row: Mapping[str, Any]) -> str:
    """Return what to look at in a space that passed its checks, in a few words; spaces that fail them are not here."""
    if row["n_components"] > 1:
        return f"its graph was in {row['n_components']:.0f} pieces before it was joined"
    if row["recall"] < _GOOD_RECALL:
        return f"{row['recall']:.0%} of its neighbours were found"
    if row["eigengap"] < _SMALL_GAP:
        return "its eigenvalues are cut within a cluster of equals"
    return ""
