"""Anchors: how far a few known points carry, by functional maps and by every baseline, on points not seen before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.experiments.anchors_tables import anchors_result
from lfm_tasks.experiments.results import ExperimentResult
from lfm_tasks.experiments.source_zoo import SourceZoo, SpaceRows, read_space_rows
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.space import SpectralSpace, spectral_space
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.spectral.maps.fit import fit_from_anchors
from lfm_tasks.spectral.maps.refinement import MapFit
from lfm_tasks.spectral.transfer.alignment import (
    Alignment,
    AlignmentMethod,
    fit_coordinates,
    fit_procrustes,
    fit_relative,
    partner_ranks,
    refine_by_icp,
    transfer_coordinates,
)
from lfm_tasks.spectral.transfer.evaluation import train_probe
from lfm_tasks.spectral.transfer.selection import choose_alignment
from lfm_tasks.stages.inventory.stage import drawn_rows
from lfm_tasks.stages.transfers.apply import ClassLabels, Stitched, class_labels, open_stitching
from lfm_tasks.stages.transfers.job import LEAST_ANCHORS, common_points
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure

NAME, TITLE = "anchors", "Few anchors"
SEED = 0
COUNTS = (2, 3, 5, 10, 20, 50, 100, 200)
MOST_NETWORKS, N_DRAWS = 3, 10
# Points that graphs and maps have not seen, one in so many; as many anchors as half of the others at most.
UNSEEN = 3
_FITS: tuple[AlignmentMethod, ...] = ("orthogonal", "ridge", "affine")


@dataclass(frozen=True)
class AnchorJob:
    """One direction between two networks, one draw of anchors, every count of them."""

    store: UnitStore
    catalog: Catalog
    source: tuple[Space, str]
    target: tuple[Space, str]
    labels: ClassLabels | None
    draw: int


def prepare(given: SourceZoo, folder: Path) -> tuple[Path, ...]:
    """Check that there are two networks; maps are fitted from the given spaces themselves."""
    given.seeds()
    return ()


def analyze(given: SourceZoo, catalogs: tuple[Path, ...]) -> ExperimentResult:
    """Fit all maps, a task a direction and draw; return what they reach."""
    seeds = given.seeds()
    labels = class_labels(given.zoo.rows[seeds.dataset])
    layer = seeds.layers[-1] if labels is None else given.last_hidden(seeds)
    sides = {model: given.space(model, layer) for model in seeds.models[:MOST_NETWORKS]}
    jobs = [
        AnchorJob(
            given.run.store, given.catalog, (sides[source].space, sides[source].key),
            (sides[target].space, sides[target].key), labels, draw,
        )
        for source, target in permutations(sides, 2)
        for draw in range(N_DRAWS)
    ]  # fmt: skip
    rows: dict[int, list[dict[str, Any]]] = {}
    given.run.announce("anchors", 0, len(jobs))
    for done, (number, result) in enumerate(given.run.workers.run(fit_draw, jobs), start=1):
        if isinstance(result, JobFailure):
            raise DataError(result.reason, f"{jobs[number].source[0].name}: {result.message}")
        rows[number] = result
        given.run.announce("anchors", done, len(jobs))
    settings = {
        "networks": list(sides),
        "layer": layer,
        "anchors": list(COUNTS),
        "draws a direction": N_DRAWS,
        "points not seen by graphs and maps": f"1 in {UNSEEN}",
        "n_eigenpairs": given.catalog.atlas.n_eigenpairs,
        "metric": given.catalog.atlas.graph.metric,
        "seed": SEED,
    }
    return anchors_result(
        (NAME, TITLE), settings, [row for number in sorted(rows) for row in rows[number]], _no_head(jobs[0])
    )


def fit_draw(job: AnchorJob) -> list[dict[str, Any]]:
    """Return a row for each count of anchors and each way: rank of partners, and what head and probe make of it."""
    pair = _pair(job)
    most = len(pair.anchors) // 2
    rows = []
    for count in COUNTS:
        if count > most:
            continue
        for name, alignment in _alignments(pair, pair.anchors.take(np.arange(count)), job.draw):
            rows.append(
                {"source": job.source[0].model, "target": job.target[0].model, "draw": job.draw, "anchors": count}
                | {"way": name, **_judged(job, pair, alignment)}
            )
    return [*rows, _reference(job, pair)]


@dataclass(frozen=True)
class _Pair:
    """Two spaces of seen points, the target's in another order; ``anchors`` are all true pairs, in a drawn order."""

    source: SpectralSpace
    target: SpectralSpace
    anchors: Anchors
    seen_ids: np.ndarray
    unseen_source: SpaceRows
    unseen_target: SpaceRows


