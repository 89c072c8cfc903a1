"""Stage atlas: put the scores of all pairs together as labeled arrays."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from lfm_tasks.runtime.run import Run
from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.inventory.requests import (
    PairSelection,
    comparison_facts,
    known_measures,
    requested_cells,
    requested_measures,
)
from lfm_tasks.stages.publish.pair_entries import STATUS, pair_entries
from lfm_tasks.stages.scores.block import HALVES, STATISTICS
from lfm_tasks.stages.scores.stage import ScoredPairs
from lfm_tasks.statistics.model_pairs import FEWEST_UNRELATED, false_discovery_rates, families
from lfm_tasks.statistics.resampling import N_HALVES, split_half_reliability
from lfm_tasks.stores.atlas.schema import DEPTH, SCHEMA_VERSION, long_name, meta_coordinates, with_derived_columns
from lfm_tasks.stores.scratch import filled_array
from lfm_tasks.stores.units.store import CONVENTION

# Pairs whose ranks are looked for together, which takes 40 bytes each.
_CELLS_AT_ONCE = 1 << 22


def q_values(p_values: Float[np.ndarray, "source target"], is_symmetric: bool) -> Float[np.ndarray, "source target"]:
    """Return false discovery rates over pairs of two different spaces; a symmetric measure counts each pair once."""
    counted = ~np.eye(len(p_values), dtype=bool)
    if is_symmetric:
        counted &= np.triu(np.ones_like(counted))
    rates = np.full(p_values.shape, np.nan)
    rates[counted] = false_discovery_rates(p_values[counted])
    return np.where(np.isnan(rates), rates.T, rates) if is_symmetric else rates


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
    step = max(1, _CELLS_AT_ONCE // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        of_rows = values[start : start + step]
        finite = np.isfinite(of_rows)
        # Values in order are found several times faster: each is looked for where the one before it was.
        order = np.argsort(of_rows[finite])
        n_below = np.empty(len(order), dtype=np.intp)
        # Rounding must not part what is equal: a pair and the same pair the other way.
        n_below[order] = np.searchsorted(known, of_rows[finite][order] - 1e-9)
        is_among_known = unrelated[start : start + step][finite]
        ranks[start : start + step][finite] = (len(known) - n_below - is_among_known) / (len(known) - is_among_known)
    return ranks


def split_half_reliabilities(first: Float[np.ndarray, "source target"], second: Float[np.ndarray, "..."]) -> float:
    """Return the noise ceiling of the scores of one dataset and measure, over pairs of two different spaces.

    ``first``, ``second``: scores of one half of the points, and of the other.
    """
    apart = ~np.eye(len(first), dtype=bool)
    return split_half_reliability(first[apart], second[apart])


_SPACE_KEYS = {
    "content": "SHA-256 of the activations and their ids: the same content is the same space",
    "basis": "key of the basis in the store that the atlas was made in",
    "ids": "SHA-256 of the ids in order: the same ids are the same points",
}
_SPACE_FACTS = (
    "n_neighbors", "n_eigenpairs", "n_components", "n_zero_eigenvalues", "recall", "tied", "residual",
    "orthonormality", "eigengap",
)  # fmt: skip
# Where a basis was made of landmarks; in no atlas without them.
_LANDMARK_FACTS = {
    "n_landmarks": "points of the graph, from which the basis was extended to the others; NaN: all points",
    "landmark_agreement": "overlap of the basis with that of half of its landmarks, on the landmarks",
}


@dataclass(frozen=True)
class Axes:
    """The labels of the atlas: datasets, measures, and the names of spaces as sources and as targets."""

    datasets: list[str]
    measures: list[str]
    names: list[str]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The lengths of (dataset, measure, source, target)."""
        return len(self.datasets), len(self.measures), len(self.names), len(self.names)


_SCORE_DIMS, _PAIR_DIMS = ("dataset", "measure", "source", "target"), ("dataset", "source", "target")


