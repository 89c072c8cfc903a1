"""Opens a model's source of activations, whatever kind the catalog says it is."""

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.catalog.model import Catalog, Model
from lfm_tasks.catalog.patterns import fill
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.datasets import DatasetRows, read_ids
from lfm_tasks.sources.files.source import FileSource, activations_pattern, activations_reading
from lfm_tasks.sources.source import Source


def open_source(model_name: str, model: Model, catalog: Catalog, rows: DatasetRows) -> Source:
    """Return the source of ``model``, whose dataset has ``rows``; ReasonError if it cannot be opened."""
    if model.activations is not None:
        source = model.activations
        ids = rows.ids
        if source.ids is not None:
            ids = read_ids(source.ids, catalog.root, model=model_name, dataset=source.dataset)
        reading = activations_reading(model_name, source, catalog.root)
        return FileSource(activations_pattern(model_name, source, catalog.root), ids, reading)
    inputs = _inputs(model_name, model, rows)
    if model.torch is not None:
        from lfm_tasks.sources.networks.torch_models import TorchSource  # safetensors and torch take seconds to import

        return TorchSource(model_name, model.torch, catalog, inputs, rows.ids)
    if model.onnx is None:
        raise TypeError(f"{model_name}: a model has one source")
    from lfm_tasks.sources.networks.onnx_models import OnnxSource  # onnxruntime takes a second to import

    path = catalog.root / fill(model.onnx.path, model=model_name, dataset=model.onnx.dataset)
    return OnnxSource(path, inputs, rows.ids, pool=model.onnx.pool)


def _inputs(model_name: str, model: Model, rows: DatasetRows) -> Shaped[np.ndarray, "points ..."]:
    if rows.inputs is None:
        found = f"model {model_name}: found no inputs in the dataset {model.dataset}, needs them to run the network"
        raise ReasonError("missing_source", f"{found}: add inputs: {{path: inputs.npy}} to the dataset")
    return rows.inputs
