"""Beside installable peers, on the same pairs: CPU milliseconds a pair, and the largest difference of the values.

Peers: rsatoolbox (representational similarity), dcor (distance correlation), ckatorch (CKA, with PyTorch), SciPy
(Procrustes). They give a score; ours comes with chance and an interval from halves of the points.
``pip install rsatoolbox dcor ckatorch``, then
``python tests/benchmarks/bench_peers.py [--spaces 12] [--points 2000] [--features 64]``. One thread; both sides in one
process, in turns; what is prepared of one space counts.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations

import numpy as np
from threadpoolctl import threadpool_limits

from lfm_tasks.config import NullConfig
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.resampling import Exchange, halves_of

Spaces = Mapping[str, np.ndarray]
Pairs = list[tuple[str, str]]


def related_spaces(n_spaces: int, n_points: int, n_features: int) -> Spaces:
    """Return spaces of which each shares half of its directions with all others."""
    generator = np.random.default_rng(0)
    common = generator.standard_normal((n_points, n_features // 2))
    spaces = {}
    for number in range(n_spaces):
        mixed = np.hstack([common, generator.standard_normal((n_points, n_features - n_features // 2))])
        spaces[f"s{number:02}"] = np.maximum(mixed @ generator.standard_normal((n_features, n_features)), 0)
    return spaces


def of_rsatoolbox(spaces: Spaces, pairs: Pairs, method: str) -> np.ndarray:
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    rdms = {name: calc_rdm(Dataset(rows), method="correlation") for name, rows in spaces.items()}
    return np.array([compare(rdms[first], rdms[second], method=method).item() for first, second in pairs])


def of_dcor(spaces: Spaces, pairs: Pairs) -> np.ndarray:
    import dcor

    return np.array([dcor.distance_correlation(spaces[first], spaces[second]) for first, second in pairs])


def of_ckatorch(spaces: Spaces, pairs: Pairs, kernel: str, *, unbiased: bool) -> np.ndarray:
    import torch
    from ckatorch.core import cka_base

    torch.set_num_threads(1)
    tensors = {name: torch.from_numpy(rows) for name, rows in spaces.items()}
    return np.array(
        [float(cka_base(tensors[first], tensors[second], kernel, unbiased=unbiased)) for first, second in pairs]
    )


def of_scipy(spaces: Spaces, pairs: Pairs) -> np.ndarray:
    from scipy.spatial import procrustes

    # Its disparity is 1 − s² of the sum s of singular values; ours the distance of spaces that are not scaled: 2 − 2 s.
    sums = np.sqrt([1 - procrustes(spaces[first], spaces[second])[2] for first, second in pairs])
    return np.sqrt(2 - 2 * sums)


PEERS: dict[str, tuple[str, Callable[[Spaces, Pairs], np.ndarray]]] = {
    "rsa_pearson_rdm_pearson": ("rsatoolbox, corr", partial(of_rsatoolbox, method="corr")),
    "rsa_pearson_rdm_spearman": (
        "rsatoolbox, spearman",
        partial(of_rsatoolbox, method="spearman"),
    ),
    "distance_correlation": ("dcor", of_dcor),
    "cka_linear": ("ckatorch", partial(of_ckatorch, kernel="linear", unbiased=False)),
    "cka_linear_debiased_song": ("ckatorch", partial(of_ckatorch, kernel="linear", unbiased=True)),
    "cka_rbf_median_all_squared_distances": ("ckatorch", partial(of_ckatorch, kernel="rbf", unbiased=False)),
    "procrustes_centered_unit_norm": ("SciPy", of_scipy),
}


def of_ours(name: str, spaces: Spaces, pairs: Pairs) -> np.ndarray:
    n_points = len(next(iter(spaces.values())))
    how = Resampling(Exchange(n_points), halves_of(map(str, range(n_points)), seed=0))
    return score_rows(name, Activations(spaces, {}), pairs, how, NullConfig()).values[:, 0, 0]


def timed(function: Callable[[], np.ndarray], n_pairs: int) -> tuple[np.ndarray, float]:
    start = time.process_time()
    values = function()
    return values, (time.process_time() - start) / n_pairs * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", type=int, default=12)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--features", type=int, default=64)
    options = parser.parse_args()
    spaces = related_spaces(options.spaces, options.points, options.features)
    pairs = list(combinations(sorted(spaces), 2))
    names = [name for name in PEERS if name in MEASURES]
    print("| measure | peer | ms a pair | ours, with chance and interval | ratio | largest difference |")  # noqa: T201
    print("|---|---|---|---|---|---|")  # noqa: T201
    with threadpool_limits(1):
        of_ours(names[0], dict(list(spaces.items())[:2]), pairs[:1])  # compiled
        for name in names:
            peer, function = PEERS[name]
            theirs, of_peer = timed(lambda function=function: function(spaces, pairs), len(pairs))  # type: ignore[misc]
            own, of_us = timed(lambda name=name: of_ours(name, spaces, pairs), len(pairs))  # type: ignore[misc]
            apart = float(np.abs(own - theirs).max())
            cells = [name, peer, f"{of_peer:.1f}", f"{of_us:.1f}", f"{of_peer / of_us:.1f}", f"{apart:.1e}"]
            print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
