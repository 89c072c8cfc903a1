"""Wall time of whole commands on the shipped zoo: help, an atlas from recorded activations, and nothing to do.

Claims: help < 1 s; atlas from recorded activations < 30 s; unchanged < 15 s, on two cores, everything included: process
start, Prefect's server, Dask's workers. Run it as ``python tests/benchmarks/bench_zoo_run.py [--repeats 5]``.
``--stages`` says instead where the CPU seconds go in one process, cold and with nothing new.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "lfm_atlas"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stages", action="store_true", help="CPU seconds of each stage in one process")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one_run(arguments.one)
    elif arguments.stages:
        stages()
    else:
        commands(arguments.repeats)


def commands(repeats: int) -> None:
    """Print the wall seconds of whole commands."""
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


def stages() -> None:
    """Print the CPU seconds of imports and stages: cold, and with nothing new."""
    with tempfile.TemporaryDirectory() as name:
        call(["init"], Path(name))
        measured = []
        for _ in range(2):
            command = [sys.executable, __file__, "--one", name]
            measured.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(f"{'CPU seconds':<24}{'cold':>8}{'nothing new':>14}")  # noqa: T201
    for stage in measured[0]:
        print(f"{stage:<24}{measured[0][stage]:8.2f}{measured[1].get(stage, 0):14.2f}")  # noqa: T201


def one_run(folder: Path) -> None:
    """Run the zoo in this process, and print its CPU seconds as JSON."""
    spent = {"Python": time.process_time()}
    from lfm_atlas.pipeline import build_atlas
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.runtime.session import open_run

    spent["imports"] = time.process_time() - spent["Python"]

    def timed(stage: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            start = time.process_time()
            result = stage(*arguments)
            spent[stage.__name__] = time.process_time() - start
            return result

        return run

    start = time.process_time()
    catalog = read_catalog(folder / "data_catalog.yaml")
    with open_run(catalog, lambda *_: None, in_process=True) as opened:
        build_atlas(opened, timed)
    inside = sum(seconds for name, seconds in spent.items() if name not in ("Python", "imports"))
    spent["catalog, ceiling, log"] = time.process_time() - start - inside
    print(json.dumps(spent | {"all": time.process_time()}))  # noqa: T201


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
