"""Stores are carried at half the speed of the bare product and copy, or better, in memory that no size changes.

``python tests/benchmarks/bench_bulk_transfer.py --rows 1000000 --folder FOLDER``: rows × 384 float32, once by the bare
product, chunk by chunk from a file into a file, once as ``lfm-atlas transfer`` does it. ``--repeat`` reads one chunk
again and again in place of a file, for sizes that the disk does not hold twice; ``--dtype float16`` writes half of it.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from lfm_tasks.upgrades.adapters import Adapter
from lfm_tasks.upgrades.bulk import CarryOptions, carry, plan_carry
from lfm_tasks.upgrades.stores import VectorStore, open_large_store

_WIDTH, _CHUNK = 384, 1 << 15


def main() -> None:
    """Print seconds and megabytes of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--suffix", default=".npy")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--repeat", action="store_true")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    adapter = Adapter(generator.standard_normal((_WIDTH, _WIDTH)).astype(np.float32) / 20, np.zeros(_WIDTH, np.float32))
    n_rows, dtype = arguments.rows, np.dtype(arguments.dtype)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        block = generator.standard_normal((_CHUNK, _WIDTH)).astype(np.float32)
        _write(folder / "store.npy", block, _CHUNK if arguments.repeat else n_rows)
        store = open_large_store(str(folder / "store.npy"))
        if arguments.repeat:
            store = _repeated(store, block, n_rows)
        bare = _bare(folder, adapter, n_rows, dtype, block if arguments.repeat else None)
        started = time.perf_counter()
        output = folder / f"carried{arguments.suffix}"
        carry(plan_carry(adapter, store, output, CarryOptions(arguments.dtype)), adapter)
        taken = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    what = f"{n_rows:,} x {_WIDTH} {dtype}{', one chunk repeated' if arguments.repeat else ''}"
    print(f"{what}: bare {bare:.1f} s, carried {taken:.1f} s, speed {bare / taken:.2f} of bare")  # noqa: T201
    print(f"{taken / n_rows * 1e6:.2f} us a vector, peak {peak:,.0f} MB")  # noqa: T201


def _write(path: Path, block: np.ndarray, n_rows: int) -> None:
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, _WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n_rows, _CHUNK):
            file.write(block[: n_rows - start].data)
        os.fsync(file.fileno())


def _repeated(store: VectorStore, block: np.ndarray, n_rows: int) -> VectorStore:
    """Return a store of many rows, the same ones over and over."""

    @contextmanager
    def opened() -> Iterator[object]:
        yield lambda start, stop: block[np.arange(start, stop) % _CHUNK]

    return replace(store, vectors=replace(store.vectors, shape=(n_rows, _WIDTH), open=opened))


def _bare(folder: Path, adapter: Adapter, n_rows: int, dtype: np.dtype, block: np.ndarray | None) -> float:
    """Return the seconds of reading, multiplying and writing, all on the disk at the end, in plain NumPy."""
    matrix = adapter.matrix
    started = time.perf_counter()
    with (folder / "store.npy").open("rb") as source, (folder / "bare.bin").open("wb") as target:
        source.seek(128)
        for start in range(0, n_rows, _CHUNK):
            n = min(_CHUNK, n_rows - start)
            rows = block[:n] if block is not None else np.fromfile(source, np.float32, n * _WIDTH).reshape(n, _WIDTH)
            target.write((rows @ matrix).astype(dtype, copy=False).data)
        target.flush()
        os.fsync(target.fileno())
    taken = time.perf_counter() - started
    (folder / "bare.bin").unlink()
    return taken


if __name__ == "__main__":
    main()
