"""The tables that ``lfm-atlas show`` and ``lfm-atlas diff`` print, and the differences of two atlases."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfm_tasks.lineage.levels import MEANINGS, Level
from lfm_tasks.published import queries
from lfm_tasks.published.atlas import Atlas
from lfm_tasks.stores.atlas.schema import AtlasError

_PAIR = ("score", "calibrated", "p_value", "q_value", "ci_low", "ci_high", "null_mean", "unrelated_rank")
_NEAREST = (
    "name",
    "relation",
    "value",
    "margin",
    "margin_low",
    "margin_high",
    "source",
    "target",
    "score",
    "ci_low",
    "ci_high",
    "q_value",
    "status",
)


_Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of plain values: ``name`` for programs, ``title`` and ``columns`` (empty: all) for people."""

    name: str
    title: str
    rows: list[dict[str, Any]]
    columns: tuple[str, ...] = ()


def nearest_tables(atlas: Atlas, name: str, n: int, measure: str | None, dataset: str | None) -> list[Table]:
    """Return the ``n`` nearest neighbors of a model or space; of a model with how each is related to it."""
    rows: list[dict[str, Any]] = atlas.nearest(name, n=n, measure=measure, dataset=dataset)
    if name in atlas.models:
        level = {one.other(name): str(one.level) for one in reversed(atlas.relations()) if one.is_of(name, dataset)}
        rows = [row | {"relation": level.get(row["name"])} for row in rows]
    return [Table("nearest", f"nearest to {name} by {measure or atlas.default_measure}", rows, _NEAREST)]


def pair_tables(atlas: Atlas, source: str, target: str, dataset: str | None) -> list[Table]:
    """Return the numbers of a pair of spaces, a row a measure; of two models their summaries."""
    names = atlas.names(atlas.dataset_of(dataset, source, target))
    sides = {"source": names.spaces_of(source), "target": names.spaces_of(target)}
    cells = atlas.scores.sel({"dataset": names.dataset, **sides})
    statuses, dims = queries.status_names(cells), cells["status"].dims
    if "source" in dims and "target" in dims:
        of_both = [one for one in atlas.relations() if one.is_of(source, dataset) and one.is_of(target, dataset)]
        found = [one.finding() for one in of_both]
        relation = [Table("relation", "how they are related", found)] if found else []
        of_measure = dict(zip(atlas.measures, statuses, strict=True))
        rows = _model_rows(atlas, names, source, target, of_measure)
        return [*relation, Table("models", f"{source} -> {target}", rows)]
    rows = []
    columns = {name: cells[name].values for name in _PAIR}
    labels = {"measure": cells["measure"].values, **{side: cells[side].values for side in sides}}
    n_common = np.broadcast_to(cells["n_common"].values, statuses.shape)
    for place in np.ndindex(statuses.shape):
        at = dict(zip(dims, place, strict=True))
        row: _Row = {name: str(known[at[name]] if name in at else known) for name, known in labels.items()}
        row |= {name: _finite_or_none(column[place]) for name, column in columns.items()}
        status = str(statuses[place])
        rows.append(row | {"n_common": int(n_common[place]), "status": status, "reason": queries.reason_of(status)})
    return [Table("pair", f"{source} -> {target}", rows)]


def relation_tables(atlas: Atlas) -> list[Table]:
    """Return the families, the pairs that are of one family or more, and how many pairs have each level."""
    relations = atlas.relations()
    families = [{"oldest": one.oldest, "members": ", ".join(one.members)} for one in atlas.families()]
    shown = [one.finding() for one in relations if one.level.is_at_least(Level.SAME_FAMILY) or one.declared]
    counts = Counter(one.level for one in relations)
    levels = [{"level": str(level), "pairs": counts[level], "meaning": meaning} for level, meaning in MEANINGS.items()]
    return [
        Table("families", f"families: {len(families)}", families),
        Table("relations", f"pairs of one family or more, or declared: {len(shown)}", shown),
        Table("levels", "all pairs of models; likeness is evidence of a common origin, not proof", levels),
    ]


