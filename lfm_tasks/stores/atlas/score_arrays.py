"""The scores of a small published atlas in NumPy alone, for commands that answer at once.

xarray, pandas and Zarr take longer to import than ``show`` and ``diff`` work. `ScoreArrays` has what these need of
`xarray.Dataset`, under its names; it reads the files that `write_atlas` writes, and no others: see `read_score_arrays`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.stores.atlas.schema import SCHEMA_VERSION, ZARR, Manifest, changed_file

# Larger scores (bytes) are left to xarray, which reads only the chunks that a query needs.
_MOST_BYTES = 64 << 20
_TYPES = ("string", "float64", "float32", "int64", "int32", "int8", "bool")
_KEYS = {"name": "default", "configuration": {"separator": "/"}}


def read_score_arrays(folder: Path, manifest: Manifest) -> "ScoreArrays | None":
    """Return the scores of the atlas in ``folder``, each array read when it is used.

    None where they are large, of a former schema, or laid out in another way than `write_atlas` has it: then
    `open_scores` reads them.

    Raises
    ------
    AtlasError
        If a file is not that of ``manifest``.
    """
    files = _Files(folder, manifest)
    group = json.loads(files.read("zarr.json"))
    nodes: Mapping[str, Any] = group.get("consolidated_metadata", {}).get("metadata", {})
    arrays = {name: node for name, node in nodes.items() if node["node_type"] == "array" and "/" not in name}
    is_ours = group["attributes"].get("schema_version") == SCHEMA_VERSION and all(map(_is_ours, arrays.values()))
    n_bytes = sum(prod(node["shape"]) * _item_bytes(node) for node in arrays.values()) if is_ours else 0
    if not is_ours or n_bytes > _MOST_BYTES:
        return None
    return ScoreArrays(_Stored(files, arrays), group["attributes"], {})


def _is_ours(node: Mapping[str, Any]) -> bool:
    if node["data_type"] not in _TYPES:
        return False
    codecs = [codec["name"] for codec in node["codecs"]]
    endian = node["codecs"][0].get("configuration", {}).get("endian", "little")
    return (
        codecs == ["vlen-utf8" if node["data_type"] == "string" else "bytes", "zstd"]
        and endian == "little"
        and node["chunk_grid"]["name"] == "regular"
        and node["chunk_key_encoding"] == _KEYS
        and not node["storage_transformers"]
        # Of whole numbers xarray would make numbers with NaN.
        and ("_FillValue" not in node["attributes"] or node["data_type"].startswith("float"))
    )


def _item_bytes(node: Mapping[str, Any]) -> int:
    return 8 if node["data_type"] == "string" else np.dtype(node["data_type"]).itemsize


@dataclass(frozen=True)
class _Files:
    """The files of one published atlas and no others, as `AtlasStore` reads them."""

    folder: Path
    manifest: Manifest

    def has(self, key: str) -> bool:
        return f"{ZARR}/{key}" in self.manifest.files

    def read(self, key: str) -> bytes:
        expected = self.manifest.files.get(f"{ZARR}/{key}", {}).get("sha256")
        try:
            content = (self.folder / ZARR / key).read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() != expected:
            raise changed_file(self.folder, f"{ZARR}/{key}")
        return content


@dataclass(frozen=True)
class _Stored:
    """The arrays as they are stored; each is read once."""

    files: _Files
    nodes: Mapping[str, Mapping[str, Any]]
    _known: dict[str, np.ndarray] = field(default_factory=dict)

    def values(self, name: str) -> np.ndarray:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> np.ndarray:
        """Return an array from its chunks; the last ones are padded, and those of the fill value alone are absent.

        https://zarr-specs.readthedocs.io/en/latest/v3/core/
        """
        node = self.nodes[name]
        is_text = node["data_type"] == "string"
        shape, sides = tuple(node["shape"]), node["chunk_grid"]["configuration"]["chunk_shape"]
        values = np.full(shape, _fill_value(node), object if is_text else node["data_type"])
        for place in product(*(range(ceil(size / side)) for size, side in zip(shape, sides, strict=True))):
            key = "/".join((name, "c", *map(str, place)))
            if not self.files.has(key):
                continue
            content = _decompressed(self.files.read(key))
            flat = list(_texts(content)) if is_text else np.frombuffer(content, values.dtype.newbyteorder("<"))
            chunk = np.array(flat, dtype=values.dtype).reshape(sides)
            target = values[tuple(slice(at * side, (at + 1) * side) for at, side in zip(place, sides, strict=True))]
            target[...] = chunk[tuple(slice(0, size) for size in target.shape)]
        return values


def _fill_value(node: Mapping[str, Any]) -> Any:
    return np.nan if node["fill_value"] == "NaN" else node["fill_value"]


def _decompressed(content: bytes) -> bytes:
    from numcodecs import zstd

    return bytes(zstd.decompress(content))


def _texts(content: bytes) -> Iterator[str]:
    """Yield texts as ``vlen-utf8`` has them: how many, then of each its bytes, each with its length before it."""
    start = 4
    for _ in range(int.from_bytes(content[:4], "little")):
        end = start + 4 + int.from_bytes(content[start : start + 4], "little")
        yield content[start + 4 : end].decode()
        start = end


class ScoreArrays(Mapping[str, "ScoreArray"]):
    """The labeled arrays of an atlas: of `xarray.Dataset` the selection by labels and places, and reading."""

    def __init__(self, stored: _Stored, attrs: Mapping[str, Any], chosen: Mapping[str, int | np.ndarray]) -> None:
        self._stored, self.attrs, self._chosen = stored, attrs, chosen

    def __getitem__(self, name: str) -> "ScoreArray":
        """Return one array."""
        node = self._stored.nodes[name]
        values, dims = self._stored.values(name), tuple(node["dimension_names"])
        # Single places first: what is left to copy is smaller.
        single = {dim: place for dim, place in self._chosen.items() if isinstance(place, int)}
        values = values[tuple(single.get(dim, slice(None)) for dim in dims)]
        left = tuple(dim for dim in dims if dim not in single)
        for axis, dim in enumerate(left):
            if dim in self._chosen:
                values = values.take(np.asarray(self._chosen[dim]), axis=axis)
        return ScoreArray(self, name, np.asarray(values), left, node["attributes"])

    def __iter__(self) -> Iterator[str]:
        """Return the names of all arrays."""
        return iter(self._stored.nodes)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self._stored.nodes)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the number of labels of each dimension that has labels."""
        return {name: len(self[name].values) for name in self if self[name].dims == (name,)}

    def sel(self, labels: Mapping[str, Any] | None = None, **more: Any) -> "ScoreArrays":
        """Return the arrays at labels of dimensions: one label, which takes the dimension away, or a list."""
        places: dict[str, Any] = {}
        for dim, wanted in {**(labels or {}), **more}.items():
            place = {str(label): row for row, label in enumerate(self[dim].values)}
            places[dim] = place[wanted] if isinstance(wanted, str) else [place[label] for label in wanted]
        return self.isel(**places)

    def isel(self, **places: Any) -> "ScoreArrays":
        """Return the arrays at places of dimensions: one place, which takes the dimension away, or several."""
        chosen = dict(self._chosen)
        for dim, place in places.items():
            before = chosen.get(dim, np.arange(len(self._stored.values(dim)))) if dim in self._stored.nodes else None
            rows = place if before is None else np.asarray(before)[place]
            chosen[dim] = int(rows) if np.ndim(rows) == 0 else np.asarray(rows, dtype=int)
        return ScoreArrays(self._stored, self.attrs, chosen)

    def load(self) -> "ScoreArrays":
        """Return the arrays as they are: what is used is in memory."""
        return self

    def close(self) -> None:
        """Do nothing: no file is open."""


@dataclass(frozen=True)
class ScoreArray:
    """One of the arrays: its values, the names of their dimensions, and their attributes."""

    of: ScoreArrays
    name: str
    values: np.ndarray
    dims: tuple[str, ...]
    attrs: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the values."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """Return the number of dimensions."""
        return self.values.ndim

    def get_axis_num(self, dim: str) -> int:
        """Return which axis a dimension is."""
        return self.dims.index(dim)

    def sel(self, **labels: Any) -> "ScoreArray":
        """Return the array at labels of dimensions."""
        return self.of.sel(**labels)[self.name]

    def __float__(self) -> float:
        """Return the one value of an array without dimensions."""
        return float(self.values)

    def __int__(self) -> int:
        """Return the one value of an array without dimensions."""
        return int(self.values)
