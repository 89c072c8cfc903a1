"""Carried embeddings keep what the curves say, from 10 to all pairs, and a chosen map is never far behind a baseline.

``python tests/benchmarks/bench_upgrade.py EMBEDDINGS.npz OLD NEW`` draws the curves between two encoders of one file
(arrays of unit rows and ``ids``): orthogonal, ridge, low-rank, residual network, functional maps, the chosen one.
``--kin`` puts a kin of NEW in OLD's place: rotated, bent by a random layer, and noisy.
"""

import argparse
import time

import numpy as np

from lfm_tasks.upgrades.adapters import BASELINES, unit_rows
from lfm_tasks.upgrades.evidence import CHOSEN, CurveOptions, upgrade_evidence
from lfm_tasks.upgrades.files import evidence_as_lines
from lfm_tasks.upgrades.verdict import judge


def kin_of(rows: np.ndarray, seed: int = 9) -> np.ndarray:
    """Return unit rows that are a rotation of ``rows`` after a small random layer and noise."""
    generator = np.random.default_rng(seed)
    width = rows.shape[1]
    layer = generator.standard_normal((width, width)) / np.sqrt(width)
    turned = np.linalg.qr(generator.standard_normal((width, width)))[0]
    bent = rows + 0.3 * np.maximum(rows @ layer, 0) + 0.01 * generator.standard_normal(rows.shape)
    return unit_rows(bent @ turned)


def main() -> None:
    """Print the curves, the verdict, and how far the chosen map is ahead of or behind the best baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--sizes", default="10,20,50,100,200,500,1000,2500")
    parser.add_argument("--unpaired", choices=("other", "same"), default="other")
    parser.add_argument("--kin", action="store_true")
    arguments = parser.parse_args()
    with np.load(arguments.file) as arrays:
        old, new = (arrays[name].astype(np.float64) for name in (arguments.old, arguments.new))
    sizes = tuple(map(int, arguments.sizes.split(",")))
    options = CurveOptions(sizes, n_draws=arguments.draws, unpaired=arguments.unpaired)
    started = time.perf_counter()
    evidence = upgrade_evidence(kin_of(new) if arguments.kin else old, new, options)
    print(f"{time.perf_counter() - started:.0f} s\n")  # noqa: T201
    for line in evidence_as_lines(evidence, judge(evidence)):
        print(line)  # noqa: T201
    print("\nchosen against the best baseline, recall")  # noqa: T201
    for cell in evidence.cells:
        if cell.adapter == CHOSEN:
            beside = [evidence.cell(cell.direction, cell.n_pairs, name) for name in BASELINES]
            best = max(one.recall for one in beside if one is not None)
            print(f"{cell.direction:>8} {cell.n_pairs:>6,}: {cell.recall - best:+.3f}")  # noqa: T201


if __name__ == "__main__":
    main()
