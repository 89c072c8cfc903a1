"""Stage transfers: maps from the sources of a comparison to its targets, fitted from few anchors, a job for each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import Run
from lfm_tasks.sources.opening import read_dataset
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.transfer.selection import CANDIDATES
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.inventory.requests import PairSelection
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.transfers.job import (
    AnchorSpec,
    ClassLabels,
    MapJob,
    MapSide,
    class_labels,
    map_job,
    store_map,
)
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure

if TYPE_CHECKING:
    import xarray as xr

_OF_CANDIDATES = {
    "held_out": "mean reciprocal rank of held-out anchors",
    "round_trip": "share of target points that come back to themselves",
    "accuracy": "share of points that are no anchors whose partner is found first",
    "mrr": "mean reciprocal rank of points that are no anchors",
    "stitched_accuracy": "of the target's head on the source's points, carried; NaN where there is no head",
}
_OF_PAIRS = {
    "n_anchors": "pairs of points that the fit knew",
    "own_accuracy": "of the target's head on its own points; NaN where there is no head",
    "all_pairs_accuracy": "of the target's head on the source's points, carried by a map that knew all of them",
}


@dataclass(frozen=True)
class TransferPair:
    """A directed pair of a comparison, and which of its points are known to correspond."""

    comparison: str
    source: Space
    target: Space
    anchor_spec: AnchorSpec

    def ingredients(self) -> dict[str, Any]:
        """Return everything that decides the pair."""
        anchors = asdict(self.anchor_spec)
        return {"comparison": self.comparison, "source": self.source, "target": self.target, "known": anchors}


@dataclass(frozen=True)
class Transfers:
    """The section ``transfers/<dataset>``: for each pair the unit of its map, or why it has none.

    ``n_not_computed``: how many pairs no run has tried yet.
    """

    fitted: tuple[tuple[TransferPair, str], ...] = ()
    failures: Mapping[TransferPair, JobFailure] = field(default_factory=dict)
    n_not_computed: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """Everything that decides the content."""
        fitted = [repr((pair.ingredients(), key)) for pair, key in self.fitted]
        failed = [repr((pair.ingredients(), asdict(failure))) for pair, failure in self.failures.items()]
        return tuple(fitted + failed)

    @property
    def unit_keys(self) -> dict[str, set[str]]:
        """The maps."""
        return {"maps": {key for _, key in self.fitted}}

    def groups(self, run: Run) -> Mapping[str, "xr.Dataset"]:
        """Return the table of every dataset: (pair, candidate)."""
        rows: list[tuple[TransferPair, Mapping[str, Any], JobFailure | None]] = [
            *((pair, run.store.receipt("maps", key).facts, None) for pair, key in self.fitted),
            *(
                (pair, {}, replace(failure, message=run.catalog.hide_values(failure.message)))
                for pair, failure in self.failures.items()
            ),
        ]
        rows.sort(key=lambda row: (row[0].source.dataset, row[0].source, row[0].target, row[0].comparison))
        by_dataset = groupby(rows, key=lambda row: row[0].source.dataset)
        return {f"transfers/{dataset}": _table(list(pairs)) for dataset, pairs in by_dataset}


def fit_transfers(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...]) -> Transfers:
    """Fit the missing maps of the comparisons with ``transfer``; a failure becomes the status of its pair."""
    pairs = transfer_pairs(run.catalog, zoo.parts)
    if not pairs:
        return Transfers()
    sides = {basis.space: MapSide(basis.space, basis.activations, basis.content) for basis in spaces}
    jobs = transfer_jobs(run.store, run.catalog, pairs, sides)
    absent = {job.key: job for _, job in jobs if run.store.find("maps", job.key) is None}
    in_scope = {job.key for pair, job in jobs if _is_in_scope(run, pair)}
    missing = [job for key, job in absent.items() if key in in_scope]
    failures: dict[str, JobFailure] = {}
    for job, result in run.results("transfers", store_map, missing):
        if isinstance(result, JobFailure):
            failures[job.key] = result
    left_out = absent.keys() - in_scope
    n_wanted = len({job.key for _, job in jobs} - left_out)
    run.stage_counts.add("transfers", len(missing) - len(failures), n_wanted - len(missing))
    return Transfers(
        tuple((pair, job.key) for pair, job in jobs if job.key not in failures and job.key not in left_out),
        {pair: failures[job.key] for pair, job in jobs if job.key in failures},
        sum(job.key in left_out for _, job in jobs),
    )


def transfer_pairs(catalog: Catalog, parts: Sequence[PairSelection]) -> tuple[TransferPair, ...]:
    """Return every pair of two different spaces, source to target, of the comparisons with ``transfer``."""
    return tuple(
        TransferPair(part.name, source, target, AnchorSpec("anchors", transfer.anchors.count, transfer.anchors.seed))
        for part in parts
        if part.name and (transfer := catalog.comparisons[part.name].transfer) is not None
        for source in part.sources
        for target in part.targets
        if source != target
    )


def transfer_jobs(
    store: UnitStore, catalog: Catalog, pairs: Sequence[TransferPair], sides: Mapping[Space, MapSide]
) -> list[tuple[TransferPair, MapJob]]:
    """Return the job of each pair whose two spaces are in ``sides``."""
    labels = {dataset: _labels(dataset, catalog) for dataset in {pair.target.dataset for pair in pairs}}

    def job(pair: TransferPair) -> MapJob:
        source, target = sides[pair.source], sides[pair.target]
        return map_job(store, source, target, pair.anchor_spec, catalog, labels[pair.target.dataset])

    return [(pair, job(pair)) for pair in pairs if pair.source in sides and pair.target in sides]


def _labels(dataset: str, catalog: Catalog) -> ClassLabels | None:
    try:
        return class_labels(read_dataset(dataset, catalog))
    except DataError:
        return None  # for that the dataset's models have failed already


def _is_in_scope(run: Run, pair: TransferPair) -> bool:
    is_named = not run.scope.comparisons or pair.comparison in run.scope.comparisons
    return is_named and (run.scope.has(pair.source.model) or run.scope.has(pair.target.model))


def _table(rows: Sequence[tuple[TransferPair, Mapping[str, Any], JobFailure | None]]) -> "xr.Dataset":
    import xarray as xr  # a plan does without it

    of_candidates = {name: np.full((len(rows), len(CANDIDATES)), np.nan) for name in _OF_CANDIDATES}
    of_pairs = {name: np.full(len(rows), np.nan) for name in _OF_PAIRS}
    for index, (_, facts, _) in enumerate(rows):
        for candidate in facts.get("table", ()):
            for name, values in of_candidates.items():
                values[index, CANDIDATES.index(candidate["name"])] = _nan_for_none(candidate.get(name))
        for name, column in of_pairs.items():
            column[index] = _nan_for_none(facts.get(name))
    variables: dict[str, Any] = {
        name: (("pair", "candidate"), values, {"long_name": _OF_CANDIDATES[name]})
        for name, values in of_candidates.items()
    }
    variables |= {name: ("pair", column, {"long_name": _OF_PAIRS[name]}) for name, column in of_pairs.items()}
    coordinates: dict[str, Any] = {
        "candidate": ("candidate", _texts(CANDIDATES)),
        "source": ("pair", _texts(pair.source.name for pair, _, _ in rows)),
        "target": ("pair", _texts(pair.target.name for pair, _, _ in rows)),
        "comparison": ("pair", _texts(pair.comparison for pair, _, _ in rows)),
        "chosen": ("pair", _texts(facts.get("chosen", "") for _, facts, _ in rows)),
        "status": ("pair", _texts("ok" if failure is None else failure.reason for _, _, failure in rows)),
        "message": ("pair", _texts("" if failure is None else failure.message for _, _, failure in rows)),
    }
    return xr.Dataset(variables, coordinates)


def _texts(values: Iterator[str] | Sequence[str]) -> np.ndarray:
    return np.array(list(values), dtype=object)


def _nan_for_none(value: float | None) -> float:
    return np.nan if value is None else float(value)
