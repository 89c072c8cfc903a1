"""What one process does for thousands of spaces: hand out blocks, publish the atlas, read it, draw its page.

``python tests/benchmarks/bench_ten_thousand.py store --spaces 500 2000 5000 [--folder PLACE]``: recordings and bases of
40 points are real, scores are made up and committed in the form that the stage has; driver, publication, page and
queries are the real ones. Prints CPU seconds, the highest memory, bytes and files of each part.

``... scheduling --spaces 10000 [--workers 100] [--scale 0.01]``: the real driver and Dask's scheduler hand blocks to
workers that sleep for the planned time of a block, times the scale. Prints the share of time that workers are busy.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

N_POINTS, N_LAYERS = 40, 12
CATALOG = """version: 1
datasets: {{probe: {{ids: {{path: ids.npy}}}}}}
discover: {{zoo: {{activations: {{path: 'zoo/{{model}}.npz', key: '{{layer}}', dataset: probe}}}}}}
atlas:
  graph: {{n_neighbors: 5}}
  n_eigenpairs: 6
  measures: [{measures}]
  collection: null
  keep_maps: {keep_maps}
"""


def main() -> None:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["store", "one", "scheduling"])
    parser.add_argument("--spaces", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--measures", default="lfm, overlap")
    parser.add_argument("--keep-maps", default="none", choices=["none", "best"])
    parser.add_argument(
        "--folder", type=Path, help="where zoos are made, and found again; a temporary folder if absent"
    )
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--scale", type=float, default=0.01)
    options = parser.parse_args()
    for n_spaces in options.spaces:
        if options.what == "scheduling":
            hand_out(n_spaces, options.workers, options.scale)
        elif options.what == "one":
            publish_one(options.folder, n_spaces, options.measures, options.keep_maps)
        else:
            in_own_process(n_spaces, options)


def in_own_process(n_spaces: int, options: argparse.Namespace) -> None:
    """Publish a zoo in a process of its own, so that none inherits the memory of another."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)) / str(n_spaces)
        command = [sys.executable, __file__, "one", "--spaces", str(n_spaces), "--folder", str(folder)]
        more = ["--measures", options.measures, "--keep-maps", options.keep_maps]
        one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        subprocess.run([*command, *more], check=True, env=os.environ | one_thread)
        read_it(folder)


# --- the store ---


def publish_one(folder: Path, n_spaces: int, measures: str, keep_maps: str) -> None:
    """Make the zoo, unless it is there; score, publish and read it."""
    from lfm_atlas.pipeline import build_atlas
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.runtime import session

    if not (folder / "data_catalog.yaml").exists():
        write_zoo(folder, n_spaces)
    (folder / "data_catalog.yaml").write_text(CATALOG.format(measures=measures, keep_maps=keep_maps), encoding="utf-8")
    say(f"\n{n_spaces} spaces, measures {measures}")
    # Tiny units wait for the disk a hundred times longer than they are computed.
    os.fsync = lambda file: None  # type: ignore[assignment]
    watch_parts()
    workers = MadeUpWorkers()
    session.InProcess = lambda limit: workers  # type: ignore[misc, assignment]
    catalog = read_catalog(folder / "data_catalog.yaml")
    with measured("the whole run"), session.open_run(catalog, silent, in_process=True) as run:
        build_atlas(run)
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in workers.spent.items())
    say(f"  of it inside of workers' jobs: {spent}")
    for place in sorted([*(folder / ".lfm-atlas" / "units").iterdir(), folder / ".lfm-atlas" / "receipts"]):
        say_size(f"store, {place.name}", place)
    say_size("atlas", folder / "atlas")
    for path in sorted((folder / "atlas").iterdir()):
        say_size(f"atlas, {path.name}", path)
    for array in sorted((folder / "atlas" / "atlas.zarr").iterdir(), key=n_bytes)[-14:]:
        say_size(f"atlas.zarr, {array.name}", array)
    with measured("a run with nothing new"), session.open_run(catalog, silent, in_process=True) as run:
        build_atlas(run)


