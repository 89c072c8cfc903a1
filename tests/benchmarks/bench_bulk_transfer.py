"""Stores are carried at half the speed of the bare product and copy, or better, in memory that no size changes.

``python tests/benchmarks/bench_bulk_transfer.py --rows 1000000 --folder FOLDER``: rows × 384 float32, once by the bare
product, chunk by chunk from a file into a file, once as ``lfm-atlas transfer`` does it.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from lfm_tasks.upgrades.adapters import Adapter
from lfm_tasks.upgrades.bulk import CarryOptions, carry, plan_carry
from lfm_tasks.upgrades.stores import open_store

_WIDTH, _CHUNK = 384, 1 << 15


def main() -> None:
    """Print seconds and megabytes of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--suffix", default=".npy")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    adapter = Adapter(generator.standard_normal((_WIDTH, _WIDTH)).astype(np.float32) / 20, np.zeros(_WIDTH, np.float32))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        block = generator.standard_normal((_CHUNK, _WIDTH)).astype(np.float32)
        with (folder / "store.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (arguments.rows, _WIDTH)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, arguments.rows, _CHUNK):
                file.write(block[: arguments.rows - start].data)
            os.fsync(file.fileno())
        bare = _bare(folder, adapter, arguments.rows)
        started = time.perf_counter()
        store = open_store(str(folder / "store.npy"))
        output = folder / f"carried{arguments.suffix}"
        carry(plan_carry(adapter, store, output, CarryOptions()), adapter)
        taken = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arguments.rows:,} x {_WIDTH}: bare {bare:.1f} s, carried {taken:.1f} s, speed {bare / taken:.2f} of bare")  # noqa: T201
    print(f"{taken / arguments.rows * 1e6:.2f} us a vector, peak {peak:,.0f} MB")  # noqa: T201


def _bare(folder: Path, adapter: Adapter, n_rows: int) -> float:
    """Return the seconds of reading, multiplying and writing, all on the disk at the end, in plain NumPy."""
    matrix = adapter.matrix
    started = time.perf_counter()
    with (folder / "store.npy").open("rb") as source, (folder / "bare.bin").open("wb") as target:
        source.seek(128)
        for start in range(0, n_rows, _CHUNK):
            n = min(_CHUNK, n_rows - start)
            target.write((np.fromfile(source, np.float32, n * _WIDTH).reshape(n, _WIDTH) @ matrix).data)
        target.flush()
        os.fsync(target.fileno())
    taken = time.perf_counter() - started
    (folder / "bare.bin").unlink()
    return taken


if __name__ == "__main__":
    main()
