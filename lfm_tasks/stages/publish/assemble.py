"""Stage atlas: put the scores of all pairs together as labeled arrays."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lfm_tasks.errors import REASONS
from lfm_tasks.runtime.run import Run
from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.inventory.requests import (
    CONVENTIONS,
    DISTANCES,
    P_VALUES,
    SYMMETRIC,
    comparison_facts,
    requested_cells,
    requested_measures,
)
from lfm_tasks.stages.publish.contents import Contents, meta
from lfm_tasks.stages.scores.map_measures import STATISTICS
from lfm_tasks.stages.scores.pair_index import PairIndex, StoredBlock
from lfm_tasks.stages.scores.stage import ScoredPairKey
from lfm_tasks.statistics.intervals import split_half_reliability
from lfm_tasks.statistics.model_pairs import false_discovery_rates
from lfm_tasks.statistics.permutation_null import rows_by_value
from lfm_tasks.stores.atlas.schema import SCHEMA_VERSION, meta_coordinates
from lfm_tasks.stores.units.store import CONVENTION
from lfm_tasks.workers.pool import JobFailure

STATUS = ("ok", "not_computed", *REASONS)
_NONE = -1


@dataclass(frozen=True)
class PairEntries:
    """Directed pairs of a dataset that were asked for by the same measures; ``sources``, ``targets`` number spaces.

    ``status`` numbers `STATUS`. ``overlap_share``: common ids as a share of the smaller space's; NaN where no block
    counted them.
    """

    dataset: str
    measures: tuple[str, ...]
    sources: Int[np.ndarray, " pairs"]
    targets: Int[np.ndarray, " pairs"]
    status: Int[np.ndarray, "pairs measures"]
    n_common: Int[np.ndarray, " pairs"]
    overlap_share: Float[np.ndarray, " pairs"]
    values: Float[np.ndarray, "pairs measures statistics"]
    diagnostics: Float[np.ndarray, "pairs diagnostics"]


@dataclass(frozen=True)
class StoredRows:
    """Rows of a block: ``status`` and ``refused`` number `STATUS`, -1 for nothing to tell."""

    status: Int[np.ndarray, "pairs measures"]
    refused: Int[np.ndarray, " pairs"]
    n_common: Int[np.ndarray, " pairs"]
    values: Float[np.ndarray, "pairs 2 measures statistics"]
    diagnostics: Float[np.ndarray, "pairs 2 diagnostics"]


def pair_entries(run: Run, found: Contents) -> Iterator[PairEntries]:
    """Yield all pairs that have scores, or a reason why not, in both directions; numbers are of ``found.spaces``."""
    scored = found.scored
    places = {based.space: place for place, based in enumerate(found.spaces)}
    place_of = np.array([places[space] for space in scored.pairs.spaces], dtype=np.intp)
    n_points = np.array([based.n_points for based in found.spaces])
    # Pieces that were joined are what the lowest eigenvectors then tell apart, in every space.
    in_pieces = np.array([based.facts["n_components"] > 1 for based in found.spaces])
    for dataset, wish, cells in scored.pairs.by_dataset():
        table = scored.tables[scored.settings_of[dataset, wish]]
        measures = tuple(sorted(scored.pairs.requests[wish].measures))
        of_maps = np.array([name in MAP_SCORES for name in measures])
        key_of = np.array([table.positions.get(based.key, _NONE) for based in found.spaces])
        sides = np.stack([place_of[side] for side in cells], axis=1)
        low, high = np.sort(key_of[sides], axis=1).T
        block, row, failed = table.block[low, high], table.row[low, high], _failed(table, scored.troubles)[low, high]
        told = np.flatnonzero((block >= 0) | (failed >= 0))
        for chosen in (told[rows] for rows in rows_by_value(block[told])):
            number = int(block[chosen[0]])
            own, keys = sides[chosen], key_of[sides[chosen]]
            if number < 0:
                rows, share = _no_rows(len(own), len(measures)), np.full(len(own), np.nan)
            else:
                rows = _read_rows(run, table.blocks[number], measures, row[chosen])
                share = rows.n_common / n_points[own].min(axis=1)
            refused = np.where(failed[chosen] >= 0, failed[chosen], rows.refused)[:, None]
            usual = np.where(in_pieces[own].any(axis=1)[:, None] & of_maps, STATUS.index("joined"), STATUS.index("ok"))
            status = np.where(refused >= 0, refused, np.where(rows.status >= 0, rows.status, usual))
            rows.values[refused[:, 0] >= 0] = np.nan
            # Where only activations were to be compared, nobody asked what a map would be like.
            rows.diagnostics[(refused[:, 0] >= 0) | ~of_maps.any()] = np.nan
            for side in range(2):
                other = 1 - side
                # Direction 0 of a stored pair is from its lower key; of equal ones both are alike.
                way = np.arange(len(own)), (keys[:, side] > keys[:, other]).astype(int)
                yield PairEntries(
                    dataset, measures, own[:, side], own[:, other], status, rows.n_common, share,
                    rows.values[way], rows.diagnostics[way],
                )  # fmt: skip


def _failed(table: PairIndex, troubles: Mapping[ScoredPairKey, JobFailure]) -> Int[np.ndarray, "bases bases"]:
    """Return the reasons, as numbers of `STATUS`, why pairs of bases could not be scored in this run."""
    failed = np.full(table.block.shape, _NONE, dtype=np.int16)
    for (settings, low, high), trouble in troubles.items():
        if settings == table.settings:
            failed[table.positions[low], table.positions[high]] = STATUS.index(trouble.reason)
    return failed


def _read_rows(
    run: Run, block: StoredBlock, measures: tuple[str, ...], chosen: Int[np.ndarray, " pairs"]
) -> StoredRows:
    """Return some rows of a block, by these of its measures."""
    with run.store.open("scores", block.key) as unit:
        values, n_common, diagnostics = (unit.read(name) for name in ("values", "n_common", "diagnostics"))
    codes = np.full((len(values), len(block.measures)), _NONE, dtype=np.int16)
    for row, told in block.codes.items():
        for measure, reason in told:
            codes[row, block.measures.index(measure)] = STATUS.index(reason)
    refused = np.full(len(values), _NONE, dtype=np.int16)
    for row, trouble in block.refusals.items():
        refused[row] = STATUS.index(trouble.reason)
    columns = [block.measures.index(name) for name in measures]
    return StoredRows(
        codes[chosen][:, columns], refused[chosen], n_common[chosen], values[chosen][:, :, columns], diagnostics[chosen]
    )


def _no_rows(n_pairs: int, n_measures: int) -> StoredRows:
    """Return the rows of pairs that no block has."""
    return StoredRows(
        np.full((n_pairs, n_measures), _NONE),
        np.full(n_pairs, _NONE),
        np.zeros(n_pairs, dtype=np.int32),
        np.full((n_pairs, 2, n_measures, len(STATISTICS)), np.nan),
        np.full((n_pairs, 2, len(DIAGNOSTICS)), np.nan),
    )


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


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


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
    measures = list(requested_measures(run.catalog))
    cells = np.full((len(STATISTICS), len(datasets), len(measures), len(names), len(names)), np.nan)
    is_asked = requested_cells(found.parts, datasets, measures, names)
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
    fitted = any(part.correspondence.regime != "full" for part in found.parts)
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


def _unrelated(run: Run, spaces: tuple[SpaceBasis, ...], names: list[str]) -> np.ndarray:
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


def _space_variables(spaces: tuple[SpaceBasis, ...], datasets: list[str], names: list[str]) -> dict[str, Any]:
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
