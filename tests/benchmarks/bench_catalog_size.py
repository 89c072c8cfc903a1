"""``validate`` and ``plan`` take time in proportion to the models: 20,000 discovered files within 20 s of CPU, 500 MB.

Writes zoos of small files, and prints CPU seconds and the highest memory of both commands, each in a process of its
own: ``python tests/benchmarks/bench_catalog_size.py [--models 2000 20000] [--layers 1]``. 500,000 layers are 5,000
models of 100: ``--models 5000 --layers 100``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CATALOG = """version: 1
datasets: {{probe: {{ids: {{path: ids.npy}}}}}}
discover: {{zoo: {{activations: {{path: '{path}', dataset: probe}}}}}}
atlas: {{graph: {{n_neighbors: 5}}, n_eigenpairs: 5, keep_maps: none}}
"""


def write_zoo(folder: Path, n_models: int, n_layers: int) -> None:
    """Write a zoo whose layers have 60 points, a file a model."""
    (folder / "zoo").mkdir()
    rows = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    for model in range(n_models):
        rows[0, 0] = model
        if n_layers == 1:
            np.save(folder / "zoo" / f"m{model:05}.npy", rows)
        else:
            np.savez(folder / "zoo" / f"m{model:05}.npz", **{f"l{layer:03}": rows for layer in range(n_layers)})
    np.save(folder / "ids.npy", np.arange(60))
    path = "zoo/{model}.npy" if n_layers == 1 else "zoo/{model}.npz"
    (folder / "data_catalog.yaml").write_text(CATALOG.format(path=path), encoding="utf-8")


def measure(command: str, folder: Path) -> tuple[float, float]:
    """Return CPU seconds and MB of a command."""
    process = subprocess.Popen([sys.executable, "-m", "lfm_atlas", command], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def main() -> None:
    """Print a line for each size and command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[500, 2000, 20_000])
    parser.add_argument("--layers", type=int, default=1)
    options = parser.parse_args()
    for n_models in options.models:
        with tempfile.TemporaryDirectory() as folder:
            write_zoo(Path(folder), n_models, options.layers)
            for command in ("validate", "plan"):
                seconds, megabytes = measure(command, Path(folder))
                size = f"{n_models:7,} models x {options.layers} layers"
                sys.stdout.write(f"{size}  {command:<9}{seconds:8.1f} s CPU {megabytes:8.0f} MB\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
