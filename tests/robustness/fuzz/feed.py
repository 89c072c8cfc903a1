"""Feeds damaged files of one kind to its reader, in a process of its own that may crash or hang; prints the counts.

``feed.py KIND SEED FIRST LAST FOLDER``: before each input, its number is written to FOLDER/at. The same numbers make
the same inputs. An input is a success if it is read, or refused by a DataError; anything else is printed.
"""

import json
import resource
import signal
import struct
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np

SECONDS = 20  # an input
MOST_MEMORY = 2**30  # bytes that all inputs may add
ROWS = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
TEXT = np.array([f"id{number:02}" for number in range(30)])
INTERESTING = [b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\0" * 8, b"\xff" * 8]
INTERESTING += [struct.pack("<Q", 2**power) for power in (20, 31, 33, 40, 62)]
WORDS = [b"30", b"5", b"9999999999999", b"-1", b"<f4", b"|O", b"F32", b"x", b"null", b"{}", b"[]", b"../x", b"1e999"]


def npy(path: Path) -> None:
    np.save(path, ROWS)


def npz(path: Path) -> None:
    np.savez_compressed(path, x=ROWS, ids=TEXT) if path.stem.endswith("1") else np.savez(path, x=ROWS, ids=TEXT)


def safetensors(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": ROWS, "y": ROWS[:2]}, path)


def hdf5(path: Path) -> None:
    import h5py

    packed = {"chunks": (10, 5), "compression": "gzip", "shuffle": True, "fletcher32": True}
    with h5py.File(path, "w", libver="latest" if path.stem.endswith("1") else "earliest") as file:
        file.create_dataset("x", data=ROWS, **(packed if path.stem.endswith("1") else {}))
        file.create_dataset("group/ids", data=TEXT.tolist(), dtype=h5py.string_dtype())


def parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = pa.array(ROWS.tolist(), pa.list_(pa.float32()))
    kind = "zstd" if path.stem.endswith("1") else "none"
    pq.write_table(pa.table({"x": lists, "ids": TEXT.tolist()}), path, row_group_size=10, compression=kind)


def arrow(path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 5), "ids": TEXT.tolist()})
    one = path.stem.endswith("1")
    options = pa.ipc.IpcWriteOptions(compression="zstd" if one else None)
    new = pa.ipc.new_stream if one else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=10)


def saved(path: Path) -> None:
    path.mkdir()
    arrow(path / "data1.arrow")
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data1.arrow"}]}))


def zarr(path: Path) -> None:
    import zarr

    version, shards = (3, (20, 5)) if path.stem.endswith("1") else (2, None)
    group = zarr.create_group(path, zarr_format=version)
    group.create_array("x", data=ROWS, chunks=(10, 5), shards=shards)


def packed(path: Path) -> None:
    """Write an array that is packed by the CF conventions, in shards whose index comes first."""
    import zarr
    from zarr.codecs import ShardingCodec

    codecs = [ShardingCodec(chunk_shape=(5, 5), index_location="start" if path.stem.endswith("1") else "end")]
    array = zarr.create(
        store=path, shape=ROWS.shape, chunks=(15, 5), dtype="i2", zarr_format=3, codecs=codecs, fill_value=0
    )
    array[:] = (ROWS * 100).astype(np.int16)
    array.attrs.update({"scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -9, "missing_value": [-99]})


def packed_hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["x"] = (ROWS * 20).astype(np.int8)
        marks = {"_Unsigned": np.bytes_(b"true"), "scale_factor": np.float32(0.1), "_FillValue": np.int8(-1)}
        file["x"].attrs.update(marks)


def netcdf(path: Path) -> None:
    import xarray as xr

    data = xr.Dataset({"x": (("point", "feature"), ROWS)}, coords={"point": TEXT.tolist()}, attrs={"title": "zoo"})
    grows = {"unlimited_dims": ["point"]} if path.stem.endswith("1") else {}
    data.to_netcdf(path, engine="scipy", encoding={"x": {"dtype": "int16", "scale_factor": 0.001}}, **grows)


def csv(path: Path) -> None:
    rows = [",".join([name, *map(str, row.tolist())]) for name, row in zip(TEXT, ROWS, strict=True)]
    path.write_text("\n".join(["ids,f0,f1,f2,f3,f4", *rows]), encoding="utf-8")


def jsonl(path: Path) -> None:
    rows = ({"ids": name, "x": row.tolist(), "f0": 1.5} for name, row in zip(TEXT.tolist(), ROWS, strict=True))
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def wide(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"ids": TEXT.tolist(), **{f"f{n}": ROWS[:, n] for n in range(5)}}), path, row_group_size=10)


