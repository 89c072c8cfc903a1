"""Wall time of whole commands on the shipped zoo: help, an atlas from recorded activations, and nothing to do.

Claims: help < 1 s; atlas from recorded activations < 30 s; unchanged < 15 s, on two cores, everything included: process
start, Prefect's server, Dask's workers. Run it as ``python tests/benchmarks/bench_zoo_run.py [--repeats 5]``.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = [sys.executable, "-m", "flows.cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        call(["init"], folder)
        call(["run"], folder)
        rows = {
            "--help": measure(repeats, lambda: call(["--help"], folder)),
            "run, activations recorded": measure(repeats, lambda: call(["run"], folder), lambda: keep(folder)),
            "run, activations recorded, --no-prefect": measure(
                repeats, lambda: call(["run", "--no-prefect"], folder), lambda: keep(folder)
            ),
            "run, nothing changed": measure(repeats, lambda: call(["run"], folder)),
            "run, nothing changed, --no-prefect": measure(repeats, lambda: call(["run", "--no-prefect"], folder)),
        }
    print(f"{len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}, {repeats} repeats\n")  # noqa: T201
    print(f"{'command':<42}{'median s':>9}{'min':>8}{'max':>8}")  # noqa: T201
    for command, seconds in rows.items():
        print(f"{command:<42}{statistics.median(seconds):9.2f}{min(seconds):8.2f}{max(seconds):8.2f}")  # noqa: T201


def measure(repeats: int, timed: Callable[[], None], prepare: Callable[[], None] = lambda: None) -> list[float]:
    """Return the seconds of each repeat; ``prepare`` is not counted."""
    seconds = []
    for _ in range(repeats):
        prepare()
        start = time.perf_counter()
        timed()
        seconds.append(time.perf_counter() - start)
    return seconds


def call(arguments: list[str], folder: Path) -> None:
    subprocess.run([*COMMAND, *arguments], cwd=folder, check=True, capture_output=True)


def keep(folder: Path) -> None:
    """Forget everything but the recorded activations."""
    shutil.rmtree(folder / "atlas", ignore_errors=True)
    for part in ("units", "receipts"):
        for kind in ("bases", "scores"):
            shutil.rmtree(folder / ".lfm-atlas" / part / kind, ignore_errors=True)


if __name__ == "__main__":
    main()
