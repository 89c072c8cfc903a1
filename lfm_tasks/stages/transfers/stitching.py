"""Stitching: what the target's head makes of activations that were carried into its space."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.patterns import fill
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.datasets import DatasetRows, read_dataset
from lfm_tasks.sources.networks.heads import open_head
from lfm_tasks.sources.networks.onnx_heads import Head
from lfm_tasks.spaces import Space
from lfm_tasks.stores.units.digests import digest, file_digest, ids_digest


@dataclass(frozen=True)
class ClassLabels:
    """The class of each id of a dataset: ``names`` in order, ``classes`` their numbers; ids in ascending order."""

    ids: Shaped[np.ndarray, " points"]
    classes: Int[np.ndarray, " points"]
    names: Shaped[np.ndarray, " classes"]

    def of(self, ids: Shaped[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Return the numbers of the classes of some ids; −1 for ids that have none."""
        known = dict(zip(self.ids.tolist(), self.classes.tolist(), strict=True))
        return np.array([known.get(name, -1) for name in ids.tolist()], dtype=np.int64)

    @property
    def key(self) -> str:
        """The content address."""
        own = {"ids": ids_digest(self.ids), "classes": self.classes.tolist(), "names": self.names.astype(str).tolist()}
        return digest({"kind": "labels", **own})


def class_labels(rows: DatasetRows) -> ClassLabels | None:
    """Return the classes of a dataset's ids; None where it has no labels."""
    if rows.labels is None:
        return None
    order = np.argsort(rows.ids, kind="stable")
    names, classes = np.unique(rows.labels[order], return_inverse=True)
    return ClassLabels(rows.ids[order], classes, names)


@dataclass(frozen=True)
class Stitched:
    """A head, and what it should say: output number c stands for the label c."""

    head: Head
    labels: ClassLabels

    def accuracy(self, rows: Float[np.ndarray, "points features"], ids: Shaped[np.ndarray, " points"]) -> float:
        """Return the share of rows that the head names rightly, among those whose ids have a label."""
        wanted = self.labels.of(ids)
        known = wanted >= 0
        named = self.head.apply(rows[known].astype(np.float32)).argmax(axis=1)
        return float((named == self.labels.names[wanted[known]]).mean()) if known.any() else np.nan


def stitching_ingredients(space: Space, catalog: Catalog) -> dict[str, Any]:
    """Return what decides a stitched accuracy beside the activations, for a digest: the network's file."""
    model = catalog.models[space.model]
    if model.onnx is None:
        return {}
    path = catalog.root / fill(model.onnx.path, model=space.model, dataset=model.onnx.dataset)
    output = model.head.output if model.head else None
    return {"head": file_digest(path), "layer": space.layer, "output": output, "pool": model.onnx.pool}


def open_stitching(space: Space, catalog: Catalog, labels: ClassLabels | None) -> Stitched:
    """Return the head that starts at ``space``.

    Raises
    ------
    ReasonError
        ``missing_source`` if there are no labels that count classes; and as `open_head`.
    """
    if labels is None:
        raise ReasonError("missing_source", f"found no labels in the dataset {space.dataset}: add labels to it")
    if labels.names.dtype.kind not in "iu" or labels.names.min() < 0:
        found = f"found labels of type {labels.names.dtype}, needs class numbers from 0, as the head's outputs are"
        raise ReasonError("wrong_dtype", f"dataset {space.dataset}: {found}: number them")
    return Stitched(open_head(space.model, catalog.models[space.model], catalog, space.layer), labels)


def space_labels(space: Space, catalog: Catalog) -> ClassLabels | None:
    """Return the classes of the dataset that a space is seen through."""
    return class_labels(read_dataset(space.dataset, catalog))