def pt(path: Path) -> None:
    import torch

    nested = [torch.from_numpy(ROWS), {"y": torch.from_numpy(ROWS)}]
    content = {"x": torch.from_numpy(ROWS), "half": torch.from_numpy(ROWS).bfloat16(), "nested": nested}
    torch.save(content, path)


def text(path: Path) -> None:
    path.write_text("\n".join(TEXT), encoding="utf-8")


def onnx(path: Path) -> None:
    import shutil

    from lfm_tasks import zoo

    shutil.copy(Path(zoo.__file__).parent / ("cnn_s0.onnx" if path.stem.endswith("1") else "mlp_s0.onnx"), path)


COLUMNS = "f*"  # in the place of a key: all these columns side by side
KINDS: dict[str, tuple[str, Callable[[Path], None], tuple[str | None, ...]]] = {
    "npy": (".npy", npy, (None,)),
    "npz": (".npz", npz, ("x", "ids")),
    "safetensors": (".safetensors", safetensors, ("x", "y")),
    "hdf5": (".h5", hdf5, ("x", "group/ids")),
    "parquet": (".parquet", parquet, ("x", "ids")),
    "arrow": (".arrow", arrow, ("x", "ids")),
    "saved dataset": ("", saved, ("x", "ids")),
    "zarr": (".zarr", zarr, ("x",)),
    "packed": (".zarr", packed, (None,)),
    "packed hdf5": (".h5", packed_hdf5, ("x",)),
    "netcdf": (".nc", netcdf, ("x", "point")),
    "csv": (".csv", csv, ("ids", COLUMNS)),
    "jsonl": (".jsonl", jsonl, ("ids", "x", COLUMNS)),
    "columns": (".parquet", wide, ("ids", COLUMNS)),
    "pt": (".pt", pt, ("x", "half", "nested/1/y")),
    "text": (".txt", text, (None,)),
    "onnx": (".onnx", onnx, (None,)),
}


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """Return ``content`` with one to four damages: bits, bytes, numbers, words, cuts, repeats, moves."""
    for _ in range(generator.integers(1, 5)):
        at = int(generator.integers(0, len(content) + 1))
        if generator.random() < 0.5:  # headers and footers decide more than values do
            near = min(len(content), int(generator.integers(1, 400)))
            at = near if generator.random() < 0.5 else len(content) - near
        match int(generator.integers(0, 8)):
            case 0:
                content = content[:at]
            case 1:
                content = content[:at] + bytes([int(generator.integers(256))]) + content[at + 1 :]
            case 2 if content[at : at + 1]:
                content = content[:at] + bytes([content[at] ^ 1 << int(generator.integers(8))]) + content[at + 1 :]
            case 3:
                value = INTERESTING[int(generator.integers(len(INTERESTING)))]
                content = content[:at] + value + content[at + len(value) :]
            case 4:
                old, new = (WORDS[int(generator.integers(len(WORDS)))] for _ in range(2))
                content = content.replace(old, new, 1)
            case 5:
                content = content[:at] + content[at + int(generator.integers(1, 64)) :]
            case 6:
                content = content[:at] + content[at : at + int(generator.integers(1, 64))] + content[at:]
            case _:
                other = int(generator.integers(0, len(content) + 1))
                content = content[:at] + content[other : other + 16] + content[at + 16 :]
    return content


