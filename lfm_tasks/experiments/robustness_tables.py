"""What the atlases of moved spaces say: tables and claims."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfm_tasks.experiments.finding import Claim, Finding, Table
from lfm_tasks.experiments.robustness_figures import auc_figure, class_figure, outlier_figure, picture_figure
from lfm_tasks.experiments.robustness_values import (
    Curve,
    Curves,
    Moved,
    curve_of,
    curves,
    localised,
    scored_values,
)
from lfm_tasks.figures.charts import Dot
from lfm_tasks.stores.atlas.files import read_atlas, read_groups

QUESTION = (
    "A class is moved along the normal of its linear classifier, so that a linear classifier sees no difference. "
    "Which measures do? And which does one point far out upset?"
)
_PAPER, _PAPER_SHARE = "lfm_unsquared, 299 neighbours", "lfm_unsquared, 3 % neighbours"
_RIVALS = ("svcca_variance_99", "mutual_knn_10_cosine")
_OUTLIER_MEASURE = "lfm_unsquared"


_NOTES = (
    "Similarities are as measured, 1 for a space with itself. Distances, which have no common end, are calibrated: "
    "1 − d/d(chance), chance being permuted rows.",
    "Intervals: 95 %, bootstrap over the moved classes (or points) of all networks.",
    "299 neighbours and 3 % neighbours: the paper’s graph, in which far neighbours weigh more, with its number of "
    "neighbours, and with its share of the points. All else is on the catalog’s graph.",
)


def finding(
    name: tuple[str, str],
    settings: Mapping[str, Any],
    moved: Sequence[Moved],
    folders: Mapping[str, Path],
    pictured: str,
) -> Finding:
    """Return the whole finding."""
    atlases = {stem: read_atlas(folder) for stem, folder in folders.items()}
    groups = read_groups(folders["similarities"])
    values = list(scored_values(atlases, moved))
    of_class = curves(row for row in values if row["label"])
    of_points = curves(row for row in values if not row["label"])
    classes = [one for one in moved if one.label]
    probe = curve_of((one.shift, one.source, one.probe_accuracy) for one in classes)
    found = localised(groups["maps/points"], classes)
    auc = {side: curve_of((row["shift"], row["source"], row[side]) for row in found) for side in ("original", "moved")}
    separable = [
        {
            "shift": shift,
            "separable": sum(one.is_separable for one in own),
            "of": len(own),
            "probe accuracy": probe[shift].value,
            "probe low": probe[shift].low,
            "probe high": probe[shift].high,
        }
        for shift in sorted({one.shift for one in classes})
        for own in [[one for one in classes if one.shift == shift]]
    ]
    figures = [
        class_figure(of_class, probe),
        outlier_figure(of_points),
        picture_figure(groups, moved, pictured),
        auc_figure(auc),
    ]
    tables = [
        Table("measures", "What is left of every measure, most robust first", _ranking(of_class, of_points)),
        Table("separability", "Linear separability and probe accuracy at every step", separable),
        Table("localised", "How well distortion tells the points of the moved class", _auc_rows(auc)),
        Table("values", "Every measure on every moved space", values, False),
    ]
    return Finding(*name, QUESTION, settings, _claims(of_class, of_points, separable, auc), figures, tables, _NOTES)


def _ranking(of_class: Curves, of_points: Curves) -> list[dict[str, Any]]:
    rows = []
    for name, curve in of_class.items():
        shifts = list(curve)
        row: dict[str, Any] = {"measure": name}
        for shift in (shifts[0], shifts[len(shifts) // 2], shifts[-1]):
            row |= {f"moved {shift:g}": curve[shift].value}
        row |= {"low": curve[shifts[-1]].low, "high": curve[shifts[-1]].high}
        if name in of_points:
            row |= {f"outlier {radii:g}": dot.value for radii, dot in of_points[name].items()}
        rows.append(row)
    return sorted(rows, key=lambda row: (-row[f"moved {shifts[-1]:g}"], row["measure"]))


def _auc_rows(auc: Mapping[str, Curve]) -> list[dict[str, Any]]:
    return [
        {
            "shift": shift,
            **{
                key: value
                for side, curve in auc.items()
                for key, value in (
                    (f"AUC, {side}", curve[shift].value),
                    (f"{side} low", curve[shift].low),
                    (f"{side} high", curve[shift].high),
                )
            },
        }
        for shift in auc["moved"]
    ]


def _claims(
    of_class: Curves, of_points: Curves, separable: Sequence[Mapping[str, Any]], auc: Mapping[str, Curve]
) -> list[Claim]:
    last = max(of_class["cka_linear"])
    cka, paper, share = (of_class[name][last] for name in ("cka_linear", _PAPER, _PAPER_SHARE))
    probe_kept = separable[-1]["probe accuracy"] >= separable[0]["probe accuracy"] - 0.01
    best = max(paper.value, share.value)
    others = {name: curve for name, curve in of_class.items() if not name.startswith(("lfm", "overlap"))}
    stay = sorted(name for name, curve in others.items() if curve[last].value > best)
    rivals = ", ".join(f"{name} {of_class[name][last].value:.3f}" for name in _RIVALS if name in of_class)
    far = max(of_points["cka_linear"])
    upset, kept = of_points["cka_linear"][far], of_points[_OUTLIER_MEASURE][far]
    told = auc["moved"][max(auc["moved"])]
    always = all(row["separable"] == row["of"] for row in separable[1:])
    return [
        Claim(
            "CKA falls to .18 when a class is moved far, though classes stay linearly separable",
            f"linear CKA falls to {_dot(cka)} at {last:g} radii; separable at {'every' if always else 'not every'} "
            f"step, probe accuracy {separable[0]['probe accuracy']:.3f} → {separable[-1]['probe accuracy']:.3f}",
            "supported" if cka.value < 0.5 and probe_kept else "partly" if cka.value < 0.9 else "not supported",
        ),
        Claim(
            "LFM stays at .82 to .88 there",
            f"the paper's score on its graph, at {last:g} radii: 299 neighbours {_dot(paper)}, the same share of the "
            f"points (3 %) {_dot(share)}; on this catalog's graph {_dot(of_class['lfm_unsquared'][last])}",
            "supported" if paper.value >= 0.8 else "partly" if share.value >= 0.8 else "not supported",
        ),
        Claim(
            "LFM is singled out by this: a similarity for where others fail",
            f"{len(stay)} measures lose less than the paper's score"
            + (f", {', '.join(stay[:6])}{' …' if len(stay) > 6 else ''}" if stay else "")
            + (f"; {rivals}" if rivals else ""),
            "not supported" if stay else "supported",
        ),
        Claim(
            "One outlier upsets CKA, not LFM (an independent script: .03 and .996 at 200 radii)",
            f"at {far:g} radii linear CKA {_dot(upset)}, {_OUTLIER_MEASURE} {_dot(kept)}",
            "supported"
            if upset.value < 0.5 and kept.value > 0.99
            else "partly"
            if kept.value > upset.value
            else "not supported",
        ),
        Claim(
            "Singular vectors of the map show on which points two spaces differ",
            f"distortion on the moved space tells the moved class with an AUC of {_dot(told)} at the largest shift, "
            f"{_dot(auc['moved'][min(auc['moved'])])} at the smallest",
            "supported" if told.value >= 0.9 else "partly" if told.value >= 0.7 else "not supported",
        ),
    ]


def _dot(dot: Dot) -> str:
    return f"{dot.value:.3f} ({dot.low:.3f} to {dot.high:.3f})"
