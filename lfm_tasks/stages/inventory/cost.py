"""Sizes that a run's cost is estimated from."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from lfm_tasks.catalog import Catalog, Model
from lfm_tasks.catalog.names import fill_pattern
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.load import SpaceSize
from lfm_tasks.sources.files.pooling import pooled_features
from lfm_tasks.sources.networks.recording import RecordedSource
from lfm_tasks.sources.source import FileSource, Source
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.requests import PairSelection, embedded_spaces, n_directed_pairs

# Features of a layer that only a run of its network can tell.
_UNKNOWN_FEATURES = 512


def likely(size: SpaceSize) -> SpaceSize:
    """Return the size to reckon with: with a guess where only a run of its network can tell the features."""
    return size if size.n_features else replace(size, n_features=_UNKNOWN_FEATURES)


def model_size(name: str, model: Model, source: Source, catalog: Catalog, n_points: int) -> SpaceSize:
    """Return the size that all layers of a model have in common; `with_layer` adds the features of one."""
    ids = source.ids[:1000]
    id_bytes = round(float(np.mean([len(str(one).encode()) for one in ids]))) if len(ids) else 0
    return SpaceSize(name, n_points, 0, 4, id_bytes, 0, _weight_bytes(name, model, catalog))


def with_layer(whole: SpaceSize, space: Space, source: Source, pool: str) -> SpaceSize:
    """Return the size of one layer, as its header says."""
    if isinstance(source, FileSource):
        n_features, itemsize, held = source.layout(space.layer)
        return replace(whole, name=space.name, n_features=n_features, itemsize=itemsize, held_bytes=held)
    n_features = 0
    if isinstance(source, RecordedSource):
        shape = source.layer_shapes().get(space.layer, (None,))
        try:
            n_features = 0 if None in shape else pooled_features([length or 0 for length in shape], pool)
        except DataError:
            n_features = 0  # reported when it is recorded
    return replace(whole, name=space.name, n_features=n_features)


def _weight_bytes(name: str, model: Model, catalog: Catalog) -> int:
    recorded = model.onnx.path if model.onnx else model.torch.weights if model.torch else None
    if recorded is None or "://" in recorded:
        return 0
    path = catalog.locate(fill_pattern(recorded, model=name, dataset=model.dataset))
    return path.stat().st_size if path.is_file() else 0


# How failures name the setting.
KEEP_MAPS = "atlas.keep_maps"
# They are published in one piece, laid out in memory first (bytes, per dataset).
MOST_BYTES = 4 << 30


def oversized_maps(catalog: Catalog, parts: Iterable[PairSelection], sizes: Mapping[Space, int]) -> dict[str, str]:
    """Return a sentence for each dataset whose kept maps would take more than 4 GiB; ``sizes`` are numbers of points.

    A map takes 4 K² bytes, its distortions 8 bytes a point.
    """
    parts, messages = list(parts), {}
    for dataset in sorted({space.dataset for space in sizes}):
        of_dataset = [part for part in parts if part.dataset == dataset]
        spaces = [space for space in sizes if space.dataset == dataset]
        n_maps = n_kept_maps(catalog, of_dataset, spaces)
        n_points = max(sizes[space] for space in spaces)
        n_bytes = n_maps * (4 * catalog.atlas.n_eigenpairs**2 + 8 * n_points)
        if n_bytes > MOST_BYTES:
            size = f"found {n_maps} maps of {n_points} points to keep, {n_bytes / 2**30:.1f} GiB"
            advice = "set atlas.keep_maps to best or none, embed fewer spaces, or set atlas.max_points"
            messages[dataset] = f"{size}, needs at most {MOST_BYTES >> 30} GiB: {advice}"
    return messages


def n_kept_maps(catalog: Catalog, parts: list[PairSelection], spaces: list[Space]) -> int:
    """Return how many maps of one dataset the catalog keeps, at most."""
    keep, pictured = catalog.atlas.keep_maps, set(embedded_spaces(catalog, spaces))
    embedded = {
        frozenset(pair)
        for part in parts
        for pair in product(pictured.intersection(part.sources), pictured.intersection(part.targets))
    }
    n_embedded = sum(len(pair) == 2 for pair in embedded)
    if keep == "all":
        return n_directed_pairs(parts, spaces) // 2
    if keep == "none":
        return n_embedded
    models = {
        frozenset(pair)
        for part in parts
        for pair in product({space.model for space in part.sources}, {space.model for space in part.targets})
    }
    return n_embedded + sum(len(pair) == 2 for pair in models)