def write_zoo(folder: Path, n_spaces: int) -> None:
    """Write models of 12 layers in families of five: noisy random images of the same points."""
    (folder / "zoo").mkdir(parents=True)
    generator = np.random.default_rng(0)
    latent = generator.standard_normal((N_POINTS, 4))
    for model in range(-(-n_spaces // N_LAYERS)):
        if model % 5 == 0:
            images = generator.standard_normal((N_LAYERS, 4, 8))
        layers = {}
        for layer in range(min(N_LAYERS, n_spaces - model * N_LAYERS)):
            image = np.tanh(latent @ images[layer]) + 0.2 * generator.standard_normal((N_POINTS, 8))
            layers[f"l{layer:02}"] = image.astype(np.float32)
        np.savez(folder / "zoo" / f"m{model:04}.npz", **layers)
    np.save(folder / "ids.npy", np.arange(N_POINTS))


class MadeUpWorkers:
    """Workers in this process whose scores are made up; all other jobs are done."""

    memory_limit = 1 << 40
    peak_bytes = 0

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def run(
        self,
        function: Callable[[Any], Any],
        jobs: Sequence[Any],
        needs: Sequence[int] = (),
        devices: Sequence[str] = (),
    ) -> Iterator[tuple[int, Any]]:
        """Yield results in order."""
        from lfm_tasks.workers.pool import JobFunction

        name = function.__name__
        done = JobFunction(store_made_up_block if name == "store_block" else function)
        for index, job in enumerate(jobs):
            start = time.process_time()
            result, _ = done(job)
            self.spent[name] = self.spent.get(name, 0) + time.process_time() - start
            yield index, result

    def close(self) -> None:
        """Nothing was started."""


def store_made_up_block(job: Any) -> None:
    """Commit made-up scores, as `store_block` commits real ones: alike where the bases of two spaces are."""
    from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS
    from lfm_tasks.stages.scores.block import HALVES

    n_pairs, measures = job.n_pairs, job.settings.measures
    generator = np.random.default_rng(int(job.key[:8], 16))
    places = np.stack([place_of(job.store, key) for key in job.bases])
    apart = np.square(places[job.sides[:, 0]] - places[job.sides[:, 1]]).sum(axis=1)
    noise = 0.05 * generator.random((n_pairs, 2, len(measures)))
    score = np.clip(0.95 * np.exp(-apart)[:, None, None] + noise, 0, 1)
    p_value = np.exp(-20 * score * generator.random(score.shape))
    halves = np.clip(score[..., None] + 0.02 * generator.standard_normal((*score.shape, len(HALVES))), 0, 1)
    halves = halves.astype(np.float32).astype(float)
    of_all = [score, 0.1 + 0.1 * noise, 0.15 + 0.1 * noise, (score - 0.1) / 0.9, p_value, score - 0.03, score + 0.03]
    values = np.concatenate([np.stack(of_all, axis=-1), halves], axis=-1)
    with job.store.commit("scores", job.key) as unit_writer:
        unit_writer.arrays.write("values", values)
        unit_writer.arrays.write("n_common", np.full(n_pairs, N_POINTS, dtype=np.int32))
        unit_writer.arrays.write("diagnostics", generator.random((n_pairs, 2, len(DIAGNOSTICS))))
        unit_writer.facts |= {
            "scored_by": list(job.settings), "bases": list(job.bases), "pair_runs": job.runs.tolist(),
            "refusals": [], "unmapped": [], "codes": [],
        }  # fmt: skip


@cache
def place_of(store: Any, key: str) -> np.ndarray:
    """Return a point that stands for a basis: its eigenvalues."""
    with store.open("bases", key) as unit:
        values = unit.read("eigenvalues")[1:]
    spread = np.frombuffer(hashlib.sha256(key.encode()).digest()[:8], np.uint16) / (1 << 16)
    return np.concatenate([6 * values, spread])


# --- who has what to do ---

# CPU seconds of a basis with halves, and of a pair, of 2,000 points and 64 features (docs/speed.md).
BASIS_SECONDS, PAIR_SECONDS = 0.45, 0.48e-3


# A hundred workers in one process: they do not take what prepares processes, and none watches itself, which each does a
# hundred times a second.
OF_MANY_WORKERS = {
    "distributed.worker.preload": [],
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "60s",
}


def hand_out(n_spaces: int, n_workers: int, scale: float) -> None:
    """Have the real driver hand real jobs to workers that sleep; scheduler and workers are in this process."""
    from distributed import Client, LocalCluster

    from lfm_tasks.workers import pool
    from lfm_tasks.workers.dask_config import dask_settings

    # A process of a hundred threads has a hundred heaps to trim, a worker one.
    pool._return_memory = lambda: None

    say(f"\n{n_spaces} spaces, {n_workers} workers, 1 s of work is {scale} s of sleep")
    with measured("jobs of blocks"):
        jobs = jobs_of_blocks(n_spaces)
    n_pairs = sum(job.n_pairs for job in jobs)
    say(f"  {len(jobs)} blocks, {n_pairs / 1e6:.1f} million pairs")
    with (
        dask_settings(OF_MANY_WORKERS),
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None
        ) as cluster,
    ):

        def connect() -> Any:
            return Client(cluster, set_as_default=False)

        of_bases = [Sleep(scale * BASIS_SECONDS)] * n_spaces
        time_them("bases", connect, sleep, of_bases, [job.seconds for job in of_bases], n_workers)
        seconds = [scale * PAIR_SECONDS * job.n_pairs for job in jobs]
        time_them("blocks", connect, SleepFor(scale * PAIR_SECONDS), jobs, seconds, n_workers)


def time_them(
    name: str, connect: Any, function: Any, jobs: Sequence[Any], seconds: Sequence[float], n_workers: int
) -> None:
    """Print how busy workers are while they do jobs of so many seconds."""
    from lfm_tasks.workers.pool import run_jobs

    first, start = None, time.monotonic()
    with measured(f"{name}: driver, scheduler and workers"):
        for index, (result, _) in run_jobs(connect, function, jobs, [1 << 30] * len(jobs)):
            if result is not None:
                raise RuntimeError(f"job {index}: {result}")
            first = first or time.monotonic() - start
    wall, ideal = time.monotonic() - start, sum(seconds) / n_workers
    say(f"  {name}: {len(jobs)} jobs of {sum(seconds) / len(jobs):.3f} s, the first done after {first:.1f} s")
    busy = f"{ideal:.1f} s if all workers were busy: {ideal / wall:.0%}"
    say(f"  {name}: all done after {wall:.1f} s ({busy}); {len(jobs) / wall:.0f} jobs a second")


class Sleep(NamedTuple):
    """A job that takes this long."""

    seconds: float


def sleep(job: Sleep) -> None:
    """Do such a job."""
    time.sleep(job.seconds)


@dataclass(frozen=True)
class SleepFor:
    """A function that sleeps so long for each pair of a block."""

    seconds: float

    def __call__(self, job: Any) -> None:
        """Do the job of a block."""
        time.sleep(self.seconds * job.n_pairs)


def jobs_of_blocks(n_spaces: int) -> list[Any]:
    """Return the jobs that score all pairs of so many spaces, as the stage makes them."""
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.spaces import Space
    from lfm_tasks.stages.bases.stage import SpaceBasis
    from lfm_tasks.stages.inventory.correspondence import FULL_CORRESPONDENCE
    from lfm_tasks.stages.scores.block import ScoreSettings
    from lfm_tasks.stages.scores.pair_index import PairIndex, ScoringInputs
    from lfm_tasks.stages.scores.stage import block_jobs
    from lfm_tasks.stores.units.store import UnitStore

    with tempfile.TemporaryDirectory() as temporary:
        write_zoo(Path(temporary), 3)
        file = Path(temporary) / "data_catalog.yaml"
        file.write_text(CATALOG.format(measures="lfm, overlap", keep_maps="none"), encoding="utf-8")
        catalog = read_catalog(file)
    keys = sorted(hashlib.sha256(str(space).encode()).hexdigest() for space in range(n_spaces))
    facts = {"n_eigenpairs": 40}
    bases = {key: SpaceBasis(Space("d", key, "l"), key, 0.0, key, key, 2000, 64, facts, key) for key in keys}
    wanted = np.triu(np.ones((n_spaces, n_spaces), dtype=bool))
    block, row = np.full(wanted.shape, -1, dtype=np.int16), np.zeros(wanted.shape, dtype=np.uint16)
    settings = ScoreSettings(keys[0], ("lfm", "overlap"))
    table = PairIndex(settings, tuple(keys), wanted, wanted, block, row)
    run: Any = SimpleNamespace(catalog=catalog, store=UnitStore(Path("store")))
    return list(block_jobs(run, [table], bases, {settings: ScoringInputs(FULL_CORRESPONDENCE, "", "")}))


def read_it(folder: Path) -> None:
    """Time commands and methods on the published atlas, each in a process of its own."""
    show = (["summary"], ["nearest", "m0003"], ["nearest", "m0003/l05"], ["pair", "m0003", "m0004"], ["relations"])
    for command in (*(["show", "atlas", *view] for view in show), ["diff", "atlas", "atlas"]):
        of_process([sys.executable, "-m", "lfm_atlas", *command], folder, " ".join(command))
    opened = "from lfm_atlas import open_atlas\natlas = open_atlas('atlas')\n"
    for code in ("matrix()", "nearest('m0003')", "pair('m0003', 'm0004')", "sel('m001*').matrix()"):
        of_process([sys.executable, "-c", f"{opened}atlas.{code}"], folder, f"atlas.{code}")


def of_process(command: list[str], folder: Path, name: str) -> None:
    """Print CPU seconds and the highest memory of a process, and whether it failed."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode().strip() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    ended = "" if not code else f"  ended with {code}: {said[-200:]}"
    say(f"  {name:<40}{usage.ru_utime + usage.ru_stime:9.1f} s {usage.ru_maxrss / 1000:9.0f} MB{ended}")


def watch_parts() -> None:
    """Have the parts of a run print what they take."""
    import lfm_tasks.report
    from lfm_atlas import pipeline
    from lfm_tasks.stages.kept_maps import stage as kept_maps
    from lfm_tasks.stages.publish import stage
    from lfm_tasks.stages.scores import stage as scores

    for module, names in (
        (pipeline, ("validate", "check_memory", "record_activations", "build_bases", "score_pairs", "keep_maps",
                    "choose_previews", "atlas_spec", "publish_atlas")),
        (kept_maps, ("kept_pairs",)),
        (scores, ("find_stored", "pair_indexes", "requested_pairs")),
        (stage, ("section_groups", "assemble", "summary", "write_reference", "write_atlas", "write_edges", "model_rows",
                 "layer_rows", "share_kept")),
        (lfm_tasks.report, ("render_report",)),
    ):  # fmt: skip
        for name in names:
            setattr(module, name, watched(getattr(module, name), name))


def watched(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the function, printing what each call takes."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with measured(name):
            return function(*arguments, **options)

    return call


@contextmanager
def measured(name: str) -> Iterator[None]:
    """Print CPU and wall seconds of a block, and the highest memory in it, without files that are mapped."""
    is_over, highest = threading.Event(), [own_memory()]

    def watch() -> None:
        while not is_over.wait(0.05):
            highest[0] = max(highest[0], own_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start, wall = time.process_time(), time.monotonic()
    yield
    spent, passed = time.process_time() - start, time.monotonic() - wall
    is_over.set()
    watcher.join()
    say(f"  {name:<40}{spent:9.1f} s {highest[0] / 1000:9.0f} MB {passed:9.1f} s wall")


def own_memory() -> int:
    """Return the kilobytes of this process in memory that no file backs."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def n_bytes(place: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    return sum(path.stat().st_size for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file())


def say_size(name: str, place: Path) -> None:
    """Print bytes and files of a place."""
    n_files = 1 if place.is_file() else sum(path.is_file() for path in place.rglob("*"))
    say(f"  {name:<40}{n_bytes(place) / 1e6:9.1f} MB {n_files:7} files")


def silent(stage: str, n_done: int, n_jobs: int) -> None:
    """Print nothing."""


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
