"""Derived zoos: spaces made of recorded ones, as files and a catalog that the pipeline runs like any other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.catalog import ActivationsSource, Catalog, Comparison, Dataset, DatasetFile, Model, ModelFile
from lfm_tasks.catalog.writing import catalog_yaml
from lfm_tasks.config import AtlasConfig, IntervalsConfig, NullConfig
from lfm_tasks.experiments.given import Given, SpaceRows
from lfm_tasks.stores.units.durable import write_durably


@dataclass(frozen=True)
class DerivedModel:
    """The layers of one model, all on the same ids, and facts about it."""

    layers: Mapping[str, SpaceRows]
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DerivedZoo:
    """Models by name on points with these ids, and what to compare."""

    models: Mapping[str, DerivedModel]
    ids: Shaped[np.ndarray, " points"]
    labels: Shaped[np.ndarray, " points"] | None = None
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)


def scores_only(given: Given, **changes: Any) -> AtlasConfig:
    """Return the settings of the given catalog for plain scores: no chance levels, no intervals, nothing kept.

    The intervals of experiments are over networks, classes or draws. Changes come last.
    """
    plain: dict[str, Any] = {
        "path": "atlas",
        "store": "store",
        "null": NullConfig(n_permutations=0),
        "intervals": IntervalsConfig(n_groups=0),
        "keep_maps": "none",
        "collection": None,
        "embeddings": None,
        "max_points": None,  # what was recorded is capped already
    }
    return given.catalog.atlas.model_copy(update=plain | changes)


def write_zoo(zoo: DerivedZoo, folder: Path) -> dict[str, Model]:
    """Write the arrays of a derived zoo into ``folder``; return its models as catalogs name them."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "ids.npy", _plain(zoo.ids))
    if zoo.labels is not None:
        np.save(folder / "labels.npy", zoo.labels)
    models = {}
    for name, model in zoo.models.items():
        own = _plain(next(iter(model.layers.values())).ids)
        arrays: dict[str, Any] = {layer: rows.activations for layer, rows in model.layers.items()}
        np.savez(folder / f"{name}.npz", allow_pickle=False, ids=own, **arrays)
        source = ActivationsSource(
            path="{model}.npz", key="{layer}", dataset="points", ids=ModelFile(path="{model}.npz", key="ids")
        )
        models[name] = Model(activations=source, layers=tuple(model.layers), meta=dict(model.meta))
    return models


def write_catalog(zoo: DerivedZoo, models: Mapping[str, Model], atlas: AtlasConfig, path: Path) -> Path:
    """Write a catalog of a derived zoo beside its arrays, and return where it is."""
    labels = None if zoo.labels is None else DatasetFile(path="labels.npy")
    catalog = Catalog(
        version=1,
        datasets={"points": Dataset(ids=DatasetFile(path="ids.npy"), labels=labels)},
        models=dict(models),
        comparisons=dict(zoo.comparisons),
        atlas=atlas,
        root=path.parent,
    )
    write_durably(path, catalog_yaml(catalog).encode())
    return path


def _plain(ids: Shaped[np.ndarray, " points"]) -> Shaped[np.ndarray, " points"]:
    """Return ids as text of fixed width, which needs no pickle."""
    return np.array(ids.tolist(), dtype=str)
