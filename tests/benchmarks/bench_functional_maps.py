"""Our kernels beside another program's functional maps: pyFM's cat and lion (7,207 and 5,000 points).

Claims: with its frozen first column our row solve gives `Cclosed_*` to 1e-10; our ZoomOut from its map, with its
areas, gives its point map on >= 99 % of the points. ``python tests/benchmarks/bench_functional_maps.py --data FOLDER``
with pyfm_cat_lion.npz in FOLDER.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.batched.tiles import factor_source, fit_map_from_factor
from lfm_tasks.spectral.maps.closed_form import DescriptorCoefficients, fit_closed_form, solve_rows
from lfm_tasks.spectral.maps.decoding import embed, nearest_points
from lfm_tasks.spectral.maps.refinement import zoomout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    with np.load(parser.parse_args().data / "pyfm_cat_lion.npz") as arrays:
        shapes = {name: arrays[name] for name in arrays.files}
    for name, weight in (("nocomm", 0.01), ("tight", 10.0)):
        error = np.abs(closed_form(shapes, weight, shapes[f"Cclosed_{name}"][0, 0]) - shapes[f"Cclosed_{name}"]).max()
        print(f"row solve, Laplacian weight {weight}: largest difference {error:.1e}")  # noqa: T201
    started = time.perf_counter()
    cat, lion = (basis(shapes, side) for side in (1, 2))
    grown = zoomout(shapes["C_comm"], cat, lion, n_samples=10**6, n_final=0, target_weights=shapes["mass2"])
    agree = (nearest_points(embed(grown, cat, lion)) == shapes["p2p_zoomout"]).mean()
    print(f"ZoomOut 35 to 50: the same point on {agree:.1%} of 5,000, {time.perf_counter() - started:.1f} s")  # noqa: T201
    print(factored(shapes))  # noqa: T201


def closed_form(shapes: dict[str, np.ndarray], weight: float, first_entry: float) -> np.ndarray:
    """Return C with its first column frozen at (first_entry, 0, …), the others fitted to what that leaves."""
    gaps = (shapes["evals1"][:35] - shapes["evals2"][:35, None]) ** 2
    frozen = np.zeros(35)
    frozen[0] = first_entry
    left = shapes["B"] - np.outer(frozen, shapes["A"][0])
    return np.column_stack([frozen, solve_rows(shapes["A"][1:], left, weight * gaps[:, 1:] / gaps.sum())])


def basis(shapes: dict[str, np.ndarray], side: int) -> Basis:
    """Return 50 eigenpairs; ours have unit length, which `scaled_rows` undoes."""
    vectors = shapes[f"Phi{side}"][:, :50]
    return Basis(shapes[f"evals{side}"][:50], vectors / np.sqrt(len(vectors)), float(shapes[f"evals{side}"][50]))


def factored(shapes: dict[str, np.ndarray], n_targets: int = 200) -> str:
    """Compare the maps to many targets by one factorization of the source with a batched solve for each."""
    generator = np.random.default_rng(0)
    values = np.concatenate([[0], np.sort(generator.uniform(0.05, 1, 49))])
    source = DescriptorCoefficients(values, generator.standard_normal((50, 20)))
    targets = [DescriptorCoefficients(values, generator.standard_normal((50, 20))) for _ in range(n_targets)]
    seconds = {"direct": [], "factored": []}
    for _ in range(5):
        started = time.perf_counter()
        direct = [fit_closed_form(source, target) for target in targets]
        seconds["direct"].append(time.perf_counter() - started)
        started = time.perf_counter()
        factor = factor_source(source)
        maps = [fit_map_from_factor(factor, target, single_precision=True) for target in targets]
        seconds["factored"].append(time.perf_counter() - started)
    error = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(maps, direct, strict=True))
    per_pair = {name: 1e6 * np.median(values) / n_targets for name, values in seconds.items()}
    return (
        f"maps of 50 × 50 from 20 descriptors: direct {per_pair['direct']:.0f} µs a pair, factored in float32 "
        f"{per_pair['factored']:.0f} µs, ratio {per_pair['direct'] / per_pair['factored']:.0f}, error {error:.0e}"
    )


if __name__ == "__main__":
    main()
