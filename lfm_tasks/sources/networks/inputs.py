"""Inputs of a network: the arrays of a dataset, by the names of the inputs, a batch of rows at a time."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int, Shaped

from lfm_tasks.catalog.datasets import Dataset, DatasetFile, ModelFile
from lfm_tasks.catalog.names import did_you_mean, fill_pattern, shorten
from lfm_tasks.errors import DataError
from lfm_tasks.sources.layers import FilePattern, reading_of
from lfm_tasks.sources.raw_inputs import TokenPoints

# The name of the input of a network that has one.
ONLY = ""
_DIGEST_ROWS = 4096


@dataclass(frozen=True)
class InputBatch:
    """The inputs of some rows by name, and which tokens of each row are real: all, where ``valid`` is None."""

    arrays: Mapping[str, Shaped[np.ndarray, "batch ..."]]
    valid: Bool[np.ndarray, "batch tokens"] | None = None

    def cut(self, n_rows: int) -> "InputBatch":
        """Return the first ``n_rows``."""
        arrays = {name: values[:n_rows] for name, values in self.arrays.items()}
        return InputBatch(arrays, None if self.valid is None else self.valid[:n_rows])


class NetworkInputs(Protocol):
    """All rows of a dataset, ready for one network."""

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        ...

    @property
    def has_mask(self) -> bool:
        """Whether some tokens are padding, which pooling leaves out."""
        ...

    @property
    def n_tokens(self) -> int | None:
        """How many tokens each row of a mask has; None without a mask, or where it follows from the batch."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """Ingredients of the inputs' key: digests of the dataset and of its preparation."""
        ...

    def batch(self, rows: Int[np.ndarray, " batch"]) -> InputBatch:
        """Return the inputs of these rows, in their order."""
        ...


@dataclass(frozen=True)
class ArrayInputs:
    """Arrays with a row a point, by the names of the inputs (`ONLY`: the network has one); ``mask``: 1 for a token."""

    arrays: Mapping[str, Shaped[np.ndarray, "points ..."]]
    mask: Shaped[np.ndarray, "points tokens"] | None = None

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.arrays.values())))

    @property
    def has_mask(self) -> bool:
        """Whether some tokens are padding, which pooling leaves out."""
        return self.mask is not None

    @property
    def n_tokens(self) -> int | None:
        """How many tokens each row of the mask has."""
        return None if self.mask is None else int(self.mask.shape[1])

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Ingredients of the inputs' key: a digest of each array, the names included."""
        digests = {name: array_digest(array) for name, array in self.arrays.items()}
        mask = {} if self.mask is None else {"mask": array_digest(self.mask)}
        if len(digests) == 1:
            return {"inputs": next(iter(digests.values()))} | mask
        lines = "\n".join(f"{name}:{digest}" for name, digest in sorted(digests.items()))
        return {"inputs": hashlib.sha256(lines.encode()).hexdigest()} | mask

    def batch(self, rows: Int[np.ndarray, " batch"]) -> InputBatch:
        """Return the inputs of these rows, in their order."""
        valid = None if self.mask is None else self.mask[rows] != 0
        return InputBatch({name: array[rows] for name, array in self.arrays.items()}, valid)


def array_digest(values: Shaped[np.ndarray, "points ..."]) -> str:
    """Return the SHA-256 of an array's type, shape and values."""
    dtype = values.dtype.newbyteorder("<")
    hasher = hashlib.sha256(f"{dtype.str}:{values.shape}".encode())
    for start in range(0, len(values), _DIGEST_ROWS):
        hasher.update(np.ascontiguousarray(values[start : start + _DIGEST_ROWS], dtype=dtype).tobytes())
    return hasher.hexdigest()


def cast_input(
    name: str, values: Shaped[np.ndarray, "batch ..."], dtype: np.dtype[Any], row_names: Sequence[str]
) -> Shaped[np.ndarray, "batch ..."]:
    """Return a copy of one input's rows as ``dtype``.

    Parameters
    ----------
    name
        How messages call the network.
    values
        The rows.
    dtype
        What the network takes.
    row_names
        How messages call each row.

    Raises
    ------
    DataError
        ``not_finite`` for NaN, infinity or a number beyond ``dtype``; ``wrong_dtype`` for integers beyond it.
    """
    with np.errstate(over="ignore"):
        batch = np.array(values, dtype=dtype, order="C")
    if batch.dtype.kind == "f" and not np.isfinite(batch).all():
        row = np.flatnonzero(~np.isfinite(batch).reshape(len(batch), -1).all(axis=1))[0]
        problem = f"got NaN or infinite inputs as {batch.dtype}, first in {row_names[row]}"
        raise DataError("not_finite", f"{name}: {problem}, expected finite numbers. Correct the dataset's inputs")
    if batch.dtype.kind in "iu" and not np.array_equal(batch, values):
        problem = f"got inputs of {values.dtype} beyond {batch.dtype}, expected numbers that fit"
        raise DataError("wrong_dtype", f"{name}: {problem}. Check the dataset's inputs")
    return batch


