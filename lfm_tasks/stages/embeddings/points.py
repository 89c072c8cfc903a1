"""The points of a dataset that pictures and probes are made of: the same for all of its spaces."""

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.reasons import ReasonError
from lfm_tasks.runtime.run import Run
from lfm_tasks.sources.datasets import DatasetRows
from lfm_tasks.spectral.transfer.probe import N_FOLDS, stratified_folds
from lfm_tasks.stages.inventory.labels import labels_of, text_labels
from lfm_tasks.stages.inventory.sampling import drawn_rows, selected_rows
from lfm_tasks.stores.units.digests import digest, ids_digest
from lfm_tasks.stores.units.store import UnitStore


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
    except ReasonError as error:
        return folds, str(error)
    return folds, ""
