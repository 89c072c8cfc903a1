"""Records activations by running an ONNX model, the same bits every time on one machine type."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog.models import OnnxModel
from lfm_tasks.catalog.names import did_you_mean, fill_pattern, shorten
from lfm_tasks.catalog.sections import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.descriptions import cut_texts
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.networks.inputs import (
    ONLY,
    ArrayInputs,
    NamedInputs,
    NetworkInputs,
    cast_input,
    check_dataset,
    named_inputs,
)
from lfm_tasks.sources.networks.onnx_file import find_onnx, onnx_digest
from lfm_tasks.sources.networks.onnx_graph import OnnxGraph, Tensor, open_graph, open_session, runtime_version
from lfm_tasks.sources.networks.raw_preparation import TextInputs, image_inputs, text_inputs
from lfm_tasks.sources.networks.recording import Pooled, Recorder, gathered
from lfm_tasks.sources.raw_inputs import RawInputs, TokenPoints

# Rows that are computed together; texts and images take more memory each.
_BATCH_ROWS, _RAW_BATCH_ROWS = 256, 32


class OnnxSource:
    """A `Source` of the layers of one ONNX model, run by onnxruntime on one CPU thread.

    Opening reads and checks the file; the network runs when batches are requested.

    Parameters
    ----------
    graph
        The model, as `open_graph` returns it; or its file.
    inputs
        What it is fed; an array is its only input.
    ids
        Unique sample ids, one for each row of the inputs.
    pool
        How tokens or maps become one row a point.
    batch_size
        Rows that are computed together, where the model does not fix that.
    """

    def __init__(
        self,
        graph: OnnxGraph | Path,
        inputs: NetworkInputs | Shaped[np.ndarray, "points ..."],
        ids: Shaped[np.ndarray, " points"],
        *,
        pool: str = "none",
        batch_size: int = _BATCH_ROWS,
    ) -> None:
        self._graph = open_graph(graph, batch_size) if isinstance(graph, Path) else graph
        fed = ArrayInputs({ONLY: inputs}) if isinstance(inputs, np.ndarray) else inputs
        if isinstance(fed, ArrayInputs):
            fed = _fitting(fed, self._graph)
        fixed = self._graph.batch
        self._recorder = Recorder(self._graph.name, fed, ids, pool, fixed or batch_size, fills=fixed is not None)

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each input."""
        return self._recorder.ids

    @property
    def batch_rows(self) -> int:
        """Rows that are computed together."""
        return self._recorder.batch_rows

    def layer_names(self) -> tuple[str, ...]:
        """Return all layers, as `read_layers` finds them, in the order of the graph; of padded tokens, those alone."""
        layers = self._graph.layers.values()
        return tuple(one.name for one in layers if one.is_pooled_by_tokens or not self._recorder.inputs.has_mask)

    def layer_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer, before pooling; None where only a run can tell."""
        return {name: self._graph.layers[name].shape for name in self.layer_names()}

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return the inputs of the key of ``layer``: model, inputs, pooling, batches, and the recorder."""
        tensor = self._layer(layer)
        name = tensor.name
        self._graph.check_rows(name)
        layout = {"shape": "nhwc"} if tensor.channels_last and self._recorder.pool != "flatten" else {}
        return {
            "kind": "onnx",
            "model": self._graph.sha256,
            "layer": name,
            "onnxruntime": runtime_version(),
            **layout,
            **self._recorder.identity,
        }

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, pooled; float32, or float64 where the model computes in it.

        Raises
        ------
        DataError
            ``unknown_layer``; ``wrong_shape`` if the pooling does not fit a layer, or a tensor is not a row a point;
            ``not_finite`` for NaN or infinite inputs or outputs; ``not_a_function`` for rows that depend on others or
            on chance; ``unsupported_model`` if onnxruntime stops.
        """
        yield from self._recorder.record(rows, self._runner(layers))

    def _runner(self, layers: Sequence[str]) -> Callable[[Int[np.ndarray, " batch"]], Pooled]:
        """Return a function that runs the model on a batch of rows and returns ``layers``, pooled."""
        names = list(dict.fromkeys(layers))
        for name in names:
            layer = self._layer(name)
            self._graph.check_rows(name)
            self._recorder.check_pooling(name, layer.shape, is_last=layer.channels_last)
        session = open_session(*self._graph.with_outputs(names), self._graph.name)

        def run(batch: Int[np.ndarray, " batch"]) -> Pooled:
            inputs = self._recorder.input_batch(batch)
            row_names = self._recorder.row_names(np.resize(batch, self.batch_rows) if self._recorder.fills else batch)
            feed = {
                name: cast_input(self._graph.name, values, self._graph.inputs[name].dtype, row_names)
                for name, values in inputs.arrays.items()
            }
            return {
                name: self._recorder.pooled(name, values, batch, inputs, is_last=self._layer(name).channels_last)
                for name, values in zip(names, session.run(names, feed), strict=True)
            }

        return run

    def _layer(self, name: str) -> Tensor:
        layer = self._graph.layer(name)
        if self._recorder.inputs.has_mask and not layer.is_pooled_by_tokens:
            problem = f"{self._graph.name}: got the layer {shorten(name)}, whose size follows from the longest text"
            advice = "Choose layers of (points, tokens, features) or (points, features)"
            raise DataError("unknown_layer", f"{problem}, expected tokens that can be pooled. {advice}")
        return layer


class OnnxTextSource(OnnxSource):
    """An `OnnxSource` of texts: those of about one length are computed together, so that little is padded."""

    def __init__(
        self, graph: OnnxGraph, texts: TextInputs, ids: Shaped[np.ndarray, " points"], *, pool: str, batch_size: int
    ) -> None:
        super().__init__(graph, texts, ids, pool=pool, batch_size=batch_size)
        # Batches follow from their rows alone, so the last one is filled up, too.
        self._recorder = replace(self._recorder, fills=True)
        self._texts = texts
        self._cut = 0, 0

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Return an iterator of ``rows`` of each layer, pooled, in their order, all at once: for few rows."""
        return gathered(self.scattered_batches(layers, rows), len(rows))

    def scattered_batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"], start: int = 0
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], Pooled]]:
        """Yield batches as they are computed: the positions in ``rows`` that they hold, and each layer's values.

        Rows are ordered by their tokens and ids, and cut into batches; the first ``start`` of these are left out.

        Raises
        ------
        DataError
            As `OnnxSource.batches`; ``bad_inputs`` for a text without a token.
        """
        lengths, is_cut = self._texts.lengths(rows)
        self._cut = int(is_cut.sum()), len(rows)
        order = np.lexsort((self.ids[rows], lengths))
        first = start * self.batch_rows
        batches = self._recorder.record(rows[order[first:]], self._runner(layers))
        for place, values in zip(range(first, len(rows), self.batch_rows), batches, strict=True):
            yield order[place : place + self.batch_rows], values

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for people on the texts that were cut, once they were recorded."""
        return cut_texts(*self._cut, self._texts.max_tokens, self._texts.n_special)

    def check_unchanged(self) -> None:
        """Raise DataError ``missing_source`` if the model's files are others than when they were opened."""
        if onnx_digest(self._graph.path) != self._graph.sha256:
            problem = "got a file that changed while the network was run, expected it to stay"
            raise DataError("missing_source", f"{self._graph.name}: {problem}. Run again")


