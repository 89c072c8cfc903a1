"""Bombs in their real size: refused by a process that hardly grows."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

MOST_MEMORY = 300 * 2**20  # bytes that a refusal may take, libraries included
CHILD = """
import json, resource, sys
from pathlib import Path
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.networks.onnx_file import read_onnx
import h5py, numpy, onnx, pyarrow.parquet, zarr
path, key = Path(sys.argv[1]), sys.argv[2] or None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_onnx(path) if path.suffix == ".onnx" else open_array(path, path.name, key).load()
    told = ""
except DataError as error:
    told = str(error)
print(json.dumps([told, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)]))
"""


def npy(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**15, 4)})


def npz(path: Path) -> None:
    """Write 1 GB of zeros in 4 MB."""
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("x.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 1)})
        for _ in range(100):
            file.write(bytes(10**7))


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10**12, 5), "f4", chunks=(1000, 5))[:10] = 1


def hdf5_zeros(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10**9,), "u1", chunks=(10**7,), compression="gzip", compression_opts=1)
        for start in range(0, 10**9, 10**7):
            file["x"][start : start + 10**7] = 0


def zarr_rows(path: Path) -> None:
    zarr.create_array(path, shape=(10**15, 4), chunks=(10**6, 4), dtype="f4")


def zarr_chunk(path: Path) -> None:
    zarr.create_array(path, shape=(30,), chunks=(10**12,), dtype="f4")


def parquet(path: Path) -> None:
    """Write 100 GB of text in 1 MB."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), ["a" * 1_000_000])
    pq.write_table(pa.table({"x": texts}), path)


def lines(path: Path) -> None:
    path.write_text("a\n" * 100_000 + "b" * 10**6, encoding="utf-8")


def pt(path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.zeros(1).expand(10**9, 10**6), path)


def onnx_tensor(path: Path) -> None:
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[10**9, 10**9])
    entry = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [entry], [onnx.helper.make_empty_tensor_value_info("y")], [tensor])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


BOMBS: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "npy": ("a.npy", npy, "", "expected 16,000,000,000,000,000 for"),
    "npz": ("a.npz", npz, "x", "packed"),
    "hdf5": ("a.h5", hdf5, "x", "got 1 of 1,000,000,000 chunks"),
    "hdf5 zeros": ("a.h5", hdf5_zeros, "x", "packed"),
    "zarr": ("a.zarr", zarr_rows, "", "got 1 of 1,000,000,000 chunks"),
    "zarr chunk": ("a.zarr", zarr_chunk, "", "more bytes than fit"),
    "parquet": ("a.parquet", parquet, "x", "more bytes than fit"),
    "lines": ("a.txt", lines, "", "expected short ones"),
    "pt": ("a.pt", pt, "", "of which the file holds a part that repeats"),
    "onnx": ("a.onnx", onnx_tensor, "", "got a tensor of shape"),
}

pytestmark = pytest.mark.fuzz


@pytest.mark.parametrize("case", BOMBS)
def test_bomb__is_refused_without_memory_for_it(case: str, tmp_path: Path) -> None:
    name, make, key, message = BOMBS[case]
    make(tmp_path / name)
    environment = dict(os.environ)
    command = [sys.executable, "-c", CHILD, str(tmp_path / name), key]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)

    told, grown = json.loads(done.stdout)
    assert message in told
    assert grown < MOST_MEMORY
