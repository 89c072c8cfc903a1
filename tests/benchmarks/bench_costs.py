"""`lfm-atlas plan` predicts time, peak memory of a worker and bytes written of a run within a factor of 2.

``python tests/benchmarks/bench_costs.py fit`` measures zoos and single kernels, fits the coefficients of
``lfm_tasks/runtime/load.py`` by non-negative least squares of relative errors, and prints the table. ``... check`` runs
the command on zoos that differ from these and from each other, and prints predicted over real.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from scipy.optimize import nnls

import lfm_tasks.zoo

FUNCTIONS = {
    "record_model": "activations", "store_basis": "bases", "store_block": "scores", "store_collection": "collection",
    "store_maps": "maps", "store_map": "transfers", "store_tsne": "embeddings", "store_probes": "embeddings",
}  # fmt: skip
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
GRAPH = {"n_neighbors": 20}
SOLVED = {
    "maps": {"regime": "anchors", "anchors": {"count": 21}, "refine": "none"}, "null": {"n_permutations": 0},
    "graph": {"n_neighbors": 15},
}  # fmt: skip

# Points, features, models, layers, and settings of the atlas.
Zoo = tuple[int, int, int, int, dict[str, Any]]
FITTED: dict[str, Zoo] = {
    "tiny": (200, 10, 3, 1, {"graph": GRAPH, "n_eigenpairs": 10}),
    "small": (400, 60, 6, 2, {"graph": GRAPH, "n_eigenpairs": 20}),
    "spaces": (150, 8, 30, 3, {"graph": GRAPH, "n_eigenpairs": 8, "null": {"n_permutations": 0}}),
    "many spaces": (300, 12, 4, 50, {"graph": GRAPH, "n_eigenpairs": 10, "null": {"n_permutations": 0}}),
    "middle": (2000, 200, 4, 2, {"n_eigenpairs": 40}),
    "wide": (1000, 3000, 3, 1, {"n_eigenpairs": 20}),
    "long": (9000, 100, 3, 1, {}),
    "anchors": (500, 30, 3, 2, {"maps": {"regime": "anchors", "anchors": {"count": 20}}, "n_eigenpairs": 20}),
    "anchors larger": (1500, 60, 2, 2, {"maps": {"regime": "anchors", "anchors": {"count": 20}}, "n_eigenpairs": 40}),
    "solved": (800, 30, 4, 2, {"maps": {"regime": "labels", "refine": "none"}, "n_eigenpairs": 20}),
    "solved many": (300, 16, 4, 25, {**SOLVED, "n_eigenpairs": 50}),
    "solved small": (200, 12, 4, 15, {**SOLVED, "n_eigenpairs": 16}),
    "pictures": (600, 40, 3, 1, {"embeddings": {"spaces": ["*"]}, "n_eigenpairs": 20}),
    "more pictures": (1800, 120, 3, 1, {"embeddings": {"spaces": ["*"]}, "n_eigenpairs": 20}),
    "all maps": (900, 20, 8, 2, {"keep_maps": "all", "n_eigenpairs": 30}),
    "landmarks": (12_000, 150, 2, 1, {"graph": {"landmarks": 2500, "n_neighbors": 30}, "n_eigenpairs": 30}),
    "transfers": (700, 50, 3, 1, {"x-transfer": True, "n_eigenpairs": 20}),
    "more transfers": (1700, 150, 2, 1, {"x-transfer": True, "n_eigenpairs": 20}),
    "networks": (0, 0, 0, 0, {"x-networks": ["mlp_s0", "mlp_s1", "mlp_s2"], "n_eigenpairs": 20}),
    "larger networks": (0, 0, 0, 0, {"x-networks": ["cnn_s0"], "n_eigenpairs": 20}),
}
CHECKED: dict[str, Zoo | None] = {
    "shipped zoo (networks)": None,
    "few large": (14_000, 400, 2, 1, {}),
    "many small": (250, 24, 50, 4, {"graph": {"n_neighbors": 12}, "n_eigenpairs": 12}),
    "anchors": (900, 40, 4, 1, {"maps": {"regime": "anchors", "anchors": {"count": 30}}, "n_eigenpairs": 30}),
    "solved": (500, 24, 4, 30, {**SOLVED, "n_eigenpairs": 32}),
    "many measures": (600, 30, 4, 1, {"measures": "all", "null": {"n_permutations": 20}, "n_eigenpairs": 20}),
    "pictures and all maps": (1200, 64, 4, 2, {"embeddings": {"spaces": ["*"]}, "keep_maps": "all"}),
    "landmarks": (30_000, 256, 2, 1, {"graph": {"landmarks": 4000}}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "check", "one"])
    parser.add_argument("name", nargs="?", help="of one zoo only")
    arguments = parser.parse_args()
    actions: dict[str, Callable[[str | None], None]] = {"fit": fit, "check": check, "one": measure_here}
    actions[arguments.what](arguments.name)


def fit(_: str | None) -> None:
    """Measure, fit, print the table."""
    equations: dict[str, list[tuple[Mapping[str, float], float]]] = {}
    for work, seconds in (*measure_graphs(), *measure_measures(), *measure_solved()):
        equations.setdefault("bases" if "basis task" in work else "scores", []).append((work, seconds))
    bases = 0
    for name in FITTED:
        completed = subprocess.run(
            [sys.executable, __file__, "one", name],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | ONE_THREAD,
        )
        content = json.loads(completed.stdout.splitlines()[-1])
        bases = max(bases, content["worker"])
        for stage, measured in content["stages"].items():
            equations.setdefault(stage, []).append((measured["work"], measured["seconds"]))
            note = f"{measured['peak'] / measured['predicted_peak']:.2f}" if measured["predicted_peak"] else "-"
            say(f"# {name}, {stage}: {measured['seconds']:.2f} s, real over predicted peak {note}")
    from lfm_tasks.planning import product_seconds

    table = {
        name: value for of_stage in equations.values() for name, value in solved(of_stage).items() if value > 1e-20
    }
    say(f"PRODUCT_SECONDS = {product_seconds():.4f}\nWORKER_BYTES = {bases >> 20} << 20\nSECONDS = {{")
    for name, value in table.items():
        say(f'    "{name}": {value:.3g},')
    say("}")


def solved(equations: Sequence[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """Return the coefficients, none negative, whose errors have the smallest squares, relative to both sides.

    To the square root of predicted times measured: half as much is as wrong as twice as much.
    """
    names = sorted({name for work, _ in equations for name in work})
    amounts = np.array([[work.get(name, 0.0) for name in names] for work, _ in equations])
    seconds = np.array([max(spent, 0.02) for _, spent in equations])
    predicted = seconds
    for _ in range(30):
        # Little is measured badly, and counts less.
        weights = np.minimum(1, np.sqrt(seconds / 0.1)) / np.sqrt(
            np.clip(predicted, seconds / 5, 5 * seconds) * seconds
        )
        weighted = amounts * weights[:, None]
        scale = np.maximum(weighted.max(axis=0), 1e-300)
        coefficients = nnls(weighted / scale, weights * seconds, maxiter=100 * len(names))[0] / scale
        predicted = amounts @ coefficients
    errors = amounts @ coefficients / seconds
    long = errors[seconds > 0.2]
    spread = f"predicted over measured {long.min():.2f} to {long.max():.2f}" if len(long) else "all are short"
    say(f"# {len(equations)} equations of {', '.join(names[:3])}..., of more than .2 s: {spread}")
    return dict(zip(names, coefficients.tolist(), strict=True))


def measure_graphs() -> Iterator[tuple[dict[str, float], float]]:
    """Yield work and seconds of bases alone, over sizes and methods."""
    from bench_bases import activations

    from lfm_tasks.config import GraphConfig
    from lfm_tasks.runtime.load import SpaceSize
    from lfm_tasks.stages.bases.cost import basis_load
    from lfm_tasks.stages.bases.job import BasisMethod, compute_basis
    from lfm_tasks.statistics.permutation_moments import permutation_profile

    compute_basis(
        lambda: iter([mixture(6000, 100, 9)]), np.arange(6000).astype(str), BasisMethod(GraphConfig(), "exact", 50, 5)
    )
    sizes = [
        (300, 20, 10, 10, "exact"), (1000, 100, 30, 20, "exact"), (1000, 800, 50, 50, "exact"),
        (2500, 50, 20, 100, "exact"), (4000, 60, 50, 30, "exact"), (5000, 400, 50, 50, "exact"),
        (9000, 300, 30, 30, "exact"), (12_000, 768, 50, 50, "exact"), (16_000, 100, 20, 20, "exact"),
        (6000, 768, 15, 20, "exact"), (9000, 800, 50, 100, "exact"), (30_000, 768, 50, 50, "exact"),
        (9000, 400, 50, 20, "projection"), (35_000, 768, 50, 20, "projection"),
        (6000, 50, 15, 10, "pynndescent"), (25_000, 100, 15, 20, "pynndescent"), (15_000, 300, 40, 20, "pynndescent"),
    ]  # fmt: skip
    is_compiled = False
    landmarks = [(12_000, 60, 20, 10, 2000), (12_000, 800, 20, 10, 1500), (20_000, 300, 50, 20, 6000)]
    ways = [(*size, None, mixture) for size in sizes] + [(*size[:4], "exact", size[4], mixture) for size in landmarks]
    # Main directions tell less of these.
    ways += [(n, 768, 50, 50, "exact", None, activations) for n in (5000, 10_000, 20_000, 40_000)]
    for n, d, k, n_eigenpairs, method, n_landmarks, data in ways:
        rows = activations(n, n) if data is activations else mixture(n, d, n)
        way = BasisMethod(GraphConfig(), method, k, n_eigenpairs, n_landmarks)  # type: ignore[arg-type]
        start = time.process_time()
        basis = compute_basis(lambda: iter([rows]), np.arange(n).astype(str), way).eigenvectors  # noqa: B023
        permutation_profile(basis[:, 1:])
        work = dict(basis_load(SpaceSize("", n, d), way).work) | {"basis task": 0.0, "basis bytes": 0.0}
        if method == "pynndescent" and is_compiled:
            work["compile"] = 0.0
        is_compiled |= method == "pynndescent"
        spent = time.process_time() - start
        say(f"# {n} x {d}, k {k}, K {n_eigenpairs}, {method}: {spent:.2f} s")
        yield work, spent


def measure_measures() -> Iterator[tuple[dict[str, float], float]]:
    """Yield work and seconds of every measure alone."""
    from lfm_tasks.config import AtlasConfig, IntervalsConfig, NullConfig
    from lfm_tasks.measures.registry import MEASURES
    from lfm_tasks.stages.inventory.correspondence import resampling
    from lfm_tasks.stages.scores.cost import measure_work
    from lfm_tasks.stages.scores.row_measures import Activations, score_rows

    null = NullConfig(n_permutations=3)
    atlas = AtlasConfig(null=null, intervals=IntervalsConfig())
    for n, d in ((300, 12), (800, 20), (400, 150)):
        ids = np.array([f"{index:05}" for index in range(n)])
        spaces = Activations({str(key): mixture(n, d, key) for key in range(2)}, {})
        for name in MEASURES:
            start = time.process_time()
            score_rows(name, spaces, [("0", "1")], resampling(ids, None, atlas), null)
            yield measure_work(name, (n, d), (2, 1), 3, 7), time.process_time() - start


def measure_solved() -> Iterator[tuple[dict[str, float], float]]:
    """Yield work and seconds of maps in closed form and their scores: many sources, and few."""
    from bench_pairs import made_up

    from lfm_tasks.spectral.batched.tiles import tile_source, tile_sums, tile_targets

    for n_eigenpairs, n_sources in itertools.product((10, 16, 30, 50, 100), (4, 64)):
        described = [made_up(seed, n_eigenpairs, 64) for seed in range(256)]
        tile_sums([(tile_source(described[0]), tile_targets(described))])  # what is compiled is compiled before
        start = time.process_time()
        targets = tile_targets(described)
        tile_sums([(tile_source(source), targets) for source in described[:n_sources]])
        spent = time.process_time() - start
        n_fits, cubes = n_sources * len(described), float(n_eigenpairs**3)
        yield {"solved fit": n_fits, "solved products": n_fits * cubes, "solved factor": n_sources * cubes}, spent


def measure_here(name: str | None) -> None:
    """Run one zoo in this process, and print what each stage took beside its load."""
    from lfm_atlas.pipeline import build_atlas
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.planning import missing_work
    from lfm_tasks.runtime import session as opening
    from lfm_tasks.stages.inventory.stage import validate_catalog
    from lfm_tasks.workers.resources import peak_bytes

    worker = peak_bytes()
    with tempfile.TemporaryDirectory() as folder:
        write_zoo(Path(folder), FITTED[str(name)])
        catalog = read_catalog(Path(folder) / "data_catalog.yaml")
        loads = {stage.stage: stage.load for stage in missing_work(catalog, validate_catalog(catalog, silent))}
        workers = Measured()
        opening.InProcess = lambda limit: workers  # type: ignore[misc, assignment]
        start = time.process_time()
        with opening.open_run(catalog, silent, in_process=True) as run:
            build_atlas(run)
        workers.spent["atlas"] = time.process_time() - start - sum(workers.spent.values())
    stages = {
        stage: {
            "work": dict(loads[stage].work), "seconds": seconds, "peak": workers.peaks.get(stage, 0) - worker,
            "predicted_peak": loads[stage].peak_bytes if stage in workers.peaks else 0,
        }
        for stage, seconds in workers.spent.items()
        if loads[stage].tasks
    }  # fmt: skip
    print(json.dumps({"worker": worker, "stages": stages}))  # noqa: T201


class Measured:
    """Workers in this process that note the CPU seconds and the highest memory of every stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.memory_limit = 1 << 40
        self.peak_bytes = 0

    def run(
        self, function: Callable[[Any], Any], jobs: Sequence[Any], needs: Sequence[int] = ()
    ) -> Iterator[tuple[int, Any]]:
        """Yield results in order."""
        from lfm_tasks.workers.pool import JobFunction
        from lfm_tasks.workers.resources import peak_bytes

        stage = FUNCTIONS[function.__name__]
        for index, job in enumerate(jobs):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the highest so far
            start = time.process_time()
            result, _ = JobFunction(function)(job)
            self.spent[stage] = self.spent.get(stage, 0) + time.process_time() - start
            self.peaks[stage] = max(self.peaks.get(stage, 0), peak_bytes())
            yield index, result

    def close(self) -> None:
        """Nothing was started."""


