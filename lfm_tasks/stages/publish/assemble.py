"""Stage atlas: put the scores of all pairs together as labelled arrays."""

from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.runtime.run import Run
from lfm_tasks.spectral.bases.map_measures import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.bases.stage import BasedSpace
from lfm_tasks.stages.inventory.measures import CONVENTIONS, DISTANCES, P_VALUES, SYMMETRIC
from lfm_tasks.stages.inventory.requests import asked_cells, asked_measures, comparison_facts
from lfm_tasks.stages.publish.contents import Contents, meta
from lfm_tasks.stages.publish.pair_entries import STATUS, pair_entries
from lfm_tasks.stages.publish.zoo_statistics import families, q_values, split_half_reliabilities, unrelated_ranks
from lfm_tasks.stages.scores.statistics import STATISTICS
from lfm_tasks.stores.atlas.schema import SCHEMA_VERSION, meta_coordinates
from lfm_tasks.stores.units.digests import CONVENTION

# The halves of the points serve the noise ceiling only.
_HALVES = ("half_1", "half_2")
PUBLISHED = (*(name for name in STATISTICS if name not in _HALVES), "q_value", "unrelated_rank")
_SPACE_KEYS = {
    "content": "SHA-256 of the activations and their ids: the same content is the same space",
    "basis": "key of the basis in the store that the atlas was made in",
    "ids": "SHA-256 of the ids in order: the same ids are the same points",
}
_SPACE_FACTS = ("n_components", "n_zero_eigenvalues", "recall", "residual", "orthonormality", "eigengap")
# Where a basis was made of landmarks; in no atlas without them.
_LANDMARK_FACTS = {
    "n_landmarks": "points of the graph, from which the basis was extended to the others; NaN: all points",
    "landmark_agreement": "overlap of the basis with that of half of its landmarks, on the landmarks",
}


def assemble(run: Run, found: Contents) -> xr.Dataset:
    """Return the atlas: (dataset, measure, source, target) with a status for every cell."""
    names = sorted({based.space.name for based in found.spaces})
    datasets = sorted({based.space.dataset for based in found.spaces})
    measures = list(asked_measures(run.catalog))
    cells = np.full((len(STATISTICS), len(datasets), len(measures), len(names), len(names)), np.nan)
    is_asked = asked_cells(found.parts, datasets, measures, names)
    # Without comparisons everything is asked for; what a dataset does not have is then not computed.
    otherwise = STATUS.index("not_asked" if run.catalog.comparisons else "not_computed")
    status = np.where(is_asked, STATUS.index("not_computed"), otherwise).astype(np.int8)
    n_common = np.zeros((len(datasets), len(names), len(names)), dtype=np.int32)
    overlap_share = np.full(n_common.shape, np.nan)
    diagnostics = np.full((len(DIAGNOSTICS), *n_common.shape), np.nan)
    row = {name: number for number, name in enumerate(names)}
    row_of = np.array([row[based.space.name] for based in found.spaces], dtype=np.intp)
    for entries in pair_entries(run, found):
        place = (datasets.index(entries.dataset), row_of[entries.sources], row_of[entries.targets])
        n_common[place], overlap_share[place] = entries.n_common, entries.overlap_share
        diagnostics[:, *place] = entries.diagnostics.T
        for column, name in enumerate(entries.measures):
            cell = (place[0], measures.index(name), *place[1:])
            status[cell], cells[:, *cell] = entries.status[:, column], entries.values[:, column].T
    pair_dims = ("dataset", "source", "target")
    score_dims = ("dataset", "measure", "source", "target")
    by_name = dict(zip(STATISTICS, cells, strict=True))
    unrelated = _unrelated(run, found.spaces, names)
    by_name |= {name: np.full(cells.shape[1:], np.nan) for name in ("q_value", "unrelated_rank")}
    reliability = np.full(cells.shape[1:3], np.nan)
    # Fitted maps differ between the two directions, and so do their scores.
    fitted = any(part.knowledge.regime != "full" for part in found.parts)
    symmetric = SYMMETRIC - MAP_SCORES.keys() if fitted else SYMMETRIC
    for place in np.ndindex(reliability.shape):
        by_name["q_value"][place] = q_values(by_name["p_value"][place], measures[place[1]] in symmetric)
        by_name["unrelated_rank"][place] = unrelated_ranks(by_name["calibrated"][place], unrelated)
        reliability[place] = split_half_reliabilities(np.stack([by_name[name][place] for name in _HALVES]))
    variables: dict[str, Any] = {
        name: (score_dims, by_name[name], {"long_name": _MEANINGS[name]}) for name in PUBLISHED
    }
    ceiling = "agreement of scores from either half of the points, for all points (Spearman-Brown): the noise ceiling"
    variables["split_half_reliability"] = (("dataset", "measure"), reliability, {"long_name": ceiling})
    flags = {"flag_values": list(range(len(STATUS))), "flag_meanings": " ".join(STATUS)}
    variables["status"] = (score_dims, status, flags)
    variables["n_common"] = (pair_dims, n_common, {"long_name": "points that both spaces have, refused pairs too"})
    share = "n_common as a share of the smaller space's points; NaN where a pair is not computed"
    variables["overlap_share"] = (pair_dims, overlap_share, {"long_name": share})
    variables |= {
        name: (pair_dims, values, {"long_name": DIAGNOSTICS[name]})
        for name, values in zip(DIAGNOSTICS, diagnostics, strict=True)
        if np.isfinite(values).any()
    }
    variables |= _space_variables(found.spaces, datasets, names)
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "convention": CONVENTION,
        "measures": {name: CONVENTIONS[name] for name in measures},
        "distances": [name for name in measures if name in DISTANCES],
        "p_values": {name: P_VALUES[name] for name in measures},
        "intervals": _intervals(run),
        "resampling": dict(sorted(found.resampling.items())),
        "comparisons": comparison_facts(found.parts),
    }
    return xr.Dataset(variables, _coordinates(run, found, datasets, measures, names), attributes)


