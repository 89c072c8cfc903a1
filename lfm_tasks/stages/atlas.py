"""Stage atlas: put the scores of all pairs together as labelled arrays, a table of edges and a summary."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks import __version__
from lfm_tasks.reasons import REASONS
from lfm_tasks.spaces import Space
from lfm_tasks.stages.asked import Part, asked_cells, asked_measures, comparison_facts, n_directed_pairs
from lfm_tasks.stages.bases import BasedSpace
from lfm_tasks.stages.map_scores import MAP_SCORES
from lfm_tasks.stages.measures import CONVENTIONS, DISTANCES, P_VALUES, SYMMETRIC
from lfm_tasks.stages.run import Failure, Run
from lfm_tasks.stages.scores import Scored
from lfm_tasks.stages.statistics import STATISTICS
from lfm_tasks.stages.validate import Zoo
from lfm_tasks.stages.zoo_statistics import families, q_values, split_half_reliabilities, unrelated_ranks
from lfm_tasks.stores.digests import CONVENTION, digest

SCHEMA_VERSION = 2
# The halves of the points serve the noise ceiling only.
_HALVES = ("half_1", "half_2")
PUBLISHED = (*(name for name in STATISTICS if name not in _HALVES), "q_value", "unrelated_rank")
STATUS = ("ok", "not_computed", *REASONS)
_SPACE_FACTS = ("n_components", "n_zero_eigenvalues", "recall", "residual", "orthonormality", "eigengap")


@dataclass(frozen=True)
class Contents:
    """Everything an atlas is made of; its key is the same exactly when the atlas would be."""

    spaces: tuple[BasedSpace, ...]
    scored: Scored
    failures: tuple[Failure, ...]
    resampling: Mapping[str, str]
    key: str
    parts: tuple[Part, ...]
    not_computed: tuple[Space, ...] = ()

    @property
    def unpublished(self) -> str:
        """What the catalog asks for and no run has computed yet, so that this is no whole atlas; empty: it is one."""
        n_spaces, n_pairs = len(self.not_computed), self.scored.n_not_computed
        if not n_spaces and not n_pairs:
            return ""
        found = f"{n_spaces} spaces and {n_pairs} pairs of the others are not computed yet"
        return f"{found}, so the published atlas stays as it is: run all of the catalog"

    @property
    def refused(self) -> tuple["RefusedPairs", ...]:
        """Pairs without scores, by dataset and reason."""
        return refused_pairs(self.spaces, self.scored)


def contents(
    run: Run, zoo: Zoo, spaces: tuple[BasedSpace, ...], scored: Scored, failures: tuple[Failure, ...]
) -> Contents:
    """Return what the atlas will hold, under one key. No path, time or host is part of it."""
    there = {based.space for based in spaces}
    failed = {(failure.dataset, failure.model, failure.layer) for failure in failures}
    absent = [planned.space for planned in zoo.spaces if planned.space not in there]
    left_out = tuple(space for space in absent if (space.dataset, space.model, space.layer) not in failed)
    ordered = tuple(sorted(failures, key=lambda failure: tuple(asdict(failure).values())))
    key = digest(
        {
            "kind": "atlas",
            "schema": SCHEMA_VERSION,
            "spaces": [[*asdict(based.space).values(), based.depth, based.key] for based in spaces],
            "failures": [asdict(failure) for failure in ordered],
            "troubles": sorted([*pair, *asdict(trouble).values()] for pair, trouble in scored.troubles.items()),
            "score_settings": sorted(scored.settings.values()),
            "parts": [asdict(part) for part in zoo.parts],
            "settings": settings(run),
            "meta": _meta(run),
            "versions": versions(),
        }
    )
    moved = {dataset: design.kind for dataset, design in zoo.designs.items()}
    datasets = {based.space.dataset for based in spaces}
    resampled = {name: moved.get(name, "rows") for name in datasets}
    return Contents(spaces, scored, ordered, resampled, key, zoo.parts, left_out)


def settings(run: Run) -> dict[str, Any]:
    """Return the settings that decide the numbers (not where things lie)."""
    return run.catalog.atlas.model_dump(mode="json", exclude={"path", "store"})


def versions() -> dict[str, str]:
    """Return the versions of what the numbers were computed with."""
    libraries = ("numpy", "scipy", "scikit-learn", "pynndescent", "onnxruntime")
    return {"lfm-atlas": __version__} | {name: version(name) for name in libraries}


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
    for entry in pair_entries(run, found):
        place = (datasets.index(entry.dataset), names.index(entry.source), names.index(entry.target))
        own = is_asked[place[0], :, place[1], place[2]]
        n_common[place] = entry.n_common
        for m in np.flatnonzero(own):
            status[place[0], m, place[1], place[2]] = STATUS.index(entry.status[m])
            cells[:, place[0], m, place[1], place[2]] = entry.values[m]
    pair_dims = ("dataset", "source", "target")
    score_dims = ("dataset", "measure", "source", "target")
    by_name = dict(zip(STATISTICS, cells, strict=True))
    unrelated = _unrelated(run, found.spaces, names)
    by_name |= {name: np.full(cells.shape[1:], np.nan) for name in ("q_value", "unrelated_rank")}
    reliability = np.full(cells.shape[1:3], np.nan)
    for place in np.ndindex(reliability.shape):
        by_name["q_value"][place] = q_values(by_name["p_value"][place], measures[place[1]] in SYMMETRIC)
        by_name["unrelated_rank"][place] = unrelated_ranks(by_name["calibrated"][place], unrelated)
        reliability[place] = split_half_reliabilities(np.stack([by_name[name][place] for name in _HALVES]))
    variables: dict[str, Any] = {
        name: (score_dims, by_name[name], {"long_name": _MEANINGS[name]}) for name in PUBLISHED
    }
    ceiling = "agreement of scores from either half of the points, for all points (Spearman-Brown): the noise ceiling"
    variables["split_half_reliability"] = (("dataset", "measure"), reliability, {"long_name": ceiling})
    flags = {"flag_values": list(range(len(STATUS))), "flag_meanings": " ".join(STATUS)}
    variables["status"] = (score_dims, status, flags)
    variables["n_common"] = (pair_dims, n_common, {"long_name": "points that both spaces have"})
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
    return xr.Dataset(variables, _coordinates(found.spaces, datasets, measures, names), attributes)


@dataclass(frozen=True)
class PairEntry:
    """One directed pair: statuses and values are (measure) and (measure, statistic), in the catalog's order."""

    dataset: str
    source: str
    target: str
    status: tuple[str, ...]
    n_common: int
    values: np.ndarray