def _pair(job: AnchorJob) -> _Pair:
    source, target = (read_space_rows(job.store, key) for _, key in (job.source, job.target))
    common = common_points(source.ids, target.ids)
    ids = source.ids[common.source]
    x, y = source.activations[common.source], target.activations[common.target]
    unseen = drawn_rows(ids, len(ids) // UNSEEN, kind="unseen", seed=SEED + job.draw)
    seen = np.setdiff1d(np.arange(len(ids)), unseen)
    # Rows in another order: a map that pairs by row number would look right otherwise.
    random = np.random.default_rng((SEED, job.draw))
    order, drawn = random.permutation(len(seen)), random.permutation(len(seen))
    atlas = job.catalog.atlas
    spaces = [
        spectral_space(rows, n_eigenpairs=atlas.n_eigenpairs, metric=atlas.graph.metric)
        for rows in (x[seen], y[seen[order]])
    ]
    sides = [SpaceRows(ids[unseen], rows[unseen]) for rows in (x, y)]
    return _Pair(spaces[0], spaces[1], Anchors(order[drawn], drawn), ids[seen[order]], *sides)


def _alignments(pair: _Pair, anchors: Anchors, draw: int) -> Iterator[tuple[str, Alignment]]:
    """Yield every way to carry the source's rows over: from the map's pairs, chosen, and the baselines."""
    source, target = pair.source, pair.target
    x, y = source.activations, target.activations
    fit: MapFit | None
    if len(anchors) >= LEAST_ANCHORS:
        choice = choose_alignment(source, target, anchors, seed=draw)
        fit = choice.fit
        yield "chosen", choice.alignment
        for name in ("procrustes", "procrustes, icp", "ridge", "relative"):
            yield name, choice.candidates[name]
    else:
        fit = fit_from_anchors(source, target, anchors)
        procrustes = fit_procrustes(x, y, anchors)
        yield "procrustes", procrustes
        yield "procrustes, icp", refine_by_icp(procrustes, x, y)
        yield "ridge", fit_coordinates(x[anchors.source], y[anchors.target], method="ridge")
        yield "relative", fit_relative(x, y, anchors)
    if fit is not None:
        for method in _FITS:
            yield f"lfm, {method}", fit_coordinates(x[fit.matches], y, method=method)


def _judged(job: AnchorJob, pair: _Pair, alignment: Alignment) -> dict[str, float]:
    ranks = partner_ranks(
        alignment,
        pair.unseen_source.activations,
        pair.unseen_target.activations,
        np.arange(len(pair.unseen_source.ids)),
    )
    carried = SpaceRows(pair.unseen_source.ids, transfer_coordinates(alignment, pair.unseen_source.activations))
    return {"mrr": float((1 / ranks).mean()), **_read_off(job, pair, carried)}


def _read_off(job: AnchorJob, pair: _Pair, rows: SpaceRows) -> dict[str, float]:
    """Return what the target's head, and a probe of the target's seen points, name rightly; NaN where there is none."""
    stitched = _stitched(job)
    accuracy = float("nan") if isinstance(stitched, str) else stitched.accuracy(rows.activations, rows.ids)
    if job.labels is None:
        return {"stitched": accuracy, "probe": float("nan")}
    seen, unseen = job.labels.of(pair.seen_ids), job.labels.of(rows.ids)
    known = seen >= 0
    classify = train_probe(pair.target.activations[known], seen[known])
    return {"stitched": accuracy, "probe": float((classify(rows.activations) == unseen)[unseen >= 0].mean())}


def _reference(job: AnchorJob, pair: _Pair) -> dict[str, Any]:
    """Return what head and probe make of the target's own unseen points."""
    own: Mapping[str, Any] = {"source": job.source[0].model, "target": job.target[0].model, "draw": job.draw}
    return {**own, "anchors": 0, "way": "own", "mrr": 1.0, **_read_off(job, pair, pair.unseen_target)}


def _stitched(job: AnchorJob) -> Stitched | str:
    """Return the head of the target network, or why there is none."""
    try:
        return open_stitching(job.target[0], job.catalog, job.labels)
    except DataError as error:
        return str(error)


def _no_head(job: AnchorJob) -> Sequence[str]:
    """Return what is not on the page, and why."""
    missing = []
    if isinstance(why := _stitched(job), str):
        missing.append(f"No stitching: {why}.")
    if job.labels is None:
        missing.append("No probes: the dataset has no labels.")
    return missing
