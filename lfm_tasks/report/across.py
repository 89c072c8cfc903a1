"""The view across datasets: models that are on several of them, and comparisons of spaces of two."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.report.encoding import dataset_rows, model_similarity, statistic_matrix
from lfm_tasks.statistics.across_datasets import Similarities, agreements, side_by_side

# Pairs of models, and of spaces of a comparison, that the page lists; the tables beside it have all.
MOST_PAIRS = 20


def across_view(atlas: xr.Dataset, findings: list[dict[str, Any]], measure: str) -> dict[str, Any] | None:
    """Return the models on each dataset side by side; None unless a model is on several.

    ``findings``: the verdict on each model and dataset, by the same measure.
    """
    datasets = [str(name) for name in atlas["dataset"].values]
    on = {dataset: list(dict.fromkeys(dataset_rows(atlas, dataset).models)) for dataset in datasets}
    counts = {model: sum(model in of_dataset for of_dataset in on.values()) for of in on.values() for model in of}
    if max(counts.values(), default=0) < 2:
        return None
    nearest = {(row["model"], row["dataset"]): row for row in findings}
    pairs = side_by_side({dataset: _similarities(atlas, dataset, measure) for dataset in datasets})
    return {
        "datasets": datasets,
        "models": [
            {
                "name": model,
                "on": [
                    {"is_there": model in on[dataset], "nearest": nearest.get((model, dataset))} for dataset in datasets
                ],
            }
            for model in sorted(counts)
        ],
        "pairs": [
            {
                "first": one.first,
                "second": one.second,
                "values": [_or_none(v) for v in one.values],
                "spread": one.spread,
            }
            for one in pairs[:MOST_PAIRS]
        ],
        "n_pairs": len(pairs),
        "agreements": [vars(one) for one in agreements(datasets, pairs)],
    }


def _similarities(atlas: xr.Dataset, dataset: str, measure: str) -> Similarities:
    rows = dataset_rows(atlas, dataset)
    calibrated = statistic_matrix(atlas, rows, "calibrated", measure)
    is_distance = measure in atlas.attrs["distances"]
    values = (
        calibrated if np.isfinite(calibrated).any() or is_distance else statistic_matrix(atlas, rows, "score", measure)
    )
    if not rows.names:
        return Similarities([], np.empty((0, 0)))
    return Similarities(list(dict.fromkeys(rows.models)), model_similarity(values, rows.groups))


def across_tables(groups: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
    """Return the table of each comparison across datasets: its most alike pairs, by its first measure."""
    return [_table(group) for path, group in sorted(groups.items()) if path.startswith("across/")]


def _table(group: xr.Dataset) -> dict[str, Any]:
    measures = [str(name) for name in group["measure"].values]
    measure = "overlap" if "overlap" in measures else measures[0]
    at = group.sel(measure=measure, direction="forward")
    score, back = at["score"].values, group["score"].sel(measure=measure, direction="back").values
    falling = np.argsort(-np.nan_to_num(score, nan=-np.inf).round(6), axis=None, kind="stable")[:MOST_PAIRS]
    places = [place for place in zip(*np.unravel_index(falling, score.shape), strict=True) if np.isfinite(score[place])]
    unscored = np.argwhere(~np.isfinite(score))
    return {
        "name": group.attrs["comparison"],
        "source_dataset": group.attrs["source_dataset"],
        "target_dataset": group.attrs["target_dataset"],
        "regime": group.attrs["regime"],
        "measure": measure,
        "n_pairs": score.size,
        "n_unscored": len(unscored),
        "message": str(group["message"].values[tuple(unscored[0])]) if len(unscored) else "",
        "pairs": [
            {
                "source": str(group["source"].values[s]),
                "target": str(group["target"].values[t]),
                "score": float(score[s, t]),
                "back": _or_none(back[s, t]),
                "calibrated": _or_none(at["calibrated"].values[s, t]),
                "residual": _or_none(at["map_residual"].values[s, t]) if "map_residual" in at else None,
            }
            for s, t in places
        ],
    }


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
