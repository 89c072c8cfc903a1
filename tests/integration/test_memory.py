"""Memory: the ceiling that `plan` prints holds, and a run that would break it is refused before it starts."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import WriteZoo

# The limit of the worker, and a space ten times as large.
LIMIT_BYTES = 400_000_000
N_POINTS, N_FEATURES = 125_000, 8192


def lfm_atlas(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "lfm_atlas", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | one_thread, capture_output=True, text=True, check=False)


def write_large(folder: Path) -> None:
    """Write one space, in chunks, and its catalog."""
    rows = np.lib.format.open_memmap(folder / "net.npy", mode="w+", dtype=np.float32, shape=(N_POINTS, N_FEATURES))
    generator = np.random.default_rng(0)
    centers, weights = generator.standard_normal((10, 8)), generator.standard_normal((8, N_FEATURES)).astype(np.float32)
    for start in range(0, N_POINTS, 10_000):
        chosen = generator.integers(0, 10, min(10_000, N_POINTS - start))
        latent = (centers[chosen] + generator.standard_normal((len(chosen), 8))).astype(np.float32)
        rows[start : start + len(chosen)] = np.maximum(latent @ weights, 0)
    rows.flush()
    np.save(folder / "ids.npy", np.array([f"{number:06}" for number in range(N_POINTS)]))
    (folder / "data_catalog.yaml").write_text(
        "version: 1\n"
        "datasets: {probe: {ids: {path: ids.npy}}}\n"
        'models: {net: {activations: {path: "{model}.npy", dataset: probe}}}\n'
        "atlas: {graph: {landmarks: 400, n_neighbors: 20}, n_eigenpairs: 10}\n"
        f"cluster: {{n_workers: 1, memory_limit: {LIMIT_BYTES // 10**6}MB}}\n"
    )


@pytest.mark.large
def test_activations_ten_times_the_limit__finish_under_the_limit_that_plan_printed(tmp_path: Path) -> None:
    write_large(tmp_path)
    try:
        assert (tmp_path / "net.npy").stat().st_size >= 10 * LIMIT_BYTES
        plan = lfm_atlas("plan", folder=tmp_path).stdout
        [(ceiling, limit)] = re.findall(r"at most ([\d,]+) MiB a worker .*, of ([\d,]+) MiB", plan)
        assert int(ceiling) < int(limit) == LIMIT_BYTES >> 20
        run = lfm_atlas("run", "--no-prefect", folder=tmp_path)
        assert run.returncode == 0, run.stderr
        [log] = [json.loads(path.read_text()) for path in (tmp_path / ".lfm-atlas" / "runs").glob("*.json")]
        assert 0.5 * int(ceiling) < max(log["worker_peak_bytes"].values()) / 2**20 <= int(ceiling)
    finally:
        (tmp_path / "net.npy").unlink()
        shutil.rmtree(tmp_path / ".lfm-atlas" / "units", ignore_errors=True)


def test_run__that_would_take_more_than_a_worker_has_is_refused_before_it_starts(
    tmp_path: Path, write_zoo: WriteZoo, related_spaces: Any
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2, n_points=3000))
    catalog = folder / "data_catalog.yaml"
    catalog.write_text(catalog.read_text() + "cluster: {n_workers: 1, memory_limit: 250MB}\n")

    run = lfm_atlas("run", "--no-prefect", folder=folder)

    assert run.returncode == 2
    assert re.search(
        r"bases of model\d/layer\d would take \d+ MiB of a worker's 238 MiB, expected at most 95% of it", run.stderr
    )
    for way in ("atlas.graph.landmarks", "atlas.max_points", "cluster.memory_limit"):
        assert way in run.stderr
    assert "Traceback" not in run.stderr
    assert not list((folder / ".lfm-atlas").glob("units/*"))
