"""How large a space is, as headers tell before any of its values is read."""

from dataclasses import replace

import numpy as np

from lfm_tasks.catalog import Catalog, Model
from lfm_tasks.catalog.patterns import fill
from lfm_tasks.reasons import ReasonError
from lfm_tasks.runtime.sizes import SpaceSize
from lfm_tasks.sources.files.pooling import pooled_features
from lfm_tasks.sources.files.source import FileSource
from lfm_tasks.sources.networks.recording import RecordedSource
from lfm_tasks.sources.source import Source
from lfm_tasks.spaces import Space

# Features of a layer that only a run of its network can tell.
_UNKNOWN_FEATURES = 512




def likely(size: SpaceSize) -> SpaceSize:
    """Return the size to reckon with: with a guess where only a run of its network can tell the features."""
    return size if size.n_features else replace(size, n_features=_UNKNOWN_FEATURES)


def model_size(name: str, model: Model, source: Source, catalog: Catalog, n_points: int) -> SpaceSize:
    """Return what all layers of a model have in common; ``with_layer`` gives that of one."""
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
        except ReasonError:
            n_features = 0  # told when it is recorded
    return replace(whole, name=space.name, n_features=n_features)


def _weight_bytes(name: str, model: Model, catalog: Catalog) -> int:
    recorded = model.onnx.path if model.onnx else model.torch.weights if model.torch else None
    if recorded is None or "://" in recorded:
        return 0
    path = catalog.locate(fill(recorded, model=name, dataset=model.dataset))
    return path.stat().st_size if path.is_file() else 0
