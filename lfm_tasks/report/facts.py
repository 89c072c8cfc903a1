"""The numbers of an atlas in the form that the page's script draws from, and the rows of the page's tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from lfm_tasks.lineage.families import families_of
from lfm_tasks.lineage.levels import MEANINGS, Level
from lfm_tasks.lineage.relations import outliers, relations_of_atlas
from lfm_tasks.report.across import across_view
from lfm_tasks.report.encoding import (
    Rows,
    best_matches,
    dataset_rows,
    dendrogram,
    interval_ends,
    model_similarity,
    pack_matrix,
    pack_matrix_if_any,
    similarity_of_halves,
    statistic_matrix,
)
from lfm_tasks.report.sections import embedding_facts, map_facts
from lfm_tasks.statistics.model_pairs import Scaling, classical_scaling, model_distances
from lfm_tasks.statistics.resampling import margin
from lfm_tasks.stores.atlas.schema import GOOD_RECALL

# Which number of a pair the charts show; the default first.
STATISTICS = {"calibrated": "calibrated: 0 is chance, 1 the best there is", "score": "as measured"}
# The numbers of a pair with their decimals; some are stored as a difference from another: small numbers pack better.
_PAIR_NUMBERS = {
    "score": (3, None),
    "null_mean": (3, None),
    "null_q95": (3, "null_mean"),
    "ci_low": (3, "score"),
    "ci_high": (3, "score"),
    "p_value": (4, None),
    "calibrated": (3, "calibration"),
}
# Numbers of pairs of spaces that do not depend on the measure.
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
    # The family first: what most zoos would be colored by.
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
        {"name": rows.models[group[0]], "rows": group, "meta": _texts(meta.get(rows.models[group[0]], {}))}
        for group in rows.groups
    ]
    diagnostics = {name: pack_matrix_if_any(statistic_matrix(atlas, rows, name), 4) for name in DIAGNOSTICS}
    maps, embeddings = (groups.get(f"{section}/{rows.dataset}") for section in ("maps", "embeddings"))
    return {
        "name": rows.dataset,
        "models": models,
        "layers": rows.layers,
        "diagnostics": {name: values for name, values in diagnostics.items() if values},
        "shared_map": _shared_map(statistic_matrix(atlas, rows, "shared_distance"), rows.groups),
        "maps": None if maps is None else map_facts(maps, rows),
        "embeddings": None if embeddings is None else embedding_facts(embeddings, rows, maps),
    }


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return meta as texts of the page, with yes and no for Booleans."""
    words = {True: "yes", False: "no", None: ""}
    return {
        name: words[value] if isinstance(value, bool | None) else str(value) for name, value in sorted(facts.items())
    }


def _shared_map(distances: np.ndarray, groups: list[list[int]]) -> dict[str, Any] | None:
    """Return the map of the models by distances in the shared embedding, of best-match spaces; None without them."""
    between = -model_similarity(-distances, groups)
    np.fill_diagonal(between, 0)
    kept = np.flatnonzero(np.isfinite(between).sum(axis=1) > 1)
    distances = between[np.ix_(kept, kept)]
    return _placed(classical_scaling(distances, 2), kept) if len(kept) and np.isfinite(distances).all() else None


def _measure_facts(atlas: xr.Dataset, rows: Rows, measure: str) -> dict[str, Any]:
    score = statistic_matrix(atlas, rows, "score", measure)
    is_distance = measure in atlas.attrs["distances"]
    views = {}
    # Of a distance only the calibrated value reads like a similarity: 0 is chance, 1 the best there is.
    for statistic in ["calibrated"] if is_distance else STATISTICS:
        values = statistic_matrix(atlas, rows, statistic, measure)
        if np.isfinite(values).any():
            halves = similarity_of_halves(atlas, rows, measure, statistic)
            views[statistic] = _models(values, halves, rows.groups)
    ceiling = "split_half_reliability" in atlas and float(
        atlas["split_half_reliability"].sel(dataset=rows.dataset, measure=measure)
    )
    matches = best_matches(-score if is_distance else score, rows.groups)
    return {
        "views": views,
        "known": _pair_numbers(atlas, rows, measure),
        "ceiling": float(ceiling) if ceiling is not False and np.isfinite(ceiling) else None,
        "matches": [[int(match) for match in row] for row in matches],
    }