def pair_entries(run: Run, found: Contents) -> Iterator[PairEntry]:
    """Yield all directed pairs of every dataset, read from the stored blocks."""
    measures = list(asked_measures(run.catalog))
    blocks: dict[str, Mapping[str, np.ndarray]] = {}
    missing = np.full((len(measures), len(STATISTICS)), np.nan)
    for source in found.spaces:
        for target in found.spaces:
            if source.space.dataset != target.space.dataset:
                continue
            names = (source.space.dataset, source.space.name, target.space.name)
            pair = (min(source.key, target.key), max(source.key, target.key))
            if refusal := found.scored.refusal(source.space.dataset, *pair):
                yield PairEntry(*names, (refusal.reason,) * len(measures), 0, missing)
                continue
            place = found.scored.place(source.space.dataset, *pair)
            if place is None:
                continue
            if place.block not in blocks:
                with run.store.open("scores", place.block) as unit:
                    blocks[place.block] = {name: unit.read(name) for name in ("values", "n_common")}
            block = blocks[place.block]
            stored = [measures.index(name) for name in found.scored.measures(source.space.dataset, *pair)]
            values = missing.copy()
            values[stored] = block["values"][place.row, 0 if source.key == pair[0] else 1]
            # Pieces that were joined are what the lowest eigenvectors then tell apart, in every space.
            in_pieces = max(source.facts["n_components"], target.facts["n_components"]) > 1
            codes = dict.fromkeys(MAP_SCORES, "joined") if in_pieces else {}
            codes |= dict(place.codes)
            status = tuple(codes.get(name, "ok") for name in measures)
            yield PairEntry(*names, status, int(block["n_common"][place.row]), values)


@dataclass(frozen=True)
class RefusedPairs:
    """Directed pairs that have no scores for one reason: how many, and the first of them with its message."""

    dataset: str
    reason: str
    count: int
    source: str
    target: str
    message: str


def refused_pairs(spaces: tuple[BasedSpace, ...], scored: Scored) -> tuple[RefusedPairs, ...]:
    """Return the pairs without scores, by dataset and reason."""
    if not scored.troubles and not any(place.refusal for place in scored.places.values()):
        return ()
    found: dict[tuple[str, str], RefusedPairs] = {}
    for source in spaces:
        for target in spaces:
            if source.space.dataset != target.space.dataset or source.space == target.space:
                continue
            refusal = scored.refusal(source.space.dataset, source.key, target.key)
            if refusal is None:
                continue
            place = (source.space.dataset, refusal.reason)
            first = RefusedPairs(*place, 0, source.space.name, target.space.name, refusal.message)
            known = found.get(place, first)
            found[place] = replace(known, count=known.count + 1)
    return tuple(found[place] for place in sorted(found))