def assemble(
    run: Run,
    spaces: tuple[SpaceBasis, ...],
    scored: ScoredPairs,
    parts: tuple[PairSelection, ...],
    resampling: Mapping[str, str],
) -> xr.Dataset:
    """Return the atlas: (dataset, measure, source, target) with a status for every cell."""
    axes = Axes(
        sorted({basis.space.dataset for basis in spaces}),
        list(requested_measures(run.catalog)),
        sorted({basis.space.name for basis in spaces}),
    )
    is_requested = requested_cells(parts, axes.datasets, axes.measures, axes.names)
    # Without comparisons everything is requested; what a dataset does not have is then not computed.
    otherwise = STATUS.index("not_asked" if run.catalog.comparisons else "not_computed")
    status = np.full(axes.shape, otherwise, dtype=np.int8)
    status[is_requested] = STATUS.index("not_computed")
    grouped = [dataset for dataset, kind in resampling.items() if kind != "rows"]
    statistics, of_pairs = _pair_variables(run, spaces, scored, axes, status, grouped)
    # Fitted maps differ between the two directions, and so do their scores.
    is_fitted = any(part.correspondence.regime != "full" for part in parts)
    facts = known_measures()
    symmetric = {name for name in facts if facts[name].is_symmetric and not (is_fitted and name in MAP_SCORES)}
    variables = _score_variables(run, statistics, axes, symmetric, _unrelated(run, spaces, axes.names))
    variables["status"] = (
        _SCORE_DIMS,
        status,
        {"flag_values": list(range(len(STATUS))), "flag_meanings": " ".join(STATUS)},
    )
    variables |= of_pairs | _space_variables(spaces, axes.datasets, axes.names)
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "convention": CONVENTION,
        "measures": {name: facts[name].convention for name in axes.measures},
        "distances": [name for name in axes.measures if facts[name].is_distance],
        "p_values": {name: facts[name].p_values for name in axes.measures},
        "intervals": _intervals(run),
        "resampling": dict(sorted(resampling.items())),
        "comparisons": comparison_facts(parts),
    }
    return with_derived_columns(xr.Dataset(variables, _coordinates(run, spaces, axes), attributes))


