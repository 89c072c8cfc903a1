"""The numbers of an atlas in the form that the page's script draws from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from lfm_tasks.lineage.levels import Level
from lfm_tasks.lineage.relations import default_measure
from lfm_tasks.report.encoding import (
    Rows,
    dataset_rows,
    half_matrices,
    interval_ends,
    leads,
    matches_on_page,
    model_similarity,
    pack_matrix,
    pack_matrix_if_any,
    similarity_of_halves,
    statistic_matrix,
)
from lfm_tasks.report.layout import MOST_STRESS, dendrogram, groups_in, nearest_kept, planar_map, quality
from lfm_tasks.report.sections import embedding_facts, map_facts, preview_facts
from lfm_tasks.report.tables import ZooView
from lfm_tasks.statistics.model_pairs import model_distances, pairs_of_models

# Which number of a pair the charts show; the default first.
STATISTICS = {"calibrated": "calibrated (0 chance, 1 best)", "score": "as measured"}
# The numbers of a pair with their decimals; some are stored as a difference from another: small numbers pack better.
# Intervals lie around the score, so "mirrored" is where ci_high is if ci_low is as far below.
_PAIR_NUMBERS = {
    "score": (3, None),
    "null_mean": (3, None),
    "null_q95": (3, "null_mean"),
    "ci_low": (3, "score"),
    "ci_high": (3, "mirrored"),
    "p_value": (4, None),
    "q_value": (4, "p_value"),
    "calibrated": (3, "calibration"),
}
# Numbers of pairs of spaces that do not depend on the measure; the page has those of matched layers and of kept maps.
DIAGNOSTICS = {
    "cycle_residual": "Cycle residual",
    "map_residual": "Map residual",
    "orthogonality_error": "Orthogonality error",
    "commutativity_error": "Commutativity error",
    "points_found": "Points found",
}


def page_facts(atlas: xr.Dataset, groups: Mapping[str, xr.Dataset], view: ZooView) -> dict[str, Any]:
    """Return everything that the page draws: views by dataset, measure and statistic."""
    datasets = [dataset_rows(atlas, str(name)) for name in atlas["dataset"].values]
    measures = [str(name) for name in atlas["measure"].values]
    # The family first: what most zoos would be colored by.
    keys = {facet for facts in view.meta.values() for facet in facts}
    return {
        "datasets": [_dataset_facts(atlas, rows, view, groups) for rows in datasets],
        "facets": sorted(keys, key=lambda facet: (facet != "family", facet)),
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
        "most_stress": MOST_STRESS,
        "views": [[_measure_facts(atlas, rows, measure, view) for measure in measures] for rows in datasets],
    }


def _dataset_facts(atlas: xr.Dataset, rows: Rows, view: ZooView, groups: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    models = [
        {"name": rows.models[group[0]], "rows": group, "meta": view.meta.get(rows.models[group[0]], {})}
        for group in rows.groups
    ]
    first = {frozenset((one.source, one.target)) for one in view.related}
    maps, embeddings, previews = (
        groups.get(f"{section}/{rows.dataset}") for section in ("maps", "embeddings", "previews")
    )
    kept = None if maps is None else map_facts(maps, rows, first)
    if kept is not None:
        ends = np.array(kept["pairs"])
        kept["diagnostics"] = _packed_diagnostics(atlas, rows, np.stack([ends, ends[:, ::-1]], axis=1), 4)
    return {
        "name": rows.dataset,
        "opens_with": _opening_pair(rows, view),
        "models": models,
        "layers": rows.layers,
        "shared_map": _shared_map(statistic_matrix(atlas, rows, "shared_distance"), rows.groups),
        "maps": kept,
        "previews": None if previews is None else preview_facts(previews, rows, maps),
        "embeddings": None if embeddings is None else embedding_facts(embeddings, rows, maps),
    }


def _packed_diagnostics(
    atlas: xr.Dataset, rows: Rows, pairs: Int[np.ndarray, "rows columns ends"], digits: int
) -> dict[str, Any]:
    """Return each diagnostic of pairs of spaces as a packed matrix; none that has no number. A row −1: no space."""
    source, target = pairs[..., 0], pairs[..., 1]
    found = {}
    for name in DIAGNOSTICS:
        values = statistic_matrix(atlas, rows, name)[source, target]
        values[(source < 0) | (target < 0)] = np.nan
        found[name] = pack_matrix_if_any(values, digits)
    return {name: packed for name, packed in found.items() if packed}


def _opening_pair(rows: Rows, view: ZooView) -> list[str]:
    """Return the two models that the page shows first: a pair that needs action, else related ones that differ.

    Else related ones that are the same, else the most alike; none if there are none.
    """
    there = set(rows.models)
    related = sorted(view.related, key=lambda one: (one.declared, frozenset((one.source, one.target)) in view.same))
    for one in (*related, *view.relations):
        if {one.source, one.target} <= there:
            return [one.source, one.target]
    return []


def _shared_map(distances: np.ndarray, groups: list[list[int]]) -> dict[str, Any] | None:
    """Return the map of the models by distances in the shared embedding, of best-match spaces; None without them."""
    between = -model_similarity(-distances, groups)
    np.fill_diagonal(between, 0)
    kept = np.flatnonzero(np.isfinite(between).sum(axis=1) > 1)
    distances = between[np.ix_(kept, kept)]
    return _placed(distances, kept) if len(kept) and np.isfinite(distances).all() else None


# Directed pairs of spaces whose numbers are on the page, of a dataset by a measure: all of 2,048 spaces, some 30 MB.
_MOST_PAIRS = 1 << 22


def _measure_facts(atlas: xr.Dataset, rows: Rows, measure: str, view: ZooView) -> dict[str, Any]:
    score = statistic_matrix(atlas, rows, "score", measure)
    is_distance = measure in atlas.attrs["distances"]
    views = {}
    # Of a distance only the calibrated value reads like a similarity: 0 is chance, 1 the best there is.
    for statistic in ["calibrated"] if is_distance else STATISTICS:
        values = statistic_matrix(atlas, rows, statistic, measure)
        if np.isfinite(values).any():
            halves = similarity_of_halves(atlas, rows, measure, statistic)
            views[statistic] = _models(values, halves, rows.groups, _of_one_family(rows, view))
    ceiling = "split_half_reliability" in atlas and float(
        atlas["split_half_reliability"].sel(dataset=rows.dataset, measure=measure)
    )
    sign = -1.0 if is_distance else 1.0
    signed_halves = (sign * half for half in half_matrices(atlas, rows, measure))
    matches = matches_on_page(sign * score, signed_halves, rows.groups)
    layers = np.where(matches <= -2, -2 - matches, matches)
    starts = np.array([group[0] for group in rows.groups], dtype=int)
    targets = np.where(layers >= 0, layers + starts, -1)
    near = None
    if len(score) ** 2 > _MOST_PAIRS:
        near = near_models(model_similarity(sign * score, rows.groups), rows.groups, _MOST_PAIRS // len(score))
        is_far = np.array([np.isin(np.arange(len(near)), of_model, invert=True) for of_model in near])
        targets[np.repeat(is_far, [len(group) for group in rows.groups], axis=0)] = -1
    ends = np.stack([np.broadcast_to(np.arange(len(targets))[:, None], targets.shape), targets], axis=-1)
    return {
        "views": views,
        "near": near,
        "known": _pair_numbers(atlas, rows, measure, None if near is None else columns_of(near, rows.groups)),
        "least_q": pack_matrix_if_any(_least_q(statistic_matrix(atlas, rows, "q_value", measure), rows.groups), 4),
        "ceiling": float(ceiling) if ceiling is not False and np.isfinite(ceiling) else None,
        "matches": pack_matrix(matches, 0),
        "diagnostics": _packed_diagnostics(atlas, rows, ends, 3),
        "has_halves": any(np.isfinite(half).any() for half in half_matrices(atlas, rows, measure)),
    }


def near_models(
    similarity: Float[np.ndarray, "models models"], groups: list[list[int]], most_layers: int
) -> list[list[int]]:
    """Return for each model itself and those that are nearest to it, as many as have ``most_layers`` together.

    One other model at least, whatever its layers.
    """
    n_layers = np.array([len(group) for group in groups])
    found = []
    for model, row in enumerate(similarity):
        # Rounded, so that equals stand in the order of their names and not of their last bits.
        falling = np.argsort(-np.nan_to_num(row, nan=-np.inf).round(6), kind="stable")
        order = np.append(model, falling[falling != model])
        n_kept = max(2, int((np.cumsum(n_layers[order]) <= most_layers).sum()))
        found.append(order[:n_kept].tolist())
    return found


def columns_of(near: list[list[int]], groups: list[list[int]]) -> Int[np.ndarray, "spaces columns"]:
    """Return for each space the rows of the models near to its model, one model after the other; −1 after the last."""
    of_models = [[row for other in of_model for row in groups[other]] for of_model in near]
    columns = np.full((sum(map(len, groups)), max(map(len, of_models))), -1)
    for group, of_model in zip(groups, of_models, strict=True):
        columns[group, : len(of_model)] = of_model
    return columns


def _least_q(q_values: Float[np.ndarray, "spaces spaces"], groups: list[list[int]]) -> np.ndarray:
    """Return (model, model): the smallest q of any two layers of two models, in either direction."""
    least = np.full((len(groups), len(groups)), np.nan)
    for pairs in pairs_of_models(groups):
        least[pairs.source, pairs.targets] = np.fmin.reduce(pairs.of(q_values), axis=(1, 2))
    return np.fmin(least, least.T)


def _of_one_family(rows: Rows, view: ZooView) -> Bool[np.ndarray, "models models"]:
    """Return which pairs of models are of one family at least."""
    place = {rows.models[group[0]]: at for at, group in enumerate(rows.groups)}
    related = np.zeros((len(place), len(place)), dtype=bool)
    for one in view.relations:
        if one.level.is_at_least(Level.SAME_FAMILY) and one.source in place and one.target in place:
            ends = place[one.source], place[one.target]
            related[ends] = related[ends[::-1]] = True
    return related


def _pair_numbers(
    atlas: xr.Dataset, rows: Rows, measure: str, columns: Int[np.ndarray, "spaces columns"] | None
) -> dict[str, Any]:
    """Return the numbers of every pair; ``from`` names the matrix to be added (see loadKnown in web/page.js).

    ``columns``: of each space the rows of those that it has numbers with; None: with all.
    """
    matrices: dict[str, Any] = {}
    rounded: dict[str, np.ndarray] = {}
    for name, (digits, origin) in _PAIR_NUMBERS.items():
        values = statistic_matrix(atlas, rows, name, measure)
        if columns is not None:
            values = np.where(columns < 0, np.nan, np.take_along_axis(values, columns, axis=1))
        rounded[name] = values.round(digits)
        if origin == "calibration":
            best = 0 if measure in atlas.attrs["distances"] else 1
            with np.errstate(divide="ignore", invalid="ignore"):
                rounded[origin] = (rounded["score"] - rounded["null_mean"]) / (best - rounded["null_mean"])
            rounded[origin][~np.isfinite(rounded[origin])] = 0
        if origin == "mirrored":
            rounded[origin] = 2 * rounded["score"] - rounded["ci_low"]
        packed = pack_matrix_if_any(rounded[name] - rounded[origin] if origin else rounded[name], digits)
        if packed:
            matrices[name] = packed | {"from": origin}
    return matrices


def _models(
    values: Float[np.ndarray, "spaces spaces"],
    halves: Float[np.ndarray, "models models halves"],
    groups: list[list[int]],
    is_family: Bool[np.ndarray, "models models"],
) -> dict[str, Any]:
    similarity = model_similarity(values, groups)
    tree = dendrogram(similarity)
    low, high = (pack_matrix_if_any(end) for end in interval_ends(similarity, halves))
    return {
        "models": pack_matrix(similarity),
        "low": low,
        "high": high,
        "is_clear": [None if lead is None else lead.is_clear for lead in leads(similarity, halves)],
        "order": tree.order,
        "tree": {"xs": _rounded(np.array(tree.xs)), "ys": _rounded(np.array(tree.ys)), "height": round(tree.height, 4)},
        "groups": groups_in(tree, is_family),
        "map": _placed(model_distances(similarity), np.arange(len(groups))),
    }


def _placed(distances: Float[np.ndarray, "models models"], models: np.ndarray) -> dict[str, Any]:
    """Return a map; its points are left out where they would show other distances than those given."""
    scaling = planar_map(distances)
    # What the page says decides: not the digits after.
    stress = round(scaling.stress, 3)
    word = quality(stress)
    if word == "none":
        return {"models": models.tolist(), "at": None, "stress": stress}
    at, kept = _rounded(scaling.points), nearest_kept(scaling.points, distances)
    return {"models": models.tolist(), "at": at, "stress": stress, "quality": word, "n_nearest": sum(kept)}


def _rounded(values: np.ndarray) -> list[Any]:
    rounded: list[Any] = (values.round(4) + 0.0).tolist()  # + 0.0: no −0
    return rounded
