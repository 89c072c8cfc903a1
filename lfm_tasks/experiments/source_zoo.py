"""The zoo that experiments start from, and the zoos that they derive from it: spaces, networks, classes, catalogs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog import ActivationsSource, Catalog, Comparison, Dataset, DatasetFile, DatasetIds, Model, ModelIds
from lfm_tasks.catalog.reading import catalog_yaml
from lfm_tasks.config import AtlasConfig, IntervalsConfig, NullConfig
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import Run
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.automatic import BasisNumbers
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.transfers.job import ClassLabels, class_labels
from lfm_tasks.stores.units.durable import atomic_write
from lfm_tasks.stores.units.store import UnitStore


@dataclass(frozen=True)
class Architecture:
    """Networks on one dataset that differ by their seed: the same layers, of the same widths, first layer first."""

    dataset: str
    models: tuple[str, ...]
    layers: tuple[str, ...]
    widths: tuple[int, ...]


@dataclass(frozen=True)
class SpaceRows:
    """The rows of a space, their ids in ascending order."""

    ids: Shaped[np.ndarray, " points"]
    activations: Float[np.ndarray, "points features"]


@dataclass(frozen=True)
class SourceZoo:
    """The recorded spaces of a run's catalog, and the ids and labels of its datasets."""

    run: Run
    zoo: Zoo
    spaces: tuple[RecordedSpace, ...]

    @property
    def catalog(self) -> Catalog:
        """The catalog of the zoo."""
        return self.run.catalog

    def space(self, model: str, layer: str) -> RecordedSpace:
        """Return a recorded space by its names, on the dataset of `networks`."""
        named = Space(self.networks().dataset, model, layer)
        return next(one for one in self.spaces if one.space == named)

    def read(self, model: str, layer: str) -> SpaceRows:
        """Return the rows of a space, float64."""
        return read_space_rows(self.run.store, self.space(model, layer).key)

    def architectures(self) -> list[Architecture]:
        """Return networks by architecture, the largest group first: in a group they differ by their seed.

        Networks that were made of others (``base_model``) or never trained (``untrained``) are in none.
        """
        groups: dict[tuple[str, tuple[tuple[str, int], ...]], list[str]] = {}
        for (dataset, model), layers in self._layers().items():
            meta = self.catalog.models[model].meta
            if not meta.get("base_model") and not meta.get("untrained"):
                shape = tuple((one.space.layer, one.n_features) for one in layers)
                groups.setdefault((dataset, shape), []).append(model)
        architectures = [
            Architecture(dataset, tuple(sorted(models)), *(tuple(side) for side in zip(*shape, strict=True)))
            for (dataset, shape), models in groups.items()
        ]
        return sorted(architectures, key=lambda one: (-len(one.models), one.dataset, one.models))

    def networks(self) -> Architecture:
        """Return the largest group of networks of one architecture, which may be one network.

        Raises
        ------
        DataError
            ``missing_source`` if there is none.
        """
        if architectures := self.architectures():
            return architectures[0]
        n_models = len(self.catalog.models)
        raise DataError(
            "missing_source",
            f"got {n_models} models, none of them trained from scratch and readable, expected one. Leave base_model "
            "and untrained out of the meta of one that is",
        )

    def numbers(self, dataset: str) -> BasisNumbers:
        """Return how many neighbors and eigenpairs the bases of a dataset have."""
        return self.zoo.numbers(dataset, self.catalog.atlas)

    def seeds(self) -> Architecture:
        """Return the largest group of at least two networks that differ by their seed alone.

        Raises
        ------
        DataError
            ``missing_source`` if no two networks differ by their seed alone.
        """
        group = self.networks()
        if len(group.models) > 1:
            return group
        n_networks = len({model for _, model in self._layers()})
        raise DataError(
            "missing_source",
            f"got {n_networks} networks, no two with the same layers of the same widths, expected two that differ by "
            "their seed alone. Add them, or leave base_model and untrained out of the meta of those that do",
        )

    def last_hidden(self, architecture: Architecture) -> str:
        """Return the layer that the classifier reads: the ``head`` of the catalog, or the last before the outputs.

        A last layer with one feature for each class holds the outputs themselves.
        """
        head = self.catalog.models[architecture.models[0]].head
        if head is not None and head.layer in architecture.layers:
            return head.layer
        n_classes = len(self.classes(architecture.dataset).names)
        is_output = architecture.widths[-1] == n_classes and len(architecture.layers) > 1
        return architecture.layers[-2 if is_output else -1]

    def classes(self, dataset: str) -> ClassLabels:
        """Return the classes of a dataset's points.

        Raises
        ------
        DataError
            ``missing_source`` for a dataset without labels, ``one_class`` for one class only.
        """
        labels = class_labels(self.zoo.rows[dataset])
        if labels is None:
            message = f"got no labels in the dataset {dataset}, expected the class of each point"
            raise DataError("missing_source", f"{message}. Add labels: {{path: labels.npy}}")
        if len(labels.names) < 2:
            message = f"got {len(labels.names)} classes in the labels of the dataset {dataset}, expected at least 2"
            raise DataError("one_class", f"{message}. Give other labels")
        return labels

    def _layers(self) -> Mapping[tuple[str, str], list[RecordedSpace]]:
        """Return the layers of each model, first layer first, by dataset and model."""
        by_model: dict[tuple[str, str], list[RecordedSpace]] = {}
        for one in sorted(self.spaces, key=lambda one: (one.space.model, one.depth, one.space.layer)):
            by_model.setdefault((one.space.dataset, one.space.model), []).append(one)
        return by_model


