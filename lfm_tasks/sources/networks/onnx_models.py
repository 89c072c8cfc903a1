"""Records activations by running an ONNX model on a dataset's inputs: the same bits every time on one machine type."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.networks.onnx_graph import open_session, read_layers, read_onnx, runtime_version
from lfm_tasks.sources.networks.recording import Recorder


class OnnxSource:
    """A `Source` of the layers of one ONNX model, run on ``inputs`` by onnxruntime on one CPU thread.

    Opening reads and checks the file; the network runs when batches are asked for.
    """

    def __init__(
        self,
        path: Path,
        inputs: Shaped[np.ndarray, "points ..."],
        ids: Shaped[np.ndarray, " points"],
        *,
        pool: str = "none",
        batch_size: int = 256,
    ) -> None:
        self._graph = read_layers(read_onnx(path), batch_size)
        self._recorder = Recorder(path.name, inputs, ids, pool, batch_size)
        self._check_inputs(inputs)

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each input."""
        return self._recorder.ids

    @property
    def batch_rows(self) -> int:
        """Rows that are computed together."""
        return self._recorder.batch_rows

    def layer_names(self) -> tuple[str, ...]:
        """All layers, as `read_layers` finds them, in the order of the graph."""
        return tuple(self._graph.layers)

    def layer_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer, before pooling; None where only a run can tell."""
        return {name: layer.shape for name, layer in self._graph.layers.items()}

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return what decides the values of ``layer``: model, inputs, pooling, batches, and what records it."""
        return {
            "kind": "onnx",
            "model": self._graph.file.sha256,
            "layer": self._graph.layer(layer).name,
            "onnxruntime": runtime_version(),
            **self._recorder.identity,
        }

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, pooled; float32, or float64 where the model computes in it.

        Raises
        ------
        ReasonError
            ``unknown_layer``; ``wrong_shape`` if the pooling does not fit a layer, or a tensor is not a row a point;
            ``not_finite`` for NaN or infinite inputs or outputs; ``unsupported_model`` if onnxruntime stops.
        """
        names = list(dict.fromkeys(layers))
        for name in names:
            self._recorder.check_pooling(name, self._graph.layer(name).shape)
        session = open_session(self._graph.with_outputs(names), self._recorder.name)
        entry = self._graph.input
        for batch in self._recorder.batches(rows):
            values = session.run(names, {entry.name: self._recorder.fed(batch, entry.dtype)})
            yield {name: self._recorder.pooled(name, value, batch) for name, value in zip(names, values, strict=True)}

    def _check_inputs(self, inputs: Shaped[np.ndarray, "points ..."]) -> None:
        name, needed, found = self._recorder.name, self._graph.input, inputs.shape[1:]
        fits = len(found) == len(needed.shape) and all(
            wanted in (None, length) for wanted, length in zip(needed.shape, found, strict=True)
        )
        if not fits:
            shape = ", ".join(["points", *("any" if length is None else str(length) for length in needed.shape)])
            message = f"found inputs of shape {inputs.shape}, needs ({shape})"
            raise ReasonError("wrong_shape", f"{name}: {message}: reshape the dataset's inputs")
        if not np.can_cast(inputs.dtype, needed.dtype, casting="same_kind"):
            message = f"found inputs of type {inputs.dtype}, needs {needed.dtype}"
            raise ReasonError("wrong_dtype", f"{name}: {message}: convert the dataset's inputs")
