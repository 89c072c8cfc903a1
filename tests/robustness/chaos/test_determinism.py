"""The same bytes for any number of workers and any order of jobs; other BLAS kernels and threads within tolerances."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas import open_atlas
from lfm_atlas.console import no_progress
from lfm_atlas.pipeline import build_atlas
from lfm_tasks.catalog import read_catalog
from lfm_tasks.runtime.session import open_run
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import InProcess

pytestmark = pytest.mark.chaos
MEASURES = ["lfm", "overlap", "cka_linear_debiased_song"]
# What docs/reliability.md promises where kernels or threads differ.
MOST_OF_EIGENVALUES, MOST_OF_SPANS, MOST_OF_SCORES = 1e-10, 1e-8, 1e-6
KERNELS = [("Haswell", 1), ("Haswell", 2), ("SkylakeX", 1), ("Zen", 1), ("Sandybridge", 1), ("Nehalem", 1)]
BUILD = """
import json, sys
from pathlib import Path
from lfm_atlas.pipeline import build_atlas
from lfm_atlas.console import no_progress
from lfm_tasks.catalog import read_catalog
from lfm_tasks.runtime.session import open_run
with open_run(read_catalog(Path(sys.argv[1])), no_progress, in_process=True) as run:
    assert not build_atlas(run).failures
from threadpoolctl import threadpool_info
print(json.dumps(sorted({str(one.get("architecture")) for one in threadpool_info()})))
"""


def contents(folder: Path) -> dict[str, bytes]:
    parts = ("atlas", ".lfm-atlas/units", ".lfm-atlas/receipts")
    paths = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


class Shuffled(InProcess):
    """Jobs in another order."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)  # noqa: S311 - an order, no secret

    def run(
        self, function: Callable[[Any], Any], jobs: Sequence[Any], needs: Sequence[int] = ()
    ) -> Iterator[tuple[int, Any]]:
        order = self._chance.sample(range(len(jobs)), len(jobs))
        for place, result in super().run(function, [jobs[number] for number in order]):
            yield order[place], result


def test_workers_and_orders__give_one_digest(
    tmp_path: Path, tiny_zoo: Callable[..., Path], build: Any, figure: Callable[[str], None]
) -> None:
    first = tiny_zoo(tmp_path / "first", 4, measures=MEASURES)
    build(first)
    expected = contents(first)
    for seed in range(4):
        folder = tiny_zoo(tmp_path / f"order{seed}", 4, measures=MEASURES)
        with open_run(read_catalog(folder / "data_catalog.yaml"), no_progress, in_process=True) as run:
            assert not build_atlas(replace(run, workers=Shuffled(seed))).failures
        assert contents(folder) == expected, seed
    for n_workers in (1, 2, 4):
        folder = tiny_zoo(tmp_path / f"workers{n_workers}", 4, measures=MEASURES)
        catalog = read_catalog(folder / "data_catalog.yaml")
        cluster = catalog.cluster.model_copy(update={"n_workers": n_workers})
        with open_run(catalog.model_copy(update={"cluster": cluster}), no_progress) as run:
            assert not build_atlas(run).failures
        assert contents(folder) == expected, n_workers
    figure("one process, 4 orders, 1, 2 and 4 workers: atlas, units and receipts are the same bytes")


def test_kernels_and_threads__stay_within_the_tolerances(
    tmp_path: Path, write_zoo: Any, related_spaces: Any, figure: Callable[[str], None]
) -> None:
    models = related_spaces(3)
    found: dict[str, dict[str, np.ndarray]] = {}
    for kernel, n_threads in KERNELS:
        folder = write_zoo(tmp_path / f"{kernel}{n_threads}", models, measures=MEASURES)
        environment = os.environ | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": str(n_threads)}
        built = subprocess.run(
            [sys.executable, "-c", BUILD, str(folder / "data_catalog.yaml")],
            env=environment, capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        found[f"{'/'.join(json.loads(built.stdout))} with {n_threads} threads"] = read(folder)
    names = list(found)
    first = found[names[0]]
    most = dict.fromkeys(("eigenvalues", "spans", "scores"), 0.0)
    for name in names[1:]:
        other = found[name]
        eigenvalues = np.abs(first["eigenvalues"] - other["eigenvalues"]).max()
        # 1 - |cosine| of each eigenvector with itself, summed over nothing: the span of all is what must not move.
        products = np.swapaxes(first["eigenvectors"], 1, 2) @ other["eigenvectors"]
        spans = np.abs(1 - np.linalg.svd(products, compute_uv=False)).max()
        scores = np.nanmax(np.abs(first["scores"] - other["scores"]))
        assert (np.isnan(first["scores"]) == np.isnan(other["scores"])).all()
        assert eigenvalues <= MOST_OF_EIGENVALUES, name
        assert spans <= MOST_OF_SPANS, name
        assert scores <= MOST_OF_SCORES, name
        for key, value in (("eigenvalues", eigenvalues), ("spans", spans), ("scores", scores)):
            most[key] = max(most[key], float(value))
    told = ", ".join(f"{key} {value:.1e}" for key, value in most.items())
    figure(f"{len(found)} kernels and threads ({'; '.join(names)}), largest differences: {told}")


def read(folder: Path) -> dict[str, np.ndarray]:
    """Return eigenvalues and eigenvectors of all spaces, in order, and all scores."""
    store, bases = UnitStore(folder / ".lfm-atlas"), []
    with open_atlas(folder / "atlas") as atlas:
        for key in atlas.scores["basis"].values.ravel():
            with store.open("bases", str(key)) as unit:
                bases.append((unit.read("eigenvalues"), unit.read("eigenvectors")))
        scores = np.stack([atlas.scores[name].values for name in ("score", "calibrated", "p_value", "ci_low")])
    return {
        "eigenvalues": np.stack([values for values, _ in bases]),
        "eigenvectors": np.stack([vectors for _, vectors in bases]),
        "scores": scores,
    }
