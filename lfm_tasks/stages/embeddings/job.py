"""What an embedding is made of: its points, t-SNE, probes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.config import EmbeddingsConfig
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import Run
from lfm_tasks.sources.opening import DatasetRows
from lfm_tasks.spectral.neighbors.projections import Metric
from lfm_tasks.spectral.transfer.evaluation import (
    N_FOLDS,
    probe_accuracy,
    stratified_folds,
    transferred_probe_accuracy,
    tsne,
)
from lfm_tasks.stages.activations.job import read_rows
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.inventory.correspondence import labels_of, text_labels
from lfm_tasks.stages.inventory.stage import drawn_rows, selected_rows
from lfm_tasks.stores.units.store import Receipt, UnitStore, digest, ids_digest
from lfm_tasks.workers.pool import JobFailure


@dataclass(frozen=True)
class EmbeddedPoints:
    """Ids in ascending order, their labels, the fold that tests each (-1: none); ``reason``: why there is no probe."""

    key: str
    ids: Shaped[np.ndarray, " points"]
    labels: Shaped[np.ndarray, " points"]
    folds: Int[np.ndarray, " points"]
    reason: str

    @property
    def ids_key(self) -> str:
        """The digest of the ids alone: pictures do not depend on labels."""
        return ids_digest(self.ids)


def store_points(run: Run, rows: DatasetRows) -> EmbeddedPoints:
    """Commit the points of a dataset, if they are new, and return them.

    They are drawn from the ids of the dataset, not of its spaces: a model that arrives changes nothing for the others.
    """
    wanted = run.catalog.atlas.embeddings
    if wanted is None:
        raise ValueError("no embeddings are asked for")
    ids = rows.ids[selected_rows(rows.ids, run.catalog)]
    if len(ids) > wanted.max_points:
        ids = ids[drawn_rows(ids, wanted.max_points, kind="embeddings", seed=wanted.seed)]
    labels = labels_of(ids, text_labels(rows)).astype(str)
    ingredients = {
        "kind": "embedded_points",
        "ids": ids_digest(ids),
        "labels": labels.tolist(),
        "folds": [N_FOLDS, wanted.seed, version("scikit-learn")],
    }
    key = digest(ingredients)
    if run.store.find("embedded_points", key) is None:
        folds, reason = _folds(labels, wanted.seed)
        with run.store.commit("embedded_points", key) as unit_writer:
            unit_writer.arrays.write("ids", ids)
            unit_writer.arrays.write("labels", labels)
            unit_writer.arrays.write("folds", folds)
            unit_writer.facts |= {"reason": reason}
    return read_points(run.store, key)


def read_points(store: UnitStore, key: str) -> EmbeddedPoints:
    """Return committed points."""
    with store.open("embedded_points", key) as unit:
        ids, labels, folds = unit.read("ids"), np.array(unit.read("labels").tolist()), unit.read("folds")
    return EmbeddedPoints(key, ids, labels, folds, store.receipt("embedded_points", key).facts["reason"])


def _folds(labels: Shaped[np.ndarray, " points"], seed: int) -> tuple[Int[np.ndarray, " points"], str]:
    folds, known = np.full(len(labels), -1, dtype=np.int32), labels != ""
    if not known.any():
        return folds, "found no labels in the dataset, a probe needs classes: give it labels"
    try:
        folds[known] = stratified_folds(labels[known], seed=seed)
    except DataError as error:
        return folds, str(error)
    return folds, ""


@dataclass(frozen=True)
class TsneJob:
    """One space to draw, on the points of its dataset."""

    store: UnitStore
    key: str
    activations: str
    points: str
    metric: Metric
    settings: EmbeddingsConfig


def embed_by_tsne(
    run: Run, settings: EmbeddingsConfig, wanted: list[tuple[SpaceBasis, EmbeddedPoints]]
) -> tuple[list[str], dict[str, JobFailure]]:
    """Return the key of each picture, and why some could not be made; spaces of the same content share one."""
    metric = run.catalog.atlas.graph.metric
    planned = [
        TsneJob(run.store, _key(based, points, metric, settings), based.activations, points.key, metric, settings)
        for based, points in wanted
    ]
    jobs = list({job.key: job for job in planned if run.store.find("embeddings", job.key) is None}.values())
    troubles = {}
    run.announce("embeddings", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_tsne, jobs), start=1):
        if isinstance(result, JobFailure):
            troubles[jobs[number].key] = result
        run.announce("embeddings", done, len(jobs))
    run.stage_counts.count("embeddings", len(jobs) - len(troubles), len({job.key for job in planned}) - len(jobs))
    return [job.key for job in planned], troubles


def store_tsne(job: TsneJob) -> None:
    """Read the points of a space, draw them, commit the drawing."""
    points = read_points(job.store, job.points)
    with job.store.open("activations", job.activations) as unit:
        common, here, _ = np.intersect1d(unit.read("ids"), points.ids, assume_unique=True, return_indices=True)
        rows = read_rows(unit, here)
    drawn = tsne(rows, perplexity=job.settings.perplexity, seed=job.settings.seed, metric=job.metric)
    with job.store.commit("embeddings", job.key) as unit_writer:
        unit_writer.arrays.write("coordinates", drawn)
        unit_writer.arrays.write("ids", common)


def _key(based: SpaceBasis, points: EmbeddedPoints, metric: str, settings: EmbeddingsConfig) -> str:
    return digest(
        {
            "kind": "embeddings",
            "content": based.content,
            "points": points.ids_key,
            "metric": metric,
            "perplexity": settings.perplexity,
            "seed": settings.seed,
            "version": version("scikit-learn"),
        }
    )


# Key of the points, which also decide the folds; content of source and target. Equal ones: the target's own probe.
ProbedPair = tuple[str, str, str]


@dataclass(frozen=True)
class ProbeJob:
    """One target, and the sources that are carried into it; content → unit of the activations."""

    store: UnitStore
    key: str
    points: str
    target: str
    sources: tuple[str, ...]
    activations: Mapping[str, str]


def probe_pairs(
    run: Run, wanted: list[tuple[SpaceBasis, SpaceBasis, EmbeddedPoints]]
) -> tuple[dict[ProbedPair, float], dict[ProbedPair, JobFailure]]:
    """Return the accuracy of each (source, target), computed where it is missing, and why some have none."""
    pairs = {probed_pair(source, target, own) for source, target, own in wanted}
    activations = {based.content: based.activations for *both, _ in wanted for based in both}
    known = {pair: where for pair, where in _stored(run.store.receipts("probes")) if pair in pairs}
    jobs = list(_jobs(run.store, sorted(pairs - known.keys()), activations))
    troubles: dict[ProbedPair, JobFailure] = {}
    run.announce("probes", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_probes, jobs), start=1):
        job = jobs[number]
        if isinstance(result, JobFailure):
            troubles |= {(job.points, source, job.target): result for source in job.sources}
        else:
            known |= dict(_stored([run.store.receipt("probes", job.key)]))
        run.announce("probes", done, len(jobs))
    n_new = sum(len(job.sources) for job in jobs) - len(troubles)
    run.stage_counts.count("probes", n_new, len(known) - n_new)
    blocks = {}
    for block in {block for block, _ in known.values()}:
        with run.store.open("probes", block) as unit:
            blocks[block] = unit.read("accuracies")
    return {pair: float(blocks[block][row]) for pair, (block, row) in known.items()}, troubles


def probed_pair(source: SpaceBasis, target: SpaceBasis, points: EmbeddedPoints) -> ProbedPair:
    """Return how units name a pair."""
    return points.key, source.content, target.content


def store_probes(job: ProbeJob) -> None:
    """Train the probe of a target, test it on its own rows or on those of the sources carried over; commit."""
    points = read_points(job.store, job.points)
    tested = np.flatnonzero(points.folds >= 0)

    def rows_of(content: str) -> tuple[np.ndarray, np.ndarray]:
        with job.store.open("activations", job.activations[content]) as unit:
            ids = unit.read("ids")
            _, here, there = np.intersect1d(ids, points.ids[tested], assume_unique=True, return_indices=True)
            return read_rows(unit, here), tested[there]

    target, target_points = rows_of(job.target)
    accuracies = []
    for content in job.sources:
        if content == job.target:
            accuracies.append(probe_accuracy(target, points.labels[target_points], points.folds[target_points]))
            continue
        source, source_points = rows_of(content)
        common, ours, theirs = np.intersect1d(source_points, target_points, return_indices=True)
        classes, folds = points.labels[common], points.folds[common]
        accuracies.append(transferred_probe_accuracy(source[ours], target[theirs], classes, folds))
    with job.store.commit("probes", job.key) as unit_writer:
        unit_writer.arrays.write("accuracies", np.array(accuracies))
        unit_writer.facts |= {"points": job.points, "target": job.target, "sources": list(job.sources)}


def _jobs(store: UnitStore, missing: list[ProbedPair], activations: Mapping[str, str]) -> Iterator[ProbeJob]:
    by_target: dict[tuple[str, str], list[str]] = {}
    for points, source, target in missing:
        by_target.setdefault((points, target), []).append(source)
    for (points, target), sources in sorted(by_target.items()):
        key = digest({"kind": "probes", "points": points, "target": target, "sources": sources})
        own = {content: activations[content] for content in (target, *sources)}
        yield ProbeJob(store, key, points, target, tuple(sources), own)


def _stored(receipts: Iterable[Receipt]) -> Iterator[tuple[ProbedPair, tuple[str, int]]]:
    for receipt in receipts:
        for row, source in enumerate(receipt.facts["sources"]):
            yield (receipt.facts["points"], source, receipt.facts["target"]), (receipt.key, row)
