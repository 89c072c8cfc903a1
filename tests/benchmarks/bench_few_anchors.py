"""Retrieval from few anchors: the choosing estimator and its spectral map beside every baseline, on unseen rows.

Claims, means over draws of the anchors, one rule for all data (`spectral_space`, `fit_from_anchors`,
`choose_alignment`, nothing tuned per set):

- digit views, share of points found by nearest neighbors after ZoomOut: from 3 anchors >= .90 (noise 05), >= .83 (15);
  by transport from the true map >= .95; the choosing estimator >= .98 from 5 anchors;
- words: mean reciprocal rank >= .98 from 10 anchors; Fashion c5 between seeds: >= .95 of the map from all known pairs;
- everywhere: at most .02 below the best baseline.

``python tests/benchmarks/bench_few_anchors.py --data FOLDER [--draws 20] [--sets words ...] [--anchors 5 ...]
[--log FILE]``. FOLDER holds digit_views.npz, words.npz and fashion_zoo/. Draws that FILE holds already are not computed
again.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lfm_tasks.spectral.bases.space import SpectralSpace, spectral_space
from lfm_tasks.spectral.maps.decoding import embed, nearest_points, scaled_rows, sinkhorn_plan
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.spectral.maps.fit import fit_from_anchors
from lfm_tasks.spectral.maps.refinement import map_of_points
from lfm_tasks.spectral.transfer.alignment import Alignment, fit_coordinates, similarities
from lfm_tasks.spectral.transfer.selection import BASELINES, choose_alignment

ANCHORS = (3, 5, 10, 20, 50, 200)
N_GRAPH = 2000


@dataclass(frozen=True)
class Views:
    """Two spaces on the same inputs, rows in another order; ``partner[i]`` is the source row of target row i."""

    source: np.ndarray
    target: np.ndarray
    partner: np.ndarray
    unseen_source: np.ndarray
    unseen_target: np.ndarray
    unseen_partner: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, action="append")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--anchors", type=int, nargs="+", default=ANCHORS)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--log", type=Path, default=Path("few_anchors.jsonl"))
    options = parser.parse_args()
    done = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    for name in options.sets:
        views = SETS[name](options.data)
        source, target = spectral_space(views.source), spectral_space(views.target)
        print(f"\n{name}: {reference(views, source, target)}", flush=True)  # noqa: T201
        for n_anchors in options.anchors:
            present = {row["draw"] for row in done if (row["set"], row["anchors"]) == (name, n_anchors)}
            for draw in set(range(options.draws)) - present:
                row = {
                    "set": name,
                    "anchors": n_anchors,
                    "draw": draw,
                    **one_draw(views, source, target, n_anchors, draw),
                }
                done.append(row)
                with options.log.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            rows = [r for r in done if (r["set"], r["anchors"]) == (name, n_anchors) and r["draw"] < options.draws]
            print(summary(n_anchors, rows), flush=True)  # noqa: T201


def one_draw(
    views: Views, source: SpectralSpace, target: SpectralSpace, n_anchors: int, draw: int
) -> dict[str, object]:
    known = np.random.default_rng(draw).choice(len(views.target), n_anchors, replace=False)
    anchors = Anchors(views.partner[known], known)
    choice = choose_alignment(source, target, anchors)
    fit = choice.fit or fit_from_anchors(source, target, anchors)
    lfm = fit_coordinates(views.source[fit.matches], views.target, method="orthogonal")
    return {
        "chosen": choice.name,
        "points": float((fit.matches == views.partner).mean()),
        "choice": quality(choice.alignment, views),
        "lfm": quality(lfm, views),
        **{name: quality(choice.candidates[name], views) for name in BASELINES},
    }


def quality(alignment: Alignment, views: Views) -> float:
    """Return the mean reciprocal rank of unseen rows; where there are none, the share of rows found."""
    if not len(views.unseen_target):
        partners = similarities(alignment, views.source, views.target).argmax(axis=1)
        return float((partners == views.partner).mean())
    scores = similarities(alignment, views.unseen_source, views.unseen_target)
    of_partner = scores[np.arange(len(scores)), views.unseen_partner]
    return float((1 / (scores >= of_partner[:, None]).sum(axis=1)).mean())


def reference(views: Views, source: SpectralSpace, target: SpectralSpace) -> str:
    """Return what is reached when every pair is known."""
    rows = [scaled_rows(space.basis, 50) for space in (source, target)]
    embedding = embed(map_of_points(views.partner, *rows), source.basis, target.basis)
    nearest = (nearest_points(embedding) == views.partner).mean()
    parts = [f"true map, nearest {nearest:.3f}"]
    if len(views.target) < N_GRAPH:
        parts.append(f"transport {(sinkhorn_plan(embedding).argmax(axis=1) == views.partner).mean():.3f}")
    for method in ("orthogonal", "ridge"):
        known = fit_coordinates(views.source[views.partner], views.target, method=method)
        parts.append(f"all pairs {method} {quality(known, views):.3f}")
    return ", ".join(parts)


def summary(n_anchors: int, rows: list[dict]) -> str:
    columns = {name: np.array([row[name] for row in rows]) for name in ("points", "lfm", "choice", *BASELINES)}
    best = max(BASELINES, key=lambda name: columns[name].mean())
    ahead = columns["choice"] - columns[best]
    half = 1.96 * ahead.std(ddof=1) / np.sqrt(len(ahead))
    means = "  ".join(f"{name} {values.mean():.3f}" for name, values in columns.items())
    lowest = f"choice min {columns['choice'].min():.3f} median {np.median(columns['choice']):.3f}"
    lead = f"ahead of {best} by {ahead.mean():+.3f} ± {half:.3f}"
    return f"{n_anchors:4d} anchors, {len(rows)} draws: {means}  | {lowest} | {lead}"


def digit_views(noise: str) -> Callable[[list[Path]], Views]:
    def load(folders: list[Path]) -> Views:
        with np.load(find(folders, "digit_views.npz")) as arrays:
            source, target = arrays["x"].astype(float), arrays[f"y_{noise}"].astype(float)
            partner = arrays[f"source_row_of_y_{noise}"]
        return Views(source, target, partner, source[:0], target[:0], partner[:0])

    return load


def words(folders: list[Path]) -> Views:
    with np.load(find(folders, "words.npz")) as arrays:
        return split(arrays["token"].astype(float), arrays["layer6"].astype(float))


def fashion(source: tuple[str, str], target: tuple[str, str]) -> Callable[[list[Path]], Views]:
    def load(folders: list[Path]) -> Views:
        sides = []
        for model, layer in (source, target):
            with np.load(find(folders, "fashion_zoo") / f"{model}.npz") as arrays:
                sides.append(arrays[layer].astype(float).reshape(len(arrays[layer]), -1))
        return split(*sides)

    return load


def split(source: np.ndarray, target: np.ndarray) -> Views:
    """Return the graph's rows and the unseen rows, the target's in another order."""
    generator = np.random.default_rng(0)
    order = generator.permutation(len(source))
    graph, unseen = order[:N_GRAPH], order[N_GRAPH:]
    partner, unseen_partner = generator.permutation(len(graph)), generator.permutation(len(unseen))
    return Views(
        source[graph], target[graph][partner], partner, source[unseen], target[unseen][unseen_partner], unseen_partner
    )


def find(folders: list[Path], name: str) -> Path:
    return next(folder / name for folder in folders if (folder / name).exists())


SETS: dict[str, Callable[[list[Path]], Views]] = {
    "digit_views_05": digit_views("05"),
    "digit_views_15": digit_views("15"),
    "words": words,
    "c5_between_seeds": fashion(("cnn5_s0", "c5"), ("cnn5_s1", "c5")),
    "c5_to_c4": fashion(("cnn5_s0", "c5"), ("cnn5_s1", "c4")),
    "f1_between_seeds": fashion(("cnn5_s0", "f1"), ("cnn5_s2", "f1")),
    "cnn_to_mlp": fashion(("cnn5_s0", "c5"), ("mlp_s10", "h2")),
    "trained_to_random": fashion(("cnn5_s0", "c5"), ("cnn5_random", "c5")),
}

if __name__ == "__main__":
    main()
