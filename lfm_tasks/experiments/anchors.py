"""Few anchors: how well maps and baselines carry unseen points from one network to another, from few known pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.experiments.charts import COLORS, Line, LinePanel, line_chart
from lfm_tasks.experiments.results import (
    Claim,
    ClaimStatus,
    Estimate,
    ExperimentResult,
    ResultFigure,
    ResultTable,
    claim_status,
)
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
from lfm_tasks.stages.transfers.job import (
    LEAST_ANCHORS,
    ClassLabels,
    LabeledHead,
    class_labels,
    common_points,
    few_anchor_settings,
    open_stitching,
)
from lfm_tasks.statistics.resampling import mean_interval
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure

NAME, TITLE = "anchors", "Few anchors"
QUESTION = (
    "A few points are known in both of two networks. How well are unseen points carried over, found again, and read by "
    "the other network’s head?"
)
SEED = 0
COUNTS = (2, 3, 5, 10, 20, 50, 100, 200)
MOST_NETWORKS, N_DRAWS = 3, 10
# Points that graphs and maps have not seen, one in so many; as many anchors as half of the others at most.
UNSEEN = 3
_FITS: tuple[AlignmentMethod, ...] = ("orthogonal", "ridge", "affine")
# The target's own points, which nothing carries: what head and probe can reach.
_REFERENCE = "own"
_METHODS = {
    "chosen": COLORS[2],
    "lfm, orthogonal": COLORS[1],
    "lfm, ridge": COLORS[4],
    "lfm, affine": COLORS[3],
    "procrustes": COLORS[0],
    "procrustes, icp": COLORS[5],
    "relative": COLORS[6],
    "ridge": COLORS[7],
}
_BASELINES = ("procrustes", "procrustes, icp", "relative", "ridge")
_MEANINGS = {
    "mrr": "mean reciprocal rank",
    "stitched": "accuracy of the target’s head",
    "probe": "accuracy kept by a linear probe",
}
# Where the paper's baselines fail and its map does not; where its map has saturated, by the paper.
_FEW, _SATURATED = 5, 50

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class AnchorJob:
    """One direction between two networks, one draw of anchors, every number of them."""

    store: UnitStore
    catalog: Catalog
    source: tuple[Space, str]
    target: tuple[Space, str]
    labels: ClassLabels | None
    draw: int


def prepare(source: SourceZoo, folder: Path) -> tuple[Path, ...]:
    """Check that there are two networks; maps are fitted from the spaces of the source."""
    source.seeds()
    return ()


def analyze(source: SourceZoo, catalogs: tuple[Path, ...]) -> ExperimentResult:
    """Fit all maps, a task for each direction and draw; return how well they carry points."""
    seeds = source.seeds()
    labels = class_labels(source.zoo.rows[seeds.dataset])
    layer = seeds.layers[-1] if labels is None else source.last_hidden(seeds)
    sides = {model: source.space(model, layer) for model in seeds.models[:MOST_NETWORKS]}
    jobs = [
        AnchorJob(
            source.run.store, source.catalog, (sides[one].space, sides[one].key),
            (sides[other].space, sides[other].key), labels, draw,
        )
        for one, other in permutations(sides, 2)
        for draw in range(N_DRAWS)
    ]  # fmt: skip
    by_job: dict[int, list[dict[str, Any]]] = {}
    source.run.report_progress("anchors", 0, len(jobs))
    for done, (index, result) in enumerate(source.run.workers.run(fit_draw, jobs), start=1):
        if isinstance(result, JobFailure):
            raise DataError(result.reason, f"{jobs[index].source[0].name}: {result.message}")
        by_job[index] = result
        source.run.report_progress("anchors", done, len(jobs))
    settings = {
        "networks": list(sides),
        "layer": layer,
        "anchors": list(COUNTS),
        "draws a direction": N_DRAWS,
        "points not seen by graphs and maps": f"1 in {UNSEEN}",
        **few_anchor_settings(source.catalog.atlas),
        "seed": SEED,
    }
    return _result(settings, [row for index in sorted(by_job) for row in by_job[index]], _missing_readers(jobs[0]))


def fit_draw(job: AnchorJob) -> list[dict[str, Any]]:
    """Return a row for each number of anchors and each method: rank of partners, accuracy of head and probe."""
    pair = _pair(job)
    most = len(pair.anchors) // 2
    rows = []
    for count in COUNTS:
        if count > most:
            continue
        for method, alignment in _alignments(pair, pair.anchors.take(np.arange(count)), job.draw):
            rows.append(_row(job, count, method) | _evaluated(job, pair, alignment))
    return [*rows, _row(job, 0, _REFERENCE) | {"mrr": 1.0, **_accuracies(job, pair, pair.unseen_target)}]


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
    spaces = [spectral_space(rows, **few_anchor_settings(atlas)) for rows in (x[seen], y[seen[order]])]
    sides = [SpaceRows(ids[unseen], rows[unseen]) for rows in (x, y)]
    return _Pair(spaces[0], spaces[1], Anchors(order[drawn], drawn), ids[seen[order]], *sides)


def _row(job: AnchorJob, n_anchors: int, method: str) -> dict[str, Any]:
    ends = {"source": job.source[0].model, "target": job.target[0].model}
    return {**ends, "draw": job.draw, "anchors": n_anchors, "way": method}


def _alignments(pair: _Pair, anchors: Anchors, draw: int) -> Iterator[tuple[str, Alignment]]:
    """Yield every method and its alignment: the chosen one, the baselines, fits to the pairs that a map finds."""
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


def _evaluated(job: AnchorJob, pair: _Pair, alignment: Alignment) -> dict[str, float]:
    unseen = pair.unseen_source
    ranks = partner_ranks(alignment, unseen.activations, pair.unseen_target.activations, np.arange(len(unseen.ids)))
    carried = SpaceRows(unseen.ids, transfer_coordinates(alignment, unseen.activations))
    return {"mrr": float((1 / ranks).mean()), **_accuracies(job, pair, carried)}


def _accuracies(job: AnchorJob, pair: _Pair, rows: SpaceRows) -> dict[str, float]:
    """Return the accuracy of the target's head, and of a probe of its seen points, on rows; NaN where there is none."""
    stitched = _stitched(job)
    accuracy = float("nan") if isinstance(stitched, str) else stitched.accuracy(rows.activations, rows.ids)
    if job.labels is None:
        return {"stitched": accuracy, "probe": float("nan")}
    seen, unseen = job.labels.of(pair.seen_ids), job.labels.of(rows.ids)
    known = seen >= 0
    classify = train_probe(pair.target.activations[known], seen[known])
    return {"stitched": accuracy, "probe": float((classify(rows.activations) == unseen)[unseen >= 0].mean())}


