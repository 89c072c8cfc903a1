"""The rows of the page's tables: models and their nearest, pairs that are related, spaces, comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.lineage.families import Family, families_of
from lfm_tasks.lineage.levels import COPY_AT_LEAST, Level
from lfm_tasks.lineage.relations import Outlier, Relation, default_measure, outliers, relations_of_atlas
from lfm_tasks.report.encoding import (
    Rows,
    best_matches,
    dataset_rows,
    interval_ends,
    leads,
    model_similarity,
    similarity_of_halves,
    statistic_matrix,
)
from lfm_tasks.statistics.model_pairs import base_models
from lfm_tasks.stores.atlas.schema import GOOD_RECALL


@dataclass(frozen=True)
class ZooView:
    """The data behind the words and tables of the page.

    Attributes
    ----------
    relations
        The strongest relation of each pair of models on any dataset; copies first, then the most alike.
    findings
        A row for each model and dataset that is compared: its nearest and how sure that is.
    meta
        What the catalog says of each model of the atlas, as texts.
    bases
        The models that each model says it came from, in the zoo or not.
    """

    measure: str
    datasets: tuple[str, ...]
    relations: tuple[Relation, ...]
    families: tuple[Family, ...]
    outliers: tuple[Outlier, ...]
    findings: list[dict[str, Any]]
    spaces: list[dict[str, Any]]
    meta: Mapping[str, Mapping[str, str]]
    bases: Mapping[str, list[str]]

    @property
    def models(self) -> list[str]:
        """The models of the atlas, in order."""
        return list(self.meta)

    @property
    def doubtful(self) -> list[str]:
        """Sentences on spaces that passed their checks and still deserve a look."""
        are_several = len(self.datasets) > 1
        return [
            f"{row['model']}/{row['layer']}{' on ' + row['dataset'] if are_several else ''}: {doubt}"
            for row in self.spaces
            if (doubt := _doubt(row))
        ]

    @property
    def same(self) -> set[frozenset[str]]:
        """The pairs that are the same at every layer, up to rotation, scale and order of units."""
        return {frozenset((row["model"], row["nearest"])) for row in self.findings if row["is_same"]}

    @property
    def meta_columns(self) -> list[str]:
        """The keys of ``meta`` that the table of models shows: those that people ask for first."""
        keys = {key for facts in self.meta.values() for key in facts}
        return [*(key for key in _FIRST_KEYS if key in keys), *sorted(keys.difference(_FIRST_KEYS))][:_MOST_KEYS]

    @property
    def related(self) -> list[Relation]:
        """The pairs that are copies or related, or say so: those that declare nothing first."""
        kept = [one for one in self.relations if one.declared or one.level.is_at_least(Level.RELATED)]
        return sorted(kept, key=lambda one: one.declared)


_FIRST_KEYS = ("family", "owner", "license", "base_model", "version")
_MOST_KEYS = 8


def zoo_view(atlas: xr.Dataset, summary: Mapping[str, Any]) -> ZooView:
    """Return the data behind the words and tables of the page."""
    declared = {model["name"]: model["meta"] for model in summary["models"]}
    names = sorted({str(name) for name in atlas["source_model"].values})
    measure = default_measure([str(name) for name in atlas["measure"].values])
    every = relations_of_atlas(atlas, declared)
    levels = {(one.dataset, frozenset((one.source, one.target))): one.level for one in every}
    datasets = tuple(str(name) for name in atlas["dataset"].values)
    return ZooView(
        measure,
        datasets,
        _strongest(every),
        families_of(every, declared),
        outliers(every),
        _by_model([row for dataset in datasets for row in _findings(atlas, dataset, measure, levels)]),
        [row for dataset in datasets for row in _space_rows(atlas, dataset)],
        {name: texts(declared.get(name, {})) for name in names},
        {name: base_models(declared.get(name, {})) for name in names},
    )


def texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return meta as texts of the page, with yes and no for Booleans."""
    return {name: _text(value) for name, value in sorted(facts.items())}


def _text(value: Any) -> str:
    words = {True: "yes", False: "no", None: ""}
    if isinstance(value, bool | None):
        return words[value]
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _strongest(relations: Sequence[Relation]) -> tuple[Relation, ...]:
    """Return of each pair of models the relation of the dataset on which it is the strongest."""
    place = list(Level).index
    found: dict[tuple[str, str], Relation] = {}
    for one in relations:
        before = found.setdefault((one.source, one.target), one)
        if place(one.level) < place(before.level):
            found[one.source, one.target] = one
    return tuple(sorted(found.values(), key=lambda one: place(one.level)))  # stable: the most alike stay first