def open_onnx(
    model_name: str,
    model: OnnxModel,
    catalog: Catalog,
    inputs: Shaped[np.ndarray, "points ..."] | RawInputs | TokenPoints | None,
    ids: Shaped[np.ndarray, " points"],
    memory: DigestMemory | None = None,
) -> OnnxSource:
    """Return the source of an ONNX model of a catalog.

    Parameters
    ----------
    model_name, model, catalog
        Which model.
    inputs
        The dataset's: numbers, texts or images; None: it has none.
    ids
        The dataset's ids.
    memory
        What is known of files from earlier runs.

    Raises
    ------
    DataError
        As reading the model, and preparing its inputs, do.
    """
    check_dataset(model_name, model.dataset, inputs, bool(model.inputs))
    path = onnx_path(model_name, model, catalog)
    is_raw = isinstance(inputs, RawInputs)
    batch_size = model.batch_size or (_RAW_BATCH_ROWS if is_raw else _BATCH_ROWS)
    graph = open_graph(path, batch_size, memory)
    if graph.batch is not None and model.batch_size not in (None, graph.batch):
        problem = f"got batch_size: {model.batch_size} for a model that computes {graph.batch} points together"
        raise DataError("unsupported_model", f"{graph.name}: {problem}, expected that number. Remove batch_size")
    shapes = {name: entry.shape for name, entry in graph.inputs.items()}
    fed: NetworkInputs
    if isinstance(inputs, RawInputs) and not model.inputs:
        if inputs.kind == "texts":
            texts = text_inputs(graph.name, inputs, path, shapes, model.max_tokens, memory)
            return OnnxTextSource(graph, texts, ids, pool=model.pool, batch_size=batch_size)
        fed = image_inputs(graph.name, inputs, path, shapes, model.preprocess)
    else:
        if model.preprocess is not None or model.max_tokens is not None:
            key = "preprocess" if model.preprocess is not None else "max_tokens"
            problem = f"got {key} and inputs of numbers, expected a dataset of raw inputs (texts, images)"
            raise DataError("bad_inputs", f"model {model_name}: {problem}. Remove {key}")
        named = NamedInputs(
            model_name, model.dataset, model.inputs, model.mask, catalog.datasets[model.dataset], catalog.root
        )
        fed = named_inputs(named, inputs if isinstance(inputs, np.ndarray) else None, len(ids))
    return OnnxSource(graph, fed, ids, pool=model.pool, batch_size=batch_size)