def _stitched(job: AnchorJob) -> LabeledHead | str:
    """Return the head of the target network, or why there is none."""
    try:
        return open_stitching(job.target[0], job.catalog, job.labels)
    except DataError as error:
        return str(error)


def _missing_readers(job: AnchorJob) -> Sequence[str]:
    """Return which of head and probe the page lacks, and why."""
    notes = []
    if isinstance(reason := _stitched(job), str):
        notes.append(f"No stitching: {reason}.")
    if job.labels is None:
        notes.append("No probes: the dataset has no labels.")
    return notes


def _result(settings: Mapping[str, Any], rows: Rows, missing: Sequence[str]) -> ExperimentResult:
    """Return the whole result; ``missing`` says what cannot be on the page."""
    reference = [row for row in rows if row["way"] == _REFERENCE]
    tried = [row for row in rows if row["way"] != _REFERENCE]
    counts = sorted({row["anchors"] for row in tried})
    present = [measure for measure in _MEANINGS if any(np.isfinite(row[measure]) for row in tried)]
    figures = [ResultFigure(one, _caption(one, reference), _chart(tried, one, reference)) for one in present]
    tables = [
        *(ResultTable(one, f"{_MEANINGS[one].capitalize()} by anchors", _means(tried, one, counts)) for one in present),
        ResultTable("leads", "Lead of each way over Procrustes + ICP in mean reciprocal rank", _leads(tried, counts)),
        ResultTable("draws", "Every draw", rows, False),
    ]
    notes = [
        "Points that count were seen by no graph and no map. Target rows are in another order than source rows. "
        "A draw takes its own anchors and its own unseen points, the same for all directions. Intervals: 95 %, "
        "bootstrap over draws.",
        "lfm, orthogonal | ridge | affine: the functional map’s pairs of points, fitted that way. chosen: the "
        "estimator that holds anchors out to choose among all of them (from 3 anchors on). The others know the anchors "
        "only; Procrustes + ICP starts from them.",
        *missing,
    ]
    return ExperimentResult(NAME, TITLE, QUESTION, settings, _claims(tried, counts, reference), figures, tables, notes)


def _by_draw(rows: Rows, method: str, count: int, measure: str) -> np.ndarray:
    """Return the mean over directions of every draw: directions share its anchors, so they are not independent."""
    draws: dict[int, list[float]] = {}
    for row in rows:
        if (row["way"], row["anchors"]) == (method, count):
            draws.setdefault(row["draw"], []).append(row[measure])
    return np.array([np.mean(values) for _, values in sorted(draws.items())], dtype=float)


def _mean(values: np.ndarray) -> Estimate:
    return Estimate(float(values.mean()), *mean_interval(values)) if len(values) else Estimate(float("nan"))


def _chart(rows: Rows, measure: str, reference: Rows) -> str:
    lines = []
    for method, color in _METHODS.items():
        counts = sorted({row["anchors"] for row in rows if row["way"] == method})
        means = [_mean(_by_draw(rows, method, count, measure)) for count in counts]
        lines.append(Line(method, counts, means, color, method in _BASELINES))
    if measure != "mrr":
        counts = sorted({row["anchors"] for row in rows})
        level = Estimate(float(np.mean([row[measure] for row in reference])))
        lines.append(Line("the target’s own points", counts, [level] * len(counts)))
    return line_chart([LinePanel(lines, "anchors", _MEANINGS[measure], is_log=True)], height=400)


