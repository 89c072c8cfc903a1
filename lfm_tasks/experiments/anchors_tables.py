"""What maps from few anchors reach: curves of every way, leads over the baselines, claims."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lfm_tasks.experiments.results import Claim, ClaimStatus, ExperimentResult, ResultFigure, ResultTable
from lfm_tasks.figures.charts import COLOURS, Axes, Dot, Line, line_chart
from lfm_tasks.statistics.intervals import mean_interval

QUESTION = (
    "A few points are known in both of two networks. How well are unseen points carried over, found again, and read by "
    "the other network’s head?"
)
_COLOURS = {
    "chosen": COLOURS[2],
    "lfm, orthogonal": COLOURS[1],
    "lfm, ridge": COLOURS[4],
    "lfm, affine": COLOURS[3],
    "procrustes": COLOURS[0],
    "procrustes, icp": COLOURS[5],
    "relative": COLOURS[6],
    "ridge": COLOURS[7],
}
_DASHED = ("procrustes", "procrustes, icp", "relative", "ridge")
_MEANINGS = {
    "mrr": "mean reciprocal rank",
    "stitched": "accuracy of the target’s head",
    "probe": "accuracy kept by a linear probe",
}
# Where the paper's baselines fail and its map does not; where its map is said to have saturated.
_FEW, _SATURATED = 5, 50

Rows = Sequence[Mapping[str, Any]]


def anchors_result(
    name: tuple[str, str], settings: Mapping[str, Any], rows: Rows, missing: Sequence[str]
) -> ExperimentResult:
    """Return the whole finding; ``missing`` says what cannot be on the page."""
    own = [row for row in rows if row["way"] == "own"]
    tried = [row for row in rows if row["way"] != "own"]
    counts = sorted({row["anchors"] for row in tried})
    present = [measure for measure in _MEANINGS if any(np.isfinite(row[measure]) for row in tried)]
    figures = [ResultFigure(measure, _caption(measure, own), _chart(tried, measure, own)) for measure in present]
    tables = [
        *(
            ResultTable(measure, f"{_MEANINGS[measure].capitalize()} by anchors", _means(tried, measure, counts))
            for measure in present
        ),
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
    return ExperimentResult(*name, QUESTION, settings, _claims(tried, counts, own), figures, tables, notes)


def _of(rows: Rows, way: str, count: int, measure: str) -> np.ndarray:
    """Return the mean over directions of every draw: directions share its anchors, so they are not independent."""
    draws: dict[int, list[float]] = {}
    for row in rows:
        if (row["way"], row["anchors"]) == (way, count):
            draws.setdefault(row["draw"], []).append(row[measure])
    return np.array([np.mean(values) for _, values in sorted(draws.items())], dtype=float)


def _dot(values: np.ndarray) -> Dot:
    return Dot(float(values.mean()), *mean_interval(values)) if len(values) else Dot(float("nan"))


def _chart(rows: Rows, measure: str, own: Rows) -> str:
    lines = []
    for way, color in _COLOURS.items():
        counts = sorted({row["anchors"] for row in rows if row["way"] == way})
        dots = [_dot(_of(rows, way, count, measure)) for count in counts]
        lines.append(Line(way, counts, dots, color, way in _DASHED))
    if measure != "mrr":
        counts = sorted({row["anchors"] for row in rows})
        level = Dot(float(np.mean([row[measure] for row in own])))
        lines.append(Line("the target’s own points", counts, [level] * len(counts)))
    return line_chart(lines, Axes("anchors", _MEANINGS[measure], scale="log"), height=400)


def _caption(measure: str, own: Rows) -> str:
    if measure == "mrr":
        return (
            "Retrieval: mean reciprocal rank of the partner of each unseen point among all unseen points. Bands: 95 %."
        )
    level = float(np.mean([row[measure] for row in own]))
    what = "Stitching: accuracy of the target network’s own head" if measure == "stitched" else (
        "Accuracy of a linear probe that was trained on the target’s seen points"
    )  # fmt: skip
    return f"{what} on the source’s unseen points, carried over. On the target’s own unseen points: {level:.3f} (gray)."


def _means(rows: Rows, measure: str, counts: Sequence[int]) -> list[dict[str, Any]]:
    table = []
    for way in _COLOURS:
        row: dict[str, Any] = {"way": way}
        for count in counts:
            dot = _dot(_of(rows, way, count, measure))
            row |= {f"{count}": dot.value, f"{count} low": dot.low, f"{count} high": dot.high}
        table.append(row)
    return table


def _leads(rows: Rows, counts: Sequence[int], against: str = "procrustes, icp") -> list[dict[str, Any]]:
    table = []
    for way in _COLOURS:
        for count in counts:
            ours, theirs = _of(rows, way, count, "mrr"), _of(rows, against, count, "mrr")
            if way == against or len(ours) != len(theirs):
                continue
            lead = _dot(ours - theirs)
            told = {"lead": lead.value, "low": lead.low, "high": lead.high}
            wins = {
                "ahead": int((ours > theirs).sum()),
                "equal": int((ours == theirs).sum()),
                "behind": int((ours < theirs).sum()),
            }
            table.append({"way": way, "anchors": count, **told, **wins})
    return table


def _claims(rows: Rows, counts: Sequence[int], own: Rows) -> list[Claim]:
    few = _FEW if _FEW in counts else counts[-1]
    most = counts[-1]
    settled = max((count for count in counts if count <= _SATURATED), default=most)
    lfm = {count: _dot(_of(rows, "lfm, orthogonal", count, "mrr")) for count in counts}
    plain, icp = ({c: _dot(_of(rows, way, c, "mrr")) for c in counts} for way in ("procrustes", "procrustes, icp"))
    ahead = _ahead(rows, "lfm, orthogonal", "procrustes", few)
    behind = [count for count in counts if _is_behind(rows, "chosen", count)]
    claims = [
        Claim(
            f"From {_FEW} anchors LFM + orthogonal finds partners (MRR .99), Procrustes on the anchors does not (.007)",
            f"{few} anchors: {_told(lfm[few])} against {_told(plain[few])}",
            _sign(ahead),
        ),
        Claim(
            f"LFM has saturated at {_SATURATED} anchors",
            f"{settled} anchors: {_told(lfm[settled])}; {most}: {_told(lfm[most])}",
            "not tested"
            if settled == most
            else "supported"
            if lfm[settled].value >= 0.95 * lfm[most].value
            else "not supported",
        ),
        Claim(
            "LFM is ahead of anchors-only baselines (Procrustes + ICP is not among the paper’s)",
            f"{few} anchors: {_told(lfm[few])} against {_told(icp[few])} by Procrustes + ICP; {most} anchors: "
            f"{_told(lfm[most])} against {_told(icp[most])}",
            _sign(_ahead(rows, "lfm, orthogonal", "procrustes, icp", few)),
        ),
        Claim(
            "(ours, docs/kernels.md) the choosing estimator is not behind the best single way at any number of anchors",
            f"behind, beyond its interval, at {', '.join(map(str, behind))} anchors" if behind else "behind at none",
            "not supported" if len(behind) > len(counts) / 2 else "partly" if behind else "supported",
        ),
    ]
    if np.isfinite(own[0]["stitched"]):
        kept, level = (
            _dot(_of(rows, "lfm, orthogonal", few, "stitched")),
            float(np.mean([row["stitched"] for row in own])),
        )
        claims.append(
            Claim(
                "A network’s head can be stitched to another’s representation from a few anchors",
                f"{few} anchors: {_told(kept)}, own points {level:.3f}; Procrustes "
                f"{_told(_dot(_of(rows, 'procrustes', few, 'stitched')))}",
                "supported"
                if kept.value >= 0.95 * level
                else "partly"
                if kept.value >= 0.8 * level
                else "not supported",
            )
        )
    return claims


def _ahead(rows: Rows, way: str, other: str, count: int) -> Dot:
    return _dot(_of(rows, way, count, "mrr") - _of(rows, other, count, "mrr"))


def _is_behind(rows: Rows, way: str, count: int) -> bool:
    """Return whether some single way is ahead of ``way``, its interval above 0."""
    ours = _of(rows, way, count, "mrr")
    others = (_of(rows, other, count, "mrr") for other in _COLOURS if other != way)
    return any(_dot(theirs - ours).low > 0.005 for theirs in others if len(ours) and len(theirs) == len(ours))


def _sign(lead: Dot) -> ClaimStatus:
    return "supported" if lead.low > 0 else "not supported" if lead.high < 0 else "partly"


def _told(dot: Dot) -> str:
    return f"{dot.value:.3f} ({dot.low:.3f} to {dot.high:.3f})"