def summary_tables(atlas: Atlas) -> list[Table]:
    """Return the counts, the models, what failed, and the pairs without a score."""
    on = atlas.model_datasets if len(atlas.datasets) > 1 else {}
    models = [
        {"model": entry["name"]}
        | ({"datasets": ", ".join(on.get(entry["name"], []))} if on else {})
        | {key: value for key, value in entry["meta"].items() if np.isscalar(value)}
        for entry in atlas.summary["models"]
    ]
    counts = [{"datasets": ", ".join(atlas.datasets), "measures": ", ".join(atlas.measures), **atlas.summary["counts"]}]
    tables = [Table("counts", str(atlas.summary["title"]), counts), Table("models", "models", models)]
    for name, title in (("failures", "spaces that failed"), ("pairs_without_score", "pairs without a score")):
        if atlas.summary[name]:
            rows = [
                {key: ", ".join(value) if isinstance(value, list) else value for key, value in row.items()}
                for row in atlas.summary[name]
            ]
            tables.append(Table(name, title, rows))
    return tables


def difference_tables(changes: Mapping[str, Any]) -> list[Table]:
    """Return the result of `differences` as tables."""
    tables = []
    for kind in ("added", "removed", "changed", "unknown"):
        rows = changes["spaces"][kind]
        if rows or kind != "unknown":
            title = "spaces of which an atlas does not tell the content" if kind == "unknown" else f"spaces {kind}"
            tables.append(Table(f"spaces_{kind}", f"{title}: {len(rows)}", rows))
    if changes["settings"]:
        tables.append(Table("settings", "settings that differ, so scores may", list(changes["settings"])))
    for kind in ("added", "removed"):
        if names := changes["measures"][kind]:
            tables.append(Table(f"measures_{kind}", f"measures {kind}: {', '.join(names)}", []))
    tables.append(Table("pairs", "directed pairs that both have", [dict(changes["pairs"])]))
    if changes["largest_changes"]:
        tables.append(Table("largest_changes", "largest changes", list(changes["largest_changes"])))
    return tables


def _model_rows(
    atlas: Atlas, names: queries.Names, source: str, target: str, statuses: Mapping[str, np.ndarray]
) -> list[_Row]:
    rows = []
    first, second = names.models.index(source), names.models.index(target)
    for measure in atlas.measures:
        row: _Row = {"measure": measure}
        for reduce in queries.REDUCTIONS:
            try:
                values = queries.model_values(atlas.scores, names, measure, reduce)
            except AtlasError:  # a distance whose chance nobody sampled
                continue
            row |= {reduce: _finite_or_none(values[first, second])}
            row |= {f"{reduce}_back": _finite_or_none(values[second, first])}
        rows.append(row | {"status": ", ".join(np.unique(statuses[measure].astype(str)))})
    return rows


def _finite_or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def differences(base: Atlas, candidate: Atlas, *, n: int = 10) -> dict[str, Any]:
    """Return the differences in plain values, ready for JSON; of pairs the ``n`` largest changes by measure.

    A pair left its interval where the candidate's score lies outside the base's 95 % interval. Rows name the dataset.

    Raises
    ------
    AtlasError
        If their numbers follow two conventions: every score would differ.
    """
    before, after = (str(atlas.scores.attrs["convention"]) for atlas in (base, candidate))
    if before != after:
        raise AtlasError(f"base: convention {before}, candidate: {after}. Run the older one again with this version.")
    spaces = _changed_spaces(base, candidate)
    pairs = _PairChanges(base, candidate)
    return {
        "base": base.key,
        "candidate": candidate.key,
        "settings": _changed_settings(base.summary["settings"], candidate.summary["settings"]),
        "measures": {
            "added": sorted(set(candidate.measures) - set(base.measures)),
            "removed": sorted(set(base.measures) - set(candidate.measures)),
        },
        "spaces": spaces,
        "pairs": pairs.counts(),
        "largest_changes": pairs.largest(n),
    }


