"""A million points through the command: CPU seconds, peak memory of the largest process, recall, bytes.

``python tests/benchmarks/bench_scale.py --points 1000000 --landmarks 50000``; without ``--landmarks`` every point is in
the graph. Data are made on disk in chunks in a folder of its own below ``--folder``, and removed at the end.
``--accuracy --points 20000 --spaces 3``: what bases and scores lose by landmarks, against the graph of all points.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

N_FEATURES, CHUNK_ROWS = 768, 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--spaces", type=int, default=1)
    parser.add_argument("--landmarks", type=int)
    parser.add_argument("--folder", type=Path, help="where the data and the store may lie for the time of the run")
    parser.add_argument("--accuracy", action="store_true", help="bases on landmarks against bases of all points")
    arguments = parser.parse_args()
    if arguments.accuracy:
        return accuracy(arguments.points, arguments.spaces)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_zoo(Path(folder), arguments.points, arguments.spaces, arguments.landmarks)
        say(f"{arguments.points} x {N_FEATURES}, landmarks {arguments.landmarks}: {shutil.disk_usage(folder)}")
        run(Path(folder))
    return None


def accuracy(n_points: int, n_spaces: int) -> None:
    """Say how far bases on n/2, n/4, n/10 landmarks are from those of all points, and how much scores of pairs move."""
    from lfm_tasks.config import GraphConfig
    from lfm_tasks.stages.bases.job import BasisMethod, compute_basis

    ids = np.array([f"{index:08}" for index in range(n_points)])
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{space}.npy" for space in range(n_spaces)]
        for space, path in enumerate(files):
            write_activations(path, n_points, seed=space)
        bases: dict[int | None, list[np.ndarray]] = {}
        for n_landmarks in (None, n_points // 2, n_points // 4, n_points // 10):
            way, start, agreements = BasisMethod(GraphConfig(), "exact", 50, 50, n_landmarks), time.process_time(), []
            bases[n_landmarks] = []
            for path in files:
                computed = compute_basis(lambda: iter([np.load(path)]), ids, way)  # noqa: B023
                bases[n_landmarks].append(computed.eigenvectors)
                agreements.append(computed.facts.get("landmark_agreement", 1.0))
            seconds = (time.process_time() - start) / n_spaces
            tell(n_landmarks, bases[None], bases[n_landmarks], f"{seconds:.1f} s, with half {np.mean(agreements):.3f}")


def tell(n_landmarks: int | None, whole: list[np.ndarray], bases: list[np.ndarray], more: str) -> None:
    """Say how far bases are from those of all points, and how much their scores of each other."""
    from lfm_tasks.spectral.bases.full_map import overlap

    sides = list(zip(whole, bases, strict=True))
    spans = [f"K {k} {np.mean([overlap(y[:, :k].T @ x[:, :k]) for x, y in sides]):.3f}" for k in (10, 20, 50)]
    pairs = [(i, j) for i in range(len(bases)) for j in range(i)]
    exact, reduced = (np.array([overlap(side[i].T @ side[j]) for i, j in pairs]) for side in (whole, bases))
    difference = np.abs(reduced - exact)
    say(
        f"{n_landmarks or 'all'}: {more}; spans {', '.join(spans)}; overlap of pairs {exact.mean():.3f}, moved by "
        f"{difference.mean():.3f}, at most {difference.max():.3f}"
    )


def write_zoo(folder: Path, n_points: int, n_spaces: int, landmarks: int | None) -> None:
    """Write spaces that are images of the same points, and their catalog."""
    np.save(folder / "ids.npy", np.array([f"{index:08}" for index in range(n_points)]))
    for space in range(n_spaces):
        write_activations(folder / f"net{space}.npy", n_points, seed=space)
    source = {"path": "{model}.npy", "dataset": "probe"}
    graph = {"n_neighbors": 50} | ({"landmarks": landmarks} if landmarks else {})
    catalog = {
        "version": 1,
        "datasets": {"probe": {"ids": {"path": "ids.npy"}}},
        "models": {f"net{space}": {"activations": source} for space in range(n_spaces)},
        "atlas": {"graph": graph, "n_eigenpairs": 50},
    }
    with (folder / "data_catalog.yaml").open("w") as file:
        YAML().dump(catalog, file)


def write_activations(path: Path, n_points: int, *, seed: int) -> None:
    """Write a mixture of Gaussians that touch, seen through two random ReLU layers; the mixture is everyone's."""
    points, network = np.random.default_rng(0), np.random.default_rng(seed + 1)
    centers = points.standard_normal((20, 24))
    weights = [
        (network.standard_normal((n_inputs, N_FEATURES)) / np.sqrt(n_inputs)).astype(np.float32)
        for n_inputs in (24, N_FEATURES)
    ]
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n_points, N_FEATURES))
    for start in range(0, n_points, CHUNK_ROWS):
        n_rows = min(CHUNK_ROWS, n_points - start)
        values = (centers[points.integers(0, 20, n_rows)] + points.standard_normal((n_rows, 24))).astype(np.float32)
        for layer in weights:
            values = np.maximum(values @ layer, 0)
        rows[start : start + n_rows] = values
    rows.flush()


def run(folder: Path) -> None:
    """Run the command and say what it took."""
    environment = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "lfm_atlas", "run", "--no-prefect", "--no-dask", "-c", "data_catalog.yaml"]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    say(
        f"exit {os.waitstatus_to_exitcode(status)}, CPU {usage.ru_utime + usage.ru_stime:.0f} s, wall {wall:.0f} s, "
        f"peak {usage.ru_maxrss / 2**20:.2f} GiB"
    )
    for receipt in (folder / ".lfm-atlas" / "receipts" / "bases").glob("*.json"):
        say(json.dumps(json.loads(receipt.read_text())["body"]["facts"]))


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
