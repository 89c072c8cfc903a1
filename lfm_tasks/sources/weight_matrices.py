"""The weight matrices of a catalog's model, where they can be read without its library: .safetensors and ONNX."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.models import ModelOnDataset
from lfm_tasks.catalog.names import fill_pattern
from lfm_tasks.sources.files.paths import readable
from lfm_tasks.sources.files.safetensors_files import StoredTensor, open_safetensors, read_header

# So many dimensions distinguish any two directions; more need not be read.
_MOST_VALUES, _MOST_TENSORS, _MOST_ROWS = 65_536, 16, 256
# Smaller tensors are biases, scales and norms, which are alike in all networks.
_FEWEST_VALUES = 64


@dataclass(frozen=True)
class WeightMatrix:
    """A tensor of two dimensions or more: its shape, its first values, some 65,000 at most, and some of its rows.

    ``read_rows``: 256 rows spread evenly, or all.
    """

    shape: tuple[int, ...]
    read: Callable[[], Float32[np.ndarray, " values"]]
    read_rows: Callable[[], Float32[np.ndarray, "rows values"]]


def weight_matrices(name: str, model: ModelOnDataset, catalog: Catalog) -> Mapping[str, WeightMatrix] | None:
    """Return the weight matrices of a model, in the order of their file; None if no weights are at hand.

    At hand are the weights of ONNX files, of checkpoints with .safetensors, and of PyTorch networks whose ``weights``
    are such a file. Where a network has many tensors, 16 of them, spread evenly, and the one of most rows.

    Raises
    ------
    DataError
        If a file is damaged, or not what it has to be.
    """
    if model.onnx is not None:
        from lfm_tasks.sources.networks.onnx_models import onnx_path

        return _spread(_onnx_matrices(onnx_path(name, model.onnx, catalog)))
    if model.torch is not None:
        written = model.torch.weights
        if written is None or not written.endswith(".safetensors"):
            return None
        path = fill_pattern(written, model=name, dataset=model.dataset)
        return _spread(_safetensors_matrices([catalog.root / path]))
    if model.checkpoint is not None:
        folder = fill_pattern(model.checkpoint[1].path, model=name, dataset=model.dataset)
        return _checkpoint_matrices(catalog.root / folder, folder, catalog.root)
    return None


def _checkpoint_matrices(folder: Path, name: str, root: Path) -> Mapping[str, WeightMatrix] | None:
    from lfm_tasks.sources.checkpoints.weights import INDEX, WEIGHTS, read_weights

    if not any((folder / file).exists() for file in (WEIGHTS, INDEX)):
        return None
    files = [file for file in read_weights(folder, name, root).files if file.suffix == ".safetensors"]
    return _spread(_safetensors_matrices(files))


def _safetensors_matrices(files: list[Path]) -> Iterator[tuple[str, WeightMatrix]]:
    for file in files:
        with readable(file.name):
            tensors = read_header(file, file.name)
        for key, tensor in tensors.items():
            if _is_matrix(tensor.shape) and tensor.kind in ("F64", "F32", "F16", "BF16"):
                yield (
                    key,
                    WeightMatrix(
                        tensor.shape,
                        partial(_read_safetensors, file, key, tensor),
                        partial(_read_safetensors_rows, file, key, tensor),
                    ),
                )


def _read_safetensors(file: Path, key: str, tensor: StoredTensor) -> Float32[np.ndarray, " values"]:
    array = open_safetensors(file, file.name, key)
    n_rows = max(1, min(tensor.shape[0], _MOST_VALUES // prod(tensor.shape[1:])))
    with array.open() as read:
        return _first_values(read(0, n_rows))


def _read_safetensors_rows(file: Path, key: str, tensor: StoredTensor) -> Float32[np.ndarray, "rows values"]:
    array = open_safetensors(file, file.name, key)
    with array.open() as read:
        rows = [read(row, row + 1).reshape(-1) for row in _spread_rows(tensor.shape[0])]
    return np.stack(rows).astype(np.float32)


def _spread_rows(n_rows: int) -> list[int]:
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, _MOST_ROWS)).astype(int)).tolist()


def _onnx_matrices(path: Path) -> Iterator[tuple[str, WeightMatrix]]:
    from onnx import numpy_helper

    from lfm_tasks.sources.networks.onnx_file import read_onnx

    file = read_onnx(path)
    for tensor in file.model.graph.initializer:
        shape = tuple(int(length) for length in tensor.dims)
        if _is_matrix(shape):
            stored = file.weights.get(tensor.name)
            values: Any = numpy_helper.to_array(tensor) if stored is None else stored
            if np.issubdtype(values.dtype, np.floating) or values.dtype.name == "bfloat16":
                # The model itself, which is large, is not kept.
                first = _first_values(values).copy()
                yield (
                    tensor.name,
                    WeightMatrix(shape, partial(np.asarray, first), partial(_onnx_rows, path, tensor.name)),
                )


def _onnx_rows(path: Path, name: str) -> Float32[np.ndarray, "rows values"]:
    """Return some rows of a tensor; reads the file once more, which few tensors need."""
    from onnx import numpy_helper

    from lfm_tasks.sources.networks.onnx_file import read_onnx

    file = read_onnx(path)
    [tensor] = [one for one in file.model.graph.initializer if one.name == name]
    values: Any = file.weights.get(name)
    values = numpy_helper.to_array(tensor) if values is None else values
    return np.asarray(values[_spread_rows(len(values))].reshape(-1, prod(values.shape[1:])), dtype=np.float32)


def _first_values(values: np.ndarray) -> Float32[np.ndarray, " values"]:
    return np.asarray(values.reshape(-1)[:_MOST_VALUES], dtype=np.float32)


def _is_matrix(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and prod(shape) >= _FEWEST_VALUES


def _spread(matrices: Iterator[tuple[str, WeightMatrix]]) -> Mapping[str, WeightMatrix]:
    found = list(matrices)
    if len(found) > _MOST_TENSORS:
        longest = max(range(len(found)), key=lambda place: (found[place][1].shape[0], -place))
        places = {*np.linspace(0, len(found) - 1, _MOST_TENSORS).astype(int).tolist(), longest}
        found = [found[place] for place in sorted(places)]
    return dict(found)