def edges(atlas: xr.Dataset) -> dict[str, Any]:
    """Return the long table: a row for each directed pair of two different spaces, dataset and measure."""
    columns: dict[str, list[Any]] = {name: [] for name in ("source", "target", "dataset", "measure", *PUBLISHED)}
    columns |= {"status": [], "n_common": [], "comparisons": []}
    chosen = atlas.attrs["comparisons"]
    sides = {name: (set(facts["sources"]), set(facts["targets"])) for name, facts in chosen.items()}
    names = [str(name) for name in atlas["source"].values]
    for d, dataset in enumerate(atlas["dataset"].values):
        present = atlas["n_points"].values[d] > 0
        for m, measure in enumerate(atlas["measure"].values):
            own = [
                name
                for name, facts in chosen.items()
                if facts["dataset"] == str(dataset) and str(measure) in facts["measures"]
            ]
            asked = atlas["status"].values[d, m] != STATUS.index("not_asked")
            for s, t in zip(*np.nonzero(asked & present[:, None] & present), strict=True):
                if s == t:
                    continue
                for column, value in (
                    ("source", names[s]), ("target", names[t]), ("dataset", str(dataset)), ("measure", str(measure)),
                    ("status", STATUS[int(atlas["status"].values[d, m, s, t])]),
                    ("n_common", int(atlas["n_common"].values[d, s, t])),
                ):  # fmt: skip
                    columns[column].append(value)
                columns["comparisons"].append([n for n in own if names[s] in sides[n][0] and names[t] in sides[n][1]])
                for name in PUBLISHED:
                    value = float(atlas[name].values[d, m, s, t])
                    columns[name].append(None if np.isnan(value) else value)
    return columns


def summary(run: Run, found: Contents) -> dict[str, Any]:
    """Return what a program or a hurried reader wants to know."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": "Similarity atlas",
        "key": found.key,
        "counts": {
            "models": len({based.space.model for based in found.spaces}),
            "spaces": len(found.spaces),
            "directed_pairs": n_directed_pairs(found.parts, {based.space for based in found.spaces}),
            "failures": len(found.failures),
            "directed_pairs_without_score": sum(refused.count for refused in found.refused),
        },
        "failures": [asdict(failure) for failure in found.failures],
        "comparisons": comparison_facts(found.parts),
        "pairs_without_score": [asdict(refused) for refused in found.refused],
        "models": [{"name": name, "meta": meta} for name, meta in _meta(run).items()],
        "settings": settings(run),
        "versions": versions(),
    }


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
    family_of = families(_meta(run))
    model_of = {based.space.name: based.space.model for based in spaces}
    family = np.array([family_of[model_of[name]] for name in names])
    unrelated: np.ndarray = family[:, None] != family
    return unrelated


def _intervals(run: Run) -> str:
    n_groups = run.catalog.atlas.intervals.n_groups
    if not n_groups:
        return "not_computed"
    return f"95 %, jackknife over {n_groups} groups of points; graphs and bases are kept, other measures made anew"


def _meta(run: Run) -> dict[str, Any]:
    return {name: dict(model.meta) for name, model in run.catalog.models.items()}


def _texts(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)


def _coordinates(
    spaces: tuple[BasedSpace, ...], datasets: list[str], measures: list[str], names: list[str]
) -> dict[str, Any]:
    by_name = {based.space.name: based for based in spaces}
    coordinates: dict[str, Any] = {"dataset": _texts(datasets), "measure": _texts(measures)}
    for side in ("source", "target"):
        coordinates[side] = _texts(names)
        coordinates[f"{side}_model"] = (side, _texts([by_name[name].space.model for name in names]))
        coordinates[f"{side}_layer"] = (side, _texts([by_name[name].space.layer for name in names]))
        coordinates[f"{side}_depth"] = (side, np.array([by_name[name].depth for name in names], dtype=float))
    return coordinates


def _space_variables(spaces: tuple[BasedSpace, ...], datasets: list[str], names: list[str]) -> dict[str, Any]:
    shape = (len(datasets), len(names))
    counts = {name: np.zeros(shape, dtype=np.int32) for name in ("n_points", "n_features")}
    facts = {name: np.full(shape, np.nan) for name in _SPACE_FACTS}
    method = np.full(shape, "", dtype=object)
    for based in spaces:
        place = (datasets.index(based.space.dataset), names.index(based.space.name))
        counts["n_points"][place], counts["n_features"][place] = based.n_points, based.n_features
        method[place] = based.facts["method"]
        for name in _SPACE_FACTS:
            facts[name][place] = based.facts[name]
    return {name: (("dataset", "source"), values) for name, values in {**counts, **facts, "method": method}.items()}
