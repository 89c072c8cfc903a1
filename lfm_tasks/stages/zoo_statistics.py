"""What only the whole zoo can say: false discoveries, unrelated pairs, the noise ceiling, pairs of models."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lfm_tasks.measures.intervals import split_half_reliability
from lfm_tasks.measures.many_pairs import false_discovery_rates
from lfm_tasks.measures.model_pairs import best_match, best_match_p_values, depth_aligned, match_layers, mean_match

MODEL_TEXTS = ("dataset", "measure", "source", "target", "target_model")
# With fewer unrelated pairs a rank among them says little.
FEWEST_UNRELATED = 20


def families(meta: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return model → family: models are related where ``base_model`` (one name or several) leads from one to another.

    Two models of the same base are related, also where the base is not in the zoo.
    """
    links = [(model, str(base)) for model, facts in meta.items() for base in _several(facts.get("base_model"))]
    names = sorted({*meta, *(base for _, base in links)})
    place = {name: number for number, name in enumerate(names)}
    ends = np.array([[place[a], place[b]] for a, b in links]).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    _, family = connected_components(graph, directed=False)
    return {model: int(family[place[model]]) for model in meta}


def q_values(p_values: Float[np.ndarray, "source target"], is_symmetric: bool) -> Float[np.ndarray, "source target"]:
    """Return false discovery rates over pairs of two different spaces; a symmetric measure counts each pair once."""
    counted = ~np.eye(len(p_values), dtype=bool)
    if is_symmetric:
        counted &= np.triu(np.ones_like(counted))
    found = np.full(p_values.shape, np.nan)
    found[counted] = false_discovery_rates(p_values[counted])
    return np.where(np.isnan(found), found.T, found) if is_symmetric else found


def unrelated_ranks(
    values: Float[np.ndarray, "source target"], unrelated: Bool[np.ndarray, "source target"]
) -> Float[np.ndarray, "source target"]:
    """Return for each pair the share of pairs of unrelated models whose value is at least as high; itself apart.

    NaN for all where fewer than 20 unrelated pairs have a value. ``values`` are calibrated: high is alike.
    """
    known = np.sort(values[unrelated & np.isfinite(values)])
    ranks = np.full(values.shape, np.nan)
    if len(known) < FEWEST_UNRELATED:
        return ranks
    finite = np.isfinite(values)
    # Rounding must not part what is equal: a pair and the same pair the other way.
    at_least = len(known) - np.searchsorted(known, values[finite] - 1e-9)
    own = unrelated[finite]
    ranks[finite] = (at_least - own) / (len(known) - own)
    return ranks


def split_half_reliabilities(halves: Float[np.ndarray, "2 source target"]) -> float:
    """Return the noise ceiling of the scores of one dataset and measure, over pairs of two different spaces."""
    apart = ~np.eye(halves.shape[1], dtype=bool)
    return split_half_reliability(halves[0][apart], halves[1][apart])


def model_tables(atlas: xr.Dataset) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return two long tables: a row for each directed pair of models, and for each layer and other model.

    ``score`` is summarised for similarities; for distances ``calibrated``, so that high is alike everywhere.
    """
    models: dict[str, list[Any]] = {
        name: [] for name in ("dataset", "measure", "source", "target", "best_match", "depth_aligned", "mean")
    }
    layers: dict[str, list[Any]] = {
        name: [] for name in ("dataset", "measure", "source", "target_model", "target", "margin", "p_best")
    }
    for dataset in atlas["dataset"].values:
        present = np.flatnonzero(atlas["n_points"].sel(dataset=dataset).values > 0)
        for measure in atlas["measure"].values:
            cells = atlas.sel(dataset=dataset, measure=measure).isel(source=present, target=present)
            for row, matched in _pairs_of_models(cells, str(measure) in atlas.attrs["distances"]):
                place = {"dataset": str(dataset), "measure": str(measure)}
                _append(models, place | row)
                for layer in matched:
                    _append(layers, place | layer)
    return models, layers


def _pairs_of_models(cells: xr.Dataset, is_distance: bool) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    names, of_space = cells["source"].values, cells["source_model"].values
    depths = cells["source_depth"].values
    values = cells["calibrated" if is_distance else "score"].values
    p_values = cells["p_value"].values
    rows = {model: np.flatnonzero(of_space == model) for model in sorted(set(of_space))}
    rows = {model: own[np.argsort(depths[own], kind="stable")] for model, own in rows.items()}
    for source, ours in rows.items():
        for target, theirs in rows.items():
            if source == target:
                continue
            block, chance = values[np.ix_(ours, theirs)], p_values[np.ix_(ours, theirs)]
            corrected = best_match_p_values(chance)
            matching = match_layers(block)
            row = {
                "source": str(source),
                "target": str(target),
                "best_match": best_match(block),
                "depth_aligned": depth_aligned(block, depths[ours], depths[theirs]),
                "mean": mean_match(block),
            }
            matched = []
            if matching is not None:
                matched = [
                    {
                        "source": str(names[ours[layer]]),
                        "target_model": str(target),
                        "target": str(names[theirs[other]]),
                        "margin": float(margin),
                        "p_best": float(p),
                    }
                    for layer, (other, margin, p) in enumerate(
                        zip(matching.matched, matching.margin, corrected, strict=True)
                    )
                ]
            yield row, matched


def _append(columns: dict[str, list[Any]], row: Mapping[str, Any]) -> None:
    for name, value in row.items():
        missing = isinstance(value, float) and not np.isfinite(value)
        columns[name].append(None if missing else value)


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
