"""Records activations by running an ONNX model on a dataset's inputs: the same bits every time on one machine type."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.onnx_files import brief, read_onnx
from lfm_tasks.sources.onnx_graph import read_layers
from lfm_tasks.sources.pooling import pool_rows, pooled_features

# Part of every identity. Raise it when the same model and inputs give other numbers.
_RECORDER_VERSION = "1"
_DIGEST_ROWS = 4096


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
        self._name = path.name
        self._inputs = inputs
        self._ids = ids
        self._pool = pool
        self._batch_size = batch_size
        if len(inputs) != len(ids):
            found = f"found {len(inputs)} inputs and {len(ids)} ids, needs one id an input"
            raise ReasonError("bad_ids", f"{self._name}: {found}: give the ids of these inputs")
        self._check_inputs()

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each input."""
        return self._ids

    def layer_names(self) -> tuple[str, ...]:
        """All layers, as `read_layers` finds them, in the order of the graph."""
        return tuple(self._graph.layers)

    def layer_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer, before pooling; None where only a run can tell."""
        return {name: layer.shape for name, layer in self._graph.layers.items()}

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return what decides the values of ``layer``: model, inputs, pooling, batches, and what records it."""
        import onnxruntime

        return {
            "kind": "onnx",
            "model": self._graph.file.sha256,
            "inputs": self._inputs_digest,
            "layer": self._graph.layer(layer).name,
            "pool": self._pool,
            "batch_size": str(self._batch_size),
            "recorder": _RECORDER_VERSION,
            "onnxruntime": onnxruntime.__version__,
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
            self._check_pooling(name)
        session = self._session(names)
        for start in range(0, len(rows), self._batch_size):
            batch = rows[start : start + self._batch_size]
            values = self._run(session, names, batch)
            yield {name: self._pooled(name, value, batch) for name, value in zip(names, values, strict=True)}

    def _check_inputs(self) -> None:
        needed, found = self._graph.input, self._inputs.shape[1:]
        fits = len(found) == len(needed.shape) and all(
            wanted in (None, length) for wanted, length in zip(needed.shape, found, strict=True)
        )
        if not fits:
            shape = ", ".join(["points", *("any" if length is None else str(length) for length in needed.shape)])
            message = f"found inputs of shape {self._inputs.shape}, needs ({shape})"
            raise ReasonError("wrong_shape", f"{self._name}: {message}: reshape the dataset's inputs")
        if not np.can_cast(self._inputs.dtype, needed.dtype, casting="same_kind"):
            message = f"found inputs of type {self._inputs.dtype}, needs {needed.dtype}"
            raise ReasonError("wrong_dtype", f"{self._name}: {message}: convert the dataset's inputs")

    @cached_property
    def _inputs_digest(self) -> str:
        dtype = self._inputs.dtype.newbyteorder("<")
        hasher = hashlib.sha256(f"{dtype.str}:{self._inputs.shape}".encode())
        for start in range(0, len(self._inputs), _DIGEST_ROWS):
            hasher.update(np.ascontiguousarray(self._inputs[start : start + _DIGEST_ROWS], dtype=dtype).tobytes())
        return hasher.hexdigest()

    def _check_pooling(self, name: str) -> None:
        shape = self._graph.layer(name).shape
        if None in shape:
            return  # the first batch tells
        try:
            pooled_features([length or 0 for length in shape], self._pool)
        except ReasonError as error:
            raise ReasonError(error.reason, f"{self._name}: {name}: {error}") from error

    def _session(self, layers: Sequence[str]) -> Any:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        # Fused nodes would swallow the tensors; more threads would change the order of sums.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # what goes wrong is raised
        try:
            return onnxruntime.InferenceSession(
                self._graph.with_outputs(layers), options, providers=["CPUExecutionProvider"]
            )
        except ReasonError:
            raise
        except Exception as error:  # onnxruntime's errors have no common class
            raise self._stopped("open", error) from error

    def _run(
        self, session: Any, layers: Sequence[str], rows: Int[np.ndarray, " batch"]
    ) -> Sequence[Shaped[np.ndarray, "batch ..."]]:
        feed = {self._graph.input.name: self._fed(rows)}
        try:
            values: Sequence[Shaped[np.ndarray, "batch ..."]] = session.run(list(layers), feed)
        except Exception as error:  # onnxruntime's errors have no common class
            raise self._stopped("run", error) from error
        return values

    def _stopped(self, what: str, error: Exception) -> ReasonError:
        found = f"onnxruntime could not {what} it ({brief(error)})"
        return ReasonError("unsupported_model", f"{self._name}: {found}: check that it runs, or export it again")

    def _fed(self, rows: Int[np.ndarray, " batch"]) -> Shaped[np.ndarray, "batch ..."]:
        values = self._inputs[rows]
        with np.errstate(over="ignore"):
            fed = np.ascontiguousarray(values, dtype=self._graph.input.dtype)
        if fed.dtype.kind == "f" and not np.isfinite(fed).all():
            row = rows[np.flatnonzero(~np.isfinite(fed).reshape(len(fed), -1).all(axis=1))[0]]
            found = f"found NaN or infinite inputs as {fed.dtype}, first in row {row} (id {self._ids[row]!s})"
            raise ReasonError("not_finite", f"{self._name}: {found}, needs finite numbers: mend the dataset's inputs")
        if fed.dtype.kind in "iu" and not np.array_equal(fed, values):
            found = f"found inputs of {values.dtype} beyond {fed.dtype}, needs numbers that fit"
            raise ReasonError("wrong_dtype", f"{self._name}: {found}: check the dataset's inputs")
        return fed

    def _pooled(
        self, name: str, values: Shaped[np.ndarray, "..."], rows: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, "batch features"]:
        if values.ndim < 2 or len(values) != len(rows):
            found = f"found {values.shape} for {len(rows)} points, needs a row a point"
            raise ReasonError("wrong_shape", f"{self._name}: {name}: {found}: leave it out with layers: ['!{name}']")
        try:
            pooled = pool_rows(values, self._pool)
        except ReasonError as error:
            raise ReasonError(error.reason, f"{self._name}: {name}: {error}") from error
        finite = np.isfinite(pooled)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            where = f"first in row {rows[row]} (id {self._ids[rows[row]]!s}), column {column}"
            found = f"found {np.count_nonzero(~finite)} NaN or infinite values among {len(rows)} rows, {where}"
            raise ReasonError("not_finite", f"{self._name}: {name}: {found}, needs finite numbers: leave the layer out")
        return pooled
