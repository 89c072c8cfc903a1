"""A local cluster that speaks TLS starts within 1.3 times the time of one that anybody on the machine may use.

Both sides alternate; the time is that of a start, from nothing to the first job's result, as ``python
tests/benchmarks/bench_start.py [--repeats 10] [--workers 2]`` prints it. Imports are left out.
"""

import argparse
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from distributed import Client, LocalCluster

from lfm_tasks.workers.dask_config import dask_settings
from lfm_tasks.workers.local_cluster import start_cluster


def closed(n_workers: int) -> Any:
    """Start the cluster of a run."""
    return start_cluster(n_workers, None)


def open_to_all(n_workers: int) -> Any:
    """Start Dask's own, without certificates."""
    return LocalCluster(
        n_workers=n_workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False}, memory_limit=None, silence_logs=logging.ERROR,
    )  # fmt: skip


def seconds(start: Callable[[int], Any], n_workers: int) -> float:
    """Return how long a start takes."""
    began = time.perf_counter()
    with start(n_workers) as cluster, Client(cluster, set_as_default=False) as client:
        client.submit(abs, -1, pure=False).result()
        return time.perf_counter() - began


def main() -> None:
    """Print the medians, and the median of the ratios of neighbors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    times: dict[Callable[[int], Any], list[float]] = {closed: [], open_to_all: []}
    with dask_settings():
        for _ in range(options.repeats + 1):  # the first imports, and is left out
            for start, taken in times.items():
                taken.append(seconds(start, options.workers))
    with_tls, without = times[closed][1:], times[open_to_all][1:]
    ratios = [ours / theirs for ours, theirs in zip(with_tls, without, strict=True)]
    medians = statistics.median(with_tls), statistics.median(without)
    sys.stdout.write(
        f"{options.workers} workers, {options.repeats} starts each, load {os.getloadavg()[0]:.1f}: {medians[0]:.2f} s "
        f"with TLS, {medians[1]:.2f} s without; ratio of the medians {medians[0] / medians[1]:.2f}, of neighbors "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})\n"
    )


if __name__ == "__main__":
    main()
