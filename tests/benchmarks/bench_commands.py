"""What a command takes before and beside its work: CPU seconds of show, diff and plan on an atlas, and of the import.

The goal is 1 s a command, and 0.15 s of ``import lfm_atlas``, on a quiet machine. In a folder with a catalog and its
atlas: ``python tests/benchmarks/bench_commands.py [--folder .] [--repeats 5]`` prints the medians.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

CASES = {
    "import lfm_atlas": ["-c", "import lfm_atlas"],
    "show summary": ["-m", "lfm_atlas", "show", "atlas", "summary"],
    "show nearest": ["-m", "lfm_atlas", "show", "atlas", "nearest", "mlp_s0"],
    "show pair": ["-m", "lfm_atlas", "show", "atlas", "pair", "mlp_s0", "mlp_s1"],
    "diff": ["-m", "lfm_atlas", "diff", "atlas", "atlas"],
    "plan": ["-m", "lfm_atlas", "plan"],
}


def cpu_seconds(arguments: list[str], folder: Path) -> float:
    """Return the CPU seconds of a command and of its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the median of each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for name, arguments in CASES.items():
        times = [cpu_seconds(arguments, options.folder) for _ in range(options.repeats)]
        sys.stdout.write(f"{name:<18} {statistics.median(times):.2f} s CPU ({min(times):.2f} to {max(times):.2f})\n")
    sys.stdout.write(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")


if __name__ == "__main__":
    main()
