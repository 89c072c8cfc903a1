"""Half-written Zarr arrays are refused, in shards as well: the index of a shard tells which of its chunks are there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import Reading, open_array

ROWS = np.random.default_rng(0).standard_normal((120, 8)).astype(np.float32)
FILLED = Reading(missing_chunks="fill")


def sharded(folder: Path, shape: tuple[int, ...], shard: tuple[int, ...], codecs: list[Any]) -> zarr.Array:
    """Return an array whose codecs are chosen one by one, which the usual functions do not offer."""
    return zarr.create(  # type: ignore[no-any-return]
        store=folder / "a.zarr", shape=shape, chunks=shard, dtype="f4", zarr_format=3, codecs=codecs, fill_value=0
    )


INDEXES: dict[str, dict[str, Any]] = {
    "at the end": {},
    "at the start": {"index_location": "start"},
    "big-endian": {"index_codecs": [BytesCodec(endian="big"), Crc32cCodec()]},
    "without a checksum": {"index_codecs": [BytesCodec()]},
}


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("shard", [(120, 8), (40, 8), (60, 4)])
def test_half_written_shards__are_refused(index: str, shard: tuple[int, int], tmp_path: Path) -> None:
    array = sharded(tmp_path, ROWS.shape, shard, [ShardingCodec(chunk_shape=(10, 4), **INDEXES[index])])
    array[:80] = ROWS[:80]

    with pytest.raises(DataError, match=r"got 16 of 24 chunks, .* read as 0\.0. Copy it again, or say missing_chunks"):
        open_array(tmp_path / "a.zarr", "a.zarr")
    read = open_array(tmp_path / "a.zarr", "a.zarr", None, FILLED).load()
    np.testing.assert_array_equal(read, np.where(np.arange(120)[:, None] < 80, ROWS, 0))
    array[80:] = ROWS[80:]
    np.testing.assert_array_equal(open_array(tmp_path / "a.zarr", "a.zarr").load(), ROWS)


def test_chunks_beyond_the_end_of_an_array__need_not_be_there(tmp_path: Path) -> None:
    rows = ROWS[:105, :7]
    array = sharded(tmp_path, rows.shape, (40, 8), [ShardingCodec(chunk_shape=(10, 4))])
    array[:] = rows
    np.testing.assert_array_equal(open_array(tmp_path / "a.zarr", "a.zarr").load(), rows)
    array[100:] = 0  # the last chunks, half of which lie beyond the end, are not stored
    with pytest.raises(DataError, match=r"got 20 of 22 chunks"):
        open_array(tmp_path / "a.zarr", "a.zarr")


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
def test_shards_of_arrays_whose_axes_change_places__are_counted(tmp_path: Path) -> None:
    codecs = [TransposeCodec(order=(1, 0)), ShardingCodec(chunk_shape=(8, 8))]
    array = sharded(tmp_path, ROWS.shape, (40, 8), codecs)
    array[:70] = ROWS[:70]
    with pytest.raises(DataError, match=r"got 9 of 15 chunks"):
        open_array(tmp_path / "a.zarr", "a.zarr")
    array[:] = ROWS
    np.testing.assert_array_equal(open_array(tmp_path / "a.zarr", "a.zarr").load(), ROWS)


def test_shards_inside_of_shards__are_refused(tmp_path: Path) -> None:
    inner = ShardingCodec(chunk_shape=(5, 4))
    array = sharded(tmp_path, ROWS.shape, (40, 8), [ShardingCodec(chunk_shape=(10, 4), codecs=[inner])])
    array[:] = ROWS
    with pytest.raises(DataError, match="got shards that are packed, or hold other shards"):
        open_array(tmp_path / "a.zarr", "a.zarr")


def test_a_shard_that_is_cut_off__is_damaged(tmp_path: Path) -> None:
    array = sharded(tmp_path, ROWS.shape, (120, 8), [ShardingCodec(chunk_shape=(10, 4))])
    array[:] = ROWS
    file = tmp_path / "a.zarr" / "c" / "0" / "0"
    file.write_bytes(file.read_bytes()[-100:])
    with pytest.raises(DataError, match=r"got a shard of 100 bytes, expected an index of 388") as caught:
        open_array(tmp_path / "a.zarr", "a.zarr")
    assert caught.value.reason == "damaged_source"


@pytest.mark.parametrize("version", [2, 3])
def test_missing_chunks_in_groups__are_refused_unless_they_are_meant(version: int, tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)  # type: ignore[arg-type]
    inner = group.create_group("block/0")
    array = inner.create_array("acts", shape=ROWS.shape, chunks=(10, 8), dtype="f4", fill_value=0)
    array[:80] = ROWS[:80]

    with pytest.raises(DataError, match=r"a\.zarr#block/0/acts: got 8 of 12 chunks"):
        open_array(tmp_path / "a.zarr", "a.zarr", "block/0/acts")
    read = open_array(tmp_path / "a.zarr", "a.zarr", "block/0/acts", FILLED).load()
    assert not read[80:].any()
    np.testing.assert_array_equal(read[:80], ROWS[:80])


def test_missing_chunks__mean_nothing_for_files_without_chunks(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    with pytest.raises(DataError, match="got missing_chunks for a kind of file that has no chunks"):
        open_array(tmp_path / "a.npy", "a.npy", None, FILLED)
