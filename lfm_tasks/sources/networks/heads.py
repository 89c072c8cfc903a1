"""Opens the head of a model: what carried activations are run through, to see what the network makes of them."""

from lfm_tasks.catalog.model import Catalog, Model
from lfm_tasks.catalog.patterns import fill
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.networks.onnx_files import read_onnx
from lfm_tasks.sources.networks.onnx_graph import read_layers
from lfm_tasks.sources.networks.onnx_heads import Head, cut_head


def open_head(model_name: str, model: Model, catalog: Catalog, layer: str | None = None) -> Head:
    """Return the part of ``model`` from a layer (``layer``, or the catalog's ``head.layer``) to the output.

    Raises
    ------
    ReasonError
        ``missing_source`` if the model has no graph to cut or no layer is named; and as `cut_head` does.
    """
    start = layer or (model.head.layer if model.head else None)
    if model.onnx is None:
        found = "found no onnx, needs an ONNX graph to cut: export the network"
        raise ReasonError("missing_source", f"model {model_name}: {found}")
    if start is None:
        found = "found no head, needs the layer that it starts from: add head: {layer: relu1}"
        raise ReasonError("missing_source", f"model {model_name}: {found}")
    path = catalog.root / fill(model.onnx.path, model=model_name, dataset=model.onnx.dataset)
    graph = read_layers(read_onnx(path), 1)
    return cut_head(graph, start, model.head.output if model.head else None, model.onnx.pool)