def onnx_path(model_name: str, model: OnnxModel, catalog: Catalog) -> Path:
    """Return the file of an ONNX model of a catalog; DataError ``missing_source`` if its folder holds none."""
    name = fill_pattern(model.path, model=model_name, dataset=model.dataset)
    return find_onnx(catalog.root / name, name)


def _fitting(inputs: ArrayInputs, graph: OnnxGraph) -> ArrayInputs:
    """Return arrays by the names of the graph's inputs; DataError if they are not those inputs."""
    arrays = dict(inputs.arrays)
    if list(arrays) == [ONLY]:
        if len(graph.inputs) != 1:
            names = ", ".join(map(shorten, list(graph.inputs)[:6]))
            problem = f"got 1 array for {len(graph.inputs)} inputs ({names}), expected one for each"
            example = ", ".join(f"{name}: {{path: {name}.npy}}" for name in list(graph.inputs)[:2])
            raise DataError("unsupported_model", f"{graph.name}: {problem}. Write inputs: {{{example}}}")
        arrays = {next(iter(graph.inputs)): arrays[ONLY]}
    for name in arrays:
        if name not in graph.inputs:
            hint = did_you_mean(name, graph.inputs)
            raise DataError("unsupported_model", f"{graph.name}: got the input {shorten(name)}, which it lacks{hint}")
    if missing := [name for name in graph.inputs if name not in arrays]:
        listed = ", ".join(map(shorten, missing[:6]))
        problem = f"got nothing for the inputs {listed}, expected an array for each"
        raise DataError("unsupported_model", f"{graph.name}: {problem}. Name them under inputs")
    for name, values in arrays.items():
        _check_input(graph, graph.inputs[name], values)
    return ArrayInputs(arrays, inputs.mask)


def _check_input(graph: OnnxGraph, needed: Tensor, inputs: Shaped[np.ndarray, "points ..."]) -> None:
    shape_of_point = inputs.shape[1:]
    fits = len(shape_of_point) == len(needed.shape) and all(
        wanted in (None, length) for wanted, length in zip(needed.shape, shape_of_point, strict=True)
    )
    if not fits:
        shape = ", ".join(["points", *("any" if length is None else str(length) for length in needed.shape)])
        message = f"got inputs of shape {inputs.shape}, expected ({shape})"
        which = f" for {shorten(needed.name)}" if len(graph.inputs) > 1 else ""
        raise DataError("wrong_shape", f"{graph.name}: {message}{which}: reshape the dataset's inputs")
    if not np.can_cast(inputs.dtype, needed.dtype, casting="same_kind"):
        message = f"got inputs of type {inputs.dtype}, expected {needed.dtype}"
        raise DataError("wrong_dtype", f"{graph.name}: {message}. Convert the dataset's inputs")