def read_space_rows(store: UnitStore, key: str) -> SpaceRows:
    """Return the rows of a recorded space, float64."""
    with store.open("activations", key) as unit:
        return SpaceRows(unit.read("ids"), read_activations(unit).astype(np.float64))


def labeled_rows(rows: SpaceRows, labels: ClassLabels) -> tuple[SpaceRows, Int[np.ndarray, " points"]]:
    """Return the rows whose ids have a class, and the class numbers."""
    classes = labels.of(rows.ids)
    known = classes >= 0
    return SpaceRows(rows.ids[known], rows.activations[known]), classes[known]


@dataclass(frozen=True)
class DerivedModel:
    """The layers of one model, all on the same ids, and facts about it."""

    layers: Mapping[str, SpaceRows]
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DerivedZoo:
    """Models by name, the ids and labels of their points, and which of them to compare."""

    models: Mapping[str, DerivedModel]
    ids: Shaped[np.ndarray, " points"]
    labels: Shaped[np.ndarray, " points"] | None = None
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)


def scores_only(source: SourceZoo, **changes: Any) -> AtlasConfig:
    """Return the settings of the source's catalog for plain scores: no chance levels, no intervals, nothing kept.

    The intervals of experiments are over networks, classes or draws. ``changes`` override all else.
    """
    plain: dict[str, Any] = {
        "path": "atlas",
        "store": "store",
        "null": NullConfig(n_permutations=0),
        "intervals": IntervalsConfig(n_splits=0),
        "keep_maps": "none",
        "collection": None,
        "embeddings": None,
        "max_points": None,  # what was recorded is capped already
    }
    return source.catalog.atlas.model_copy(update=plain | changes)


def write_zoo(zoo: DerivedZoo, folder: Path) -> dict[str, Model]:
    """Write the arrays of a derived zoo into ``folder``; return its models as catalogs name them."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "ids.npy", _plain(zoo.ids))
    if zoo.labels is not None:
        np.save(folder / "labels.npy", zoo.labels)
    models = {}
    for name, model in zoo.models.items():
        ids = _plain(next(iter(model.layers.values())).ids)
        arrays: dict[str, Any] = {layer: rows.activations for layer, rows in model.layers.items()}
        np.savez(folder / f"{name}.npz", allow_pickle=False, ids=ids, **arrays)
        source = ActivationsSource(
            path="{model}.npz", key="{layer}", dataset="points", ids=ModelIds(path="{model}.npz", key="ids")
        )
        models[name] = Model(activations=source, layers=tuple(model.layers), meta=dict(model.meta))
    return models


def write_catalog(zoo: DerivedZoo, models: Mapping[str, Model], atlas: AtlasConfig, path: Path) -> Path:
    """Write a catalog of a derived zoo beside its arrays, and return its path."""
    labels = None if zoo.labels is None else DatasetFile(path="labels.npy")
    catalog = Catalog(
        version=1,
        datasets={"points": Dataset(ids=DatasetIds(path="ids.npy"), labels=labels)},
        models=dict(models),
        comparisons=dict(zoo.comparisons),
        atlas=atlas,
        root=path.parent,
    )
    atomic_write(path, catalog_yaml(catalog).encode())
    return path


def _plain(ids: Shaped[np.ndarray, " points"]) -> Shaped[np.ndarray, " points"]:
    """Return ids as text of fixed width, which needs no pickle."""
    return np.array(ids.tolist(), dtype=str)
