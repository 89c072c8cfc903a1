"""One embedding on a worker: a space drawn by t-SNE, or the linear probes of one target."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.config import EmbeddingsConfig
from lfm_tasks.spectral.neighbors.projections import Metric
from lfm_tasks.spectral.transfer.evaluation import probe_accuracy, transferred_probe_accuracy, tsne
from lfm_tasks.stages.activations.job import read_rows
from lfm_tasks.stores.units.store import UnitStore, ids_digest


@dataclass(frozen=True)
class EmbeddedPoints:
    """The points of a dataset that are embedded: ids in ascending order, their labels, the fold that tests each.

    The fold is -1 for points that no fold tests; ``reason``: why there are no probes, empty if there are.
    """

    key: str
    ids: Shaped[np.ndarray, " points"]
    labels: Shaped[np.ndarray, " points"]
    folds: Int[np.ndarray, " points"]
    reason: str

    @property
    def ids_key(self) -> str:
        """The digest of the ids alone: embeddings do not depend on labels."""
        return ids_digest(self.ids)


def read_points(store: UnitStore, key: str) -> EmbeddedPoints:
    """Return committed points."""
    with store.open("embedded_points", key) as unit:
        ids, labels, folds = unit.read("ids"), np.array(unit.read("labels").tolist()), unit.read("folds")
    return EmbeddedPoints(key, ids, labels, folds, store.receipt("embedded_points", key).facts["reason"])


@dataclass(frozen=True)
class TsneJob:
    """One space to embed by t-SNE; ``activations`` and ``points`` are units."""

    store: UnitStore
    key: str
    activations: str
    points: str
    metric: Metric
    settings: EmbeddingsConfig


def store_tsne(job: TsneJob) -> None:
    """Read the embedded points of a space, embed them, commit their coordinates."""
    points = read_points(job.store, job.points)
    with job.store.open("activations", job.activations) as unit:
        common, rows, _ = np.intersect1d(unit.read("ids"), points.ids, assume_unique=True, return_indices=True)
        activations = read_rows(unit, rows)
    settings = job.settings
    coordinates = tsne(activations, perplexity=settings.perplexity, seed=settings.seed, metric=job.metric)
    with job.store.commit("embeddings", job.key) as unit_writer:
        unit_writer.arrays.write("coordinates", coordinates)
        unit_writer.arrays.write("ids", common)


@dataclass(frozen=True)
class ProbeJob:
    """The probe of one target, and the sources that are carried into its space.

    ``target`` and ``sources`` are digests of contents, ``activations`` the unit of each of them.
    """

    store: UnitStore
    key: str
    points: str
    target: str
    sources: tuple[str, ...]
    activations: Mapping[str, str]


def store_probes(job: ProbeJob) -> None:
    """Train the probe of a target; test it on the target's points, or on those of the sources, carried; commit."""
    points = read_points(job.store, job.points)
    tested = np.flatnonzero(points.folds >= 0)

    def read_tested(content: str) -> tuple[np.ndarray, np.ndarray]:
        with job.store.open("activations", job.activations[content]) as unit:
            ids = unit.read("ids")
            _, rows, places = np.intersect1d(ids, points.ids[tested], assume_unique=True, return_indices=True)
            return read_rows(unit, rows), tested[places]

    target, target_points = read_tested(job.target)
    accuracies = []
    for content in job.sources:
        if content == job.target:
            accuracies.append(probe_accuracy(target, points.labels[target_points], points.folds[target_points]))
            continue
        source, source_points = read_tested(content)
        common, source_rows, target_rows = np.intersect1d(source_points, target_points, return_indices=True)
        classes, folds = points.labels[common], points.folds[common]
        accuracies.append(transferred_probe_accuracy(source[source_rows], target[target_rows], classes, folds))
    with job.store.commit("probes", job.key) as unit_writer:
        unit_writer.arrays.write("accuracies", np.array(accuracies))
        unit_writer.facts |= {"points": job.points, "target": job.target, "sources": list(job.sources)}
