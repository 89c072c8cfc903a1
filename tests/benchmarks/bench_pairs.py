"""All pairs of many spaces: fit, lfm and overlap within 3 times of what the two products of a fit alone take.

``python tests/benchmarks/bench_pairs.py kernel|known|stage|files``; set OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1.

``kernel``: described spaces in memory, tiles of ``--side`` sources × ``--side`` targets; the sides alternate in one
process. The two products of a pair are counted as real ones: (K−1) × q × 2(K−1) and (K−1) × 2(K−1) × (K−1), two
operations each, at the rate that a float32 product of 1,500 × 1,500 has in the same rounds.
``known``: lfm and overlap of spaces whose points are all known, with chance, and intervals from halves; beside them
their products at the float32 rate, and one pair after another with 100 permutations.
``stage``: a zoo of ``--spaces`` is recorded and gets its bases, then the stage scores is run as a run does it: compiled
loops are called once before, its time is split, and the rate of products is measured right before and after.
``files``: counts the files of a store. Times are CPU seconds.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from lfm_tasks.catalog import read_catalog
from lfm_tasks.config import NullConfig
from lfm_tasks.runtime.session import open_run
from lfm_tasks.spectral.bases.full_map import (
    TILE_SIDE,
    capped_overlap,
    full_map,
    lfm,
    overlap,
    permutations_per_product,
    permuted_maps,
    permuted_rows,
)
from lfm_tasks.spectral.batched.tiles import TILE_SCORES, tile_source, tile_sums, tile_targets
from lfm_tasks.spectral.maps.closed_form import DescriptorCoefficients, fit_closed_form
from lfm_tasks.stages.activations.stage import record_activations
from lfm_tasks.stages.bases.stage import build_bases
from lfm_tasks.stages.inventory.stage import validate
from lfm_tasks.stages.scores import closed_form_maps as closed_scores
from lfm_tasks.stages.scores import closed_form_maps as described
from lfm_tasks.stages.scores import stage as scores
from lfm_tasks.stages.scores.full_maps import BasisRows, basis_chance, score_tile, tile_side_of
from lfm_tasks.stages.scores.pair_index import PairIndex
from lfm_tasks.stages.scores.stage import score_pairs
from lfm_tasks.statistics.resampling import Exchange, halves_of
from lfm_tasks.stores.units.arrays import ArrayReader
from lfm_tasks.stores.units.store import UnitStore

N_ANCHORS, N_LAYERS = 21, 50  # three times of heat an anchor: 63 descriptors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=["kernel", "known", "stage", "files"])
    parser.add_argument("--spaces", type=int, nargs="+", default=[1000])
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--eigenpairs", type=int, default=50)
    parser.add_argument("--descriptors", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    chosen = parser.parse_args()
    for n_spaces in chosen.spaces:
        if chosen.claim == "kernel":
            kernel(n_spaces, chosen.eigenpairs, chosen.descriptors, chosen.side)
        elif chosen.claim == "known":
            known(chosen.points, chosen.eigenpairs)
        else:
            with tempfile.TemporaryDirectory() as name:
                stage(Path(name), n_spaces, chosen.points, chosen.eigenpairs, split=chosen.claim == "stage")


def kernel(n_spaces: int, n_eigenpairs: int, n_descriptors: int, side: int, n_rounds: int = 9) -> None:
    """Time a tile, the factorization of its sources, the product rate and the plain ways in turns."""
    spaces = [made_up(seed, n_eigenpairs, n_descriptors) for seed in range(2 * side)]
    sources = [tile_source(space) for space in spaces[:side]]
    square = np.random.default_rng(0).standard_normal((1500, 1500)).astype(np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in ("tile", "source", "product", "solve", "solve + scores")}
    for index in range(n_rounds):
        source, target = spaces[index % side], spaces[side + index % side]
        seconds["product"].append(spent(lambda: square @ square) / (2 * 1500**3))
        seconds["tile"].append(spent(lambda: one_tile(sources, spaces[side:])) / side**2)
        seconds["source"].append(spent(lambda: tile_source(source)))  # noqa: B023
        seconds["solve"].append(spent(lambda: fit_closed_form(source, target)))  # noqa: B023
        seconds["solve + scores"].append(spent(lambda: plain_scores(source, target)))  # noqa: B023
    median = {name: statistics.median(values) for name, values in seconds.items()}
    inner = n_eigenpairs - 1
    products = 4 * inner**2 * (n_descriptors + inner) * median["product"]
    whole = median["tile"] + median["source"] / n_spaces
    sums = tile_sums([(sources[0], tile_targets(spaces[side:]))])
    direct = [fit_closed_form(spaces[0], target) for target in spaces[side:]]
    errors = {
        "lfm": np.array([lfm(one) for one in direct]),
        "overlap": np.array([capped_overlap(one) for one in direct]),
    }
    worst = max(float(np.abs(TILE_SCORES[name](sums) - truth).max()) for name, truth in errors.items())
    say(
        f"K = {n_eigenpairs}, q = {n_descriptors}: two products {1e6 * products:.1f} us a pair at "
        f"{1e-9 / median['product']:.0f} GFLOP/s; fit, lfm and overlap {1e6 * median['tile']:.1f}, a source "
        f"{1e3 * median['source']:.1f} ms once, so {1e6 * whole:.1f} us among {n_spaces} spaces: "
        f"{whole / products:.2f} times the products; batched solves {1e6 * median['solve']:.0f} us, with scores "
        f"{1e6 * median['solve + scores']:.0f}: {median['solve + scores'] / whole:.0f} times ours; largest difference "
        f"of a score {worst:.0e}"
    )


def known(n_points: int, n_eigenpairs: int, n_rounds: int = 5) -> None:
    """Time the pairs of two sides of 16 bases, and what they do one after another, in turns."""
    exchange, halves = Exchange(n_points), halves_of(map(str, range(n_points)))
    bases = [known_basis(seed, n_points, n_eigenpairs) for seed in range(16)]
    # Of other values than bases of halves have, which takes as long.
    of_halves = [np.stack([basis.astype(np.float32)] * len(halves)) for basis in bases]
    rows = [
        BasisRows(np.linspace(0, 1, n_eigenpairs), basis, basis_chance(basis), of_half)
        for basis, of_half in zip(bases, of_halves, strict=True)
    ]
    sides = [tile_side_of(rows[start : start + TILE_SIDE], halves) for start in range(0, 16, TILE_SIDE)]
    pairs = [(source, target) for source in range(TILE_SIDE) for target in range(TILE_SIDE)]
    square = np.random.default_rng(0).standard_normal((1500, 1500)).astype(np.float32)

    def tiles() -> None:
        for source in sides:
            for target in sides:
                score_tile(source, target, pairs, ["lfm", "overlap"], NullConfig(), exchange)

    def one_by_one() -> None:
        source, target = bases[:2]
        sets = [np.ones(n_points, dtype=bool), *(half for second in halves for half in (~second, second))]
        maps = np.stack([full_map(source[some], target[some]) for some in sets])
        orders = np.stack([exchange.permutation(draw) for draw in range(100)])
        steps = np.array_split(orders, 100 // permutations_per_product(n_points, n_eigenpairs))
        drawn = [permuted_maps(source, permuted_rows(target, some), len(some)) for some in steps]
        for directed in (maps, np.swapaxes(maps, 1, 2), *drawn, *(np.swapaxes(one, 1, 2) for one in drawn)):
            lfm(directed), overlap(directed)

    tiles()
    seconds: dict[str, list[float]] = {name: [] for name in ("product", "tiles", "one by one")}
    for _ in range(n_rounds):
        seconds["product"].append(spent(lambda: square @ square) / (2 * 1500**3))
        seconds["tiles"].append(spent(tiles) / 256)
        seconds["one by one"].append(spent(one_by_one))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    # Of all points and of the halves of each split; CᵀC of all these.
    count = (1 + len(halves)) * n_points * n_eigenpairs**2 + (1 + 2 * len(halves)) * n_eigenpairs**3
    products = 2 * count * median["product"]
    say(
        f"{n_points} points, K = {n_eigenpairs}: lfm and overlap with all statistics "
        f"{1e3 * median['tiles']:.2f} ms a pair, {median['tiles'] / products:.1f} times the products at "
        f"{1e-9 / median['product']:.0f} GFLOP/s; one by one with 100 permutations "
        f"{1e3 * median['one by one']:.0f} ms, {median['one by one'] / median['tiles']:.0f} times as long"
    )


def known_basis(seed: int, n_points: int, n_eigenpairs: int) -> np.ndarray:
    """Return orthonormal functions, the first one constant, that share half of their directions with all others."""
    shared = np.random.default_rng(0).standard_normal((n_points, n_eigenpairs - 1))
    rest = np.random.default_rng([1, seed]).standard_normal(shared.shape)
    return np.linalg.qr(np.column_stack([np.ones(n_points), shared + rest]))[0]


def one_tile(sources: list[Any], targets: list[DescriptorCoefficients]) -> None:
    tile = tile_targets(targets)
    sums = tile_sums([(source, tile) for source in sources])
    for name in ("lfm", "overlap"):
        TILE_SCORES[name](sums)


def plain_scores(source: DescriptorCoefficients, target: DescriptorCoefficients) -> None:
    fitted = fit_closed_form(source, target)
    lfm(fitted)
    capped_overlap(fitted)


def made_up(seed: int, n_eigenpairs: int, n_descriptors: int) -> DescriptorCoefficients:
    """Return a space that is related to all others: a shared part in its unit descriptors."""
    generator, common = np.random.default_rng(seed), np.random.default_rng(12345)
    values = np.concatenate([[0], np.sort(generator.uniform(0.05, 1, n_eigenpairs - 1))])
    shape = (n_eigenpairs, n_descriptors)
    coefficients = common.standard_normal(shape) + generator.standard_normal(shape)
    coefficients[0] = 0
    return DescriptorCoefficients(values, coefficients / np.linalg.norm(coefficients, axis=0))


def stage(folder: Path, n_spaces: int, n_points: int, n_eigenpairs: int, *, split: bool) -> None:
    """Record a zoo, compute its bases, then time the stage scores; or count the files that are there in the end."""
    write_zoo(folder, n_spaces, n_points, n_eigenpairs)
    times: dict[str, float] = {}
    with open_run(read_catalog(folder / "data_catalog.yaml"), lambda *_: None, in_process=True) as run:
        zoo = validate(run)
        with counted(times, "activations"):
            recorded = record_activations(run, zoo)
        with counted(times, "bases"):
            spaces = build_bases(run, zoo, recorded)
        n_before = n_files(folder / ".lfm-atlas")
        few = [made_up(seed, n_eigenpairs, 2) for seed in range(2)]
        one_tile([tile_source(few[0])], few[1:])
        products = [product_seconds(n_eigenpairs, 3 * N_ANCHORS)]
        with clocks(times), counted(times, "scores"):
            score_pairs(run, zoo, spaces)
        products.append(product_seconds(n_eigenpairs, 3 * N_ANCHORS))
    n_pairs = len(spaces) * (len(spaces) + 1) // 2
    blocks = list((folder / ".lfm-atlas" / "units" / "scores").iterdir())
    n_all = n_files(folder / ".lfm-atlas")
    say(
        f"{len(spaces)} spaces of {n_points} points: {n_all} files, {n_before} of them before the scores, "
        f"{(n_all - n_before) / len(blocks):.1f} for each of {len(blocks)} blocks"
    )
    if split:
        inside = sum(times[name] for name in ("reading", "describing", "factoring", "fits and scores", "writing"))
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in times.items())
        say(
            f"  CPU seconds: {parts}, the rest of the scores {times['scores'] - inside:.1f}; "
            f"{1e6 * times['scores'] / (2 * n_pairs):.1f} us a directed pair; the two products of all take "
            f"{2 * n_pairs * statistics.mean(products):.1f}: "
            f"{times['scores'] / (2 * n_pairs * statistics.mean(products)):.2f} times; peak {peak_mib():.0f} MiB"
        )


def product_seconds(n_eigenpairs: int, n_descriptors: int) -> float:
    """Return what the two products of a directed pair take at the rate of a large one."""
    square = np.random.default_rng(0).standard_normal((1500, 1500)).astype(np.float32)
    rate = statistics.median(spent(lambda: square @ square) for _ in range(7)) / (2 * 1500**3)
    inner = n_eigenpairs - 1
    return 4 * inner**2 * (n_descriptors + inner) * rate


def write_zoo(folder: Path, n_spaces: int, n_points: int, n_eigenpairs: int) -> None:
    """Write models of 50 layers: noisy random images of one set of points."""
    generator = np.random.default_rng(0)
    latent = generator.standard_normal((n_points, 6))
    np.save(folder / "ids.npy", np.array([f"p{index:05}" for index in range(n_points)]))
    models = {}
    for start in range(0, n_spaces, N_LAYERS):
        layers = {}
        for index in range(start, min(start + N_LAYERS, n_spaces)):
            image = np.tanh(latent @ generator.standard_normal((6, 16)))
            layers[f"layer{index:04}"] = (image + 0.1 * generator.standard_normal(image.shape)).astype(np.float32)
        name = f"model{start:04}"
        np.savez(folder / f"{name}.npz", **layers)
        models[name] = {"activations": {"path": "{model}.npz", "key": "{layer}", "dataset": "probe"}}
    atlas = {
        "n_eigenpairs": n_eigenpairs,
        "graph": {"n_neighbors": min(15, n_points // 4)},
        "maps": {"regime": "anchors", "anchors": {"count": N_ANCHORS}, "refine": "none"},
        "null": {"n_permutations": 0},
    }
    catalog = {"version": 1, "datasets": {"probe": {"ids": {"path": "ids.npy"}}}, "models": models, "atlas": atlas}
    with (folder / "data_catalog.yaml").open("w") as file:
        YAML().dump(catalog, file)


@contextmanager
def clocks(times: dict[str, float]) -> Iterator[None]:
    """Time the parts of a block wherever they are called; time inside a part that is timed itself is not its own."""
    parts: list[tuple[Any, str, str]] = [
        (UnitStore, "check", "reading"),
        (ArrayReader, "__init__", "reading"),
        (ArrayReader, "read", "reading"),
        (described.DescriptorCache, "_described", "describing"),
        (described, "tile_source", "factoring"),
        (closed_scores, "_score", "fits and scores"),
        (UnitStore, "_publish", "writing"),
        (PairIndex, "add", "places"),
        (scores, "pair_indexes", "pairs"),
        (scores, "requested_pairs", "pairs"),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in parts]
    inner = [0.0]

    def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            inner.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                whole = time.process_time() - start
                times[part] = times.get(part, 0.0) + whole - inner.pop()
                inner[-1] += whole

        return call

    try:
        for (owner, name, function), (*_, part) in zip(before, parts, strict=True):
            times.setdefault(part, 0.0)
            setattr(owner, name, timed(function, part))
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


@contextmanager
def counted(times: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    times[name] = time.process_time() - start


def spent(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def n_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