def _pair_variables(
    run: Run,
    spaces: tuple[SpaceBasis, ...],
    scored: ScoredPairs,
    axes: Axes,
    status: Int[np.ndarray, "..."],
    grouped: Collection[str],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of `STATISTICS` and the variables by pair; ``status`` is filled in.

    A block has spaces whose keys are near each other. Large arrays lie in files, in which its numbers would be spread
    over all pages: arrays are filled in the order of the keys, and then put into that of the names.

    ``grouped``: see `pair_entries`.
    """
    cells = _without_values(run, (len(STATISTICS), *axes.shape))
    n_common = np.zeros((axes.shape[0], *axes.shape[2:]), dtype=np.int32)
    overlap_share = _without_values(run, n_common.shape)
    diagnostics = _without_values(run, (len(DIAGNOSTICS), *n_common.shape))
    row = {name: index for index, name in enumerate(axes.names)}
    row_of = np.array([row[basis.space.name] for basis in spaces], dtype=np.intp)
    by_key = _rows_by_key(spaces, axes, row_of)
    for entries in pair_entries(run, spaces, scored, grouped):
        dataset = axes.datasets.index(entries.dataset)
        ends = row_of[entries.sources], row_of[entries.targets]
        n_common[dataset, *ends], overlap_share[dataset, *ends] = entries.n_common, entries.overlap_share
        place = tuple(by_key[dataset, end] for end in ends)
        for diagnostic, values in enumerate(entries.diagnostics.T):
            diagnostics[diagnostic, dataset, *place] = values
        for column, name in enumerate(entries.measures):
            measure = axes.measures.index(name)
            status[dataset, measure, *ends] = entries.status[:, column]
            for statistic, values in enumerate(entries.values[:, column].T):
                cells[statistic, dataset, measure, *place] = values
    for dataset, rows in enumerate(by_key):
        of_measures = (of_pairs for statistic in cells[:, dataset] for of_pairs in statistic)
        for of_pairs in (*diagnostics[:, dataset], *of_measures):
            of_pairs[...] = of_pairs[np.ix_(rows, rows)]
    variables: dict[str, Any] = {
        "n_common": (_PAIR_DIMS, n_common, long_name("n_common")),
        "overlap_share": (_PAIR_DIMS, overlap_share, long_name("overlap_share")),
    }
    variables |= {
        name: (_PAIR_DIMS, values, {"long_name": DIAGNOSTICS[name]})
        for name, values in zip(DIAGNOSTICS, diagnostics, strict=True)
        if np.isfinite(values).any()
    }
    return dict(zip(STATISTICS, cells, strict=True)), variables


def _rows_by_key(
    spaces: tuple[SpaceBasis, ...], axes: Axes, row_of: Int[np.ndarray, " spaces"]
) -> Int[np.ndarray, "datasets names"]:
    """Return the place of each name among the names of a dataset in the order of their keys; absent ones first."""
    keys = np.full((len(axes.datasets), len(axes.names)), "", dtype=object)
    for basis, row in zip(spaces, row_of.tolist(), strict=True):
        keys[axes.datasets.index(basis.space.dataset), row] = basis.key
    return np.argsort(np.argsort(keys.astype(str), axis=1, kind="stable"), axis=1)


def _without_values(run: Run, shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    return filled_array(shape, np.nan, dtype, run.store.root / "staging")


def _score_variables(
    run: Run,
    statistics: Mapping[str, np.ndarray],
    axes: Axes,
    symmetric: Collection[str],
    unrelated: Bool[np.ndarray, "source target"],
) -> dict[str, Any]:
    """Return the variables by measure and pair, with the statistics of each dataset and measure as a whole."""
    q_value, unrelated_rank = _without_values(run, axes.shape), _without_values(run, axes.shape)
    reliability = np.full(axes.shape[:2], np.nan)
    for place in np.ndindex(reliability.shape):
        q_value[place] = q_values(statistics["p_value"][place], axes.measures[place[1]] in symmetric)
        unrelated_rank[place] = unrelated_ranks(statistics["calibrated"][place], unrelated)
        reliability[place] = split_half_reliabilities(*(statistics[name][place] for name in HALVES[:2]))
    published = {name: values for name, values in statistics.items() if name not in HALVES}
    published |= {"q_value": q_value, "unrelated_rank": unrelated_rank}
    ceiling = "agreement of scores from either half of the points, for all points (Spearman-Brown): the noise ceiling"
    variables: dict[str, Any] = {name: (_SCORE_DIMS, values, long_name(name)) for name, values in published.items()}
    variables["split_half_reliability"] = (("dataset", "measure"), reliability, {"long_name": ceiling})
    if any(np.isfinite(statistics[name]).any() for name in HALVES):
        halves = _without_values(run, (*axes.shape, len(HALVES)), np.float32)
        for half, name in enumerate(HALVES):
            halves[..., half] = statistics[name]
        meaning = "the score on each half of the points, split by split: for intervals of differences"
        variables["half_scores"] = ((*_SCORE_DIMS, "half"), halves, {"long_name": meaning})
    return variables


def _unrelated(run: Run, spaces: tuple[SpaceBasis, ...], names: list[str]) -> np.ndarray:
    """Return (source, target): whether the models of two spaces have no base in common."""
    family_of = families(meta(run))
    model_of = {basis.space.name: basis.space.model for basis in spaces}
    family = np.array([family_of[model_of[name]] for name in names])
    unrelated: np.ndarray = family[:, None] != family
    return unrelated


def _intervals(run: Run) -> str:
    if not run.catalog.atlas.intervals.n_splits:
        return "not_computed"
    return f"95 %, from {N_HALVES} halves of the points; graphs, bases and measures are computed again on each"


def _texts(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)


def _coordinates(run: Run, spaces: tuple[SpaceBasis, ...], axes: Axes) -> dict[str, Any]:
    by_name, names = {basis.space.name: basis for basis in spaces}, axes.names
    depth_of = _depths(spaces)
    models = [by_name[name].space.model for name in names]
    coordinates: dict[str, Any] = {"dataset": _texts(axes.datasets), "measure": _texts(axes.measures)}
    for side in ("source", "target"):
        coordinates[side] = _texts(names)
        coordinates[f"{side}_model"] = (side, _texts(models))
        coordinates[f"{side}_layer"] = (side, _texts([by_name[name].space.layer for name in names]))
        coordinates[f"{side}_depth"] = (side, np.array([depth_of[name] for name in names], dtype=float))
        coordinates |= meta_coordinates(side, models, meta(run))
    return coordinates


def _depths(spaces: tuple[SpaceBasis, ...]) -> dict[str, float]:
    """Return the depth of each space by name: of several datasets, on that on which its model has most layers."""
    n_layers = Counter(basis.space[:2] for basis in spaces)
    depths: dict[str, tuple[int, float]] = {}
    for basis in spaces:
        layers = n_layers[basis.space[:2]]
        if layers > depths.get(basis.space.name, (0, 0.0))[0]:
            depths[basis.space.name] = layers, basis.depth
    return {name: depth for name, (_, depth) in depths.items()}


def _space_variables(spaces: tuple[SpaceBasis, ...], datasets: list[str], names: list[str]) -> dict[str, Any]:
    shape = (len(datasets), len(names))
    counts = {name: np.zeros(shape, dtype=np.int32) for name in ("n_points", "n_features")}
    facts = {name: np.full(shape, np.nan) for name in ("depth", *_SPACE_FACTS, *_LANDMARK_FACTS)}
    texts = {name: np.full(shape, "", dtype=object) for name in ("method", *_SPACE_KEYS)}
    for basis in spaces:
        place = (datasets.index(basis.space.dataset), names.index(basis.space.name))
        facts["depth"][place] = basis.depth
        counts["n_points"][place], counts["n_features"][place] = basis.n_points, basis.n_features
        texts["method"][place] = basis.facts["method"]
        texts["content"][place], texts["basis"][place], texts["ids"][place] = basis.content, basis.key, basis.ids
        for name in (*_SPACE_FACTS, *_LANDMARK_FACTS):
            facts[name][place] = basis.facts.get(name, np.nan)
    meanings = _SPACE_KEYS | _LANDMARK_FACTS | {"depth": DEPTH}
    return {
        name: (("dataset", "source"), values, {"long_name": meanings[name]} if name in meanings else {})
        for name, values in {**counts, **facts, **texts}.items()
        if name not in _LANDMARK_FACTS or np.isfinite(facts[name]).any()
    }


def meta(run: Run) -> dict[str, Any]:
    """Return the ``meta`` of each model in the catalog."""
    return {name: dict(model.meta) for name, model in run.catalog.models.items()}