def _caption(measure: str, reference: Rows) -> str:
    if measure == "mrr":
        return (
            "Retrieval: mean reciprocal rank of the partner of each unseen point among all unseen points. Bands: 95 %."
        )
    level = float(np.mean([row[measure] for row in reference]))
    what = "Stitching: accuracy of the target network’s own head" if measure == "stitched" else (
        "Accuracy of a linear probe that was trained on the target’s seen points"
    )  # fmt: skip
    return f"{what} on the source’s unseen points, carried over. On the target’s own unseen points: {level:.3f} (gray)."


def _means(rows: Rows, measure: str, counts: Sequence[int]) -> list[dict[str, Any]]:
    table = []
    for method in _METHODS:
        row: dict[str, Any] = {"way": method}
        for count in counts:
            mean = _mean(_by_draw(rows, method, count, measure))
            row |= {f"{count}": mean.value, f"{count} low": mean.low, f"{count} high": mean.high}
        table.append(row)
    return table


def _leads(rows: Rows, counts: Sequence[int], against: str = "procrustes, icp") -> list[dict[str, Any]]:
    table = []
    for method in _METHODS:
        for count in counts:
            ours, theirs = (_by_draw(rows, one, count, "mrr") for one in (method, against))
            if method == against or len(ours) != len(theirs):
                continue
            lead = _mean(ours - theirs)
            table.append(
                {
                    "way": method, "anchors": count, "lead": lead.value, "low": lead.low, "high": lead.high,
                    "ahead": int((ours > theirs).sum()), "equal": int((ours == theirs).sum()),
                    "behind": int((ours < theirs).sum()),
                }
            )  # fmt: skip
    return table


def _claims(rows: Rows, counts: Sequence[int], reference: Rows) -> list[Claim]:
    few, most = _FEW if _FEW in counts else counts[-1], counts[-1]
    settled = max((count for count in counts if count <= _SATURATED), default=most)
    lfm, plain, icp = (
        {count: _mean(_by_draw(rows, method, count, "mrr")) for count in counts}
        for method in ("lfm, orthogonal", "procrustes", "procrustes, icp")
    )
    level = 0.95 * lfm[most].value
    behind = [count for count in counts if _is_behind(rows, "chosen", count)]
    claims = [
        Claim(
            f"From {_FEW} anchors LFM + orthogonal finds partners (MRR .99), Procrustes on the anchors does not (.007)",
            f"{few} anchors: {lfm[few]} against {plain[few]}",
            _sign(_lead(rows, "lfm, orthogonal", "procrustes", few)),
        ),
        Claim(
            f"LFM has saturated at {_SATURATED} anchors",
            f"{settled} anchors: {lfm[settled]}; {most}: {lfm[most]}",
            "not tested" if settled == most else claim_status(lfm[settled].value, level, level),
        ),
        Claim(
            "LFM is ahead of anchors-only baselines (Procrustes + ICP is not among the paper’s)",
            f"{few} anchors: {lfm[few]} against {icp[few]} by Procrustes + ICP; {most} anchors: "
            f"{lfm[most]} against {icp[most]}",
            _sign(_lead(rows, "lfm, orthogonal", "procrustes, icp", few)),
        ),
        Claim(
            "(ours, docs/spectral.md) the choosing estimator is not behind the best single way at any number of "
            "anchors",
            f"behind, beyond its interval, at {', '.join(map(str, behind))} anchors" if behind else "behind at none",
            "not supported" if len(behind) > len(counts) / 2 else "partly" if behind else "supported",
        ),
    ]
    if np.isfinite(reference[0]["stitched"]):
        reachable = float(np.mean([row["stitched"] for row in reference]))
        kept, rival = (_mean(_by_draw(rows, method, few, "stitched")) for method in ("lfm, orthogonal", "procrustes"))
        claims.append(
            Claim(
                "A network’s head can be stitched to another’s representation from a few anchors",
                f"{few} anchors: {kept}, own points {reachable:.3f}; Procrustes {rival}",
                claim_status(kept.value, 0.95 * reachable, 0.8 * reachable),
            )
        )
    return claims


def _lead(rows: Rows, method: str, other: str, count: int) -> Estimate:
    return _mean(_by_draw(rows, method, count, "mrr") - _by_draw(rows, other, count, "mrr"))


def _is_behind(rows: Rows, method: str, count: int) -> bool:
    """Return whether some other method is ahead of ``method``, its interval above 0."""
    ours = _by_draw(rows, method, count, "mrr")
    others = (_by_draw(rows, other, count, "mrr") for other in _METHODS if other != method)
    return any(_mean(theirs - ours).low > 0.005 for theirs in others if len(ours) and len(theirs) == len(ours))


def _sign(lead: Estimate) -> ClaimStatus:
    return "supported" if lead.low > 0 else "not supported" if lead.high < 0 else "partly"