def _pair_numbers(atlas: xr.Dataset, rows: Rows, measure: str) -> dict[str, Any]:
    """Return the numbers of every pair; ``from`` names the matrix to be added (see loadKnown in web/page.js)."""
    matrices: dict[str, Any] = {}
    rounded: dict[str, np.ndarray] = {}
    for name, (digits, origin) in _PAIR_NUMBERS.items():
        rounded[name] = statistic_matrix(atlas, rows, name, measure).round(digits)
        if origin == "calibration":
            best = 0 if measure in atlas.attrs["distances"] else 1
            with np.errstate(divide="ignore", invalid="ignore"):
                rounded[origin] = (rounded["score"] - rounded["null_mean"]) / (best - rounded["null_mean"])
            rounded[origin][~np.isfinite(rounded[origin])] = 0
        values = pack_matrix_if_any(rounded[name] - rounded[origin] if origin else rounded[name], digits)
        if values:
            matrices[name] = values | {"from": origin}
    return matrices


def _models(
    values: Float[np.ndarray, "spaces spaces"],
    halves: Float[np.ndarray, "models models halves"],
    groups: list[list[int]],
) -> dict[str, Any]:
    similarity = model_similarity(values, groups)
    order, xs, ys = dendrogram(similarity)
    low, high = (pack_matrix_if_any(end) for end in interval_ends(similarity, halves))
    return {
        "models": pack_matrix(similarity),
        "low": low,
        "high": high,
        "order": order,
        "tree": {"xs": _rounded(np.array(xs)), "ys": _rounded(np.array(ys))},
        "map": _placed(classical_scaling(model_distances(similarity), 2), np.arange(len(groups))),
    }


def _placed(scaling: Scaling, models: np.ndarray) -> dict[str, Any]:
    return {"models": models.tolist(), "at": _rounded(scaling.points), "stress": round(scaling.stress, 3)}


def _rounded(values: np.ndarray) -> list[Any]:
    rounded: list[Any] = (values.round(4) + 0.0).tolist()  # + 0.0: no −0
    return rounded


# Lowest score of two layers that the page calls the same.
IDENTICAL = 0.999
# False discovery rate of the layer pairs that the page calls above chance.
_ABOVE_CHANCE = 0.05
# To the solver, eigenvalues closer than this are one eigenspace, and cutting it keeps an arbitrary part.
_SMALL_GAP = 1e-7


