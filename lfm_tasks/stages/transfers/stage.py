"""Stage transfers: the sources of a comparison carried into its targets' coordinates from few anchors, a task a map."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import Run
from lfm_tasks.sources.opening import read_dataset
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.transfer.selection import CANDIDATES
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.inventory.requests import PairSelection
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.transfers.apply import ClassLabels, class_labels
from lfm_tasks.stages.transfers.job import AnchorSpec, MapJob, MapSide, map_job, store_map
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure

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
    """A directed pair of a comparison, and what is known."""

    comparison: str
    source: Space
    target: Space
    known: AnchorSpec


@dataclass(frozen=True)
class Transfers:
    """The section ``transfers/<dataset>``: for each pair the unit of its map, or what kept it from being fitted.

    ``n_not_computed``: how many pairs no run has tried yet.
    """

    units: tuple[tuple[TransferPair, str], ...] = ()
    troubles: Mapping[TransferPair, JobFailure] = field(default_factory=dict)
    n_not_computed: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """Everything that decides the content."""
        fitted = [repr((asdict(pair), key)) for pair, key in self.units]
        return tuple(fitted + [repr((asdict(pair), asdict(trouble))) for pair, trouble in self.troubles.items()])

    @property
    def made_of(self) -> dict[str, set[str]]:
        """The maps."""
        return {"maps": {key for _, key in self.units}}

    def groups(self, run: Run) -> Mapping[str, xr.Dataset]:
        """Return the table of every dataset: (pair, candidate)."""
        rows: list[tuple[TransferPair, Mapping[str, Any], JobFailure | None]] = [
            *((pair, run.store.receipt("maps", key).facts, None) for pair, key in self.units),
            *((pair, {}, trouble) for pair, trouble in self.troubles.items()),
        ]
        rows.sort(key=lambda row: (row[0].source.dataset, row[0].source, row[0].target, row[0].comparison))
        by_dataset = groupby(rows, key=lambda row: row[0].source.dataset)
        return {f"transfers/{dataset}": _table(list(own)) for dataset, own in by_dataset}


def fit_transfers(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...]) -> Transfers:
    """Fit the maps that comparisons with ``transfer`` ask for and that are not there; a failed one has a status."""
    pairs = transfer_pairs(run.catalog, zoo.parts)
    if not pairs:
        return Transfers()
    sides = {based.space: MapSide(based.space, based.activations, based.content) for based in spaces}
    jobs = transfer_jobs(run.store, run.catalog, pairs, sides)
    absent = {job.key: job for _, job in jobs if run.store.find("maps", job.key) is None}
    now = {job.key for pair, job in jobs if _is_in_scope(run, pair)}
    missing = [job for key, job in absent.items() if key in now]
    troubles: dict[str, JobFailure] = {}
    run.announce("transfers", 0, len(missing))
    for done, (number, result) in enumerate(run.workers.run(store_map, missing), start=1):
        if isinstance(result, JobFailure):
            troubles[missing[number].key] = result
        run.announce("transfers", done, len(missing))
    left_out = absent.keys() - now
    n_wanted = len({job.key for _, job in jobs} - left_out)
    run.stage_counts.count("transfers", len(missing) - len(troubles), n_wanted - len(missing))
    return Transfers(
        tuple((pair, job.key) for pair, job in jobs if job.key not in troubles and job.key not in left_out),
        {pair: troubles[job.key] for pair, job in jobs if job.key in troubles},
        sum(job.key in left_out for _, job in jobs),
    )


def transfer_pairs(catalog: Catalog, parts: Sequence[PairSelection]) -> tuple[TransferPair, ...]:
    """Return every pair of two different spaces, source to target, of the comparisons that ask for transfer."""
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
    """Return the job of each pair whose two spaces are there."""
    labels = {dataset: _labels(dataset, catalog) for dataset in {pair.target.dataset for pair in pairs}}
    return [
        (pair, map_job(store, sides[pair.source], sides[pair.target], pair.known, catalog, labels[pair.target.dataset]))
        for pair in pairs
        if pair.source in sides and pair.target in sides
    ]


def _labels(dataset: str, catalog: Catalog) -> ClassLabels | None:
    try:
        return class_labels(read_dataset(dataset, catalog))
    except DataError:
        return None  # the dataset's models have failed for it already


def _is_in_scope(run: Run, pair: TransferPair) -> bool:
    named = not run.scope.comparisons or pair.comparison in run.scope.comparisons
    return named and (run.scope.has(pair.source.model) or run.scope.has(pair.target.model))


def _table(rows: Sequence[tuple[TransferPair, Mapping[str, Any], JobFailure | None]]) -> xr.Dataset:
    of_candidates = {name: np.full((len(rows), len(CANDIDATES)), np.nan) for name in _OF_CANDIDATES}
    of_pairs = {name: np.full(len(rows), np.nan) for name in _OF_PAIRS}
    for place, (_, facts, _) in enumerate(rows):
        for row in facts.get("table", ()):
            for name, values in of_candidates.items():
                values[place, CANDIDATES.index(row["name"])] = _number(row.get(name))
        for name, column in of_pairs.items():
            column[place] = _number(facts.get(name))
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
        "status": ("pair", _texts("ok" if trouble is None else trouble.reason for _, _, trouble in rows)),
        "message": ("pair", _texts("" if trouble is None else trouble.message for _, _, trouble in rows)),
    }
    return xr.Dataset(variables, coordinates)


def _texts(values: Iterator[str] | Sequence[str]) -> np.ndarray:
    return np.array(list(values), dtype=object)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
