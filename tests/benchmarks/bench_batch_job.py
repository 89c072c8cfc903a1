"""What a large zoo costs, stage by stage: an atlas of synthetic spaces as one batch job of a single-node SLURM.

Run it as ``python tests/benchmarks/bench_batch_job.py FOLDER [--spaces 1000]`` where slurmctld, slurmd and munge are.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.robustness.clusters.conftest import ENVIRONMENT, PYTHON, ROOT, Processes
from tests.robustness.clusters.slurm import slurm

CATALOG = """
version: 1
datasets: {probe: {ids: positional}}
discover: {zoo: {activations: {path: "zoo/{model}.npy", dataset: probe}}}
atlas:
  graph: {n_neighbors: 12}
  n_eigenpairs: 10
  keep_maps: none
  null: {n_permutations: 0}
  intervals: {n_splits: 0}
  collection: null
"""


def write_spaces(folder: Path, n_spaces: int, n_points: int) -> None:
    """Write noisy random images of one set of points, and their catalog."""
    (folder / "zoo").mkdir(parents=True)
    generator = np.random.default_rng(0)
    latent = generator.standard_normal((n_points, 6))
    for index in range(n_spaces):
        image = np.tanh(latent @ generator.standard_normal((6, 16))) + 0.1 * generator.standard_normal((n_points, 16))
        np.save(folder / "zoo" / f"model{index:04}.npy", image.astype(np.float32))
    (folder / "data_catalog.yaml").write_text(CATALOG)


def main() -> None:
    """Print seconds and units of every stage, from the run's log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spaces", type=int, default=1000)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=20)
    options = parser.parse_args()
    folder = options.folder.absolute()
    write_spaces(folder, options.spaces, options.points)
    (folder / "processes").mkdir()
    processes = Processes(folder / "processes")
    start = time.monotonic()
    try:
        with slurm(folder / "slurm", processes) as controller:
            subprocess.run(
                ["sbatch", "--wait", "--ntasks=2", str(ROOT / "deploy" / "slurm" / "run.sbatch")],
                cwd=folder, env=os.environ | ENVIRONMENT | controller | {"LFM_ATLAS_PYTHON": PYTHON},
                timeout=options.minutes * 60, check=False,
            )  # fmt: skip
    finally:
        processes.stop()
        sys.stdout.write(f"{options.spaces} spaces, {time.monotonic() - start:.0f} s with SLURM's start\n")
        for log in sorted((folder / ".lfm-atlas" / "runs").glob("*.json")):
            facts = json.loads(log.read_text())
            summary = {name: facts.get(name) for name in ("outcome", "seconds", "stages", "computed")}
            sys.stdout.write(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
