"""A whole zoo, bases and maps of all directed pairs: 10 times as fast as the common way, 3 times as the best plain one.

``python tests/benchmarks/bench_zoo.py [--points 10000] [--spaces 60] [--sampled 3] [--pairs 30]``; set
OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1. Activations are n × 768, K = 50, 50 neighbors, 21 anchors with 3 times of
heat: 63 descriptors. Everything is in memory on all sides; times are CPU seconds, and the sides alternate in one
process, space by space and pair by pair. Of bases, ``--sampled`` spaces are computed by each side and the median is
multiplied by ``--spaces``. Of pairs, ours are all computed (the sampled bases stand for the others); of the other sides
``--pairs`` are, and their median is multiplied by the number of directed pairs.

- common: scikit-learn ``kneighbors_graph`` (cosine), ``eigsh(which="SM")``, and for each pair L-BFGS as pyFM does it:
  scipy's ``fmin_l_bfgs_b`` over ½ w ‖CA − B‖² (w = .1), ½ Σ_l ‖C S_l − T_l C‖² and ½ w Σ C_ij² M_ij (w = .001, M the
  squared differences of eigenvalues over their sum), gradients given, from the map that matches the first functions,
  whose column stays.
- plain: brute search on unit rows, ``eigsh(which="LA")`` in float64, and batched solves for the rows of each map.

All sides score each map by lfm and overlap.
"""

import argparse
import statistics
from typing import Any

import numpy as np
from bench_bases import activations, common_basis, plain_basis, say, timed
from scipy.optimize import fmin_l_bfgs_b

from lfm_tasks.spectral.bases.eigenbasis import Basis, spectral_basis
from lfm_tasks.spectral.bases.full_map import capped_overlap, lfm
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.batched.tiles import TILE_SCORES, tile_source, tile_sums, tile_targets
from lfm_tasks.spectral.maps.closed_form import DescriptorCoefficients, descriptor_operators, fit_closed_form
from lfm_tasks.spectral.maps.descriptors import landmark_heat_coefficients, landmark_heat_descriptors, unit_descriptors
from lfm_tasks.spectral.neighbors.search import choose_method, find_neighbors

N_NEIGHBORS, N_EIGENPAIRS, N_ANCHORS = 50, 50, 21


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("points", 10_000), ("spaces", 60), ("sampled", 3), ("pairs", 30)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    bases, per_base = sampled_bases(chosen.points, chosen.sampled)
    anchors = np.random.default_rng(0).choice(chosen.points, N_ANCHORS, replace=False)
    per_pair = sampled_pairs(bases, anchors, chosen.pairs)
    n_pairs = chosen.spaces * (chosen.spaces - 1)
    pairs = {name: n_pairs * seconds for name, seconds in per_pair.items()}
    many = [bases[index % len(bases)] for index in range(chosen.spaces)]
    all_pairs(many[:2], anchors)  # what is compiled is compiled before
    pairs["ours"] = statistics.median(timed(lambda: all_pairs(many, anchors))[1] for _ in range(3))
    whole = {name: chosen.spaces * per_base[name] + pairs[name] for name in per_base}
    for name, seconds in whole.items():
        say(
            f"{name}: {per_base[name]:.2f} s a base, pairs {pairs[name]:.2f} s; "
            f"{chosen.spaces} spaces {seconds:.0f} s, {seconds / whole['ours']:.2f} times ours"
        )
    if "common" in per_pair:
        say(f"L-BFGS {1e3 * per_pair['common']:.0f} ms a pair, batched solves {1e3 * per_pair['plain']:.2f} ms")