# --- arrays that a catalog names


@dataclass(frozen=True)
class NamedInputs:
    """Settings of the catalog for a network's inputs: ``inputs`` and ``mask`` of a model, and its names."""

    model: str
    dataset_name: str
    inputs: Mapping[str, str | ModelFile]
    mask: str | ModelFile | None
    dataset: Dataset
    root: Path


def named_inputs(named: NamedInputs, only: Shaped[np.ndarray, "points ..."] | None, n_points: int) -> ArrayInputs:
    """Return the arrays that ``inputs`` and ``mask`` name, or the dataset's own where there are none.

    A word is a key of the file that the dataset's ``inputs`` name; as ``mask`` also the name of one of ``inputs``.

    Parameters
    ----------
    named
        The catalog's words.
    only
        The dataset's own ``inputs``.
    n_points
        How many points the dataset has.

    Raises
    ------
    DataError
        ``missing_source`` for what is not there; ``bad_ids`` for another number of rows; ``wrong_dtype`` and
        ``wrong_shape`` for other arrays than inputs and masks are.
    """
    if named.inputs:
        arrays = {name: _input_array(named, name, place) for name, place in named.inputs.items()}
    else:
        arrays = {} if only is None else {ONLY: only}
    mask = None
    if isinstance(named.mask, str) and named.mask in arrays:
        mask = arrays[named.mask]
    elif named.mask is not None:
        mask = _input_array(named, "mask", named.mask)
    for name, values in [*arrays.items(), *([] if mask is None else [("mask", mask)])]:
        if len(values) != n_points:
            problem = f"got {len(values)} rows of {name or 'inputs'} and {n_points} ids, expected one row an id"
            raise DataError("bad_ids", f"model {named.model}: {problem}. Give the inputs of these ids")
    if mask is not None:
        _check_mask(named.model, mask)
    return ArrayInputs(arrays, mask)


def check_dataset(model: str, dataset: str, inputs: object, has_own: bool) -> None:
    """Raise DataError if a dataset has nothing to run a network on that has no named inputs of its own (``has_own``).

    Raises
    ------
    DataError
        ``missing_source`` for a dataset without inputs; ``bad_inputs`` for one whose points are tokens.
    """
    if inputs is None and not has_own:
        problem = f"model {model}: got no inputs in the dataset {dataset}, expected them to run the network"
        advice = "Add inputs: {path: inputs.npy} to the dataset, or inputs: {name: {path: array.npy}} to the model"
        raise DataError("missing_source", f"{problem}. {advice}")
    if isinstance(inputs, TokenPoints):
        problem = "got a dataset whose points are tokens, expected one of rows for this kind of model"
        raise DataError("bad_inputs", f"model {model}: {problem}. Give it a dataset of its own")


def _input_array(named: NamedInputs, name: str, place: str | ModelFile) -> Shaped[np.ndarray, "points ..."]:
    fields = {"model": named.model, "dataset": named.dataset_name}
    where: ModelFile | DatasetFile
    if isinstance(place, ModelFile):
        where = place
    elif named.dataset.inputs is None:
        problem = f"got {name}: {shorten(place)}, expected a key of the dataset's inputs, which name no file"
        known = did_you_mean(place, named.inputs) if name == "mask" and named.inputs else ""
        raise DataError(
            "missing_source", f"model {named.model}: {problem}{known}. Write {name}: {{path: ..., key: ...}}"
        )
    else:
        where = _other_key(named.dataset.inputs, place)
    path = fill_pattern(where.path, **fields)
    key = None if where.key is None else fill_pattern(where.key, **fields)
    array = FilePattern(named.root, path, key, where.storage, reading_of(where)).open()
    values: Shaped[np.ndarray, "points ..."] = array.load()
    if values.ndim < 1 or values.dtype.kind not in "iubf":
        problem = f"{array.name}: got {values.dtype} of shape {values.shape} as {name}, expected numbers, a row a point"
        raise DataError("wrong_dtype", f"{problem}. Name another array")
    return values


def _other_key(file: DatasetFile, key: str) -> DatasetFile:
    """Return another array of the same file."""
    return file.model_copy(update={"key": key, "columns": ()})


def _check_mask(model: str, mask: Shaped[np.ndarray, "points ..."]) -> None:
    if mask.ndim != 2 or ((mask != 0) & (mask != 1)).any():
        problem = f"got a mask of {mask.dtype} and shape {mask.shape}, expected (points, tokens) of 0 and 1"
        raise DataError("wrong_shape", f"model {model}: {problem}. Give 1 for a token, 0 for padding")
    if not mask.any(axis=1).all():
        row = int((~mask.any(axis=1)).argmax())
        raise DataError("wrong_shape", f"model {model}: got no token in row {row} of the mask. Leave such rows out")
