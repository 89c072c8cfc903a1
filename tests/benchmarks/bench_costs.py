"""`lfm-atlas plan` predicts the time of a run within a factor of 2, and the peak memory of a worker within 1.5.

``python tests/benchmarks/bench_costs.py check`` runs the command on zoos that differ from each other, and prints
predicted over real of CPU seconds, peak memory and bytes. ``... stages`` runs these and smaller zoos in one process,
and prints predicted over real seconds of each stage: it shows which ``cost.py`` counts too little. ``... rates`` prints
how long an operation of each kind takes here. A name after it: of one zoo only.
"""

import argparse
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
SMALL: dict[str, Zoo] = {
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
    "anchors of many": (900, 40, 4, 1, {"maps": {"regime": "anchors", "anchors": {"count": 30}}, "n_eigenpairs": 30}),
    "solved among many": (500, 24, 4, 30, {**SOLVED, "n_eigenpairs": 32}),
    "many measures": (600, 30, 4, 1, {"measures": "all", "null": {"n_permutations": 20}, "n_eigenpairs": 20}),
    "pictures and all maps": (1200, 64, 4, 2, {"embeddings": {"spaces": ["*"]}, "keep_maps": "all"}),
    "landmarks of more": (30_000, 256, 2, 1, {"graph": {"landmarks": 4000}}),
}
ZOOS = SMALL | {name: zoo for name, zoo in CHECKED.items() if zoo is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "stages", "rates", "one"])
    parser.add_argument("name", nargs="?", help="of one zoo only")
    arguments = parser.parse_args()
    actions: dict[str, Callable[[str | None], None]] = {
        "check": check, "stages": stages, "rates": rates, "one": measure_here,
    }  # fmt: skip
    actions[arguments.what](arguments.name)


def stages(only: str | None) -> None:
    """Print predicted over real CPU seconds of every stage, each zoo in a process of its own."""
    for name in ZOOS:
        if only not in (None, name):
            continue
        completed = subprocess.run(
            [sys.executable, __file__, "one", name],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | ONE_THREAD,
        )
        measured = json.loads(completed.stdout.splitlines()[-1])
        cells = [
            f"{stage} {ours:.2f} / {theirs:.2f} s = {ours / theirs:.2f}" for stage, (ours, theirs) in measured.items()
        ]
        ours, theirs = (sum(side) for side in zip(*measured.values(), strict=True))
        say(f"| {name} | {ours / theirs:.2f} | {', '.join(cells)} |")


def rates(_: str | None) -> None:
    """Print the seconds of an operation of each kind: here, and as shipped."""
    from lfm_tasks.runtime.rates import RATES, measured_rates

    for kind, seconds in measured_rates().items():
        say(f"{kind:<15} {seconds:.2e} {RATES[kind]:.2e}")


def measure_here(name: str | None) -> None:
    """Run one zoo in this process, and print what each stage should take and took."""
    from lfm_atlas.pipeline import build_atlas
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.planning import missing_work, timed_measures
    from lfm_tasks.runtime import session as opening
    from lfm_tasks.runtime.rates import load_seconds, measured_rates
    from lfm_tasks.stages.inventory.stage import validate_catalog

    with tempfile.TemporaryDirectory() as folder:
        write_zoo(Path(folder), ZOOS[str(name)])
        catalog = read_catalog(Path(folder) / "data_catalog.yaml")
        zoo = validate_catalog(catalog, silent)
        loads = {stage.stage: stage.load for stage in missing_work(catalog, zoo)}
        of_kinds = measured_rates()
        for of_measure in timed_measures(catalog, zoo).values():
            of_kinds |= of_measure
        workers = Measured()
        opening.InProcess = lambda limit: workers  # type: ignore[misc, assignment]
        start = time.process_time()
        with opening.open_run(catalog, silent, in_process=True) as run:
            build_atlas(run)
        workers.spent["atlas"] = time.process_time() - start - sum(workers.spent.values())
    compared = {
        stage: (load_seconds(loads[stage], of_kinds) + loads[stage].starting_seconds, seconds)
        for stage, seconds in workers.spent.items()
        if loads[stage].tasks
    }
    print(json.dumps(compared))  # noqa: T201


class Measured:
    """Workers in this process that note the CPU seconds of every stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.memory_limit = 1 << 40
        self.peak_bytes = 0

    def run(
        self,
        function: Callable[[Any], Any],
        jobs: Sequence[Any],
        needs: Sequence[int] = (),
        devices: Sequence[str] = (),
    ) -> Iterator[tuple[int, Any]]:
        """Yield results in order."""
        from lfm_tasks.workers.pool import JobFunction

        stage = FUNCTIONS[function.__name__]
        for index, job in enumerate(jobs):
            start = time.process_time()
            result, _ = JobFunction(function)(job)
            self.spent[stage] = self.spent.get(stage, 0) + time.process_time() - start
            yield index, result

    def close(self) -> None:
        """Nothing was started."""


def check(only: str | None) -> None:
    """Print predicted over real of whole commands with one worker: CPU seconds, peak of a worker, bytes."""
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.planning import missing_work, predicted_seconds, timed_measures, worker_ceiling
    from lfm_tasks.runtime.rates import measured_rates
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
            inventory = validate_catalog(catalog, silent)
            stages, of_kinds = missing_work(catalog, inventory), measured_rates()
            for of_measure in timed_measures(catalog, inventory).values():
                of_kinds |= of_measure
            seconds = predicted_seconds(stages, 1, of_kinds)
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
