"""Stage embeddings: t-SNE of chosen spaces, and what linear probes read off them before and after transfer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import groupby

import numpy as np
import xarray as xr
from jaxtyping import Int, Shaped

from lfm_tasks.config import EmbeddingsConfig
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.sources.opening import DatasetRows
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.transfer.evaluation import N_FOLDS, stratified_folds
from lfm_tasks.stages.bases.stage import SpaceBasis, not_computed
from lfm_tasks.stages.embeddings.job import (
    EmbeddedPoints,
    ProbeJob,
    TsneJob,
    read_points,
    store_probes,
    store_tsne,
)
from lfm_tasks.stages.inventory.correspondence import labels_of, text_labels
from lfm_tasks.stages.inventory.requests import embedded_spaces
from lfm_tasks.stages.inventory.stage import Zoo, drawn_rows, selected_rows
from lfm_tasks.stages.kept_maps.stage import embedded_pairs
from lfm_tasks.stages.scores.stage import ScoredPairs
from lfm_tasks.stores.units.store import Receipt, UnitStore, digest, ids_digest
from lfm_tasks.workers.pool import JobFailure

# Key of the points, which also decide the folds; content of source and target. Equal ones: the target's own probe.
ProbedPair = tuple[str, str, str]

_MEANINGS = {
    "tsne": "t-SNE of a space: near points are near in it, distances and sizes of groups mean nothing",
    "probe_accuracy": "of a linear probe (ridge) on points it was not trained on, 5 stratified folds, in [0, 1]",
    "probe_after_transfer": (
        "of the target's probe on the source's points, carried by a rotation and scale fitted on the training folds; "
        "the target's own where source and target are one space"
    ),
}


@dataclass(frozen=True)
class Embeddings:
    """The section ``embeddings``: spaces in the order of names, the unit of each, the accuracies of probes.

    ``units`` are keys, empty for a space whose embedding failed; ``points`` are keys by dataset.
    """

    spaces: tuple[SpaceBasis, ...] = ()
    units: tuple[str, ...] = ()
    accuracies: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    points: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """One digest of names, units, points and accuracies; none without spaces."""
        if not self.spaces:
            return ()
        named = [basis.space._asdict() for basis in self.spaces]
        accuracies = sorted([*pair, value] for pair, value in self.accuracies.items())
        content = {"spaces": named, "pictures": self.units, "points": self.points, "accuracies": accuracies}
        return (digest({"kind": "embeddings of an atlas", **content}),)

    @property
    def unit_keys(self) -> dict[str, set[str]]:
        """The embeddings and their points."""
        return {"embeddings": {key for key in self.units if key}, "embedded_points": set(self.points.values())}

    def groups(self, run: Run) -> dict[str, xr.Dataset]:
        """Return ``embeddings/<dataset>``: t-SNE (space, point, axis), accuracies (space) and (source, target)."""
        unit_of = zip((basis.space for basis in self.spaces), self.units, strict=True)
        by_dataset = groupby(unit_of, key=lambda space_and_key: space_and_key[0].dataset)
        return {f"embeddings/{dataset}": self._group(run, dataset, dict(units)) for dataset, units in by_dataset}

    def _group(self, run: Run, dataset: str, units: Mapping[Space, str]) -> xr.Dataset:
        points = read_points(run.store, self.points[dataset])
        names = [space.name for space in units]
        coordinates_of = np.full((len(names), len(points.ids), 2), np.nan, dtype=np.float32)
        for index, key in enumerate(units.values()):
            if key:
                with run.store.open("embeddings", key) as unit:
                    coordinates_of[index, np.searchsorted(points.ids, unit.read("ids"))] = unit.read("coordinates")
        pairs = [[(dataset, source, target) for target in names] for source in names]
        accuracies = np.array([[self.accuracies.get(pair, np.nan) for pair in row] for row in pairs])
        variables = {
            "tsne": (("space", "point", "axis"), coordinates_of),
            "probe_accuracy": (("space",), np.diag(accuracies).copy()),
            "probe_after_transfer": (("source", "target"), accuracies),
        }
        coordinates = {dim: np.array(names, dtype=object) for dim in ("space", "source", "target")}
        coordinates["point"] = points.ids.astype(object)
        settings = run.catalog.atlas.embeddings
        attributes = {"metric": run.catalog.atlas.graph.metric, "no_probe_because": points.reason}
        attributes |= {} if settings is None else settings.model_dump(include={"perplexity", "seed"})
        group = xr.Dataset(variables, coordinates, attributes)
        for name, meaning in _MEANINGS.items():
            group[name].attrs["long_name"] = meaning
        return group.assign_coords(label=("point", points.labels.astype(object)))


def embed_spaces(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> Embeddings:
    """Embed and probe the spaces that the catalog chooses, where that is not stored; nothing unless it chooses some."""
    settings = run.catalog.atlas.embeddings
    if settings is None or scored.n_not_computed or not_computed(run, zoo, spaces):
        return Embeddings()
    bases = {basis.space: basis for basis in spaces}
    chosen = [bases[space] for space in sorted(embedded_spaces(run.catalog, bases))]
    datasets = sorted({basis.space.dataset for basis in chosen})
    points = {dataset: store_points(run, settings, zoo.rows[dataset]) for dataset in datasets}
    keys, tsne_failures = embed_by_tsne(run, settings, [(basis, points[basis.space.dataset]) for basis in chosen])
    pairs = [(basis, basis) for basis in chosen]
    for first, second in sorted(embedded_pairs(run.catalog, zoo, bases, scored)):
        pairs += [(bases[first], bases[second]), (bases[second], bases[first])]
    to_probe = [
        (source, target, points[source.space.dataset])
        for source, target in pairs
        if not points[source.space.dataset].reason
    ]
    accuracies, probe_failures = probe_pairs(run, to_probe)
    failures = {
        basis.space: tsne_failures[key] for basis, key in zip(chosen, keys, strict=True) if key in tsne_failures
    }
    for source, target, its_points in to_probe:
        if failure := probe_failures.get(probed_pair(source, target, its_points)):
            failures.setdefault(target.space, failure)
    run.add_failures(Failure.of_space(space, "embeddings", failure) for space, failure in failures.items())
    return Embeddings(
        tuple(chosen),
        tuple("" if key in tsne_failures else key for key in keys),
        {
            (source.space.dataset, source.space.name, target.space.name): accuracies[pair]
            for source, target, its_points in to_probe
            if (pair := probed_pair(source, target, its_points)) in accuracies
        },
        {dataset: its_points.key for dataset, its_points in points.items()},
    )


def store_points(run: Run, settings: EmbeddingsConfig, rows: DatasetRows) -> EmbeddedPoints:
    """Commit the points of a dataset, if they are new, and return them.

    They are drawn from the ids of the dataset, not of its spaces: a new model changes nothing for the others.
    """
    ids = rows.ids[selected_rows(rows.ids, run.catalog, rows.points)]
    if len(ids) > settings.max_points:
        ids = ids[drawn_rows(ids, settings.max_points, kind="embeddings", seed=settings.seed)]
    labels = labels_of(ids, text_labels(rows)).astype(str)
    ingredients = {
        "kind": "embedded_points",
        "ids": ids_digest(ids),
        "labels": labels.tolist(),
        "folds": [N_FOLDS, settings.seed, version("scikit-learn")],
    }
    key = digest(ingredients)
    if run.store.find("embedded_points", key) is None:
        folds, reason = _folds(labels, settings.seed)
        with run.store.commit("embedded_points", key) as unit_writer:
            unit_writer.arrays.write("ids", ids)
            unit_writer.arrays.write("labels", labels)
            unit_writer.arrays.write("folds", folds)
            unit_writer.facts |= {"reason": reason}
    return read_points(run.store, key)


def _folds(labels: Shaped[np.ndarray, " points"], seed: int) -> tuple[Int[np.ndarray, " points"], str]:
    """Return the fold that tests each point, -1 for points without a label, and why there are none at all."""
    folds, is_labeled = np.full(len(labels), -1, dtype=np.int32), labels != ""
    if not is_labeled.any():
        return folds, "got no labels in the dataset, expected classes for a probe. Give it labels"
    try:
        folds[is_labeled] = stratified_folds(labels[is_labeled], seed=seed)
    except DataError as error:
        return folds, str(error)
    return folds, ""


def embed_by_tsne(
    run: Run, settings: EmbeddingsConfig, spaces: list[tuple[SpaceBasis, EmbeddedPoints]]
) -> tuple[list[str], dict[str, JobFailure]]:
    """Return the key of each embedding, and the failures by key; spaces of the same content share an embedding."""
    metric = run.catalog.atlas.graph.metric
    planned = [
        TsneJob(run.store, _tsne_key(basis, points, metric, settings), basis.activations, points.key, metric, settings)
        for basis, points in spaces
    ]
    jobs = list({job.key: job for job in planned if run.store.find("embeddings", job.key) is None}.values())
    failures: dict[str, JobFailure] = {}
    for job, result in run.results("embeddings", store_tsne, jobs):
        if isinstance(result, JobFailure):
            failures[job.key] = result
    run.stage_counts.add("embeddings", len(jobs) - len(failures), len({job.key for job in planned}) - len(jobs))
    return [job.key for job in planned], failures


def _tsne_key(basis: SpaceBasis, points: EmbeddedPoints, metric: str, settings: EmbeddingsConfig) -> str:
    return digest(
        {
            "kind": "embeddings",
            "content": basis.content,
            "points": points.ids_key,
            "metric": metric,
            "perplexity": settings.perplexity,
            "seed": settings.seed,
            "version": version("scikit-learn"),
        }
    )


def probe_pairs(
    run: Run, pairs: list[tuple[SpaceBasis, SpaceBasis, EmbeddedPoints]]
) -> tuple[dict[ProbedPair, float], dict[ProbedPair, JobFailure]]:
    """Return the accuracy of each (source, target), computed where it is missing, and the failures."""
    wanted = {probed_pair(source, target, points) for source, target, points in pairs}
    activations = {basis.content: basis.activations for source, target, _ in pairs for basis in (source, target)}
    places = {pair: place for pair, place in _places(run.store.receipts("probes")) if pair in wanted}
    jobs = list(_probe_jobs(run.store, sorted(wanted - places.keys()), activations))
    failures: dict[ProbedPair, JobFailure] = {}
    for job, result in run.results("probes", store_probes, jobs):
        if isinstance(result, JobFailure):
            failures |= {(job.points, source, job.target): result for source in job.sources}
        else:
            places |= dict(_places([run.store.receipt("probes", job.key)]))
    n_computed = sum(len(job.sources) for job in jobs) - len(failures)
    run.stage_counts.add("probes", n_computed, len(places) - n_computed)
    blocks = {}
    for block in {block for block, _ in places.values()}:
        with run.store.open("probes", block) as unit:
            blocks[block] = unit.read("accuracies")
    return {pair: float(blocks[block][row]) for pair, (block, row) in places.items()}, failures


def probed_pair(source: SpaceBasis, target: SpaceBasis, points: EmbeddedPoints) -> ProbedPair:
    """Return the name of a pair in stored units."""
    return points.key, source.content, target.content


def _probe_jobs(store: UnitStore, missing: list[ProbedPair], activations: Mapping[str, str]) -> Iterator[ProbeJob]:
    by_target: dict[tuple[str, str], list[str]] = {}
    for points, source, target in missing:
        by_target.setdefault((points, target), []).append(source)
    for (points, target), sources in sorted(by_target.items()):
        key = digest({"kind": "probes", "points": points, "target": target, "sources": sources})
        units = {content: activations[content] for content in (target, *sources)}
        yield ProbeJob(store, key, points, target, tuple(sources), units)


def _places(receipts: Iterable[Receipt]) -> Iterator[tuple[ProbedPair, tuple[str, int]]]:
    for receipt in receipts:
        for row, source in enumerate(receipt.facts["sources"]):
            yield (receipt.facts["points"], source, receipt.facts["target"]), (receipt.key, row)