def pair_rows(view: ZooView, intervals: Mapping[tuple[str, frozenset[str]], str]) -> list[dict[str, Any]]:
    """Return the rows of the table of related pairs, as `ZooView.related` has them.

    ``intervals``: of the similarity, by dataset and pair.
    """
    asked = [key for key in ("owner", "license") if any(key in facts for facts in view.meta.values())]
    return [
        {
            "relation": one,
            "interval": intervals.get((one.dataset, frozenset((one.source, one.target))), "–"),
            "facts": {key: _both(view, key, one) for key in asked},
            "declared": _declared(view, one),
        }
        for one in view.related
    ]


def _both(view: ZooView, key: str, one: Relation) -> str:
    first, second = (view.meta.get(name, {}).get(key) or "–" for name in (one.source, one.target))
    return first if first == second else f"{first} / {second}"


def _declared(view: ZooView, one: Relation) -> str:
    for child, base in ((one.source, one.target), (one.target, one.source)):
        if base in view.bases.get(child, ()):
            return f"by {child}"
    return "through others" if one.declared else "no"


# Lowest score of two layers that the page calls the same.
IDENTICAL = 0.999
# False discovery rate of the layer pairs that the page calls above chance.
_ABOVE_CHANCE = 0.05
# To the solver, eigenvalues closer than this are one eigenspace, and cutting it keeps an arbitrary part.
_SMALL_GAP = 1e-7


