"""Stores are carried at half the speed of the bare product and copy, or better, in memory that no size changes.

``python tests/benchmarks/bench_bulk_transfer.py --rows 1000000 --folder FOLDER``: rows × 384 of a file, carried as
``lfm-atlas transfer`` does it and, in turns, by the bare product: read, multiply, write, wait for the disk. A turn is
one GiB of output, so that both meet the same load; the bare one reads the other half of the file, so that neither finds
in memory what the other has just read. Bare output is removed after each turn. ``--store float16`` reads half as much,
``--dtype float16`` writes half as much.
"""

import argparse
import os
import resource
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lfm_tasks.upgrades.adapters import Adapter
from lfm_tasks.upgrades.bulk import CarryOptions, carry, plan_carry
from lfm_tasks.upgrades.stores import open_large_store

_WIDTH, _CHUNK = 384, 1 << 15
_TURN_BYTES = 2**30


@dataclass
class Clock:
    """Seconds that passed, and seconds of processors, user and system, between `start` and `stop`."""

    wall: float = 0.0
    processor: float = 0.0

    def start(self) -> None:
        """Go on counting."""
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Count no longer."""
        self.wall += time.perf_counter() - self._wall
        self.processor += time.process_time() - self._processor


class Bare:
    """The product and copy in plain NumPy, a turn at a time."""

    def __init__(self, folder: Path, matrix: np.ndarray, n_rows: int, store: np.dtype, dtype: np.dtype) -> None:
        self.folder, self.matrix, self.n_rows, self.store, self.dtype = folder, matrix, n_rows, store, dtype
        self.clock, self.n_done = Clock(), 0
        self.turn = min(n_rows, _TURN_BYTES // (_WIDTH * dtype.itemsize))

    def up_to(self, n_rows: int, carrying: Clock) -> None:
        """Carry as many rows as the command has, whose clock stands still meanwhile."""
        while self.n_done < n_rows and (n_rows - self.n_done >= self.turn or n_rows == self.n_rows):
            carrying.stop()
            self.clock.start()
            stop = min(self.n_done + self.turn, self.n_rows)
            with (self.folder / "store.npy").open("rb") as source, (self.folder / "bare.bin").open("wb") as target:
                for first in range(self.n_done, stop, _CHUNK):
                    self._carry(source, target, first, min(_CHUNK, stop - first))
                target.flush()
                os.fsync(target.fileno())
            self.n_done = stop
            self.clock.stop()
            (self.folder / "bare.bin").unlink()
            carrying.start()

    def _carry(self, source, target, first: int, n: int) -> None:  # type: ignore[no-untyped-def]
        place = min((first + self.n_rows // 2) % self.n_rows, self.n_rows - n)
        source.seek(128 + place * _WIDTH * self.store.itemsize)
        rows = np.fromfile(source, self.store, n * _WIDTH).reshape(n, _WIDTH).astype(np.float32, copy=False)
        target.write((rows @ self.matrix).astype(self.dtype, copy=False).data)


def main() -> None:
    """Print seconds, of the clock and of processors, of both, their ratios, and the peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--suffix", default=".npy")
    parser.add_argument("--store", choices=("float32", "float16"), default="float32")
    parser.add_argument("--directions", action="store_true", help="the map brings rows to length 1 first")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    adapter = Adapter(generator.standard_normal((_WIDTH, _WIDTH)).astype(np.float32) / 20, np.zeros(_WIDTH, np.float32))
    adapter = replace(adapter, takes_directions=arguments.directions)
    n_rows, stored, dtype = arguments.rows, np.dtype(arguments.store), np.dtype(arguments.dtype)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        _write(folder / "store.npy", generator.standard_normal((_CHUNK, _WIDTH)).astype(stored), n_rows)
        bare, clock = Bare(folder, adapter.matrix, n_rows, stored, dtype), Clock()
        plan = plan_carry(
            adapter, open_large_store(str(folder / "store.npy")), folder / f"carried{arguments.suffix}",
            CarryOptions(arguments.dtype),
        )  # fmt: skip
        clock.start()
        carry(plan, adapter, lambda stage, done, total: bare.up_to(done, clock))
        clock.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{n_rows:,} x {_WIDTH}, {stored} -> {dtype}, {arguments.suffix}, in turns of {bare.turn:,} rows")  # noqa: T201
    for what, one in (("bare", bare.clock), ("carried", clock)):
        print(f"{what:>8}: {one.wall:7.1f} s, {one.processor:7.1f} s of processors")  # noqa: T201
    ratios = bare.clock.wall / clock.wall, bare.clock.processor / clock.processor
    print(f"speed of the bare one: {ratios[0]:.2f}, per second of processors {ratios[1]:.2f}")  # noqa: T201
    print(f"{clock.wall / n_rows * 1e6:.2f} us a vector, peak {peak:,.0f} MB")  # noqa: T201


def _write(path: Path, block: np.ndarray, n_rows: int) -> None:
    with path.open("wb") as file:
        header = {"descr": block.dtype.str, "fortran_order": False, "shape": (n_rows, _WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n_rows, _CHUNK):
            file.write(block[: n_rows - start].data)
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