def _changed_settings(base: Any, candidate: Any, place: str = "") -> list[_Row]:
    """Return a row for each setting that differs, under its dotted name."""
    if isinstance(base, dict) and isinstance(candidate, dict):
        rows = []
        for name in sorted({*base, *candidate}):
            rows += _changed_settings(base.get(name), candidate.get(name), f"{place}.{name}" if place else name)
        return rows
    return [] if base == candidate else [{"name": place, "base": base, "candidate": candidate}]


def _contents(atlas: Atlas) -> dict[tuple[str, str], str]:
    """Return the digest of the content of each space, by dataset and name."""
    present = np.argwhere(atlas.scores["n_points"].values > 0)
    contents = atlas.scores["content"].values
    return {(atlas.datasets[d], atlas.spaces[s]): str(contents[d, s]) for d, s in present}


def _changed_spaces(base: Atlas, candidate: Atlas) -> dict[str, list[_Row]]:
    before, after = _contents(base), _contents(candidate)

    def rows(names: set[tuple[str, str]]) -> list[_Row]:
        return [{"dataset": dataset, "space": space} for dataset, space in sorted(names)]

    both = before.keys() & after.keys()
    # Atlases of schema 2 do not hold the digests of contents.
    with_content = {name for name in both if before[name] and after[name]}
    return {
        "added": rows(after.keys() - before.keys()),
        "removed": rows(before.keys() - after.keys()),
        "changed": rows({name for name in with_content if before[name] != after[name]}),
        "unknown": rows(both - with_content),
    }


class _PairChanges:
    """The scores of directed pairs of two different spaces that both atlases have, side by side."""

    def __init__(self, base: Atlas, candidate: Atlas) -> None:
        self.labels = {
            "dataset": [name for name in base.datasets if name in candidate.datasets],
            "measure": [name for name in base.measures if name in candidate.measures],
            "source": [name for name in base.spaces if name in candidate.spaces],
        }
        self.labels["target"] = self.labels["source"]
        chosen, other = base.scores.sel(self.labels), candidate.scores.sel(self.labels)
        self.before, self.after = chosen["score"].values, other["score"].values
        self.low, self.high = chosen["ci_low"].values, chosen["ci_high"].values
        apart = ~np.eye(len(self.labels["source"]), dtype=bool)
        has_before, has_after = np.isfinite(self.before) & apart, np.isfinite(self.after) & apart
        self.gained, self.lost = has_after & ~has_before, has_before & ~has_after
        self.compared = has_before & has_after
        self.with_interval = self.compared & np.isfinite(self.low)
        # Rounding is no change: recomputed bases agree to some 1e-12.
        outside = (self.after < self.low - 1e-9) | (self.after > self.high + 1e-9)
        self.left = self.with_interval & outside

    def counts(self) -> dict[str, int]:
        moved = self.compared & (np.abs(self.after - self.before) > 1e-9)
        counted = {
            "compared": self.compared,
            "changed": moved,
            "with_interval": self.with_interval,
            "left_interval": self.left,
            "gained_a_score": self.gained,
            "lost_their_score": self.lost,
        }
        return {name: int(cells.sum()) for name, cells in counted.items()}

    def largest(self, n: int) -> list[_Row]:
        """Return up to ``n`` rows a measure: pairs that left their interval first, then by size of the change."""
        change = np.where(self.compared, self.after - self.before, 0.0)
        rows = []
        for m in range(len(self.labels["measure"])):
            cells = np.argwhere(np.abs(change[:, m]) > 1e-9)
            places = [(int(d), m, int(s), int(t)) for d, s, t in cells]
            places.sort(key=lambda place: (not self.left[place], -round(abs(float(change[place])), 9), place))
            rows += [self._row(place) for place in places[:n]]
        return rows

    def _row(self, place: tuple[int, int, int, int]) -> _Row:
        names = {name: labels[place[axis]] for axis, (name, labels) in enumerate(self.labels.items())}
        low, high = (float(values[place]) for values in (self.low, self.high))
        return names | {
            "base": float(self.before[place]),
            "candidate": float(self.after[place]),
            "change": float(self.after[place] - self.before[place]),
            "ci_low": low if np.isfinite(low) else None,
            "ci_high": high if np.isfinite(high) else None,
            "left_interval": bool(self.left[place]),
        }
