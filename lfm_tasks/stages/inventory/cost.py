"""Sizes that a run's cost is estimated from."""

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from lfm_tasks.catalog import Catalog, ModelOnDataset
from lfm_tasks.catalog.names import fill_pattern
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.load import SpaceSize
from lfm_tasks.sources.checkpoints.models import CheckpointSource
from lfm_tasks.sources.files.pooling import pooled_features
from lfm_tasks.sources.networks.onnx_file import find_onnx
from lfm_tasks.sources.networks.recording import RecordedSource, maps_shape
from lfm_tasks.sources.source import FileSource, Source
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.alike import n_pairs_of_two
from lfm_tasks.stages.inventory.requests import PairSelection, embedded_spaces, n_directed_pairs

# Features of a layer that only a run of its network can tell.
_UNKNOWN_FEATURES = 512


def likely(size: SpaceSize) -> SpaceSize:
    """Return the size to reckon with: with a guess where only a run of its network can tell the features."""
    return size if size.n_features else replace(size, n_features=_UNKNOWN_FEATURES)


def model_size(name: str, model: ModelOnDataset, source: Source, catalog: Catalog, n_points: int) -> SpaceSize:
    """Return the size that all layers of a model have in common; `with_layer` adds the features of one."""
    ids = source.ids[:1000]
    id_bytes = round(float(np.mean([len(str(one).encode()) for one in ids]))) if len(ids) else 0
    size = SpaceSize(name, n_points, 0, 4, id_bytes, 0, _weight_bytes(name, model, catalog))
    if isinstance(source, CheckpointSource):
        cost = source.run_cost
        size = replace(size, run_flops=cost.flops, run_bytes=cost.peak_bytes, device=source.device)
    return size


def with_layer(whole: SpaceSize, space: Space, source: Source, pool: str) -> SpaceSize:
    """Return the size of one layer, as its header says."""
    if isinstance(source, FileSource):
        n_features, itemsize, held = source.layout(space.layer)
        return replace(whole, name=space.name, n_features=n_features, itemsize=itemsize, held_bytes=held)
    n_features = 0
    if isinstance(source, RecordedSource):
        shape = source.layer_shapes().get(space.layer, (None,))
        is_known = None not in shape
        if isinstance(source, CheckpointSource):
            # How many tokens or pixels there are does not matter once they are pooled.
            pool, is_known = source.pool, shape != (None,) and (is_known or source.pool != "flatten")
        try:
            of_point = [length or 0 for length in shape]
            n_features = pooled_features(of_point, pool, shape=maps_shape(len(shape) + 1)) if is_known else 0
        except DataError:
            n_features = 0  # reported when it is recorded
    return replace(whole, name=space.name, n_features=n_features)


def _weight_bytes(name: str, model: ModelOnDataset, catalog: Catalog) -> int:
    recorded = model.onnx.path if model.onnx else model.torch.weights if model.torch else None
    if recorded is None or "://" in recorded:
        return 0
    path = catalog.locate(fill_pattern(recorded, model=name, dataset=model.dataset))
    if model.onnx is not None:
        path = find_onnx(path, recorded)
    # Large weights of ONNX models lie beside the file: model.onnx.data, or model.onnx_data.
    files = [path, *path.parent.glob(f"{glob.escape(path.name)}[._]data")]
    return sum(file.stat().st_size for file in files if file.is_file())


# How failures name the setting.
KEEP_MAPS = "atlas.keep_maps"
# They are published in one piece, laid out in memory first (bytes, per dataset).
MOST_BYTES = 4 << 30
# What else ``keep_maps`` may be set to, so that fewer are kept.
_FEWER_MAPS = {"all": ("best", "none"), "best": ("none",), "none": ()}


def oversized_maps(catalog: Catalog, parts: Iterable[PairSelection], sizes: Mapping[Space, int]) -> dict[str, str]:
    """Return a sentence for each dataset whose kept maps would take more than 4 GiB; ``sizes`` are numbers of points.

    A map takes 4 K² bytes, its distortions 8 bytes a point.
    """
    parts, messages = list(parts), {}
    keep = catalog.atlas.keep_maps
    for dataset, spaces in spaces_by_dataset(sizes).items():
        of_dataset = [part for part in parts if part.dataset == dataset]
        n_maps = n_kept_maps(catalog, of_dataset, spaces)
        n_points = max(sizes[space] for space in spaces)
        n_eigenpairs = catalog.atlas.numbers(n_points).n_eigenpairs
        map_bytes = 4 * n_eigenpairs**2 + 8 * n_points
        if n_maps * map_bytes <= MOST_BYTES:
            continue
        fewer = [
            other
            for other in _FEWER_MAPS[keep]
            if n_kept_maps(catalog, of_dataset, spaces, other) * map_bytes <= MOST_BYTES
        ]
        ways = [f"set atlas.keep_maps to {' or '.join(fewer)}"] if fewer else []
        if catalog.atlas.embeddings is not None and "none" not in fewer:
            ways.append("choose fewer spaces in atlas.embeddings")
        ways.append("compare fewer models")
        most_points = (MOST_BYTES // n_maps - 4 * n_eigenpairs**2) // 8
        if n_eigenpairs < most_points:
            ways.append(f"set atlas.max_points to at most {most_points}")
        found = f"got {n_maps} maps of {n_points} points to keep, {n_maps * map_bytes / 2**30:.1f} GiB"
        advice = ", or ".join(ways)
        messages[dataset] = f"{found}, expected at most {MOST_BYTES / 2**30:g} GiB. {advice[0].upper()}{advice[1:]}."
    return messages


def spaces_by_dataset(spaces: Iterable[Space]) -> dict[str, list[Space]]:
    """Return the spaces of each dataset, both in order."""
    by_dataset: dict[str, list[Space]] = {}
    for space in sorted(spaces):
        by_dataset.setdefault(space.dataset, []).append(space)
    return by_dataset


def n_kept_maps(catalog: Catalog, parts: Sequence[PairSelection], spaces: Sequence[Space], keep: str = "") -> int:
    """Return how many maps of one dataset are kept, at most, by the catalog's ``keep_maps`` or another one."""
    keep = keep or catalog.atlas.keep_maps
    if keep == "all":
        return n_directed_pairs(parts, spaces) // 2
    n_embedded = n_directed_pairs(parts, embedded_spaces(catalog, spaces)) // 2
    if keep == "none":
        return n_embedded
    models: dict[str, int] = {}
    sides = [(_models(part.sources, models), _models(part.targets, models)) for part in parts]
    return n_embedded + n_pairs_of_two(len(models), sides)


def _models(side: Iterable[Space], positions: dict[str, int]) -> Int[np.ndarray, " models"]:
    """Return the positions of the models of some spaces, each once; a new model is given the next."""
    names = dict.fromkeys(space.model for space in side)
    return np.array([positions.setdefault(name, len(positions)) for name in names], dtype=np.intp)