_MEANINGS = {
    "score": "the measure itself",
    "null_mean": "mean over permuted rows",
    "null_q95": "95 % quantile over permuted rows",
    "calibrated": "(score - null_mean) / (1 - null_mean): 0 is chance, 1 is the best there is",
    "p_value": "how often chance reaches the score; by which method: attribute p_values of the atlas",
    "ci_low": "lower end of the 95 % interval",
    "ci_high": "upper end of the 95 % interval",
    "q_value": "false discovery rate over the dataset's pairs by this measure (Benjamini-Hochberg)",
    "unrelated_rank": "share of pairs of unrelated models (by base_model) whose calibrated value is at least as high",
}


def _unrelated(run: Run, spaces: tuple[BasedSpace, ...], names: list[str]) -> np.ndarray:
    """Return (source, target): whether the models of two spaces have no base in common."""
    family_of = families(meta(run))
    model_of = {based.space.name: based.space.model for based in spaces}
    family = np.array([family_of[model_of[name]] for name in names])
    unrelated: np.ndarray = family[:, None] != family
    return unrelated


def _intervals(run: Run) -> str:
    n_groups = run.catalog.atlas.intervals.n_groups
    if not n_groups:
        return "not_computed"
    return f"95 %, jackknife over {n_groups} groups of points; graphs and bases are kept, other measures made anew"


def _texts(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)


def _coordinates(
    run: Run, found: Contents, datasets: list[str], measures: list[str], names: list[str]
) -> dict[str, Any]:
    by_name = {based.space.name: based for based in found.spaces}
    models = [by_name[name].space.model for name in names]
    coordinates: dict[str, Any] = {"dataset": _texts(datasets), "measure": _texts(measures)}
    for side in ("source", "target"):
        coordinates[side] = _texts(names)
        coordinates[f"{side}_model"] = (side, _texts(models))
        coordinates[f"{side}_layer"] = (side, _texts([by_name[name].space.layer for name in names]))
        coordinates[f"{side}_depth"] = (side, np.array([by_name[name].depth for name in names], dtype=float))
        coordinates |= meta_coordinates(side, models, meta(run))
    return coordinates


def _space_variables(spaces: tuple[BasedSpace, ...], datasets: list[str], names: list[str]) -> dict[str, Any]:
    shape = (len(datasets), len(names))
    counts = {name: np.zeros(shape, dtype=np.int32) for name in ("n_points", "n_features")}
    facts = {name: np.full(shape, np.nan) for name in (*_SPACE_FACTS, *_LANDMARK_FACTS)}
    texts = {name: np.full(shape, "", dtype=object) for name in ("method", *_SPACE_KEYS)}
    for based in spaces:
        place = (datasets.index(based.space.dataset), names.index(based.space.name))
        counts["n_points"][place], counts["n_features"][place] = based.n_points, based.n_features
        texts["method"][place] = based.facts["method"]
        texts["content"][place], texts["basis"][place], texts["ids"][place] = based.content, based.key, based.ids
        for name in facts:
            facts[name][place] = based.facts.get(name, np.nan)
    meanings = _SPACE_KEYS | _LANDMARK_FACTS
    return {
        name: (("dataset", "source"), values, {"long_name": meanings[name]} if name in meanings else {})
        for name, values in {**counts, **facts, **texts}.items()
        if name not in _LANDMARK_FACTS or np.isfinite(facts[name]).any()
    }
