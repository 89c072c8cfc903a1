"""Facts: the numbers of an atlas in the form that the page's script draws from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.report.embedded import embedding_facts
from lfm_tasks.report.kept import map_facts
from lfm_tasks.report.matrices import at_best_match, best_matches, dendrogram, model_similarity
from lfm_tasks.report.packing import packed, packed_if_any
from lfm_tasks.report.rows import Rows, calibrated_ends, cells, dataset_rows
from lfm_tasks.statistics.model_pairs import model_distances
from lfm_tasks.statistics.scaling import Scaling, classical_scaling

# What a cell can show, the default first.
STATISTICS = {"calibrated": "calibrated: 0 is chance, 1 the best there is", "score": "as measured"}
# What is known of a cell, with its decimals, and what it is counted from: small numbers pack better.
_KNOWN = {
    "score": (3, None),
    "null_mean": (3, None),
    "null_q95": (3, "null_mean"),
    "ci_low": (3, "score"),
    "ci_high": (3, "score"),
    "p_value": (4, None),
    "calibrated": (3, "calibration"),
}
# What a section knows of pairs of spaces, whichever the measure.
DIAGNOSTICS = {
    "cycle_residual": "Cycle residual",
    "map_residual": "Map residual",
    "orthogonality_error": "Orthogonality error",
    "commutativity_error": "Commutativity error",
    "points_found": "Points found",
}


def page_facts(atlas: xr.Dataset, summary: Mapping[str, Any], groups: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Return everything that the page draws: views by dataset, measure and statistic."""
    datasets = [dataset_rows(atlas, str(name)) for name in atlas["dataset"].values]
    measures = [str(name) for name in atlas["measure"].values]
    meta = {model["name"]: model["meta"] for model in summary["models"]}
    # The family first: what most zoos would be coloured by.
    facets = sorted({facet for facts in meta.values() for facet in facts}, key=lambda facet: (facet != "family", facet))
    return {
        "datasets": [_dataset_facts(atlas, rows, meta, groups) for rows in datasets],
        "facets": facets,
        "measures": [
            {
                "name": name,
                "convention": atlas.attrs["measures"][name],
                "is_distance": name in atlas.attrs["distances"],
            }
            for name in measures
        ],
        "statistics": [{"name": name, "meaning": meaning} for name, meaning in STATISTICS.items()],
        "diagnostics": DIAGNOSTICS,
        "default_measure": default_measure(measures),
        "views": [[_measure_facts(atlas, rows, measure) for measure in measures] for rows in datasets],
    }


def default_measure(measures: list[str]) -> str:
    """Return the measure that the page opens with: ``overlap`` matches layers best."""
    return "overlap" if "overlap" in measures else measures[0]


def _dataset_facts(
    atlas: xr.Dataset, rows: Rows, meta: Mapping[str, Mapping[str, Any]], groups: Mapping[str, xr.Dataset]
) -> dict[str, Any]:
    models = [
        {"name": rows.models[own[0]], "rows": own, "meta": _texts(meta.get(rows.models[own[0]], {}))}
        for own in rows.groups
    ]
    diagnostics = {name: packed_if_any(cells(atlas, rows, name), 4) for name in DIAGNOSTICS}
    maps, embeddings = (groups.get(f"{section}/{rows.dataset}") for section in ("maps", "embeddings"))
    return {
        "name": rows.dataset,
        "models": models,
        "layers": rows.layers,
        "diagnostics": {name: values for name, values in diagnostics.items() if values},
        "shared_map": _shared_map(cells(atlas, rows, "shared_distance"), rows.groups),
        "maps": None if maps is None else map_facts(maps, rows),
        "embeddings": None if embeddings is None else embedding_facts(embeddings, rows, maps),
    }


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return meta as the page shows it; yes and no rather than Python's words."""
    words = {True: "yes", False: "no", None: ""}
    return {
        name: words[value] if isinstance(value, bool | None) else str(value) for name, value in sorted(facts.items())
    }


def _shared_map(distances: np.ndarray, groups: list[list[int]]) -> dict[str, Any] | None:
    """Return the map by distances in the shared embedding, of best-match spaces; of the models that have them."""
    between = -model_similarity(-distances, groups)
    np.fill_diagonal(between, 0)
    kept = np.flatnonzero(np.isfinite(between).sum(axis=1) > 1)
    own = between[np.ix_(kept, kept)]
    return _placed(classical_scaling(own, 2), kept) if len(kept) and np.isfinite(own).all() else None


def _measure_facts(atlas: xr.Dataset, rows: Rows, measure: str) -> dict[str, Any]:
    score = cells(atlas, rows, "score", measure)
    is_distance = measure in atlas.attrs["distances"]
    views = {}
    # Of a distance only the calibrated value reads like a similarity: 0 is chance, 1 the best there is.
    for statistic in ["calibrated"] if is_distance else STATISTICS:
        values = cells(atlas, rows, statistic, measure)
        if np.isfinite(values).any():
            ends = (
                calibrated_ends(atlas, rows, measure)
                if statistic == "calibrated"
                else tuple(cells(atlas, rows, end, measure) for end in ("ci_low", "ci_high"))
            )
            views[statistic] = _models(values, ends, rows.groups)
    ceiling = "split_half_reliability" in atlas and float(
        atlas["split_half_reliability"].sel(dataset=rows.dataset, measure=measure)
    )
    matches = best_matches(-score if is_distance else score, rows.groups)
    return {
        "views": views,
        "known": _known(atlas, rows, measure),
        "ceiling": float(ceiling) if ceiling is not False and np.isfinite(ceiling) else None,
        "matches": [[int(match) for match in row] for row in matches],
    }


def _known(atlas: xr.Dataset, rows: Rows, measure: str) -> dict[str, Any]:
    """Return what is known of every cell; ``from`` names the matrix to be added (see loadKnown in web/page.js)."""
    found: dict[str, Any] = {}
    rounded: dict[str, np.ndarray] = {}
    for name, (digits, origin) in _KNOWN.items():
        rounded[name] = cells(atlas, rows, name, measure).round(digits)
        if origin == "calibration":
            best = 0 if measure in atlas.attrs["distances"] else 1
            with np.errstate(divide="ignore", invalid="ignore"):
                rounded[origin] = (rounded["score"] - rounded["null_mean"]) / (best - rounded["null_mean"])
            rounded[origin][~np.isfinite(rounded[origin])] = 0
        values = packed_if_any(rounded[name] - rounded[origin] if origin else rounded[name], digits)
        if values:
            found[name] = values | {"from": origin}
    return found


def _models(values: np.ndarray, ends: tuple[np.ndarray, ...], groups: list[list[int]]) -> dict[str, Any]:
    similarity = model_similarity(values, groups)
    order, xs, ys = dendrogram(similarity)
    low, high = (packed_if_any(at_best_match(end, values, groups)) for end in ends)
    return {
        "models": packed(similarity),
        "low": low,
        "high": high,
        "order": order,
        "tree": {"xs": _rounded(np.array(xs)), "ys": _rounded(np.array(ys))},
        "map": _placed(classical_scaling(model_distances(similarity), 2), np.arange(len(groups))),
    }


def _placed(found: Scaling, models: np.ndarray) -> dict[str, Any]:
    return {"models": models.tolist(), "at": _rounded(found.points), "stress": round(found.stress, 3)}


def _rounded(values: np.ndarray) -> list[Any]:
    rounded: list[Any] = (values.round(4) + 0.0).tolist()  # + 0.0: no −0
    return rounded
