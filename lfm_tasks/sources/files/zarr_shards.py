"""Counts the chunks inside the shards of a Zarr 3 array by their indexes; Zarr counts files alone.

A shard begins or ends with its index: two 64-bit numbers a chunk, where it lies and how long it is, all ones where it
was never written, and a checksum: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed.
"""

from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.paths import is_file, open_bytes

_ABSENT = 2**64 - 1
_CHECKSUM_BYTES = {"crc32c": 4}


def is_sharded(array: Any) -> bool:
    """Return whether the chunks of a ``zarr.Array`` lie in shards."""
    codecs = array.metadata.to_dict().get("codecs", []) if array.metadata.zarr_format == 3 else []
    return any(codec["name"] == "sharding_indexed" for codec in codecs)


def n_inner_chunks(array: Any, folder: Path, name: str) -> tuple[int, int]:
    """Return how many chunks of a sharded array were written, and how many it has.

    Parameters
    ----------
    array
        The ``zarr.Array``.
    folder
        Where it lies.
    name
        How messages call it.

    Raises
    ------
    DataError
        ``missing_source`` for shards inside of shards, or shards that are packed as a whole; ``damaged_source`` for a
        shard without an index.
    """
    order, sharding = _layout(array, name)
    inner = tuple(sharding["chunk_shape"])
    shard = tuple(array.shards or array.chunks)
    grid = [-(-length // rows) for length, rows in zip(array.shape, shard, strict=True)]
    # The codec sees the shard with its axes in this order.
    per_shard = [shard[axis] // rows for axis, rows in zip(order, inner, strict=True)]
    present = needed = 0
    for place in product(*map(range, grid)):
        inside = _inside(array.shape, shard, place, inner, order)
        file = folder / array.metadata.encode_chunk_key(place)
        needed += int(inside.sum())
        if is_file(file):
            present += int((inside & _written(file, per_shard, sharding, name)).sum())
    return present, needed


def _layout(array: Any, name: str) -> tuple[list[int], dict[str, Any]]:
    """Return the order of the axes inside a shard, and the configuration of the sharding."""
    order = list(range(len(array.shape)))
    codecs = array.metadata.to_dict()["codecs"]
    sharding: dict[str, Any] | None = None
    is_odd = False
    for codec in codecs:
        settings = codec.get("configuration", {})
        if codec["name"] == "sharding_indexed" and sharding is None:
            sharding = settings
            is_odd |= any(one["name"] == "sharding_indexed" for one in settings.get("codecs", []))
        elif codec["name"] == "transpose" and sharding is None:
            order = [order[axis] for axis in settings["order"]]
        else:
            is_odd = True
    if sharding is None or is_odd:
        problem = "got shards that are packed, or hold other shards, so that their chunks cannot be counted"
        raise DataError("missing_source", f"{name}: {problem}. Write it with one kind of shard, and pack the chunks")
    return order, sharding


def _inside(
    shape: tuple[int, ...], shard: tuple[int, ...], place: tuple[int, ...], inner: tuple[int, ...], order: list[int]
) -> Bool[np.ndarray, "..."]:
    """Return which chunks of the shard at ``place`` hold values of the array: those beyond its end hold none."""
    along = []
    for axis, rows in zip(order, inner, strict=True):
        starts = place[axis] * shard[axis] + np.arange(0, shard[axis], rows)
        along.append(starts < shape[axis])
    inside = np.ones((), dtype=bool)
    for which in along:
        inside = np.multiply.outer(inside, which)
    return inside


def _written(file: Path, per_shard: list[int], sharding: dict[str, Any], name: str) -> Bool[np.ndarray, "..."]:
    """Return which chunks of a shard its index lists."""
    n_bytes, order = 16 * prod(per_shard), "<"
    for codec in sharding.get("index_codecs", []):
        if codec["name"] == "bytes":
            order = ">" if codec.get("configuration", {}).get("endian") == "big" else "<"
        elif codec["name"] in _CHECKSUM_BYTES:
            n_bytes += _CHECKSUM_BYTES[codec["name"]]
        else:
            problem = f"got a shard's index by the codec {codec['name'][:60]!r}, expected bytes and crc32c"
            raise DataError("missing_source", f"{name}: {problem}. Write it with these")
    with open_bytes(file, n_bytes) as content:
        size = content.seek(0, 2)
        if size < n_bytes:
            problem = f"got a shard of {size:,} bytes, expected an index of {n_bytes:,}"
            raise DataError("damaged_source", f"{name}: {problem}: it is cut off, copy it again")
        content.seek(0 if sharding.get("index_location", "end") == "start" else size - n_bytes)
        index = np.frombuffer(content.read(16 * prod(per_shard)), dtype=f"{order}u8")
    return (index.reshape(*per_shard, 2) != _ABSENT).any(axis=-1)