def check(only: str | None) -> None:
    """Print predicted over real of whole commands with one worker: CPU seconds, peak of a worker, bytes."""
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.planning import machine_speed, missing_work, predicted_seconds, worker_ceiling
    from lfm_tasks.stages.inventory.stage import validate_catalog

    for name, zoo in CHECKED.items():
        if only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_zoo(folder, zoo)
            with (folder / "data_catalog.yaml").open("a") as file:
                file.write("\ncluster: {n_workers: 1}\n")
            before = written_bytes(folder)
            catalog = read_catalog(folder / "data_catalog.yaml")
            stages = missing_work(catalog, validate_catalog(catalog, silent))
            seconds = predicted_seconds(stages, 1, machine_speed())
            start = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, "-m", "lfm_atlas", "run", "--no-prefect"], cwd=folder, env=os.environ | ONE_THREAD,
                check=True, capture_output=True,
            )  # fmt: skip
            end = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
            [log] = [json.loads(path.read_text()) for path in (folder / ".lfm-atlas" / "runs").glob("*.json")]
            written, predicted_bytes = written_bytes(folder) - before, sum(stage.load.written_bytes for stage in stages)
            ceiling = worker_ceiling(stages)[0]
            sizes = [(ceiling, max(log["worker_peak_bytes"].values())), (predicted_bytes, written)]
            cells = [f"{ours / 2**20:.1f} / {theirs / 2**20:.1f} MiB = {ours / theirs:.2f}" for ours, theirs in sizes]
            say(f"| {name} | {seconds:.0f} / {spent:.0f} s = {seconds / spent:.2f} | {' | '.join(cells)} |")


