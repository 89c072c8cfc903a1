"""Stage across datasets: the comparisons whose sources and targets are on two datasets, a job a block of pairs.

A pair is known by its two bases. What a block holds is listed in its receipt, so a new model costs its own pairs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from lfm_tasks.config import AtlasConfig
from lfm_tasks.runtime.load import worker_bytes
from lfm_tasks.runtime.run import Run, Scope
from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS
from lfm_tasks.stages.across_datasets.cost import across_load
from lfm_tasks.stages.across_datasets.job import ACROSS_STATISTICS, AcrossJob, AcrossSettings, store_across
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.inventory.correspondence import Labels, joint_labels, store_labels
from lfm_tasks.stages.inventory.requests import PairSelection, across_facts
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.stage import BLOCK_SIDE
from lfm_tasks.stores.units.store import Receipt, UnitStore, digest
from lfm_tasks.workers.pool import JobFailure

if TYPE_CHECKING:
    import xarray as xr

# Keys of the bases of source and target.
BasisPair = tuple[str, str]
DIRECTIONS = ("forward", "back")
_MEANINGS = {
    "score": "the measure of the map: forward from source to target, back from target to source",
    "null_mean": "mean over random pairings of the classes",
    "null_q95": "95 % quantile over random pairings of the classes",
    "calibrated": "(score - null_mean) / (1 - null_mean): 0 is chance, 1 is the best there is",
    "p_value": "how often chance reaches the score",
}


@dataclass(frozen=True)
class AcrossPart:
    """A comparison across datasets: its bases, what decides its scores, where they lie, and why some are missing.

    ``labels``: the keys of the stored labels of both datasets, or "". ``n_not_computed``: pairs that no run has tried.
    """

    part: PairSelection
    sources: tuple[SpaceBasis, ...]
    targets: tuple[SpaceBasis, ...]
    settings: AcrossSettings
    labels: tuple[str, str] = ("", "")
    places: Mapping[BasisPair, tuple[str, int]] = field(default_factory=dict)
    failures: Mapping[BasisPair, JobFailure] = field(default_factory=dict)
    n_not_computed: int = 0

    @property
    def pairs(self) -> list[BasisPair]:
        """The pairs of bases, each once."""
        return sorted({(source.key, target.key) for source in self.sources for target in self.targets})


@dataclass(frozen=True)
class AcrossDatasets:
    """The section ``across/<comparison>`` of each comparison across datasets."""

    parts: tuple[AcrossPart, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """A digest of all that decides the content; none without such comparisons."""
        return tuple(
            digest(
                {
                    "kind": "across datasets",
                    "comparison": across_facts(one.part),
                    "bases": [[*basis.space, basis.key] for basis in (*one.sources, *one.targets)],
                    "settings": one.settings,
                    "failures": sorted([*pair, failure.reason] for pair, failure in one.failures.items()),
                }
            )
            for one in self.parts
        )

    @property
    def unit_keys(self) -> dict[str, set[str]]:
        """The blocks of scores."""
        return {"across_datasets": {block for one in self.parts for block, _ in one.places.values()}}

    @property
    def n_not_computed(self) -> int:
        """How many pairs no run has tried yet."""
        return sum(one.n_not_computed for one in self.parts)

    def groups(self, run: Run) -> dict[str, "xr.Dataset"]:
        """Return ``across/<comparison>``: (direction, measure, source, target)."""
        return {f"across/{one.part.name}": _group(run.store, one) for one in self.parts}


def compare_across_datasets(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...]) -> AcrossDatasets:
    """Score the pairs of the comparisons across datasets that no stored block holds yet."""
    if not zoo.across:
        return AcrossDatasets()
    planned = [across_part(run, zoo, part, spaces) for part in zoo.across]
    sizes = {one.space: one.size for one in zoo.spaces}
    size_of = {
        basis.key: replace(sizes[basis.space], n_points=basis.n_points, n_features=basis.n_features) for basis in spaces
    }
    jobs = [(part, job) for part in planned for job in across_jobs(run, part)]
    needs = [
        worker_bytes(
            across_load([size_of[key] for key in job.activations], len(job.pairs), run.catalog.atlas, part.part)
        )
        for part, job in jobs
    ]
    failed: dict[tuple[AcrossSettings, BasisPair], JobFailure] = {}
    for job, result in run.results("across", store_across, [job for _, job in jobs], needs):
        if isinstance(result, JobFailure):
            failed |= dict.fromkeys(((job.settings, pair) for pair in job.pairs), result)
    n_tried = sum(len(job.pairs) for _, job in jobs)
    parts = tuple(_finished(run.store, part, failed) for part in planned)
    n_wanted = sum(len(part.pairs) - part.n_not_computed for part in parts)
    run.stage_counts.add("across", n_tried - len(failed), n_wanted - n_tried)
    return AcrossDatasets(parts)


def across_part(run: Run, zoo: Zoo, part: PairSelection, spaces: Iterable[SpaceBasis]) -> AcrossPart:
    """Return a comparison with the bases that there are, and the places of its pairs in the store."""
    stored = store_labels(run.store, part_labels(zoo, part))
    labels = stored.get("source", ""), stored.get("target", "")
    by_space = {basis.space: basis for basis in spaces}
    sources, targets = (
        tuple(by_space[space] for space in sorted(side) if space in by_space) for side in (part.sources, part.targets)
    )
    settings = across_settings(run.catalog.atlas, part, labels)
    places = dict(stored_pairs(run.store, settings))
    return AcrossPart(part, sources, targets, settings, labels, places)


def part_labels(zoo: Zoo, part: PairSelection) -> dict[str, Labels]:
    """Return the labels of both sides of a comparison, classes numbered alike; none where maps need none."""
    if part.correspondence.regime != "labels":
        return {}
    joint = joint_labels(zoo.rows[part.dataset], zoo.rows[part.target_dataset])
    return dict(zip(("source", "target"), joint, strict=True))


def across_settings(atlas: AtlasConfig, part: PairSelection, labels: tuple[str, str]) -> AcrossSettings:
    """Return everything but the two bases that can change a score."""
    rest = {
        "kind": "across_datasets",
        "maps": part.correspondence.ingredients(),
        "labels": labels,
        "graph": [atlas.graph.metric, atlas.graph.kernel, atlas.graph.center],
        "null": atlas.null.model_dump(),
    }
    return AcrossSettings(digest(rest), part.measures)


def stored_pairs(store: UnitStore, settings: AcrossSettings) -> Iterator[tuple[BasisPair, tuple[str, int]]]:
    """Yield each pair that is scored by these settings, with its block and row."""
    for receipt in store.receipts("across_datasets"):
        if AcrossSettings.of(receipt) == settings:
            yield from _rows_of(receipt)


def _rows_of(receipt: Receipt) -> Iterator[tuple[BasisPair, tuple[str, int]]]:
    for row, (source, target) in enumerate(receipt.facts["pairs"]):
        yield (source, target), (receipt.key, row)


def across_jobs(run: Run, part: AcrossPart) -> Iterator[AcrossJob]:
    """Yield the missing pairs of a comparison that this run computes, in blocks."""
    activations = {basis.key: basis.activations for basis in (*part.sources, *part.targets)}
    missing = [pair for pair in _in_scope(run.scope, part) if pair not in part.places]
    places = [{key: index for index, key in enumerate(sorted({pair[side] for pair in missing}))} for side in range(2)]

    def block_of(pair: BasisPair) -> tuple[int, int]:
        return places[0][pair[0]] // BLOCK_SIDE, places[1][pair[1]] // BLOCK_SIDE

    for _, members in groupby(sorted(missing, key=lambda pair: (block_of(pair), pair)), key=block_of):
        pairs = tuple(members)
        key = digest({"kind": "across_datasets", "settings": part.settings, "pairs": pairs})
        used = {name: activations[name] for pair in pairs for name in pair}
        yield AcrossJob(
            run.store, key, part.settings, pairs, used, run.catalog.atlas, part.part.correspondence, part.labels
        )


def _in_scope(scope: Scope, part: AcrossPart) -> list[BasisPair]:
    if scope.comparisons and part.part.name not in scope.comparisons:
        return []
    chosen = {
        (source.key, target.key)
        for source in part.sources
        for target in part.targets
        if scope.has(source.space.model) or scope.has(target.space.model)
    }
    return sorted(chosen)


def _finished(
    store: UnitStore, part: AcrossPart, failed: Mapping[tuple[AcrossSettings, BasisPair], JobFailure]
) -> AcrossPart:
    """Return a comparison with what there is of its pairs after this run."""
    wanted = set(part.pairs)
    places = {pair: place for pair, place in stored_pairs(store, part.settings) if pair in wanted}
    failures = {pair: failed[part.settings, pair] for pair in wanted if (part.settings, pair) in failed}
    n_left = len(wanted - places.keys() - failures.keys())
    return AcrossPart(part.part, part.sources, part.targets, part.settings, part.labels, places, failures, n_left)


def _group(store: UnitStore, part: AcrossPart) -> "xr.Dataset":
    """Return the scores of a comparison as labeled arrays."""
    import xarray as xr  # a plan does without it

    blocks: dict[str, dict[str, Any]] = {}
    for key in sorted({block for block, _ in part.places.values()}):
        with store.open("across_datasets", key) as unit:
            blocks[key] = {name: unit.read(name) for name in ("values", "diagnostics")}
        refusals = store.receipt("across_datasets", key).facts["refusals"]
        blocks[key]["refusals"] = {row: (reason, message) for row, reason, message in refusals}
    shape = (2, len(part.settings.measures), len(part.sources), len(part.targets))
    values = np.full((len(ACROSS_STATISTICS), *shape), np.nan)
    diagnostics = np.full((len(DIAGNOSTICS), shape[0], *shape[2:]), np.nan)
    status, message = (np.full(shape[2:], text, dtype=object) for text in ("ok", ""))
    for s, source in enumerate(part.sources):
        for t, target in enumerate(part.targets):
            pair = source.key, target.key
            if failure := part.failures.get(pair):
                status[s, t], message[s, t] = failure.reason, failure.message
                continue
            key, row = part.places[pair]
            values[:, :, :, s, t] = np.moveaxis(blocks[key]["values"][row], -1, 0)
            diagnostics[:, :, s, t] = blocks[key]["diagnostics"][row].T
            status[s, t], message[s, t] = blocks[key]["refusals"].get(row, ("ok", ""))
    dims = ("direction", "measure", "source", "target")
    variables: dict[str, Any] = {
        name: (dims, values[index], {"long_name": _MEANINGS[name]}) for index, name in enumerate(ACROSS_STATISTICS)
    }
    variables |= {
        name: (("direction", "source", "target"), diagnostics[index], {"long_name": meaning})
        for index, (name, meaning) in enumerate(DIAGNOSTICS.items())
        if np.isfinite(diagnostics[index]).any()
    }
    variables |= {"status": (dims[2:], status), "message": (dims[2:], message)}
    coordinates = {"direction": _texts(DIRECTIONS), "measure": _texts(part.settings.measures)}
    for side, bases in (("source", part.sources), ("target", part.targets)):
        coordinates[side] = _texts([basis.space.name for basis in bases])
        coordinates[f"{side}_model"] = (side, _texts([basis.space.model for basis in bases]))
        coordinates[f"{side}_layer"] = (side, _texts([basis.space.layer for basis in bases]))
        coordinates[f"{side}_depth"] = (side, np.array([basis.depth for basis in bases], dtype=float))
    return xr.Dataset(variables, coordinates, across_facts(part.part))


def _texts(values: Sequence[str]) -> Any:
    return np.array(list(values), dtype=object)