def read(path: Path, keys: tuple[str | None, ...]) -> bool:
    """Read all that is to be read of a file as a run does; return whether any of it was."""
    from lfm_tasks.errors import DataError
    from lfm_tasks.sources.files.formats import Reading, matching_keys
    from lfm_tasks.sources.files.formats import open_array as open_file

    def open_array(path: Path, name: str, key: str | None) -> Any:
        return (
            open_file(path, name, None, Reading(columns=(COLUMNS,))) if key == COLUMNS else open_file(path, name, key)
        )

    if path.suffix == ".onnx":
        return _read_onnx(path)
    any_read = False
    with suppress(DataError):
        matching_keys(path, path.name, "{layer}")
    for act in _acts(path, keys, open_array):
        with suppress(DataError):
            act()
            any_read = True
    return any_read


def _acts(path: Path, keys: tuple[str | None, ...], open_array: Any) -> Iterator[Callable[[], Any]]:
    for key in keys:

        def rows(key: str | None = key) -> None:
            array = open_array(path, path.name, key)
            array.sha256()
            with array.rows() as reader:
                reader(np.unique(np.array([0, 3, 2]) % max(1, array.shape[0]))[: array.shape[0]][::-1])

        yield rows
        yield lambda key=key: open_array(path, path.name, key).load()


def _read_onnx(path: Path) -> bool:
    from lfm_tasks.errors import DataError
    from lfm_tasks.sources.networks.onnx_models import OnnxSource

    try:
        inputs = np.random.default_rng(0).random((4, 64), dtype=np.float32)
        source = OnnxSource(path, inputs, np.arange(4).astype(str), pool="flatten", batch_size=4)
        for _ in source.batches(source.layer_names(), np.arange(4)):
            pass
    except DataError:
        return False
    return True


def main(kind: str, seed: int, first: int, last: int, folder: Path) -> None:
    """Feed the inputs from ``first`` up to (without) ``last``."""
    from lfm_tasks.errors import DataError
    from lfm_tasks.sources.files import hdf5_files

    suffix, make, keys = KINDS[kind]
    warnings.simplefilter("ignore")
    # The HDF5 library goes round and round in some damaged text, which is refused after a minute.
    hdf5_files._SECONDS = SECONDS / 5
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever library it is in
    whole = [folder / f"a{variant}{suffix}" for variant in (0, 1)]
    for path in whole:
        if path.is_dir():
            rmtree(path)
        make(path)
    counts = {"tried": 0, "read": 0, "refused": 0, "escaped": []}
    for path in whole:
        assert read(path, keys), f"{path} itself is refused"
    at_first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, last):
        generator = np.random.default_rng([seed, number])
        source = whole[number % 2]
        (folder / "at").write_text(str(number))
        target = folder / "b" / source.name
        rmtree(target.parent, ignore_errors=True)
        target.parent.mkdir()
        if source.is_dir():
            copytree(source, target)
            parts = sorted(path for path in target.rglob("*") if path.is_file())
            part = parts[int(generator.integers(len(parts)))]
            part.write_bytes(damaged(part.read_bytes(), generator))
        else:
            target.write_bytes(damaged(source.read_bytes(), generator))
        signal.alarm(SECONDS)
        try:
            counts["read" if read(target, keys) else "refused"] += 1
        except DataError:
            counts["refused"] += 1
        except BaseException as error:
            told = "".join(traceback.format_tb(error.__traceback__)[-3:])
            counts["escaped"].append(f"{kind} {seed} {number}: {type(error).__name__}: {error}\n{told}")
        signal.alarm(0)
        counts["tried"] += 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_first
        if grown * 1024 > MOST_MEMORY:
            counts["escaped"].append(f"{kind} {seed} {number}: took {grown // 1024:,} MiB")
            break
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    kind, seed, first, last, folder = sys.argv[1:]
    main(kind, int(seed), int(first), int(last), Path(folder))