def sampled_bases(n_points: int, n_sampled: int) -> tuple[list[Basis], dict[str, float]]:
    """Return our bases, and the seconds that each side takes for one."""
    our_basis(activations(4200, 99))
    seconds: dict[str, list[float]] = {"ours": [], "plain": [], "common": []}
    bases = []
    for seed in range(n_sampled):
        data = activations(n_points, seed)
        basis, spent = timed(lambda: our_basis(data))  # noqa: B023
        bases.append(basis)
        seconds["ours"].append(spent)
        seconds["plain"].append(timed(lambda: plain_basis(data))[1])  # noqa: B023
        seconds["common"].append(timed(lambda: common_basis(data))[1])  # noqa: B023
    return bases, {name: statistics.median(spent) for name, spent in seconds.items()}


def our_basis(data: np.ndarray) -> Basis:
    method = choose_method(*data.shape, N_NEIGHBORS)
    graph = affinity_graph(find_neighbors(data, N_NEIGHBORS, metric="angular", method=method), kernel="binary")
    return spectral_basis(join_components(graph, data, metric="angular")[0], N_EIGENPAIRS)


def all_pairs(bases: list[Basis], anchors: np.ndarray) -> None:
    described = [
        DescriptorCoefficients(basis.eigenvalues, landmark_heat_coefficients(basis, anchors)) for basis in bases
    ]
    targets = tile_targets(described)
    sums = tile_sums([(tile_source(source), targets) for source in described])
    for name in ("lfm", "overlap"):
        TILE_SCORES[name](sums)


def sampled_pairs(bases: list[Basis], anchors: np.ndarray, n_pairs: int) -> dict[str, float]:
    """Return the seconds that the other sides take for the map and scores of a pair; what a space shares is free."""
    units = [unit_descriptors(basis, landmark_heat_descriptors(basis, anchors)) for basis in bases]
    described = [
        DescriptorCoefficients(basis.eigenvalues, basis.eigenvectors.T @ unit)
        for basis, unit in zip(bases, units, strict=True)
    ]
    operators = [descriptor_operators(basis, unit) for basis, unit in zip(bases, units, strict=True)]
    seconds: dict[str, list[float]] = {"plain": [], "common": []}
    for index in range(n_pairs):
        source, target = index % len(bases), (index + 1 + index // len(bases)) % len(bases)
        sides = described[source], described[target]
        seconds["plain"].append(timed(lambda: scored(fit_closed_form(*sides)))[1])  # noqa: B023
        fit = timed(lambda: scored(l_bfgs(sides, (operators[source], operators[target]))))  # noqa: B023
        seconds["common"].append(fit[1])
    return {name: statistics.median(spent) for name, spent in seconds.items()}


def scored(functional_map: np.ndarray) -> None:
    lfm(functional_map)
    capped_overlap(functional_map)


def l_bfgs(sides: tuple[DescriptorCoefficients, DescriptorCoefficients], operators: tuple[Any, Any]) -> np.ndarray:
    """Return a map the way pyFM fits it, with its default weights."""
    (source, target), (of_source, of_target) = sides, operators
    a, b = source.coefficients, target.coefficients
    gaps = (source.eigenvalues - target.eigenvalues[:, None]) ** 2
    gaps /= gaps.sum()
    shape = gaps.shape

    def energy(flat: np.ndarray) -> float:
        c = flat.reshape(shape)
        commuted = sum(np.square(c @ x - y @ c).sum() for x, y in zip(of_source, of_target, strict=True))
        return float(0.05 * np.square(c @ a - b).sum() + 0.5 * commuted + 0.0005 * (gaps * c**2).sum())

    def gradient(flat: np.ndarray) -> np.ndarray:
        c = flat.reshape(shape)
        slopes = 0.1 * (c @ a - b) @ a.T + 0.001 * gaps * c
        for x, y in zip(of_source, of_target, strict=True):
            left = c @ x - y @ c
            slopes += left @ x.T - y.T @ left
        slopes[:, 0] = 0
        return slopes.ravel()

    start = np.zeros(shape)
    start[0, 0] = 1
    return fmin_l_bfgs_b(energy, start.ravel(), fprime=gradient)[0].reshape(shape)


if __name__ == "__main__":
    main()
