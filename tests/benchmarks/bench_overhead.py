"""What Prefect and Dask cost a tile: one stage by Prefect and Dask, and one tile after the other in this process.

Tiles do nothing: what is left is what sending them costs. Wall time, since most of it is waiting, and the CPU time of
the run's process (client, scheduler and Prefect's task); the two sides alternate, and the least of each counts. Run it
as ``python tests/benchmarks/bench_overhead.py [--tiles 1000]``.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lfm_atlas.prefect_server import prefect_server, wait_until_ready
from lfm_tasks.workers.pool import InProcess, LocalDask, Workers


def nothing(value: int) -> int:
    """Return the tile's number."""
    return value


def stage(workers: Workers, tiles: Sequence[int]) -> int:
    """Return how many tiles came back: what every stage does with its jobs."""
    return sum(1 for _ in workers.run(nothing, tiles))


def main() -> None:
    """Print a line for each number of tiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    tiles = range(options.tiles)
    with tempfile.TemporaryDirectory() as home, prefect_server(Path(home)) as address:
        wait_until_ready(address)
        from prefect import flow

        from lfm_atlas.atlas import as_task

        with_both, cpu, without = [], [], []
        dask = LocalDask(2)

        @flow(name="overhead")
        def orchestrated() -> int:
            return int(as_task(stage)(dask, tiles))

        for _ in range(options.repeats + 1):  # the first starts the cluster, and is left out
            start, cpu_start = time.perf_counter(), time.process_time()
            orchestrated()
            with_both.append(time.perf_counter() - start)
            cpu.append(time.process_time() - cpu_start)
            start = time.perf_counter()
            stage(InProcess(), tiles)
            without.append(time.perf_counter() - start)
        dask.close()
    cost = (min(with_both[1:]) - min(without[1:])) / options.tiles * 1000
    sys.stdout.write(
        f"{options.tiles} tiles that do nothing, 2 workers: {min(with_both[1:]):.2f} s by Prefect and Dask, "
        f"{min(without[1:]):.2f} s in one process: {cost:.1f} ms a tile, "
        f"{min(cpu[1:]) / options.tiles * 1000:.1f} ms of CPU\n"
    )


if __name__ == "__main__":
    main()