def page_tables(atlas: xr.Dataset, summary: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of the page by name."""
    measure = default_measure([measure["name"] for measure in facts["measures"]])
    meta = {model["name"]: model["meta"] for model in summary["models"]}
    relations = relations_of_atlas(atlas, meta)
    levels = {(one.dataset, frozenset((one.source, one.target))): one.level for one in relations}
    findings = _by_model(
        [row for dataset in facts["datasets"] for row in _findings(atlas, dataset["name"], measure, levels)]
    )
    spaces = [row for dataset in facts["datasets"] for row in _space_rows(atlas, dataset["name"])]
    return {
        "measure": measure,
        "findings": findings,
        "levels": MEANINGS,
        "families": families_of(relations, meta),
        "outliers": outliers(relations),
        "across": across_view(atlas, findings, measure),
        "same": _same_models(findings, len(facts["datasets"]) > 1),
        "spaces": spaces,
        "doubtful": [
            f"{row['model']}/{row['layer']}{' on ' + row['dataset'] if len(facts['datasets']) > 1 else ''}: {doubt}"
            for row in spaces
            if (doubt := _doubt(row))
        ],
    }


def _same_models(findings: list[dict[str, Any]], are_several: bool) -> list[tuple[str, str, str]]:
    """Return each two models that are the same, and on which datasets, "" where there is only one."""
    on: dict[tuple[str, str], set[str]] = {}
    for row in findings:
        if row["is_same"]:
            first, second = sorted((row["model"], row["nearest"]))
            on.setdefault((first, second), set()).add(row["dataset"])
    return [
        (*pair, f" on {' and '.join(sorted(datasets))}" if are_several else "") for pair, datasets in sorted(on.items())
    ]


def _by_model(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return findings with those of a model together; ``n_rows``: how many there are at the first of them, else 0."""
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in findings:
        by_model.setdefault(row["model"], []).append(row)
    return [row | {"n_rows": 0 if at else len(rows)} for rows in by_model.values() for at, row in enumerate(rows)]


def _findings(
    atlas: xr.Dataset, dataset: str, measure: str, levels: Mapping[tuple[str, frozenset[str]], Level]
) -> list[dict[str, Any]]:
    """Return a row for each model: its nearest, how far that is from chance and from the others, and their relation."""
    rows = dataset_rows(atlas, dataset)
    models, groups = list(dict.fromkeys(rows.models)), rows.groups
    if len(models) < 2:
        return []
    score, calibrated, q_values = (
        statistic_matrix(atlas, rows, name, measure) for name in ("score", "calibrated", "q_value")
    )
    alike = score
    if measure in atlas.attrs["distances"]:
        score, alike = calibrated, -score  # high is alike, 1 is the same
    statistic, values = ("calibrated", calibrated) if np.isfinite(calibrated).any() else ("score", score)
    similarity = model_similarity(values, groups)
    halves = similarity_of_halves(atlas, rows, measure, statistic)
    low, high = interval_ends(similarity, halves)
    np.fill_diagonal(similarity, np.nan)
    matches = best_matches(alike, groups)
    findings = []
    for model, name in enumerate(models):
        if not np.isfinite(similarity[model]).any():
            continue
        # Rounded, so that equals stand in the order of their names and not of their last bits.
        falling = np.argsort(-np.nan_to_num(similarity[model], nan=-np.inf).round(6), kind="stable")
        nearest, *others = [int(other) for other in falling][:2]
        block = np.ix_(groups[model], groups[nearest])
        chance = q_values[block]
        value = float(similarity[model, nearest])
        is_same = min(score[block].max(axis=1).min(), score[block].max(axis=0).min()) >= IDENTICAL
        findings.append(
            {
                "dataset": dataset,
                "model": name,
                "nearest": models[nearest],
                "value": value,
                "interval": _interval(low[model, nearest], high[model, nearest]),
                "margin": _margin(similarity[model], halves[model], [nearest, *others]),
                "same_layers": int((matches[groups[model], nearest] == np.arange(len(groups[model]))).sum()),
                "n_layers": len(groups[model]),
                "above_chance": int((chance <= _ABOVE_CHANCE).sum()) if np.isfinite(chance).any() else None,
                "n_pairs": chance.size,
                "is_same": bool(is_same),
                "relation": str(levels[dataset, frozenset((name, models[nearest]))]),
            }
        )
    return findings


def _margin(
    similarity: Float[np.ndarray, " models"], halves: Float[np.ndarray, "models halves"], nearest: list[int]
) -> str | None:
    """Return by how much the nearest of two models is ahead, with its interval if there is one; None: no second."""
    if len(nearest) < 2 or not np.isfinite(similarity[nearest]).all():
        return None
    first, second = nearest
    lead = margin(max(0.0, float(similarity[first] - similarity[second])), halves[first] - halves[second])
    interval = f" ({_interval(lead.low, lead.high)})" if np.isfinite(lead.low) else ""
    return f"{lead.value:z.3f}{interval}"


def _interval(low: float, high: float) -> str:
    return f"{low:z.3f} to {high:z.3f}" if np.isfinite(low) and np.isfinite(high) else "–"


def _space_rows(atlas: xr.Dataset, dataset: str) -> list[dict[str, Any]]:
    rows = dataset_rows(atlas, dataset)
    chosen = atlas.sel(dataset=dataset, source=rows.names)
    columns = ("n_points", "n_features", "method", "n_components", "recall", "residual", "orthonormality", "eigengap")
    values = {name: chosen[name].values for name in columns}
    return [
        {"dataset": dataset, "model": model, "layer": layer} | {name: column[row] for name, column in values.items()}
        for row, (model, layer) in enumerate(zip(rows.models, rows.layers, strict=True))
    ]


def _doubt(row: Mapping[str, Any]) -> str:
    """Return why a person should look at a space that passed its checks, in a few words; "" if there is no reason."""
    if row["n_components"] > 1:
        return f"its graph was in {row['n_components']:.0f} pieces before it was joined"
    if row["recall"] < GOOD_RECALL:
        return f"{row['recall']:.0%} of its neighbors were found"
    if row["eigengap"] < _SMALL_GAP:
        return "its eigenvalues are cut within a cluster of equals"
    return ""


N_BEST = 5  # pairs of a comparison


def comparison_tables(atlas: xr.Dataset) -> list[dict[str, Any]]:
    """Return the table of each comparison; an atlas of an earlier program has none."""
    return [_comparison_table(atlas, name, facts) for name, facts in atlas.attrs.get("comparisons", {}).items()]


def _comparison_table(atlas: xr.Dataset, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    measure = default_measure(facts["measures"])
    return {
        "name": name,
        "dataset": facts["dataset"],
        "measures": facts["measures"],
        "measure": measure,
        "n_sources": len(facts["sources"]),
        "n_targets": len(facts["targets"]),
        "best": _best_pairs(atlas, facts, measure),
    }


def _best_pairs(atlas: xr.Dataset, facts: Mapping[str, Any], measure: str) -> list[dict[str, Any]]:
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