def write_zoo(folder: Path, zoo: Zoo | None) -> None:
    """Write noisy images of one mixture, a file a model, and their catalog; None: the shipped zoo."""
    if zoo is None:
        from lfm_tasks.zoo import write_start

        return write_start(folder)
    n_points, n_features, n_models, n_layers, atlas = zoo
    catalog: dict[str, Any] = {"version": 1, "atlas": {k: v for k, v in atlas.items() if not k.startswith("x-")}}
    if networks := atlas.get("x-networks"):
        source = {"path": str(Path(lfm_tasks.zoo.__file__).parent / "{model}.onnx"), "dataset": "digits"}
        catalog["datasets"] = {"digits": {"builtin": "digits", "split": "train"}}
        catalog["models"] = {name: {"onnx": source, "layers": ["relu*", "logits"]} for name in networks}
        return write_catalog(folder, catalog)
    ids = np.array([f"p{index:06}" for index in range(n_points)])
    np.save(folder / "ids.npy", ids)
    np.save(folder / "labels.npy", (np.arange(n_points) % 5).astype(str))
    for model in range(n_models):
        layers = {f"l{layer}": mixture(n_points, n_features, 100 * model + layer) for layer in range(n_layers)}
        np.savez(folder / f"net{model}.npz", **layers)
    read = {"activations": {"path": "{model}.npz", "key": "{layer}", "dataset": "probe"}}
    catalog["datasets"] = {"probe": {"ids": {"path": "ids.npy"}, "labels": {"path": "labels.npy"}}}
    catalog["models"] = {f"net{model}": read for model in range(n_models)}
    if atlas.get("measures") == "all":
        from lfm_tasks.stages.inventory.requests import known_measures

        catalog["atlas"]["measures"] = sorted(known_measures())
    if atlas.get("x-transfer"):
        catalog["comparisons"] = {"carried": {"sources": "*", "targets": "*", "transfer": True}}
    return write_catalog(folder, catalog)


def write_catalog(folder: Path, catalog: Mapping[str, Any]) -> None:
    with (folder / "data_catalog.yaml").open("w") as file:
        YAML().dump(catalog, file)


def mixture(n_points: int, n_features: int, seed: int) -> np.ndarray:
    """Return a mixture of Gaussians, the same points for every seed, seen through a random ReLU layer."""
    points, network = np.random.default_rng(n_points), np.random.default_rng(seed)
    centers = points.standard_normal((10, 8))
    rows = centers[points.integers(0, 10, n_points)] + points.standard_normal((n_points, 8))
    image: np.ndarray = np.maximum(rows @ network.standard_normal((8, n_features)), 0).astype(np.float32)
    return image + 0.01 * network.random(image.shape, dtype=np.float32)


def written_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "runs" not in path.parts)


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