def _by_model(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return findings with those of a model together."""
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in findings:
        by_model.setdefault(row["model"], []).append(row)
    return [row for rows in by_model.values() for row in rows]


def _findings(
    atlas: xr.Dataset, dataset: str, measure: str, levels: Mapping[tuple[str, frozenset[str]], Level]
) -> list[dict[str, Any]]:
    """Return a row for each model: its nearest, how far that is from chance and from the others, and their relation."""
    rows = dataset_rows(atlas, dataset)
    models, groups = list(dict.fromkeys(rows.models)), rows.groups
    if len(models) < 2:
        return []
    score, calibrated, q_values = (
        statistic_matrix(atlas, rows, name, measure) for name in ("score", "calibrated", "q_value")
    )
    alike = score
    if measure in atlas.attrs["distances"]:
        score, alike = calibrated, -score  # high is alike, 1 is the same
    statistic, values = ("calibrated", calibrated) if np.isfinite(calibrated).any() else ("score", score)
    similarity = model_similarity(values, groups)
    halves = similarity_of_halves(atlas, rows, measure, statistic)
    low, high = interval_ends(similarity, halves)
    matches = best_matches(alike, groups)
    findings = []
    for model, lead in enumerate(leads(similarity, halves)):
        if lead is None:
            continue
        nearest = lead.nearest
        block = np.ix_(groups[model], groups[nearest])
        chance = q_values[block]
        is_same = min(score[block].max(axis=1).min(), score[block].max(axis=0).min()) >= IDENTICAL
        findings.append(
            {
                "dataset": dataset,
                "model": models[model],
                "nearest": models[nearest],
                "second": None if lead.second is None else models[lead.second],
                "value": float(similarity[model, nearest]),
                "interval": interval(low[model, nearest], high[model, nearest]),
                "margin": None if lead.margin is None else f"{lead.margin.value:z.3f}",
                "margin_interval": None if lead.margin is None else interval(lead.margin.low, lead.margin.high),
                "is_clear": lead.is_clear,
                "same_layers": int((matches[groups[model], nearest] == np.arange(len(groups[model]))).sum()),
                "n_layers": len(groups[model]),
                "above_chance": int((chance <= _ABOVE_CHANCE).sum()) if np.isfinite(chance).any() else None,
                "n_pairs": chance.size,
                "is_same": bool(is_same),
                "relation": levels[dataset, frozenset((models[model], models[nearest]))],
            }
        )
    return findings


def interval(low: float, high: float) -> str:
    """Return the ends of an interval in words; a dash where there is none."""
    return f"{low:z.3f} to {high:z.3f}" if np.isfinite(low) and np.isfinite(high) else "–"


def pair_intervals(atlas: xr.Dataset, measure: str) -> dict[tuple[str, frozenset[str]], str]:
    """Return the interval of the similarity of each pair of models, by dataset and pair."""
    found = {}
    for dataset in (str(name) for name in atlas["dataset"].values):
        rows = dataset_rows(atlas, dataset)
        if len(rows.groups) < 2:
            continue
        values, statistic = similarity_values(atlas, rows, measure)
        ends = interval_ends(
            model_similarity(values, rows.groups), similarity_of_halves(atlas, rows, measure, statistic)
        )
        models = list(dict.fromkeys(rows.models))
        for first, second in zip(*np.triu_indices(len(models), 1), strict=True):
            of_pair = frozenset((models[first], models[second]))
            found[dataset, of_pair] = interval(*(end[first, second] for end in ends))
    return found


def similarity_values(atlas: xr.Dataset, rows: Rows, measure: str) -> tuple[np.ndarray, str]:
    """Return the values that models are compared by, and which statistic that is: ``calibrated``, else ``score``."""
    calibrated = statistic_matrix(atlas, rows, "calibrated", measure)
    if np.isfinite(calibrated).any() or measure in atlas.attrs["distances"]:
        return calibrated, "calibrated"
    return statistic_matrix(atlas, rows, "score", measure), "score"


# Bars of the histogram of similarities, from 0 to 1.
_N_BARS = 40


def similarity_scale(view: ZooView) -> dict[str, Any] | None:
    """Return the distribution of similarities in this zoo, to judge a number by; None without calibrated ones."""
    known = [one for one in view.relations if np.isfinite(one.similarity)]
    if not known:
        return None
    apart = [one.similarity for one in known if not (one.declared or one.level.is_at_least(Level.RELATED))]
    counts = np.histogram([min(max(one.similarity, 0.0), 1.0) for one in known], bins=_N_BARS, range=(0, 1))[0]
    usual = None
    if apart:
        usual = dict(zip(("median", "high"), np.quantile(apart, [0.5, 0.95]).round(2).tolist(), strict=True))
    found = {"counts": counts.tolist(), "n": len(known), "usual": usual, "n_apart": len(apart)}
    return found | {"copies_from": COPY_AT_LEAST}


def _space_rows(atlas: xr.Dataset, dataset: str) -> list[dict[str, Any]]:
    rows = dataset_rows(atlas, dataset)
    columns = ("n_points", "n_features", "method", "n_components", "recall", "residual", "orthonormality", "eigengap")
    chosen = atlas[list(columns)].sel(dataset=dataset, source=rows.names)
    values = {name: chosen[name].values for name in columns}
    return [
        {"dataset": dataset, "model": model, "layer": layer} | {name: column[row] for name, column in values.items()}
        for row, (model, layer) in enumerate(zip(rows.models, rows.layers, strict=True))
    ]


def _doubt(row: Mapping[str, Any]) -> str:
    """Return why a person should look at a space that passed its checks, in a few words; "" if there is no reason."""
    if row["n_components"] > 1:
        return f"its graph was in {row['n_components']:.0f} pieces before it was joined"
    if row["recall"] < GOOD_RECALL:
        return f"{row['recall']:.0%} of its neighbors were found"
    if row["eigengap"] < _SMALL_GAP:
        return "its eigenvalues are cut within a cluster of equals"
    return ""


N_BEST = 5  # pairs of a comparison


def comparison_tables(atlas: xr.Dataset) -> list[dict[str, Any]]:
    """Return the table of each comparison; an atlas of an earlier program has none."""
    return [_comparison_table(atlas, name, facts) for name, facts in atlas.attrs.get("comparisons", {}).items()]


def _comparison_table(atlas: xr.Dataset, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    measure = default_measure(list(facts["measures"]))
    return {
        "name": name,
        "dataset": facts["dataset"],
        "measures": facts["measures"],
        "measure": measure,
        "n_sources": len(facts["sources"]),
        "n_targets": len(facts["targets"]),
        "best": _best_pairs(atlas, facts, measure),
    }


def _best_pairs(atlas: xr.Dataset, facts: Mapping[str, Any], measure: str) -> list[dict[str, Any]]:
    """Return the pairs of two different spaces with the highest calibrated values, each in one direction."""
    sides: dict[str, Any] = {
        side: [name for name in facts[f"{side}s"] if name in atlas[side].values] for side in ("source", "target")
    }
    if not all(sides.values()):
        return []
    cells = atlas[["calibrated", "score"]].sel({"dataset": facts["dataset"], "measure": measure} | sides)
    calibrated, score = cells["calibrated"].values, cells["score"].values
    # Rounded, so that equals stand in the order of their names and not of their last bits.
    falling = np.argsort(-np.nan_to_num(calibrated, nan=-np.inf).round(6), axis=None, kind="stable")
    best: dict[frozenset[str], dict[str, Any]] = {}
    for s, t in zip(*np.unravel_index(falling, calibrated.shape), strict=True):
        source, target = sides["source"][s], sides["target"][t]
        if len(best) == N_BEST or not np.isfinite(calibrated[s, t]):
            break
        if source != target:
            row = {"source": source, "target": target, "calibrated": calibrated[s, t], "score": score[s, t]}
            best.setdefault(frozenset((source, target)), row)
    return list(best.values())
